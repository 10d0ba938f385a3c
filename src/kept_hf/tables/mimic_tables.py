"""The tables of MIMIC's releases: their names, and the titles of codes in them."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from .code_column import CodeColumn
from .csv_tables import find_table, stream_table

_DESCRIPTIONS_FILE = "ICD9_descriptions"


@dataclass(frozen=True)
class Layout:
    """How a release names its tables.

    Attributes:
        notes: table of the notes.
        note_category: the CATEGORY of those that are coded; `None` where the table holds no others.
        codes: tables of an admission's codes, each with whether it is about procedures.
        titles: tables of the codes' titles, likewise.
        code_column: the column of the code.
        version_column: the column that tells ICD-9 from ICD-10; `None` where all codes are ICD-9.
    """

    notes: str
    note_category: str | None
    codes: tuple[tuple[str, bool], ...]
    titles: tuple[tuple[str, bool], ...]
    code_column: str
    version_column: str | None

    def find_tables(self, data_dir: str | os.PathLike) -> list[str]:
        """The paths of the tables of notes and codes.

        Raises:
            FileNotFoundError: some are missing; the message names them all.
        """
        paths, missing = [], []
        for name in (self.notes, *(table for table, _ in self.codes)):
            try:
                paths.append(find_table(data_dir, name))
            except FileNotFoundError:
                missing.append(name)
        if missing:
            raise FileNotFoundError(
                f"data_dir={os.fspath(data_dir)!r} lacks {', '.join(missing)}, each as .csv or .csv.gz."
            )
        return paths


MIMIC3 = Layout(
    notes="NOTEEVENTS",
    note_category="Discharge summary",
    codes=(("DIAGNOSES_ICD", False), ("PROCEDURES_ICD", True)),
    titles=(("D_ICD_DIAGNOSES", False), ("D_ICD_PROCEDURES", True)),
    code_column="ICD9_CODE",
    version_column=None,
)
MIMIC4 = Layout(
    notes="note/discharge",
    note_category=None,
    codes=(("hosp/diagnoses_icd", False), ("hosp/procedures_icd", True)),
    titles=(("hosp/d_icd_diagnoses", False), ("hosp/d_icd_procedures", True)),
    code_column="ICD_CODE",
    version_column="ICD_VERSION",
)


def code_column(
    data_dir: str | os.PathLike, table: str, procedure: bool, layout: Layout, icd_version: int, has_titles: bool = False
) -> CodeColumn:
    """The codes of a table of a release."""
    return CodeColumn(
        data_dir, table, layout.code_column, procedure, icd_version, layout.version_column, has_categories=has_titles
    )


def stream_version(
    data_dir: str | os.PathLike,
    name: str,
    columns: list[str],
    numbers: Sequence[str],
    layout: Layout,
    icd_version: int,
) -> Iterator[pa.RecordBatch]:
    """`stream_table` without the rows of the other ICD version."""
    if layout.version_column is None:
        yield from stream_table(data_dir, name, columns, numbers)
        return
    numbers = [*numbers, layout.version_column]
    for batch in stream_table(data_dir, name, [*columns, layout.version_column], numbers):
        yield batch.filter(pc.equal(batch[layout.version_column], str(icd_version))).select(columns)


def read_titles(
    data_dir: str | os.PathLike, layout: Layout = MIMIC3, icd_version: int = 9
) -> tuple[dict[str, str], dict[str, str]]:
    """Dotted code → LONG_TITLE, of diagnoses and of procedures. A table that is not there gives none.

    What has a title and is no code, such as a category of ICD-10-PCS, has it as it stands.

    Raises:
        ValueError: see `stream_table`; and codes that were read as numbers.
    """
    titles: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for table, procedure in layout.titles:
        try:
            find_table(data_dir, table)
        except FileNotFoundError:
            continue
        codes = code_column(data_dir, table, procedure, layout, icd_version, has_titles=True)
        for batch in stream_version(data_dir, table, [layout.code_column, "LONG_TITLE"], (), layout, icd_version):
            for code, title in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if (dotted := codes.dotted(code)) and title.strip():
                    titles[procedure][dotted] = title
        codes.check()
    return titles[False], titles[True]


def code_titles(data_dir: str | os.PathLike, published: bool = False) -> dict[str, str]:
    """Dotted code → title: of the `D_ICD` tables, and for codes they lack of CAML's `ICD9_descriptions`.

    Args:
        data_dir: the folder; what is missing gives no titles.
        published: as KEPT's code does. It passes over the title of a procedure whose undotted code is that of a
            diagnosis (31.1 and 311), and takes `ICD9_descriptions` with its HTML entities, spaces made single.

    Raises:
        ValueError: a table that is not as published.
    """
    diagnoses, procedures = read_titles(data_dir, MIMIC3)
    if published:
        procedures = {code: title for code, title in procedures.items() if code.replace(".", "") not in diagnoses}
    titles = diagnoses | procedures
    path = os.path.join(data_dir, _DESCRIPTIONS_FILE)
    if os.path.isfile(path):
        for line in read_text(path).splitlines():
            code, _, title = line.strip().partition("\t")
            if code and code not in titles:
                titles[code] = " ".join(title.split()) if published else html.unescape(title)
    return titles


def read_text(path: str | os.PathLike) -> str:
    """A small file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)} is not UTF-8; save it as such.") from None
