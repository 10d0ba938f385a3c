"""CodiEsp v4: 1,000 Spanish clinical cases coded with ICD-10-CM and ICD-10-PCS, with evidence spans.

Miranda-Escalada, Gonzalez-Agirre, Armengol-Estapé, Krallinger, "Overview of automatic clinical coding: annotations,
guidelines, and solutions for non-English clinical cases at CodiEsp track of CLEF eHealth 2020"; Zenodo record 3837305,
CC BY 4.0.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import datasets

from ..models.code_set import ICDCodeSet
from . import Corpus, CorpusCard, corpus_codes, fingerprint, require_data_dir

CODE_KINDS = ("diagnosis", "procedure")
LANGUAGES = ("en", "es")

_VERSION = datasets.Version("4.0.0")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_TABLES = {"diagnosis": "D", "procedure": "P"}
_EVIDENCE_KINDS = {"diagnosis": "DIAGNOSTICO", "procedure": "PROCEDIMIENTO"}
_TEXT_FOLDERS = {"en": "text_files_en", "es": "text_files"}
_CODE = re.compile(r"[0-9A-Z]{1,7}(\.[0-9A-Z]{1,7})?")
_SPANS = re.compile(r"[0-9]+ [0-9]+(;[0-9]+ [0-9]+)*")
_CONTENT = (
    "CodiEsp's published folders train, dev and test (one is enough), each with {split}D.tsv, {split}P.tsv, "
    "{split}X.tsv, text_files and text_files_en"
)


@dataclass
class CodiEspConfig(datasets.BuilderConfig):
    """Options of `CodiEsp`.

    Attributes:
        codes: "diagnosis" (ICD-10-CM) or "procedure" (ICD-10-PCS).
        language: "en" (the published machine translations) or "es" (the originals).
    """

    codes: str = "diagnosis"
    language: str = "en"


class CodiEsp(datasets.GeneratorBasedBuilder):
    """CodiEsp in its published layout, "dev" being the validation split; "background": see `load_unlabelled`.

    Columns:
        note_id: the case id.
        text: the case in the language asked for.
        codes: the codes of the kind asked for, upper-case and dotted as in the files (ICD-10-PCS has no dots, and
            CodiEsp cuts many of its codes to four characters), sorted, each once. Empty for a case that has a text but
            no such code: 65 of 500 train and 28 of 250 dev cases have no procedure, none is without a diagnosis.
        evidence: one entry per span of the codes' annotations, in file order: `code`, `text`, `start`, `end`. The
            offsets count characters of the **Spanish** text, whatever the language asked for. A mention in several
            pieces gives several entries, all with the annotators' whole wording as `text`; the files' four
            empty pieces are left out.

    Examples:
        `CodiEsp("procedure-es", data_dir="codiesp")`, or `load_corpus("codiesp", data_dir="codiesp", language="es")`.

    Raises:
        FileNotFoundError: no `data_dir`, no split in it, or a table or text missing in a split.
        ValueError: an unknown configuration; a row that is not as published, named by file and line.
    """

    VERSION = _VERSION
    BUILDER_CONFIG_CLASS = CodiEspConfig
    BUILDER_CONFIGS = [  # noqa: RUF012  (the name and type are those of datasets)
        CodiEspConfig(name=f"{codes}-{language}", version=_VERSION, codes=codes, language=language)
        for codes, language in [("diagnosis", "en"), ("diagnosis", "es"), ("procedure", "en"), ("procedure", "es")]
    ]
    DEFAULT_CONFIG_NAME = "diagnosis-en"

    def __init__(self, config_name: str | None = None, data_dir: str | os.PathLike | None = None, **kwargs):
        data_dir = require_data_dir("codiesp", data_dir, _CONTENT)
        name = config_name or self.DEFAULT_CONFIG_NAME
        if name in self.builder_configs:
            config = self.builder_configs[name]
            key = fingerprint([*_sources(), *_data_files(data_dir, config.codes, config.language)], [name])
            kwargs.setdefault("hash", key)
        super().__init__(config_name=name, data_dir=data_dir, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        text = datasets.Value("string")
        offset = datasets.Value("int32")
        return datasets.DatasetInfo(
            description="Clinical cases of Spanish journals, coded by hand.",
            homepage="https://zenodo.org/record/3837305",
            license="CC BY 4.0",
            features=datasets.Features(
                {
                    "note_id": text,
                    "text": text,
                    "codes": datasets.List(text),
                    "evidence": datasets.List({"code": text, "text": text, "start": offset, "end": offset}),
                }
            ),
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        # Read here, not in _generate_examples: datasets wraps what is raised there into a DatasetGenerationError.
        return [
            datasets.SplitGenerator(
                name=_SPLITS[split],
                gen_kwargs={"cases": _read_split(self.config.data_dir, split, self.config.codes, self.config.language)},
            )
            for split in _present_splits(self.config.data_dir)
        ]

    def _generate_examples(self, cases: list[dict]) -> Iterator[tuple[int, dict]]:
        yield from enumerate(cases)


def load(
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    codes: str = "diagnosis",
    language: str = "en",
) -> Corpus:
    """CodiEsp with its code set.

    Diagnosis codes are described by the ICD-10-CM tabular list. ICD-10-PCS titles come with no package, so procedure
    codes stay undescribed.

    Args:
        data_dir: the folder that holds `train`, `dev` and `test`, or some of them.
        cache_dir: where the prepared dataset is kept.
        codes: "diagnosis" or "procedure".
        language: "en" or "es".

    Raises:
        FileNotFoundError, ValueError: see `CodiEsp`.
    """
    if codes not in CODE_KINDS:
        raise ValueError(f"codes={codes!r} is no kind of codes of CodiEsp; pass one of: {', '.join(CODE_KINDS)}.")
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is no language of CodiEsp; pass one of: {', '.join(LANGUAGES)}.")
    builder = CodiEsp(f"{codes}-{language}", data_dir=data_dir, cache_dir=cache_dir and os.fspath(cache_dir))
    builder.download_and_prepare()
    dataset = builder.as_dataset()
    found = corpus_codes(dataset)
    if not found:
        raise ValueError(f"data_dir={os.fspath(data_dir)!r} holds no {codes} code in any split.")
    code_set = ICDCodeSet.from_icd10cm(found) if codes == "diagnosis" else ICDCodeSet(found)
    return Corpus(dataset, code_set, _card(codes, language))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load` for a command."""
    parser.add_argument("--data_dir", required=True, help="folder that holds train, dev and test, or some of them")
    parser.add_argument(
        "--kind", dest="codes", choices=CODE_KINDS, default="diagnosis", help="which codes (default: diagnosis)"
    )
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the texts (default: en)")


def load_unlabelled(
    data_dir: str | os.PathLike | None = None, codes: str = "diagnosis", language: str = "en"
) -> list[str]:
    """The texts of the folder "background", which nobody coded, by case id; none without the folder.

    A case that another folder has too is left out.

    Args:
        data_dir: the folder that holds `background`.
        codes: without effect; an option of `load`.
        language: "en" or "es".

    Raises:
        FileNotFoundError: no `data_dir`.
        ValueError: another language, or a text that is not UTF-8.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r} is no language of CodiEsp; pass one of: {', '.join(LANGUAGES)}.")
    data_dir = require_data_dir("codiesp", data_dir, _CONTENT)
    names, *others = (
        _text_names(os.path.join(data_dir, folder, _TEXT_FOLDERS[language])) for folder in ("background", *_SPLITS)
    )
    coded = {name for folder in others for name in folder}
    folder = os.path.join(data_dir, "background", _TEXT_FOLDERS[language])
    return [_read_text(os.path.join(folder, name)) for name in names if name not in coded]


def _text_names(folder: str) -> list[str]:
    """The text files of a folder, sorted; none without the folder."""
    if not os.path.isdir(folder):
        return []
    # Not ._case.txt, which macOS writes beside case.txt on other disks.
    return sorted(name for name in os.listdir(folder) if name.endswith(".txt") and not name.startswith("."))


def _card(kind: str, language: str) -> CorpusCard:
    system = {"diagnosis": "ICD-10-CM diagnosis", "procedure": "ICD-10-PCS procedure"}[kind]
    text = {"en": "machine translation to English, as published", "es": "Spanish original"}[language]
    return CorpusCard(
        title=f"CodiEsp v4, {kind} codes",
        summary=f"Clinical cases from Spanish journals with {system} codes set by clinical coders.",
        source=(
            "Miranda-Escalada, Gonzalez-Agirre, Armengol-Estapé, Krallinger: Overview of automatic clinical coding: "
            "annotations, guidelines, and solutions for non-English clinical cases at CodiEsp track of CLEF eHealth "
            "2020. Zenodo record [3837305](https://zenodo.org/record/3837305). Changes: codes in upper case, "
            "restricted to the configuration's codes."
        ),
        license="cc-by-4.0",
        language=language,
        columns={
            "note_id": "case id",
            "text": text,
            "codes": f"{system} codes, sorted",
            "evidence": "spans of the codes: `code`, `text`, `start`, `end`; offsets into the Spanish text",
        },
        caution=(
            "The notes are case reports published in Spanish journals (in English: machine translations), which differ "
            "from what a hospital writes."
        ),
    )


def _sources() -> list[str]:
    return [__file__]


def _present_splits(data_dir: str) -> list[str]:
    splits = [split for split in _SPLITS if os.path.isdir(os.path.join(data_dir, split))]
    if not splits:
        raise FileNotFoundError(
            f"data_dir={data_dir!r} holds none of the folders train, dev, test; pass one with {_CONTENT}."
        )
    return splits


def _data_files(data_dir: str, codes: str, language: str) -> list[str]:
    """Every file that the configuration reads, sorted within its folder.

    Raises:
        FileNotFoundError: a split lacks one of its tables or its texts.
    """
    files = []
    for split in _present_splits(data_dir):
        for table in (_TABLES[codes], "X"):
            path = os.path.join(data_dir, split, f"{split}{table}.tsv")
            if not os.path.isfile(path):
                raise FileNotFoundError(f"data_dir={data_dir!r} lacks the file {path}; pass one with {_CONTENT}.")
            files.append(path)
        folder = os.path.join(data_dir, split, _TEXT_FOLDERS[language])
        texts = [os.path.join(folder, name) for name in _text_names(folder)]
        if not texts:
            raise FileNotFoundError(f"data_dir={data_dir!r} has no texts in {folder}; pass one with {_CONTENT}.")
        files += texts
    return files


def _read_split(data_dir: str, split: str, kind: str, language: str) -> list[dict]:
    """The cases of one split, sorted by id."""
    folder = os.path.join(data_dir, split)
    text_folder = os.path.join(folder, _TEXT_FOLDERS[language])
    note_ids = sorted(name.removesuffix(".txt") for name in _text_names(text_folder))
    codes: dict[str, set[str]] = {note_id: set() for note_id in note_ids}
    evidence: dict[str, list[dict]] = {note_id: [] for note_id in note_ids}

    path = os.path.join(folder, f"{split}{_TABLES[kind]}.tsv")
    for line, (note_id, code) in _read_rows(path, ("case id", "code")):
        _check_case(path, line, note_id, codes, text_folder)
        codes[note_id].add(_read_code(path, line, code))

    path = os.path.join(folder, f"{split}X.tsv")
    for line, (note_id, evidence_kind, code, text, spans) in _read_rows(
        path, ("case id", "kind", "code", "text", "spans")
    ):
        _check_case(path, line, note_id, codes, text_folder)
        if evidence_kind not in _EVIDENCE_KINDS.values():
            raise ValueError(f"{path}, line {line}: the kind must be {' or '.join(_EVIDENCE_KINDS.values())}.")
        code = _read_code(path, line, code)
        pairs = [tuple(map(int, span.split())) for span in spans.split(";")] if _SPANS.fullmatch(spans) else []
        if not pairs or any(start > end for start, end in pairs):
            raise ValueError(
                f'{path}, line {line}: the spans must read "start end" with ";" between them, start <= end.'
            )
        if evidence_kind == _EVIDENCE_KINDS[kind]:
            evidence[note_id] += [
                {"code": code, "text": text, "start": start, "end": end} for start, end in pairs if start < end
            ]

    return [
        {
            "note_id": note_id,
            "text": _read_text(os.path.join(text_folder, f"{note_id}.txt")),
            "codes": sorted(codes[note_id]),
            "evidence": evidence[note_id],
        }
        for note_id in note_ids
    ]


def _read_text(path: str) -> str:
    try:
        # newline="": a line break that became shorter would shift the evidence's offsets.
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError:
        # The file's own name is the case id, so the folder must do.
        raise ValueError(f"A text in {os.path.dirname(path)} is not UTF-8.") from None


def _read_rows(path: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that is not blank. No message quotes a row: it may hold note text."""
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                row = raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {line}: not UTF-8.") from None
            if not row.strip():
                continue
            fields = [field.strip() for field in row.split("\t")]
            if len(fields) != len(columns) or not all(fields):
                raise ValueError(
                    f"{path}, line {line}: {sum(map(bool, fields))} filled columns of {len(fields)}; "
                    f"expected {len(columns)}, separated by tabs: {', '.join(columns)}."
                )
            yield line, fields


def _read_code(path: str, line: int, code: str) -> str:
    code = code.upper()
    if not _CODE.fullmatch(code):
        raise ValueError(f"{path}, line {line}: the column code holds no ICD-10 code.")
    return code


def _check_case(path: str, line: int, note_id: str, known: dict, text_folder: str) -> None:
    if note_id not in known:
        raise FileNotFoundError(f"{path}, line {line}: the case has no text file in {text_folder}.")
