"""MIMIC-III as parquet: python dataset_scripts/mimic3.py --data_dir mimic3 --config rare50 --out out"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.export import export_corpus, export_parser
from kept_hf.corpora.mimic3 import CONFIGS


def main(argv: Sequence[str] | None = None) -> None:
    parser = export_parser(
        __doc__, "folder with MIMIC-III's raw tables, or with KEPT's JSON files", data_dir_required=True
    )
    parser.add_argument("--config", choices=CONFIGS, default="full", help="codes and splits (default: full)")
    parser.add_argument(
        "--published_codes", action="store_true", help="leave the codes of rare50 that lost a zero as published"
    )
    arguments = parser.parse_args(argv)
    try:
        corpus = load_corpus(
            "mimic3",
            data_dir=arguments.data_dir,
            cache_dir=arguments.cache_dir,
            config=arguments.config,
            repair_codes=not arguments.published_codes,
        )
        export_corpus(corpus, arguments.codes, arguments.out, whole=arguments.config)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
