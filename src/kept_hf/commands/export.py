"""Write a corpus as a folder of parquet files that `load_dataset` reads, with a card and its code sets.

kept-hf export demo --out demo-parquet --codes all rare50
kept-hf export mimic3 --data_dir path/to/mimic3 --config rare50 --out mimic3-rare50

`kept-hf export CORPUS --help` lists the options of a corpus.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..corpora import CORPORA, Corpus, corpus_module, load_corpus
from ..corpora.arguments import named_option
from ..corpora.export import select_configurations, write_parquet_folder
from ..corpora.selection import RULES
from ..hub.dataset_card import make_dataset_card
from ..training.output_dir import check_output_dir


def export_corpus(corpus: Corpus, rules: Sequence[str], out: str | os.PathLike, whole: str = "all") -> None:
    """Write one configuration per rule of `select_codes`, with their card, and print their sizes.

    Args:
        corpus: what `load_corpus` gave.
        rules, whole: see [`kept_hf.corpora.export.select_configurations`].
        out: see [`kept_hf.corpora.export.write_parquet_folder`].

    Raises:
        ValueError: see [`kept_hf.corpora.export.select_configurations`].
    """
    configs = select_configurations(corpus, rules, whole)
    write_parquet_folder(configs, out, make_dataset_card(configs))
    for name, selected in configs.items():
        sizes = ", ".join(f"{len(rows)} {split}" for split, rows in selected.dataset.items())
        print(f"{name}: {len(selected.code_set)} codes; notes: {sizes}")
    print(f"Written to {os.fspath(out)}")


def export_parser() -> argparse.ArgumentParser:
    """The command's parser, with a parser for each of `kept_hf.corpora.CORPORA`."""
    parser = argparse.ArgumentParser(
        prog="kept-hf export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    by_corpus = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS", help=", ".join(CORPORA))
    for name in CORPORA:
        module = corpus_module(name)
        corpus_parser = by_corpus.add_parser(name, description=module.load.__doc__.partition("\n")[0])
        corpus_parser.set_defaults(parser=corpus_parser)
        corpus_parser.add_argument("--out", required=True, help="folder to write")
        corpus_parser.add_argument(
            "--codes",
            dest="rules",
            nargs="+",
            default=["all"],
            metavar="RULE",
            help=f"one configuration per rule: {', '.join(RULES)}, or a file with one code a line (default: all)",
        )
        corpus_parser.add_argument(
            "--cache_dir", help="where the prepared dataset is kept (default: the cache of datasets)"
        )
        module.add_arguments(corpus_parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Read the corpus and write it."""
    options = vars(export_parser().parse_args(argv))
    parser, name, out, rules = (options.pop(key) for key in ("parser", "corpus", "out", "rules"))
    try:
        check_output_dir(out, "--out")
        with named_option("rule", "--codes"):
            export_corpus(load_corpus(name, **options), rules, out, whole=options.get("config", "all"))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
