"""MIMIC-III's codes as the public preprocessing reads them, and the 50 codes that it counted so.

The notebooks of CAML and KEPT read the tables of codes with pandas, and let it guess what is a number:

- `PROCEDURES_ICD` has digits only, so that all of its codes become numbers: 0407 becomes 407, and with its dot 40.7;
  0066 becomes 66, and with its dot "66.".
- The table of both kinds, dotted, is written and read again. pandas guesses for each piece of 131,072 rows. In a piece
  that has procedures only they become numbers again: 93.90 becomes 93.9, and "66." becomes 66.0. In the piece in which
  diagnoses end and procedures begin all stays text. So one code can have two spellings, each a label of its own.

Sources: github.com/jamesmullenbach/caml-mimic, `notebooks/dataproc_mimic_III.ipynb`, and github.com/whaleloops/KEPT,
`preprocess/generate_data_new.ipynb`.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..models.published import KEPT_50_PROMPT_ORDER
from ..tables.csv_tables import find_table
from ..tables.mimic_tables import MIMIC3
from .physionet import Admission, NoteTexts

logger = logging.getLogger(__name__)

PUBLISHED_50 = tuple(sorted(KEPT_50_PROMPT_ORDER))
"""The 50 codes of MIMIC-III-50, in the order of the published labels."""


def read_published_codes(data_dir: str | os.PathLike, hadm_ids: Iterable[str]) -> dict[str, list[str]]:
    """HADM_ID → labels, as the public preprocessing gives them; a code that is missing gives none.

    pandas itself guesses, as it did there: the result depends on the order of the rows, and on other columns, since the
    pieces are smaller where a table is wider. So the tables must be those of PhysioNet.

    Args:
        data_dir: the folder with the tables, which `physionet.read_admissions` accepts.
        hadm_ids: the admissions with a discharge summary, as they are written in the table of notes; the others are
            left out before the second reading.

    Raises:
        FileNotFoundError: a table is missing.
    """
    written = {int(hadm_id): hadm_id for hadm_id in hadm_ids}
    tables = []
    for name, procedure in MIMIC3.codes:
        rows = _read_untyped(find_table(data_dir, name)).rename(columns=str.upper).dropna(subset=["HADM_ID"])
        rows = rows[["SUBJECT_ID", "HADM_ID", MIMIC3.code_column]].astype({"SUBJECT_ID": int, "HADM_ID": int})
        rows[MIMIC3.code_column] = [_add_dot(str(code), procedure) for code in rows[MIMIC3.code_column]]
        tables.append(rows)
    rows = pd.concat(tables)
    rows = rows[rows["HADM_ID"].isin(written)]
    # Two columns that are empty: they make the pieces as long as the published ones.
    rows = _write_and_read(rows.assign(ADMITTIME="", DISCHTIME=""))
    rows = _write_and_read(rows.sort_values(["SUBJECT_ID", "HADM_ID"]))
    codes: dict[str, list[str]] = {}
    for number, code in zip(rows["HADM_ID"], rows[MIMIC3.code_column], strict=True):
        listed = codes.setdefault(written[number], [])
        if not pd.isna(code):
            listed.append(str(code))
    return codes


def use_published_codes(data_dir: str, admissions: Mapping[str, Admission], texts: NoteTexts) -> None:
    """Give the admissions with a summary their codes in the published reading, in place."""
    labels, changed, before, after = read_published_codes(data_dir, texts), 0, set(), set()
    for hadm_id, codes in labels.items():
        changed += admissions[hadm_id].codes != codes
        before.update(admissions[hadm_id].codes)
        after.update(codes)
        admissions[hadm_id].codes = codes
    logger.warning(
        "published_reading: %d of %d admissions have other codes than the tables; %d codes became %d labels.",
        changed,
        len(labels),
        len(before),
        len(after),
    )


def most_frequent_codes(admissions: Iterable[Admission]) -> list[str]:
    """The 50 codes that are most often listed, repetitions within an admission included, as CAML counts."""
    counts = Counter(code for admission in admissions for code in admission.codes)
    return [code for code, _ in counts.most_common(len(PUBLISHED_50))]


def report_recount(counted: Sequence[str], recount_codes: bool) -> None:
    """Say where the most frequent codes of the tables are not the published ones."""
    added, missing = sorted(set(counted) - set(PUBLISHED_50)), sorted(set(PUBLISHED_50) - set(counted))
    if not added and not missing:
        logger.info("The %d codes that these tables list most often are the published ones.", len(counted))
        return
    logger.warning(
        "The %d codes that these tables list most often are not the 50 published ones: the count has %s, and lacks %s. "
        + (
            "recount_codes=True takes the count: figures do not compare with published ones."
            if recount_codes
            else "The published ones are taken; recount_codes=True takes the count."
        ),
        len(counted),
        _shown(added),
        _shown(missing),
    )


def all_published_codes(codes: Sequence[str]) -> list[str]:
    """The codes of "50", whether or not a note carries them; a warning names those that none does."""
    if missing := sorted(set(PUBLISHED_50) - set(codes)):
        logger.warning(
            "%d of the 50 published codes are on no note: %s. Are these the notes of MIMIC-III v1.4?",
            len(missing),
            _shown(missing),
        )
    return list(PUBLISHED_50)


def _read_untyped(file: str | io.StringIO) -> pd.DataFrame:
    with warnings.catch_warnings():
        # That types are mixed is the point.
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        return pd.read_csv(file)


def _write_and_read(rows: pd.DataFrame) -> pd.DataFrame:
    file = io.StringIO()
    rows.to_csv(file, index=False)
    file.seek(0)
    return _read_untyped(file)


def _add_dot(code: str, procedure: bool) -> str:
    """A code with its dot as published: a procedure of two digits gets one behind them."""
    code = code.replace(".", "")
    position = 2 if procedure else 4 if code.startswith("E") else 3
    return code if len(code) <= position and not procedure else f"{code[:position]}.{code[position:]}"


def _shown(codes: Sequence[str], most: int = 10) -> str:
    return (", ".join(codes[:most]) + (f" and {len(codes) - most} more" if len(codes) > most else "")) or "none"
