"""MIMIC-III v1.4 discharge summaries with ICD-9-CM codes: the configurations of CAML (full, 50) and KEPT (rare50).

Johnson et al., "MIMIC-III, a freely accessible critical care database", Scientific Data 2016; credentialed access on
PhysioNet. Splits: Mullenbach et al., "Explainable Prediction of Medical Codes from Clinical Text", NAACL 2018; rare50:
Yang et al., Findings of EMNLP 2022. No file of these is part of this package.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import datasets
import ijson
import pyarrow as pa

from ..models import code_set as code_set_module
from ..models import code_systems
from ..models.code_set import ICDCodeSet, category_parents
from ..models.code_systems import AS_TEXT, ICD9_DIAGNOSIS, ICD9_PROCEDURE, is_missing, lost_zeros
from ..models.publication import CREDENTIALED
from ..tables import code_column, csv_tables, mimic_tables
from ..tables.csv_tables import whole_number
from ..tables.mimic_tables import MIMIC3, code_titles, read_text
from . import Corpus, CorpusCard, corpus_codes, fingerprint, mimic3_published, physionet, require_data_dir
from .mimic3_published import (
    PUBLISHED_50,
    all_published_codes,
    most_frequent_codes,
    report_recount,
    use_published_codes,
)
from .physionet import SKIPPED_NOTES, Admission, NoteTexts
from .restricted import CredentialedDatasetDict

logger = logging.getLogger(__name__)

CONFIGS = ("full", "50", "rare50")

_CAML = "https://raw.githubusercontent.com/jamesmullenbach/caml-mimic/master/mimicdata/mimic3/"
_KEPT = "https://raw.githubusercontent.com/whaleloops/KEPT/main/"
RARE50_FILE = "collectrare50data.py"
SPLIT_URLS = {
    "full": {name: _CAML + name for name in (f"{split}_full_hadm_ids.csv" for split in ("train", "dev", "test"))},
    "50": {name: _CAML + name for name in (f"{split}_50_hadm_ids.csv" for split in ("train", "dev", "test"))},
    "rare50": {RARE50_FILE: _KEPT + RARE50_FILE},
}
"""Configuration → file that lists its splits → where it is published."""

REPAIRED_CODES = {"40.7": "04.07"}
"""Codes of rare50 that lost a leading zero when they were read as numbers, and what they were."""

UNCERTAIN_CODES = {"52.0": "Pancreatotomy", "77.7": "Excision of bone for graft"}
"""Codes of rare50 that are categories, which no admission should carry, with their titles."""

LIKELY_CODES = {"52.0": "00.52", "77.7": "77.70"}
"""What becomes of an `UNCERTAIN_CODES` where the tables list it for each of its admissions; else it is kept.

The public reading makes the one of the other: 0052 → 52. → 52.0, and 7770 → 77.70 → 77.7.
"""

_VERSION = datasets.Version("1.4.0")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_JSON_PREFIXES = {"full": "mimic3", "50": "mimic3-50", "rare50": "mimic3-50l"}
_CONTENT = (
    "MIMIC-III's NOTEEVENTS, DIAGNOSES_ICD and PROCEDURES_ICD (.csv or .csv.gz), if possible D_ICD_DIAGNOSES, "
    "D_ICD_PROCEDURES and CAML's ICD9_descriptions; or KEPT's {prefix}_train.json, _dev.json and _test.json"
)

_SUMMARIES = {
    "full": "all ICD-9-CM codes; splits of CAML",
    "50": "the 50 ICD-9-CM codes of MIMIC-III-50; splits of CAML",
    "rare50": "rare ICD-9-CM codes with few training notes each; splits of KEPT",
}


class Mimic3(datasets.GeneratorBasedBuilder):
    """MIMIC-III from the raw tables of PhysioNet, or from the JSON files that KEPT's preprocessing wrote.

    The JSON files are read where `NOTEEVENTS` is not in the folder. Notes stand in the published order: by the numbers
    of patient and admission.

    Configurations:
        full: all codes; CAML's 47,723 / 1,631 / 3,372 admissions.
        50: CAML's 8,066 / 1,573 / 1,729 admissions with the 50 published codes (`PUBLISHED_50`).
        rare50: KEPT's 249 / 20 / 142 admissions with 50 rare codes.

    Columns:
        note_id: the HADM_ID.
        subject_id: the SUBJECT_ID.
        text: the admission's discharge summaries and addenda, joined with a tab in file order.
        codes: dotted codes, diagnoses before procedures, each once.

    Args:
        config_name: see above.
        data_dir: the folder with all files; a missing list of splits is downloaded (`SPLIT_URLS`).
        repair_codes: apply `REPAIRED_CODES` to rare50, and `LIKELY_CODES` where the tables confirm them.
        recount_codes: of "50", take the 50 codes that the tables list most often, counted over the admissions with a
            discharge summary, instead of the published ones. A warning says where the two differ, whichever is taken.
        published_reading: of "full" and "50", take the labels as the public preprocessing reads them, with the zeros
            that it loses: see `mimic3_published`.
        skip_notes: discharge summaries to leave out, some of `physionet.SKIPPED_NOTES`; the published data have them.
        urls: file name → URL or path, in place of `SPLIT_URLS`. The content behind a URL is taken to stay the same.

    Raises:
        FileNotFoundError: no `data_dir`; missing tables, or lists that cannot be downloaded, all named.
        ValueError: an unknown configuration, or an option that is not of it; a file that is not as published, named
            with the row or line; splits that share admissions; no notes at all.
    """

    VERSION = _VERSION
    BUILDER_CONFIGS = [datasets.BuilderConfig(name=name, version=_VERSION) for name in CONFIGS]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = "full"

    def __init__(
        self,
        config_name: str | None = None,
        data_dir: str | os.PathLike | None = None,
        repair_codes: bool = True,
        urls: Mapping[str, str] | None = None,
        recount_codes: bool = False,
        published_reading: bool = False,
        skip_notes: str | Sequence[str] = (),
        **kwargs,
    ):
        data_dir = require_data_dir("mimic3", data_dir, _CONTENT.format(prefix="mimic3"))
        name = config_name or self.DEFAULT_CONFIG_NAME
        if name in CONFIGS:
            unknown = sorted(set(urls or ()) - {file for files in SPLIT_URLS.values() for file in files})
            if unknown:
                raise ValueError(
                    f"urls has {', '.join(unknown)}; the lists of {name!r} are {', '.join(SPLIT_URLS[name])}."
                )
            self.skip_notes = sorted({skip_notes} if isinstance(skip_notes, str) else set(skip_notes))
            _check_options(data_dir, name, recount_codes, published_reading, self.skip_notes)
            self.repair_codes = repair_codes
            self.recount_codes, self.published_reading = recount_codes, published_reading
            self.urls = {**SPLIT_URLS[name], **(urls or {})}
            files = [*_sources(), *_data_files(data_dir, name)]
            files += [path for path in self.urls.values() if os.path.isfile(path)]
            options = [name, repair_codes, recount_codes, published_reading, self.skip_notes]
            options.append(sorted(self.urls.items()))
            kwargs.setdefault("hash", fingerprint(files, options))
        super().__init__(config_name=name, data_dir=data_dir, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Discharge summaries of a Boston hospital with ICD-9-CM codes. Credentialed: not to be shared.",
            homepage="https://physionet.org/content/mimiciii/1.4/",
            license="PhysioNet Credentialed Health Data License 1.5.0",
            features=physionet.NOTE_FEATURES,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        # All is read here, not in _generate_examples: datasets wraps what is raised there.
        data_dir, name = self.config.data_dir, self.config.name
        # The texts wait where the prepared notes will lie.
        scratch_dir = self._cache_dir_root
        tables: Mapping[str, Admission] = {}
        if _has_tables(data_dir):
            lists, tables = self._split_lists(dl_manager), physionet.read_admissions(data_dir, MIMIC3)
            if name == "rare50":
                splits, texts = _read_rare50(data_dir, lists, tables, scratch_dir, self.skip_notes)
            else:
                texts = physionet.read_discharge_summaries(
                    data_dir, MIMIC3, scratch_dir=scratch_dir, skip_notes=self.skip_notes
                )
                splits = _read_caml(data_dir, name, lists, tables, texts, self.recount_codes, self.published_reading)
        else:
            splits, texts = _read_json(data_dir, name, scratch_dir, self.published_reading)
        if name == "rare50":
            _repair(splits, self.repair_codes, tables)
        return physionet.split_generators({_SPLITS[split]: notes for split, notes in splits.items()}, texts)

    def _generate_examples(self, admissions, texts) -> Iterator[tuple[int, dict]]:
        yield from enumerate(physionet.note_rows(admissions, texts))

    def _split_lists(self, dl_manager) -> dict[str, str]:
        """File name → path of the files that list the splits."""
        paths, missing, reason = {}, [], None
        for name in SPLIT_URLS[self.config.name]:
            path = os.path.join(self.config.data_dir, name)
            if not os.path.isfile(path):
                try:
                    path = dl_manager.download(self.urls[name])
                except Exception as error:  # each way of downloading has its own
                    missing.append(name)
                    reason = error
            paths[name] = path
        if missing:
            raise FileNotFoundError(
                f"data_dir={self.config.data_dir!r} lacks files that list the splits of {self.config.name!r}, and "
                f"downloading failed ({type(reason).__name__}). Put into the folder:\n"
                + "\n".join(f"  {name} from {self.urls[name]}" for name in missing)
            ) from reason
        return paths


def load(
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    config: str = "full",
    repair_codes: bool = True,
    published_titles: bool = False,
    urls: Mapping[str, str] | None = None,
    recount_codes: bool = False,
    published_reading: bool = False,
    skip_notes: str | Sequence[str] = (),
) -> Corpus:
    """MIMIC-III with its code set.

    Args:
        data_dir: see `Mimic3`.
        cache_dir: where the prepared dataset is kept.
        config: "full", "50" or "rare50".
        repair_codes: whether codes of rare50 that lost digits get them back; `False` for the published ones.
        published_titles: see `code_titles`.
        urls, recount_codes, published_reading, skip_notes: see `Mimic3`.

    Raises:
        FileNotFoundError, ValueError: see `Mimic3`.
    """
    config = str(config)  # 50 is as good as "50"
    if config not in CONFIGS:
        raise ValueError(f"config={config!r} is no configuration of mimic3; pass one of: {', '.join(CONFIGS)}.")
    builder = Mimic3(
        config,
        data_dir=data_dir,
        repair_codes=repair_codes,
        urls=urls,
        recount_codes=recount_codes,
        published_reading=published_reading,
        skip_notes=skip_notes,
        cache_dir=cache_dir and os.fspath(cache_dir),
    )
    builder.download_and_prepare()
    dataset = CredentialedDatasetDict(builder.as_dataset())
    codes = corpus_codes(dataset)
    if config == "50" and not recount_codes:
        codes = all_published_codes(codes)
    titles, card = code_titles(builder.config.data_dir, published_titles), _card(config, recount_codes)
    if published_titles:
        return Corpus(dataset, ICDCodeSet(codes, titles), card)
    if config == "rare50":
        titles = {**UNCERTAIN_CODES, **titles}
    return Corpus(dataset, physionet.described(codes, titles, category_parents(codes)), card)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load` for a command."""
    parser.add_argument(
        "--data_dir", required=True, help="folder with MIMIC-III's raw tables, or with KEPT's JSON files"
    )
    parser.add_argument("--config", choices=CONFIGS, default="full", help="codes and splits (default: full)")
    parser.add_argument(
        "--published_codes",
        dest="repair_codes",
        action="store_false",
        help="leave the codes of rare50 that lost a zero as published",
    )
    parser.add_argument(
        "--recount_codes",
        action="store_true",
        help="config 50: the 50 most frequent codes of the tables, not the published ones",
    )
    parser.add_argument(
        "--published_reading",
        action="store_true",
        help="configs full, 50: labels as the public preprocessing reads them, which loses zeros",
    )
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in SKIPPED_NOTES.items())
    parser.add_argument(
        "--skip_notes",
        nargs="+",
        choices=SKIPPED_NOTES,
        default=(),
        help=f"summaries to leave out ({meanings}; default: none)",
    )


def _card(config: str, recount_codes: bool) -> CorpusCard:
    summary = "the 50 most frequent ICD-9-CM codes; splits of CAML" if recount_codes else _SUMMARIES[config]
    return CorpusCard(
        title=f"MIMIC-III, {config}",
        summary=f"Discharge summaries of a Boston hospital with {summary}.",
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
        caution=(
            "All notes are from one Boston hospital, of intensive care: other hospitals write and code differently."
        ),
    )


def read_rare50_lists(path: str | os.PathLike) -> dict[str, dict[tuple[str, str], list[str]]]:
    """Split → (SUBJECT_ID, HADM_ID) → codes, from KEPT's `collectrare50data.py`.

    The file is Python source: its list literals are read, nothing is run. Codes are as written there, each once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no Python, a list that is missing or no list of texts, or lists that do not fit each other.
    """
    try:
        tree = ast.parse(read_text(path))
    except SyntaxError as error:
        raise ValueError(
            f"{os.fspath(path)}, line {error.lineno or '?'}: no Python source, which KEPT's file is."
        ) from None
    literals = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                literals[node.targets[0].id] = ast.literal_eval(node.value)
            except (ValueError, TypeError, MemoryError, RecursionError):
                continue  # no literal
    repeated, lists = 0, {}
    for split in _SPLITS:
        columns = []
        for name in (f"{split}_ids", f"{split}_labels"):
            values = literals.get(name)
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"{os.fspath(path)} assigns no list of texts to {name}.")
            columns.append(values)
        if len(columns[0]) != len(columns[1]):
            raise ValueError(f"{os.fspath(path)}: {split}_ids and {split}_labels have different lengths.")
        lists[split] = {}
        for number, (note_id, labels) in enumerate(zip(*columns, strict=True)):
            subject_id, _, hadm_id = note_id.partition("_")
            codes = _split_labels(labels)
            if not (subject_id.isdecimal() and hadm_id.isdecimal() and codes):
                raise ValueError(f'{os.fspath(path)}: entry {number} of {split}_ids is no "SUBJECT_HADM" with labels.')
            if (subject_id, hadm_id) in lists[split]:
                raise ValueError(f"{os.fspath(path)}: entry {number} of {split}_ids is there twice.")
            repeated += len(set(codes)) < len(codes)
            lists[split][subject_id, hadm_id] = list(dict.fromkeys(codes))
    if repeated:
        logger.warning("%d notes of rare50 list a code twice; it counts once.", repeated)
    return lists


def _sources() -> list[str]:
    files = (physionet, mimic3_published, mimic_tables, code_column, csv_tables, code_set_module, code_systems)
    return [__file__, *(module.__file__ for module in files)]


def _check_options(
    data_dir: str, config: str, recount_codes: bool, published_reading: bool, skip_notes: Sequence[str]
) -> None:
    """Refuse what is unknown or would have no effect."""
    if unknown := [name for name in skip_notes if name not in SKIPPED_NOTES]:
        raise ValueError(f"skip_notes has {unknown[0]!r}; pass some of: {', '.join(SKIPPED_NOTES)}.")
    if skip_notes and not _has_tables(data_dir):
        raise ValueError(
            f"skip_notes={list(skip_notes)!r}, but data_dir={data_dir!r} has no NOTEEVENTS: in KEPT's JSON files the "
            "notes of an admission are one text; pass the folder with MIMIC-III's tables."
        )
    if recount_codes and config != "50":
        raise ValueError(f"recount_codes=True is an option of config='50', not of config={config!r}; leave it out.")
    if recount_codes and not _has_tables(data_dir):
        raise ValueError(
            f"recount_codes=True, but data_dir={data_dir!r} has no NOTEEVENTS: KEPT's JSON files hold the published 50 "
            "codes only; pass the folder with MIMIC-III's tables."
        )
    if published_reading and config == "rare50":
        raise ValueError(
            "published_reading=True has no effect on config='rare50', whose codes its list gives; pass "
            "repair_codes=False to have them as published."
        )


def _split_labels(labels: str) -> list[str]:
    """The codes of a list "a;b"."""
    return [code.strip() for code in labels.split(";") if not is_missing(code)]


def _has_tables(data_dir: str) -> bool:
    """Whether the raw tables are to be read, not KEPT's JSON files."""
    try:
        csv_tables.find_table(data_dir, MIMIC3.notes)
    except FileNotFoundError:
        return False
    return True


def _json_files(data_dir: str, config: str) -> dict[str, str]:
    """Split → KEPT's file.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    prefix = _JSON_PREFIXES[config]
    files = {split: os.path.join(data_dir, f"{prefix}_{split}.json") for split in _SPLITS}
    missing = [os.path.basename(path) for path in files.values() if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"data_dir={data_dir!r} holds neither NOTEEVENTS.csv nor NOTEEVENTS.csv.gz, and lacks "
            f"{', '.join(missing)}; pass a folder with {_CONTENT.format(prefix=prefix)}."
        )
    return files


def _data_files(data_dir: str, config: str) -> list[str]:
    """Every file that the configuration reads and that is there."""
    if not _has_tables(data_dir):
        return list(_json_files(data_dir, config).values())
    files = MIMIC3.find_tables(data_dir)
    lists = (os.path.join(data_dir, name) for name in SPLIT_URLS[config])
    return files + [path for path in lists if os.path.isfile(path)]


def _read_caml(
    data_dir: str,
    config: str,
    lists: Mapping[str, str],
    tables: Mapping[str, Admission],
    texts: NoteTexts,
    recount_codes: bool,
    published_reading: bool,
) -> dict[str, dict]:
    """The splits of "full" and "50"."""
    hadm_ids = {split: physionet.read_hadm_ids(lists[f"{split}_{config}_hadm_ids.csv"]) for split in _SPLITS}
    physionet.check_disjoint(hadm_ids)
    admissions = physionet.by_patient(tables)
    if published_reading:
        use_published_codes(data_dir, admissions, texts)
    splits = {
        split: physionet.by_patient(physionet.listed_admissions(listed, admissions, texts))
        for split, listed in hadm_ids.items()
    }
    if config == "50":
        counted = most_frequent_codes(admissions[hadm_id] for hadm_id in admissions if hadm_id in texts)
        report_recount(counted, recount_codes)
        wanted = set(counted if recount_codes else PUBLISHED_50)
        splits = {split: _restrict(listed, wanted) for split, listed in splits.items()}
    return splits


def _restrict(admissions: Mapping[str, Admission], wanted: set[str]) -> dict[str, Admission]:
    """The admissions that have one of the codes, with these only."""
    restricted = {}
    for hadm_id, admission in admissions.items():
        if codes := [code for code in admission.codes if code in wanted]:
            restricted[hadm_id] = Admission(admission.subject_id, codes)
    if len(restricted) < len(admissions):
        logger.info("%d of %d notes have none of the codes.", len(admissions) - len(restricted), len(admissions))
    return restricted


def _read_rare50(
    data_dir: str,
    lists: Mapping[str, str],
    tables: Mapping[str, Admission],
    scratch_dir: str,
    skip_notes: Sequence[str],
) -> tuple[dict[str, dict], NoteTexts]:
    """The splits of "rare50": its lists give the codes too."""
    listed = read_rare50_lists(lists[RARE50_FILE])
    hadm_ids = {split: [hadm_id for _, hadm_id in notes] for split, notes in listed.items()}
    physionet.check_disjoint(hadm_ids)
    wanted = {hadm_id for ids in hadm_ids.values() for hadm_id in ids}
    texts = physionet.read_discharge_summaries(data_dir, MIMIC3, wanted, scratch_dir, skip_notes)
    # The lists count where the tables say the same of whose stay it was.
    splits = {}
    for split, notes in listed.items():
        admissions = {
            hadm_id: Admission(subject_id, codes)
            for (subject_id, hadm_id), codes in notes.items()
            if hadm_id in tables and tables[hadm_id].subject_id == subject_id
        }
        splits[split] = physionet.by_patient(physionet.listed_admissions(hadm_ids[split], admissions, texts))
    return splits, texts


def _read_json(
    data_dir: str, config: str, scratch_dir: str, published_reading: bool = False
) -> tuple[dict[str, dict], NoteTexts]:
    """The splits of KEPT's JSON files: a list of objects with subject_id, hadm_id, LABELS ("a;b") and TEXT.

    The labels of `published_reading` are those of the files, which have lost zeros.
    """
    texts, splits = NoteTexts(scratch_dir), {}
    for split, path in _json_files(data_dir, config).items():
        splits[split] = {}
        for number, entry in _stream_json(path):
            ids = [whole_number(str(entry.get(name, ""))) for name in ("subject_id", "hadm_id")]
            labels, text = entry.get("LABELS"), entry.get("TEXT")
            if not all(map(str.isdecimal, ids)) or not isinstance(labels, str) or not isinstance(text, str):
                raise ValueError(
                    f"{path}: entry {number} needs whole numbers in subject_id and hadm_id and text in LABELS and TEXT."
                )
            subject_id, hadm_id = ids
            if hadm_id in texts:
                raise ValueError(f"{path}: entry {number} is an admission that came before.")
            codes = _split_labels(labels)
            if not published_reading:
                codes = [_checked(code, f"{path}: entry {number}") for code in codes]
            splits[split][hadm_id] = Admission(subject_id, codes)
            texts.add([hadm_id], [subject_id], pa.chunked_array([[text]]))
        if not published_reading:
            _check_zeros(path, {code for admission in splits[split].values() for code in admission.codes})
    if config == "50":
        found = {code for listed in splits.values() for admission in listed.values() for code in admission.codes}
        if others := found - set(PUBLISHED_50):
            logger.warning(
                "The JSON files have %d codes that are not among the published 50, such as %s: they are left out.",
                len(others),
                min(others),
            )
        splits = {split: _restrict(listed, set(PUBLISHED_50)) for split, listed in splits.items()}
    return splits, texts


def _checked(code: str, place: str) -> str:
    """A label, if it is a code with its dot: the dot tells a diagnosis from a procedure."""
    if code.upper() not in (ICD9_DIAGNOSIS.parse(code), ICD9_PROCEDURE.parse(code)):
        raise ValueError(
            f"{place}: a label is no ICD-9-CM code with its dot, such as 038.9 or 04.07; leave out what is no ICD "
            f"code, and if codes were read as numbers, {AS_TEXT}, or pass published_reading=True to take them as the "
            "public preprocessing leaves them."
        )
    return code.upper()


def _check_zeros(path: str, codes: set[str]) -> None:
    """Refuse a file whose diagnoses or procedures have lost their zeros."""
    for system, length in ((ICD9_DIAGNOSIS, 3), (ICD9_PROCEDURE, 2)):
        if lost_zeros(code for code in codes if len(code.partition(".")[0]) == length):
            raise ValueError(
                f"{path}: the labels that are {system.name} were read as numbers, since none starts with 0, as "
                "many do; make the file again from the tables, reading their codes as text (in pandas, dtype=str), or "
                "pass published_reading=True to take them as the public preprocessing leaves them."
            )


def _stream_json(path: str) -> Iterator[tuple[int, dict]]:
    """Number and content of the objects of a JSON list, one by one."""
    number = 0
    with open(path, "rb") as file:
        start = file.read(3)
        if start != b"\xef\xbb\xbf":
            file.seek(0)
        if not (start.removeprefix(b"\xef\xbb\xbf") + file.read(100)).lstrip().startswith(b"["):
            raise ValueError(f"{path}: no list of JSON objects; it must begin with [.")
        file.seek(3 if start == b"\xef\xbb\xbf" else 0)
        try:
            for number, entry in enumerate(ijson.items(file, "item"), start=1):
                if not isinstance(entry, dict):
                    raise ValueError(f"{path}: entry {number} is no JSON object.")
                yield number, entry
        except (ijson.JSONError, UnicodeDecodeError):
            raise ValueError(f"{path}: no valid JSON after entry {number}; is the file truncated?") from None


def _repair(splits: Mapping[str, dict[str, Admission]], repair_codes: bool, tables: Mapping[str, Admission]) -> None:
    """Mend the codes of rare50, in place, and warn of those that cannot be mended."""
    if repair_codes:
        _confirm(splits, tables)
    admissions: Sequence[Admission] = [admission for split in splits.values() for admission in split.values()]
    counts = Counter(code for admission in admissions for code in set(admission.codes))
    broken = {code: counts[code] for code in REPAIRED_CODES if counts[code]}
    uncertain = {code: counts[code] for code in UNCERTAIN_CODES if counts[code]}
    if repair_codes:
        for admission in admissions:
            admission.codes = [REPAIRED_CODES.get(code, code) for code in admission.codes]
    for code, count in broken.items():
        if repair_codes:
            logger.warning("rare50: %s of %d notes had lost a zero; it is %s.", code, count, REPAIRED_CODES[code])
        else:
            logger.warning("rare50: %s of %d notes has lost a zero and is no code; see repair_codes.", code, count)
    if uncertain:
        logger.warning(
            "rare50: %s are categories, not codes, and what they were is uncertain; they are kept (%d notes).",
            " and ".join(uncertain),
            sum(uncertain.values()),
        )


def _confirm(splits: Mapping[str, dict[str, Admission]], tables: Mapping[str, Admission]) -> None:
    """Put `LIKELY_CODES` in place of uncertain ones where the tables list them for every note."""
    notes = [(tables.get(hadm_id), admission) for split in splits.values() for hadm_id, admission in split.items()]
    for code, likely in LIKELY_CODES.items():
        found = [(table, admission) for table, admission in notes if code in admission.codes]
        if found and all(table and likely in table.codes and code not in table.codes for table, _ in found):
            for _, admission in found:
                admission.codes = [likely if one == code else one for one in admission.codes]
            logger.warning("rare50: %s of %d notes has lost a zero; the tables have %s.", code, len(found), likely)
