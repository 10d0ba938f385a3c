"""Propose codes for the notes of a corpus: first stages for `kept-hf rerank`, which also makes them itself.

    kept-hf propose --corpus codiesp --data_dir path/to/codiesp --output_dir outputs/first-stages \\
        --stages sparse dense classifier fused late=outputs/codiesp-late-interaction

- `sparse`, `dense`: compare windows of the note with the names of the codes; they use no labels.
- `classifier`: a linear classifier on the words of the training notes. The candidates of these notes come from
  classifiers that were not fitted to them (nor to others of the same patient), so that they are like those of new
  notes.
- `fused`: these three, with weights that were tuned on the candidates of the training notes.
- `NAME=FOLDER`: candidates that exist: files `{split}_candidates.npz` (`Candidates.save`, `kept-hf train-msmn`) or the
  published files `*_train_predtop50.txt`, `*_dev_predtop50.txt`, `*_test_predtop50.txt`. Or else a model of `kept-hf
  train` with `--scorer matching`, or one of `kept-hf train-msmn`, which scores all codes.

The candidates are written to `output_dir/NAME/{split}_candidates.npz`. Files that were made from the same notes with
the same settings are not made again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformers import HfArgumentParser

from ..candidates.candidates import Candidates
from ..candidates.first_stages import FirstStages
from ..candidates.registry import FIRST_STAGES, needs_of
from ..corpora import Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..reports.tables import format_table
from ..training.output_dir import check_output_dir
from ..training.output_lock import lock_output
from ..training.run import process_group
from ..training.weights import PACKAGED_WEIGHTS, weights_path
from .recipe import argument_errors

logger = logging.getLogger("propose")


def add_first_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of how first stages are made."""
    parser.add_argument("--encoder", default=PACKAGED_WEIGHTS, help="dense: folder or model id of any encoder")
    parser.add_argument("--top_k", type=at_least(1), default=300, help="candidates of a note")
    parser.add_argument(
        "--folds", type=at_least(2), default=5, help="classifier: parts of the training notes, each held out once"
    )


def at_least(lowest: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from `lowest` on."""

    def number(text: str) -> int:
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return int(text)

    return number


def named_stages(parser: argparse.ArgumentParser, option: str, stages: Sequence[str]) -> dict[str, str]:
    """Name → folder, or "" for a registered stage."""
    folders: dict[str, str] = {}
    for name, _, folder in (stage.partition("=") for stage in stages):
        if name in folders:
            parser.error(f"{option}: {name} is there twice; give each stage a name of its own")
        folders[name] = folder
        if not name or (not folder and name not in FIRST_STAGES):
            parser.error(
                f"{option} {name}: write one of {', '.join(FIRST_STAGES)}, or NAME=FOLDER, such as msmn=outputs/msmn"
            )
        if folder and name in FIRST_STAGES:
            parser.error(f"{option} {name}={folder}: {name} is a stage that is made here; choose another name")
    return folders


def make_stages(
    arguments: argparse.Namespace, corpus: Corpus, folder: str | Path, stages: Mapping[str, str]
) -> tuple[FirstStages, dict[str, dict[str, Candidates]]]:
    """The maker of first stages, and for each stage its candidates by split.

    Args:
        arguments: of `add_first_stage_arguments`.
        corpus: its notes and codes.
        folder: where the stages are written.
        stages: as `named_stages` returns them.

    Raises:
        ValueError: something that a stage needs is missing.
    """
    needs = needs_of(name for name, stage_folder in stages.items() if not stage_folder)
    encoder = str(weights_path(arguments.encoder)) if "encoder" in needs else None
    maker = FirstStages(corpus, folder, arguments.top_k, arguments.folds, encoder)
    return maker, {name: maker.make(name, stage_folder) for name, stage_folder in stages.items()}


def print_metrics(corpus: Corpus, stages: Mapping[str, Mapping[str, Candidates]]) -> None:
    """A table for each split: what each stage finds."""
    for split, notes in corpus.dataset.items():
        gold = notes["codes"][:]
        rows = [
            {
                "stage": name,
                **candidates[split].candidate_metrics(gold),
                "map": candidates[split].mean_average_precision(gold),
            }
            for name, candidates in stages.items()
            if split in candidates
        ]
        print(f"\n{split}, {len(gold)} notes, {len(corpus.code_set)} codes\n{format_table(rows)}")


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Make the stages, and print what they find."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = HfArgumentParser(
        CorpusArguments,
        prog="kept-hf propose",
        usage="%(prog)s [--option value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_first_stage_arguments(parser)
    parser.add_argument(
        "--stages",
        nargs="+",
        default=list(FIRST_STAGES),
        metavar="NAME[=FOLDER]",
        help=f"what to make: {', '.join(FIRST_STAGES)}, or NAME=FOLDER; see above",
    )
    parser.add_argument("--output_dir", default="outputs/first-stages", help="where everything is written")
    arguments = parser.parse_args(argv)
    stages = named_stages(parser, "--stages", arguments.stages)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with argument_errors("propose"):
        check_output_dir(arguments.output_dir)
        lock_output(arguments.output_dir)
        corpus = read_corpus(arguments)
        maker, made = make_stages(arguments, corpus, arguments.output_dir, stages)
    print_metrics(corpus, made)
    written = [f"{name}/" for name in made if (maker.folder / name).is_dir()]
    print(
        f"\nWrote {', '.join(written)} to {arguments.output_dir}."
        if written
        else "\nNothing is written: all stages were read from folders."
    )


if __name__ == "__main__":
    main()
