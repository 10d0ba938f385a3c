"""MIMIC-IV v2.2 discharge summaries with ICD-9 or ICD-10 codes.

Johnson et al., "MIMIC-IV, a freely accessible electronic health record dataset", Scientific Data 2023, and
MIMIC-IV-Note; credentialed access on PhysioNet. No file of these is part of this package.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import logging
import os
from collections.abc import Iterator

import datasets
import pyarrow as pa
from pyarrow import feather

from ..models import code_set as code_set_module
from ..models import code_systems
from ..models.code_set import category_parents, separator_hint
from ..models.publication import CREDENTIALED
from ..tables import code_column, csv_tables, mimic_tables
from ..tables.csv_tables import whole_number
from ..tables.mimic_tables import MIMIC4, read_text, read_titles
from . import Corpus, CorpusCard, corpus_codes, fingerprint, physionet, require_data_dir
from . import splits as splits_module
from .restricted import CredentialedDatasetDict
from .splits import SPLIT_NAMES, SPLIT_SHARES, warn_of_shared_patients

logger = logging.getLogger(__name__)

CONFIGS = {"icd9": 9, "icd10": 10}
"""Configuration → version of its codes."""

_VERSION = datasets.Version("2.2.0")
_CONTENT = (
    "the folder hosp of MIMIC-IV (diagnoses_icd, procedures_icd, if possible d_icd_diagnoses, d_icd_procedures) and "
    "the folder note of MIMIC-IV-Note (discharge), each table as .csv or .csv.gz"
)


class Mimic4(datasets.GeneratorBasedBuilder):
    """MIMIC-IV from the raw tables of PhysioNet: admissions with a discharge summary and a code of the version asked.

    Notes stand in the order of the numbers of patient and admission.

    Configurations:
        icd9, icd10: the version of the codes. Most admissions have codes of one version only.

    Columns:
        note_id: the hadm_id.
        subject_id: the subject_id.
        text: the admission's discharge summary.
        codes: dotted codes (ICD-10-PCS has no dots), diagnoses before procedures, each once.

    Args:
        config_name: see above.
        data_dir: the folder that holds `hosp` and `note`.
        split_file: a CSV with the columns `hadm_id` and `split` (train, validation or dev or val, test), or a .feather
            file with `_id` and `split`; admissions it
            does not list are left out. Without it each patient is put into a split by a hash of `seed` and subject_id,
            80 / 10 / 10: no patient is in two splits, and one's split depends on nobody else.
        seed: of that draw.

    Raises:
        FileNotFoundError: no `data_dir`, or it lacks a table.
        ValueError: an unknown configuration; a file that is not as published, named with the row or line.
    """

    VERSION = _VERSION
    BUILDER_CONFIGS = [datasets.BuilderConfig(name=name, version=_VERSION) for name in CONFIGS]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = "icd10"

    def __init__(
        self,
        config_name: str | None = None,
        data_dir: str | os.PathLike | None = None,
        split_file: str | os.PathLike | None = None,
        seed: int = 0,
        **kwargs,
    ):
        data_dir = require_data_dir("mimic4", data_dir, _CONTENT)
        name = config_name or self.DEFAULT_CONFIG_NAME
        if name in CONFIGS:
            self.split_file, self.seed = split_file, seed
            files = [*_sources(), *MIMIC4.find_tables(data_dir)]
            if split_file is not None:
                files.append(split_file)
            kwargs.setdefault("hash", fingerprint(files, [name, split_file is None, seed]))
        super().__init__(config_name=name, data_dir=data_dir, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Discharge summaries of a Boston hospital with ICD codes. Credentialed: not to be shared.",
            homepage="https://physionet.org/content/mimiciv/2.2/",
            license="PhysioNet Credentialed Health Data License 1.5.0",
            features=physionet.NOTE_FEATURES,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        # All is read here, not in _generate_examples: datasets wraps what is raised there.
        data_dir = self.config.data_dir
        # The texts wait where the prepared notes will lie.
        scratch_dir = self._cache_dir_root
        listed = None if self.split_file is None else read_splits(self.split_file)
        admissions = physionet.read_admissions(data_dir, MIMIC4, CONFIGS[self.config.name])
        coded = physionet.by_patient({hadm_id: one for hadm_id, one in admissions.items() if one.codes})
        texts = physionet.read_discharge_summaries(data_dir, MIMIC4, coded.keys(), scratch_dir)
        splits: dict[str, list[str]] = {split: [] for split in SPLIT_SHARES}
        if listed is None:
            for hadm_id in filter(texts.__contains__, coded):
                splits[draw_split(coded[hadm_id].subject_id, self.seed)].append(hadm_id)
        else:
            for hadm_id in sorted(listed, key=int):
                splits[listed[hadm_id]].append(hadm_id)
            warn_of_shared_patients(
                {
                    split: [coded[hadm_id].subject_id for hadm_id in hadm_ids if hadm_id in coded]
                    for split, hadm_ids in splits.items()
                }
            )
        return physionet.split_generators(
            {
                split: physionet.by_patient(physionet.listed_admissions(hadm_ids, coded, texts))
                for split, hadm_ids in splits.items()
            },
            texts,
        )

    def _generate_examples(self, admissions, texts) -> Iterator[tuple[int, dict]]:
        yield from enumerate(physionet.note_rows(admissions, texts))


def load(
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    config: str = "icd10",
    split_file: str | os.PathLike | None = None,
    seed: int = 0,
) -> Corpus:
    """MIMIC-IV with its code set, described by the titles of the `d_icd` tables.

    Args:
        data_dir: see `Mimic4`.
        cache_dir: where the prepared dataset is kept.
        config: "icd9" or "icd10".
        split_file: see `Mimic4`.
        seed: see `Mimic4`.

    Raises:
        FileNotFoundError, ValueError: see `Mimic4`.
    """
    if config not in CONFIGS:
        raise ValueError(f"config={config!r} is no configuration of mimic4; pass one of: {', '.join(CONFIGS)}.")
    builder = Mimic4(
        config, data_dir=data_dir, split_file=split_file, seed=seed, cache_dir=cache_dir and os.fspath(cache_dir)
    )
    builder.download_and_prepare()
    dataset = CredentialedDatasetDict(builder.as_dataset())
    codes = corpus_codes(dataset)
    diagnoses, procedures = read_titles(builder.config.data_dir, MIMIC4, CONFIGS[config])
    code_set = physionet.described(codes, diagnoses | procedures, category_parents(codes))
    splits = "splits from a file" if split_file else f"patients drawn into splits 80 / 10 / 10 with seed {seed}"
    return Corpus(dataset, code_set, _card(config, splits))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load` for a command."""
    parser.add_argument("--data_dir", required=True, help="folder that holds hosp and note")
    parser.add_argument("--config", choices=CONFIGS, default="icd10", help="version of the codes (default: icd10)")
    parser.add_argument(
        "--split_file",
        help="CSV with the columns hadm_id and split, or .feather with _id and split (default: drawn by patient)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")


def _card(config: str, splits: str) -> CorpusCard:
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
        caution="All notes are from one Boston hospital: other hospitals write and code differently.",
    )


def draw_split(subject_id: str, seed: int = 0) -> str:
    """The split of a patient, drawn by the SHA-256 digest of "seed:subject_id".

    Examples:
        >>> [draw_split(str(subject_id)) for subject_id in range(4)]
        ['train', 'test', 'train', 'train']
    """
    digest = hashlib.sha256(f"{seed}:{subject_id}".encode()).digest()
    fraction, reached = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for split, share in SPLIT_SHARES.items():
        reached += share
        if fraction < reached:
            return split
    return split


def read_splits(path: str | os.PathLike) -> dict[str, str]:
    """hadm_id → split, from a CSV with these two columns, or a .feather file with `_id` and `split`.

    The latter is what the replication study ships (Edin et al., SIGIR 2023).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column; a line without a number, with an unknown split, or that contradicts another.
    """
    splits: dict[str, str] = {}
    read_rows = _read_feather if os.fspath(path).lower().endswith(".feather") else _read_csv
    for where, hadm_id, split in read_rows(path):
        hadm_id = whole_number(hadm_id)
        if not hadm_id.isdecimal():
            raise ValueError(f"{where}: the column hadm_id holds no number.")
        if split not in SPLIT_NAMES:
            raise ValueError(f"{where}: the split must be one of {', '.join(SPLIT_NAMES)}.")
        if splits.setdefault(hadm_id, SPLIT_NAMES[split]) != SPLIT_NAMES[split]:
            raise ValueError(f"{where}: the admission is in another split before.")
    return splits


def _read_csv(path: str | os.PathLike) -> Iterator[tuple[str, str, str]]:
    """Where a row stands, its admission and its split."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = {"hadm_id", "split"} - set(reader.fieldnames or ())
        if missing:
            hint = separator_hint(reader.fieldnames or ())
            raise ValueError(
                f"{os.fspath(path)} has no column {', '.join(sorted(missing))}{hint}; write hadm_id,split."
            )
        for row in reader:
            where = f"{os.fspath(path)}, line {reader.line_num}"
            yield where, (row["hadm_id"] or "").strip(), (row["split"] or "").strip().lower()
    except csv.Error:
        raise ValueError(f"{os.fspath(path)}, line {reader.line_num}: no valid CSV; is a quote not closed?") from None


def _read_feather(path: str | os.PathLike) -> Iterator[tuple[str, str, str]]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"split_file={os.fspath(path)!r} is no file.")
    try:
        table = feather.read_table(path, memory_map=False)
    except (pa.ArrowException, OSError):
        raise ValueError(f"{os.fspath(path)} cannot be read as feather; copy it again.") from None
    missing = {"_id", "split"} - set(table.column_names)
    if missing:
        raise ValueError(
            f"{os.fspath(path)} has no column {', '.join(sorted(missing))}; its columns are "
            f"{', '.join(table.column_names)}."
        )
    for number, row in enumerate(table.select(["_id", "split"]).to_pylist(), start=1):
        yield f"{os.fspath(path)}, row {number}", str(row["_id"]).strip(), str(row["split"]).strip().lower()


def _sources() -> list[str]:
    files = (physionet, splits_module, mimic_tables, code_column, csv_tables, code_set_module, code_systems)
    return [__file__, *(module.__file__ for module in files)]
