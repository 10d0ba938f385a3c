"""MIMIC-IV as parquet: python dataset_scripts/mimic4.py --data_dir mimic4 --config icd10 --out out"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.export import export_corpus, export_parser
from kept_hf.corpora.mimic4 import CONFIGS


def main(argv: Sequence[str] | None = None) -> None:
    parser = export_parser(__doc__, "folder that holds hosp and note", data_dir_required=True)
    parser.add_argument("--config", choices=CONFIGS, default="icd10", help="version of the codes (default: icd10)")
    parser.add_argument("--split_file", help="CSV with the columns hadm_id and split (default: drawn by patient)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        corpus = load_corpus(
            "mimic4",
            data_dir=arguments.data_dir,
            cache_dir=arguments.cache_dir,
            config=arguments.config,
            split_file=arguments.split_file,
            seed=arguments.seed,
        )
        export_corpus(corpus, arguments.codes, arguments.out, whole=arguments.config)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
