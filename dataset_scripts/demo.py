"""The made-up demo corpus as parquet: python dataset_scripts/demo.py --out out --codes all rare50"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.export import export_corpus, export_parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = export_parser(
        __doc__, "folder with raw files of the demo corpus (default: generated)", data_dir_required=False
    )
    parser.add_argument("--seed", type=int, default=0, help="of the generator (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        corpus = load_corpus("demo", data_dir=arguments.data_dir, cache_dir=arguments.cache_dir, seed=arguments.seed)
        export_corpus(corpus, arguments.codes, arguments.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
