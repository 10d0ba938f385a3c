"""Reading of PhysioNet's raw tables in the layout of MIMIC-III.

Plain functions over `NOTEEVENTS`, `DIAGNOSES_ICD`, `PROCEDURES_ICD`, `D_ICD_DIAGNOSES` and `D_ICD_PROCEDURES` (`.csv`
or `.csv.gz`) and over lists of admissions. Tables are streamed block by block and column by column, and every value is
read as text: `0389` and `389` are different codes. No message quotes a row, since rows hold note text.
"""

from __future__ import annotations

import csv
import gzip
import logging
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..code_set import add_dot

logger = logging.getLogger(__name__)

DISCHARGE_SUMMARY = "Discharge summary"
"""The CATEGORY of the notes that are coded."""

# A row must fit into a block; the longest notes have some hundred thousand characters.
_BLOCK_BYTES = 16 << 20
_BAD_ROW = re.compile(r"Row #(?P<row>\d+): Expected (?P<expected>\d+) columns, got (?P<got>\d+)")


def find_table(data_dir: str | os.PathLike, name: str) -> str:
    """The path of `{name}.csv` or, where that is missing, `{name}.csv.gz` in `data_dir`.

    Raises:
        FileNotFoundError: neither exists.
    """
    for suffix in (".csv", ".csv.gz"):
        path = os.path.join(data_dir, name + suffix)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"data_dir={os.fspath(data_dir)!r} holds neither {name}.csv nor {name}.csv.gz.")


def stream_table(data_dir: str | os.PathLike, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The wanted columns of a table, as text, in batches of rows in file order; an empty field is "".

    Args:
        data_dir: the folder with the table.
        name: the table, without suffix.
        columns: names as in MIMIC-III; a file that writes them in lower case is read too.

    Raises:
        FileNotFoundError: no such table.
        ValueError: a missing column, a row with more or fewer fields than the header, bytes that are not UTF-8.
    """
    path = find_table(data_dir, name)
    header = _read_header(path)
    spelling = {column.upper(): column for column in header}
    missing = [column for column in columns if column.upper() not in spelling]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}.")
    wanted = [spelling[column.upper()] for column in columns]
    try:
        reader = _open_csv(path, wanted)
        for batch in reader:
            yield pa.RecordBatch.from_arrays(batch.columns, names=list(columns))
    except pa.ArrowInvalid as error:
        # pyarrow's own message ends with the row.
        found = _BAD_ROW.search(str(error))
        problem = "row {row} has {got} fields, the header {expected}".format(**found.groupdict()) if found else None
        problem = problem or ("it holds bytes that are not UTF-8" if "UTF8" in str(error) else "it is no valid CSV")
        raise ValueError(f"{path}: {problem}.") from None


def read_discharge_summaries(data_dir: str | os.PathLike, hadm_ids: Container[str] | None = None) -> dict[str, str]:
    """HADM_ID → discharge summaries from `NOTEEVENTS`, admissions in the order of their first one.

    Notes of other categories and notes without an admission are left out. All summaries of an admission, addenda
    included, are joined with a tab in file order.

    Args:
        data_dir: the folder with the table.
        hadm_ids: the admissions wanted; all by default.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`.
    """
    parts: dict[str, list[str]] = {}
    for batch in stream_table(data_dir, "NOTEEVENTS", ("HADM_ID", "CATEGORY", "TEXT")):
        summaries = batch.filter(
            pc.and_(pc.equal(batch["CATEGORY"], DISCHARGE_SUMMARY), pc.not_equal(batch["HADM_ID"], ""))
        )
        for hadm_id, text in zip(summaries["HADM_ID"].to_pylist(), summaries["TEXT"].to_pylist(), strict=True):
            if hadm_ids is None or hadm_id in hadm_ids:
                parts.setdefault(hadm_id, []).append(text)
    return {hadm_id: "\t".join(texts) for hadm_id, texts in parts.items()}


def read_codes(data_dir: str | os.PathLike) -> dict[str, list[str]]:
    """HADM_ID → dotted codes, diagnoses before procedures, in file order, each once.

    Rows without an admission or without a code are left out.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`.
    """
    codes: dict[str, dict[str, None]] = {}
    for table, procedure in (("DIAGNOSES_ICD", False), ("PROCEDURES_ICD", True)):
        for batch in stream_table(data_dir, table, ("HADM_ID", "ICD9_CODE")):
            for hadm_id, code in zip(batch["HADM_ID"].to_pylist(), batch["ICD9_CODE"].to_pylist(), strict=True):
                if hadm_id and code.strip():
                    codes.setdefault(hadm_id, {})[add_dot(code, procedure=procedure)] = None
    return {hadm_id: list(found) for hadm_id, found in codes.items()}


def read_titles(data_dir: str | os.PathLike) -> dict[str, str]:
    """Dotted code → LONG_TITLE, from `D_ICD_DIAGNOSES` and `D_ICD_PROCEDURES`.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`.
    """
    titles = {}
    for table, procedure in (("D_ICD_DIAGNOSES", False), ("D_ICD_PROCEDURES", True)):
        for batch in stream_table(data_dir, table, ("ICD9_CODE", "LONG_TITLE")):
            for code, title in zip(batch["ICD9_CODE"].to_pylist(), batch["LONG_TITLE"].to_pylist(), strict=True):
                titles[add_dot(code, procedure=procedure)] = title
    return titles


def read_hadm_ids(path: str | os.PathLike) -> list[str]:
    """The admissions of a split list, one HADM_ID a line, in file order, each once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no number, named by its line number.
    """
    hadm_ids = {}
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            hadm_id = text.strip()
            if hadm_id and not hadm_id.isdecimal():
                raise ValueError(f"{os.fspath(path)}, line {line}: no HADM_ID; write one number a line, no header.")
            if hadm_id:
                hadm_ids[hadm_id] = None
    return list(hadm_ids)


def join_admissions(
    hadm_ids: Iterable[str], texts: Mapping[str, str], codes: Mapping[str, Sequence[str]]
) -> Iterator[dict]:
    """The rows `note_id`, `text`, `codes` of the admissions that have a text, in the order of `hadm_ids`.

    Args:
        hadm_ids: what `read_hadm_ids` gave.
        texts: what `read_discharge_summaries` gave.
        codes: what `read_codes` gave; an admission may be missing, and then has no codes.
    """
    absent = 0
    for hadm_id in hadm_ids:
        if hadm_id in texts:
            yield {"note_id": hadm_id, "text": texts[hadm_id], "codes": list(codes.get(hadm_id, ()))}
        else:
            absent += 1
    if absent:
        logger.warning("%d listed admissions have no discharge summary and are left out.", absent)


def _read_header(path: str) -> list[str]:
    opener = gzip.open if path.endswith(".gz") else open
    # Bytes that are not UTF-8 are reported with the rows, not here.
    with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), None)
    if not header:
        raise ValueError(f"{path} is empty.")
    return header


def _open_csv(path: str, columns: Sequence[str]) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        path,
        # Without threads pyarrow knows the number of a bad row.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(columns),
            column_types={column: pa.string() for column in columns},
            strings_can_be_null=False,
        ),
    )
