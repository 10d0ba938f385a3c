"""CodiEsp as parquet: python dataset_scripts/codiesp.py --data_dir codiesp --out out --codes rare50"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.codiesp import CODE_KINDS, LANGUAGES
from kept_hf.corpora.export import CorpusCard, export_corpus, export_parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = export_parser(__doc__, "folder that holds train, dev and test, or some of them", data_dir_required=True)
    parser.add_argument("--kind", choices=CODE_KINDS, default="diagnosis", help="which codes (default: diagnosis)")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the texts (default: en)")
    arguments = parser.parse_args(argv)
    try:
        corpus = load_corpus(
            "codiesp",
            data_dir=arguments.data_dir,
            cache_dir=arguments.cache_dir,
            codes=arguments.kind,
            language=arguments.language,
        )
        export_corpus(corpus, arguments.codes, arguments.out, card(arguments.kind, arguments.language))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def card(kind: str, language: str) -> CorpusCard:
    system = {"diagnosis": "ICD-10-CM diagnosis", "procedure": "ICD-10-PCS procedure"}[kind]
    text = {"en": "machine translation to English, as published", "es": "Spanish original"}[language]
    return CorpusCard(
        title=f"CodiEsp v4, {kind} codes",
        summary=f"Clinical cases from Spanish journals with {system} codes set by clinical coders.",
        source=(
            "Miranda-Escalada, Gonzalez-Agirre, Armengol-Estapé, Krallinger: Overview of automatic clinical coding: "
            "annotations, guidelines, and solutions for non-English clinical cases at CodiEsp track of CLEF eHealth "
            "2020. Zenodo record [3837305](https://zenodo.org/record/3837305). Changes: converted to parquet, codes in "
            "upper case, restricted to the configuration's codes."
        ),
        license="cc-by-4.0",
        language=language,
        columns={
            "note_id": "case id",
            "text": text,
            "codes": f"{system} codes, sorted",
            "evidence": "spans of the codes: `code`, `text`, `start`, `end`; offsets into the Spanish text",
        },
    )


if __name__ == "__main__":
    main()
