"""MIMIC-IV as parquet: python dataset_scripts/mimic4.py --data_dir mimic4 --config icd10 --out out"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.export import CREDENTIALED, CorpusCard, export_corpus, export_parser
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
        splits = (
            "splits from a file"
            if arguments.split_file
            else f"patients drawn into splits 80 / 10 / 10 with seed {arguments.seed}"
        )
        export_corpus(corpus, arguments.codes, arguments.out, card(arguments.config, splits), whole=arguments.config)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def card(config: str, splits: str) -> CorpusCard:
    system = {"icd9": "ICD-9-CM", "icd10": "ICD-10-CM and ICD-10-PCS"}[config]
    return CorpusCard(
        title=f"MIMIC-IV, {system}",
        summary=f"Discharge summaries of a Boston hospital with {system} codes; {splits}.",
        source=(
            "Johnson et al.: MIMIC-IV, a freely accessible electronic health record dataset. Scientific Data 2023; "
            "version 2.2, [PhysioNet](https://physionet.org/content/mimiciv/2.2/), and MIMIC-IV-Note. Changes: codes "
            "dotted, admissions without summary left out."
        ),
        license=CREDENTIALED,
        language="en",
        columns={
            "note_id": "hadm_id",
            "subject_id": "subject_id",
            "text": "the admission's discharge summary",
            "codes": f"{system} codes, diagnoses before procedures",
        },
    )


if __name__ == "__main__":
    main()
