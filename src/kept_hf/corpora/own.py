"""Notes of one's own with their codes, from files or from a data set of the library `datasets`.

No message quotes a note or an id: it names the file and the row.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import datasets

from ..models import code_systems
from ..models.code_set import ICDCodeSet, category_parents
from ..models.code_systems import AS_TEXT, LONGEST_CODE, Spellings, is_missing, lacks_dot, lost_dotted_zeros
from ..models.publication import CREDENTIALED, RESTRICTED, UNSTATED
from ..tables import csv_tables, note_files
from ..tables.csv_tables import whole_number
from . import Corpus, CorpusCard, corpus_codes, fingerprint, own_sources
from . import splits as splits_module
from .own_sources import ASK_FOR_FILES, Source, find_sources, shown
from .restricted import CredentialedDatasetDict, UnstatedDatasetDict
from .splits import SPLIT_SHARES, draw_splits, warn_of_shared_patients

logger = logging.getLogger(__name__)

PATIENT_COLUMNS = ("patient_id", "subject_id")
"""Where the patient is looked for, unless a column is named."""

_ASK_FOR_CODES = "write codes as text with their dot, such as 038.9"
# What programs make of codes that they take for numbers: 4019.0, 38.900000000000006, 1e+05.
_NUMBER = re.compile(r"\d+\.\d{3,}|\d{4,}\.\d*|\.\d+|\d+(\.\d+)?[eE][+-]\d+|true|false", re.IGNORECASE)
_NO_CODE = re.compile(r"[\s,\[\]{}'\"]")
_OTHER_SEPARATOR = re.compile(r"[|/\\&；，、]")
_ICD9_EXTERNAL_CAUSE = re.compile(r"E([89]\d|0[0-3])\d{2}")
_ICD9_CODE = re.compile(r"\d{2,3}(\.\d{1,2})?|E([89]\d|0[0-3])\d(\.\d)?")
# V10.3 is a code of both systems: a history of breast cancer in ICD-9, a cyclist's accident in ICD-10.
_AMBIGUOUS_CODE = re.compile(r"V\d\d(\.\d{1,2})?")
_ICD10_CODE = re.compile(rf"(?!{_AMBIGUOUS_CODE.pattern}$)[A-Z]\d[0-9A-Z](\.[0-9A-Z]{{1,4}})?")
_SHOWN = 10


class Own(datasets.GeneratorBasedBuilder):
    """Notes of one's own.

    Columns:
        note_id: as given, or "{split}-{number}"; "note-{number}" where the splits are drawn.
        subject_id: the patient, where every source has a column for it.
        text: the note.
        codes: its codes in upper case, in the order given, each once.

    Args:
        sources: split → where its notes are. "" for notes that are to be split.
        patient_column: the column with the patient; by default the first of `PATIENT_COLUMNS` that is there.
        seed: of the draw.

    Raises:
        ValueError: see `load`.
    """

    VERSION = datasets.Version("1.0.0")

    def __init__(self, sources: Mapping[str, Source], patient_column: str | None = None, seed: int = 0, **kwargs):
        self.sources, self.patient_column, self.seed = sources, patient_column, seed
        files = [source.name for source in sources.values() if source.dataset is None]
        prepared = [source.dataset and source.dataset._fingerprint for source in sources.values()]
        options = [list(sources), prepared, patient_column, seed]
        kwargs.setdefault("hash", fingerprint([*_sources(), *files], options))
        super().__init__(**kwargs)

    def _info(self) -> datasets.DatasetInfo:
        # The columns are known when the notes have been read.
        return datasets.DatasetInfo(description="Notes of one's own with their codes.")

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        # All is read here, not in _generate_examples: datasets wraps what is raised there.
        splits, seen = {}, set()
        for split, source in self.sources.items():
            splits[split] = list(_read_notes(source, split or "note", self.patient_column, seen))
        if len(splits) > 1:
            _refuse_copies(splits)
        with_patients = [split for split, notes in splits.items() if "subject_id" in notes[0]]
        has_patients = len(with_patients) == len(splits)
        if with_patients and not has_patients:
            logger.warning(
                "data_files has a column with the patient for %s only: whether a patient is in more than one split "
                "cannot be checked. Add the column to the others.",
                ", ".join(with_patients),
            )
        _report_empty_codes(splits)
        if "" in splits:
            splits = _split(splits[""], has_patients, self.seed)
        elif has_patients:
            warn_of_shared_patients({split: [note["subject_id"] for note in notes] for split, notes in splits.items()})
        text = datasets.Value("string")
        patient = {"subject_id": text} if has_patients else {}
        self.info.features = datasets.Features({"note_id": text, **patient, "text": text, "codes": datasets.List(text)})
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"notes": splits[split]})
            for split in SPLIT_SHARES
            if split in splits
        ]

    def _generate_examples(self, notes: list[dict]) -> Iterator[tuple[int, dict]]:
        for number, note in enumerate(notes):
            yield number, {name: note[name] for name in self.info.features}


def load(
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    data_files: Mapping[str, str | os.PathLike] | Sequence[str] | str | os.PathLike | None = None,
    codes_file: str | os.PathLike | None = None,
    patient_column: str | None = None,
    seed: int = 0,
    data_license: str | None = None,
    language: str = "en",
) -> Corpus:
    """Notes of one's own with their code set.

    Tables (.csv, .jsonl, .parquet; the first two also with .gz) have the columns `text` and `codes`, and if wanted
    `note_id` and one with the patient. `codes` is a list of text, or text with ";" between the codes. Words for a
    missing value, such as NULL and nan, are no codes.

    Args:
        data_dir: not for this corpus.
        cache_dir: where the prepared dataset is kept.
        data_files: split → table, or the name or folder of a data set for `datasets.load_dataset`; also written as
            ["train=a.csv", "test=b.csv"]. One source alone, or "train" alone, is split by patient, or by note where no
            patient is named: 80 / 10 / 10, at least one each. A data set that has splits keeps them.
        codes_file: a CSV with the columns `code`, `description` and, if wanted, `synonyms` with ";" between them, or
            the `code_set.json` of a model. Codes that it lacks are described by the ICD-10-CM list that is packaged, if
            the codes are of ICD-10 for certain.
        patient_column: the column with the patient; by default `patient_id` or `subject_id`, if it is there.
        seed: of the draw of splits. The same notes and seed give the same splits, whatever the order of the notes.
        data_license: an identifier as the Hub writes it, such as "cc-by-4.0". Without one, nothing that is made of the
            notes is published publicly.
        language: two-letter code of the notes' language, for cards.

    Raises:
        FileNotFoundError: a file or data set that is not there.
        ValueError: an unknown split; two splits with the same notes; a table that lacks a column, has no notes or has a
            bad row: no text, a repeated id, codes that are numbers, undotted or no list; too few patients to split;
            codes of which none is described.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> notes = "text,codes\\n" + "".join(f"Note {number} of sepsis.,A41.9\\n" for number in range(20))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "notes.csv")
        ...     with open(path, "w") as file:
        ...         _ = file.write(notes)
        ...     corpus = load(cache_dir=folder, data_files=path)
        ...     print({split: len(rows) for split, rows in corpus.dataset.items()}, corpus.code_set.describe("A41.9"))
        {'train': 16, 'validation': 2, 'test': 2} Sepsis, unspecified organism
    """
    if data_dir is not None:
        raise ValueError(f"data_dir={os.fspath(data_dir)!r}: the corpus 'own' has data_files instead; {ASK_FOR_FILES}.")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed={seed!r} is no whole number; pass one, such as 0.")
    if patient_column in ("text", "codes", "note_id"):
        raise ValueError(
            f"patient_column={patient_column!r} holds no patients; pass the name of the column that does, or nothing."
        )
    license = _license(data_license)
    sources = find_sources(data_files, cache_dir)
    builder = Own(sources, patient_column, seed, cache_dir=cache_dir and os.fspath(cache_dir))
    builder.download_and_prepare()
    splits = {CREDENTIALED: CredentialedDatasetDict, UNSTATED: UnstatedDatasetDict}.get(license, datasets.DatasetDict)
    dataset = splits(builder.as_dataset())
    logger.info("own: %s", ", ".join(f"{len(rows)} notes in {split}" for split, rows in dataset.items()))
    codes = corpus_codes(dataset)
    if not codes:
        raise ValueError(f"data_files={shown(data_files)}: no note has a code; {_ASK_FOR_CODES}.")
    if lost_dotted_zeros(codes):
        raise ValueError(
            f"data_files={shown(data_files)}: the codes were read as numbers, since of those of ICD-9 none starts with "
            f"0 or ends with 0 after the dot, as 038.9 and 250.00 do; {AS_TEXT}."
        )
    is_drawn = "" in sources
    return Corpus(dataset, describe_codes(codes, codes_file), _card(dataset, license, language, is_drawn, seed))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load` for a command."""
    parser.add_argument("--data_files", nargs="+", required=True, metavar="[SPLIT=]FILE", help=ASK_FOR_FILES)
    parser.add_argument("--codes_file", help="CSV with the columns code, description and, if wanted, synonyms")
    parser.add_argument("--patient_column", help="column with the patient (default: patient_id or subject_id)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of splits (default: 0)")
    parser.add_argument("--data_license", help="such as cc-by-4.0 (default: the notes are not to be published)")
    parser.add_argument("--language", default="en", help="of the notes (default: en)")


def describe_codes(codes: Sequence[str], codes_file: str | os.PathLike | None) -> ICDCodeSet:
    """The code set of these codes; a warning counts those that nothing describes.

    A code is described by the file (in any spelling), by the packaged ICD-10-CM list, by the file's nearest category
    above it, or else by itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or no code is described.
    """
    file = read_codes_file(codes_file) if codes_file is not None else {}
    spellings = Spellings(codes)
    file = {
        name: {spellings.find(code) or code: value for code, value in content.items()} for name, content in file.items()
    }
    descriptions, synonyms, parents = (dict(file.get(name, {})) for name in ("descriptions", "synonyms", "parents"))
    others = [code for code in codes if code not in descriptions and code not in synonyms]
    if others and _are_of_icd10(codes):
        packaged = ICDCodeSet.from_icd10cm(others)
        descriptions = {**packaged.descriptions, **descriptions}
        synonyms = {**packaged.synonyms, **synonyms}
    code_set = ICDCodeSet(codes, descriptions, synonyms, {**category_parents(codes), **parents})
    bare = [code for code in code_set if code_set.describe(code) == code]
    if bare:
        is_unclear = any(map(_AMBIGUOUS_CODE.fullmatch, bare)) and not any(
            pattern.fullmatch(code) for pattern in (_ICD9_CODE, _ICD10_CODE) for code in codes
        )
        why = " V codes alone may be of ICD-9 or of ICD-10, so that no packaged list is used." if is_unclear else ""
        listed = ", ".join(bare[:_SHOWN]) + (f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else "")
        problem = (
            f"codes_file={codes_file and os.fspath(codes_file)!r}: {len(bare)} of {len(codes)} codes have no "
            f"description ({listed}); pass a CSV with the columns code and description that has them.{why}"
        )
        if len(bare) == len(codes):
            raise ValueError(problem)
        logger.warning("%s They stand for themselves.", problem)
    return code_set


def _are_of_icd10(codes: Sequence[str]) -> bool:
    """Whether the packaged list says what the codes mean: one is of ICD-10 for certain, and none of ICD-9."""
    return any(map(_ICD10_CODE.fullmatch, codes)) and not any(map(_ICD9_CODE.fullmatch, codes))


def read_codes_file(path: str | os.PathLike) -> dict:
    """What a file says of its codes, in upper case, as `ICDCodeSet.to_dict`.

    Raises:
        FileNotFoundError, ValueError: see `describe_codes`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"codes_file={os.fspath(path)!r} is no file; pass a CSV with the columns code, description and, if wanted, "
            "synonyms."
        )
    try:
        read = ICDCodeSet.from_json if os.fspath(path).endswith(".json") else ICDCodeSet.from_csv
        content = read(path).to_dict()
    except UnicodeDecodeError:
        raise ValueError(f"codes_file={os.fspath(path)!r} is not UTF-8; convert it.") from None
    except ValueError as error:
        raise ValueError(f"codes_file={os.fspath(path)!r}: {error}") from None
    for code in content["codes"]:
        if _NUMBER.fullmatch(code):
            raise ValueError(f"codes_file={os.fspath(path)!r}: {code!r} was written as a number; {_ASK_FOR_CODES}.")
    parents = {code.upper(): parent.upper() for code, parent in content["parents"].items()}
    return {
        "parents": parents,
        **{
            name: {code.upper(): value for code, value in content[name].items()}
            for name in ("descriptions", "synonyms")
        },
    }


def _read_notes(source: Source, prefix: str, patient_column: str | None, seen: set[str]) -> Iterator[dict]:
    """The notes of a source. Their ids are added to those seen."""
    columns = ["text", "codes"] if patient_column is None else ["text", "codes", patient_column]
    number = 0
    for number, (place, row) in enumerate(source.rows(columns, ["note_id", *PATIENT_COLUMNS]), start=1):
        if row["text"] is not None and not isinstance(row["text"], str):
            kind = type(row["text"]).__name__
            raise ValueError(f"data_files has {place}: the column text is of type {kind}; write the notes as text.")
        if not row["text"] or not row["text"].strip():
            raise ValueError(f"data_files has {place}: the column text is empty; leave the row out.")
        note_id = _identifier(row, "note_id", place) if "note_id" in row else f"{prefix}-{number}"
        if note_id in seen:
            raise ValueError(
                f"data_files has {place}: the note_id has occurred before; give each note its own, or leave out the "
                "column."
            )
        seen.add(note_id)
        note = {"note_id": note_id, "text": row["text"], "codes": _read_codes(row["codes"], place)}
        patient = patient_column or next((name for name in PATIENT_COLUMNS if name in row), None)
        if patient is not None:
            note["subject_id"] = _identifier(row, patient, place)
        yield note
    if not number:
        raise ValueError(f"data_files has {source.name!r}, which holds no notes; leave it out.")


def _refuse_copies(splits: Mapping[str, Sequence[dict]]) -> None:
    """An error where two splits hold the same notes: a file was copied, or named twice."""
    split_of: dict[tuple, str] = {}
    for split, notes in splits.items():
        other = split_of.setdefault(tuple(sorted((note["text"], *note["codes"]) for note in notes)), split)
        if other != split:
            raise ValueError(
                f"data_files has the same notes for {other} and {split}; pass other notes for one of them."
            )


def _identifier(row: Mapping[str, object], column: str, place: str) -> str:
    value = "" if row[column] is None else whole_number(str(row[column]))
    value = "" if is_missing(value) else value
    if not value:
        raise ValueError(f"data_files has {place}: the column {column} is empty; fill it in all rows, or leave it out.")
    return value


def _read_codes(value: object, place: str) -> list[str]:
    """The codes of a list, or of text with ";" between them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    items = value.split(";") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        kind = "a number" if isinstance(items, (int, float)) else f"of type {type(items).__name__}"
        raise ValueError(
            f'data_files has {place}: the column codes is {kind}; {_ASK_FOR_CODES}, in a list or with ";" between them.'
        )
    codes = []
    for item in items:
        if item is None:
            raise ValueError(f"data_files has {place}: a code of the list is empty (None); leave it out of the list.")
        if not isinstance(item, str):
            raise ValueError(
                f"data_files has {place}: a code is of type {type(item).__name__}"
                f"{', and a number has lost its zeros' if isinstance(item, (int, float)) else ''}; {_ASK_FOR_CODES}."
            )
        code = item.strip().upper()
        if is_missing(code):
            continue
        if len(code) > LONGEST_CODE:
            raise ValueError(f"data_files has {place}: a code is of {len(code)} characters; {_ASK_FOR_CODES}.")
        if _NUMBER.fullmatch(code):
            raise ValueError(f"data_files has {place}: a code was read as a number; {_ASK_FOR_CODES}, or {AS_TEXT}.")
        if _NO_CODE.search(code):
            raise ValueError(
                f'data_files has {place}: a code has a space, comma, quote or bracket in it; write ";" between codes.'
            )
        if _OTHER_SEPARATOR.search(code):
            raise ValueError(
                f'data_files has {place}: the column codes has a separator that is not ";"; write ";" between codes.'
            )
        if lacks_dot(code):
            raise ValueError(
                f"data_files has {place}: the code {code} has no dot; write {_dotted(code)}. A code of CPT or HCPCS is "
                "no ICD code: leave it out."
            )
        codes.append(code)
    return list(dict.fromkeys(codes))


def _dotted(code: str) -> str:
    """How an undotted code is to be written, in each system that may be meant."""
    diagnosis = f"{code[:3]}.{code[3:]}"
    if _ICD9_EXTERNAL_CAUSE.fullmatch(code):
        return f"{code[:4]}.{code[4:]} for ICD-9, {diagnosis} for ICD-10"
    if code.isdecimal() and len(code) == 4:
        return f"{diagnosis}, or {code[:2]}.{code[2:]} for a procedure"
    return diagnosis


def _report_empty_codes(splits: Mapping[str, Sequence[dict]]) -> None:
    total = sum(map(len, splits.values()))
    empty = sum(not note["codes"] for notes in splits.values() for note in notes)
    if empty:
        logger.warning("data_files: %d of %d notes have no code.", empty, total)


def _split(notes: Sequence[dict], by_patient: bool, seed: int) -> dict[str, list[dict]]:
    """Notes in splits, each in the order given. Without patients the texts stand for them: copies stay together."""
    if not by_patient:
        logger.warning(
            "data_files has no column with the patient, so the splits are drawn by note: if a patient has several, "
            "results will be optimistic. Pass patient_column, or a file for each split."
        )
    try:
        drawn = draw_splits([note["subject_id" if by_patient else "text"] for note in notes], seed)
    except ValueError as error:
        what = "patients" if by_patient else "different notes"
        raise ValueError(f"data_files: of {what}, {error}; pass more notes, or a file for each split.") from None
    splits: dict[str, list[dict]] = {split: [] for split in SPLIT_SHARES}
    for split, note in zip(drawn, notes, strict=True):
        splits[split].append(note)
    return splits


def _sources() -> list[str]:
    files = (own_sources, splits_module, note_files, csv_tables, code_systems)
    return [__file__, *(module.__file__ for module in files)]


def _license(data_license: str | None) -> str:
    if data_license is None:
        return UNSTATED
    if not data_license.strip():
        raise ValueError(f"data_license={data_license!r}; pass an identifier such as cc-by-4.0, or nothing.")
    # In the words of a card's header, too.
    return {name: license for license, name in RESTRICTED.items()}.get(data_license, data_license)


def _card(dataset: datasets.DatasetDict, license: str, language: str, is_drawn: bool, seed: int) -> CorpusCard:
    has_patients = "subject_id" in next(iter(dataset.values())).column_names
    drawn = f"drawn by {'patient' if has_patients else 'note'} with seed {seed}, 80 / 10 / 10"
    patient = {"subject_id": "the patient"} if has_patients else {}
    return CorpusCard(
        title="Notes of one's own",
        summary=f"Clinical notes of the user's own with ICD codes; splits {drawn if is_drawn else 'as given'}.",
        source="The user's own files.",
        license=license,
        language=language,
        columns={"note_id": "id of the note", **patient, "text": "the note", "codes": "its ICD codes, dotted"},
    )
