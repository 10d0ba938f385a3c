"""CodiEsp as parquet: python dataset_scripts/codiesp.py --data_dir codiesp --out out --codes rare50"""

from __future__ import annotations

from collections.abc import Sequence

from kept_hf.corpora import load_corpus
from kept_hf.corpora.codiesp import CODE_KINDS, LANGUAGES
from kept_hf.corpora.export import export_corpus, export_parser


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
        export_corpus(corpus, arguments.codes, arguments.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
