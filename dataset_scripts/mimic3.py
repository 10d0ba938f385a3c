"""MIMIC-III as parquet: python dataset_scripts/mimic3.py --data_dir mimic3 --config rare50 --out out"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.export import CREDENTIALED, CorpusCard, export_corpus, export_parser
from kept_hf.corpora.mimic3 import CONFIGS

SUMMARIES = {
    "full": "all ICD-9-CM codes; splits of CAML",
    "50": "the 50 most frequent ICD-9-CM codes; splits of CAML",
    "rare50": "rare ICD-9-CM codes with few training notes each; splits of KEPT",
}


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
        export_corpus(corpus, arguments.codes, arguments.out, card(arguments.config), whole=arguments.config)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def card(config: str) -> CorpusCard:
    return CorpusCard(
        title=f"MIMIC-III, {config}",
        summary=f"Discharge summaries of a Boston hospital with {SUMMARIES[config]}.",
        source=(
            "Johnson et al.: MIMIC-III, a freely accessible critical care database. Scientific Data 2016; version 1.4, "
            "[PhysioNet](https://physionet.org/content/mimiciii/1.4/). Splits: Mullenbach et al., NAACL 2018 (CAML); "
            "Yang et al., Findings of EMNLP 2022 (KEPT). Changes: summaries of an admission joined, codes dotted."
        ),
        license=CREDENTIALED,
        language="en",
        columns={
            "note_id": "HADM_ID",
            "subject_id": "SUBJECT_ID",
            "text": "the admission's discharge summaries and addenda, joined with a tab",
            "codes": "ICD-9-CM codes, dotted, diagnoses before procedures",
        },
    )


if __name__ == "__main__":
    main()
