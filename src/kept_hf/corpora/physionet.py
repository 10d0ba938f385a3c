"""Reading of PhysioNet's raw tables in the layouts of MIMIC-III and MIMIC-IV.

Tables (`.csv` or `.csv.gz`) are streamed block by block and column by column, and every value is read as text: `0389`
and `389` are different codes. No message quotes a row, since rows hold note text.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..code_set import ICDCodeSet, add_dot

logger = logging.getLogger(__name__)

NOTE_FEATURES = datasets.Features(
    {
        "note_id": datasets.Value("string"),
        "subject_id": datasets.Value("string"),
        "text": datasets.Value("string"),
        "codes": datasets.List(datasets.Value("string")),
    }
)
"""The columns of `note_rows`."""

# A row must fit into a block: the longest notes have some hundred thousand characters. Larger blocks cost page faults.
_BLOCK_BYTES = 1 << 20
_QUOTE = ord('"')
_BAD_ROW = re.compile(r"Row #(?P<row>\d+): Expected (?P<expected>\d+) columns, got (?P<got>\d+)")


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


@dataclass(slots=True)
class Admission:
    """A patient's stay.

    Attributes:
        subject_id: the patient.
        codes: dotted codes in file order, diagnoses before procedures, as often as the tables list them.
    """

    subject_id: str
    codes: list[str]


class NoteTexts(Mapping[str, str]):
    """HADM_ID → text, with the texts in a temporary file: memory holds their places only, however large the table."""

    def __init__(self):
        self._file = tempfile.TemporaryFile(buffering=1 << 20)  # noqa: SIM115 (it lives as long as the texts)
        self._size = 0
        self._places: dict[str, list[tuple[int, int]]] = {}

    def add(self, hadm_id: str, text: bytes | memoryview | pa.Buffer) -> None:
        """Take a text in UTF-8; several of one admission are joined with a tab."""
        size = self._file.write(text)
        self._places.setdefault(hadm_id, []).append((self._size, size))
        self._size += size

    def __getitem__(self, hadm_id: str) -> str:
        parts = []
        for offset, size in self._places[hadm_id]:
            self._file.seek(offset)
            parts.append(self._file.read(size).decode())
        return "\t".join(parts)

    def __contains__(self, hadm_id: object) -> bool:
        return hadm_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


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


def stream_table(
    data_dir: str | os.PathLike, name: str, columns: Sequence[str], needle: str = ""
) -> Iterator[pa.RecordBatch]:
    """The wanted columns of a table, as text, in batches of rows in file order; an empty field is "".

    Args:
        data_dir: the folder with the table.
        name: the table, without suffix.
        columns: names in upper case; MIMIC-IV's files write them in lower case.
        needle: stretches of rows without these characters may be left out, unread.

    Raises:
        FileNotFoundError: no such table.
        ValueError: a missing column; a row with more or fewer fields than the header, with bytes that are not UTF-8, or
            cut off by the end of the file. The message has the number of the row, the header being row 1.
    """
    path = find_table(data_dir, name)
    header = _read_header(path)
    spelling = {column.upper(): column for column in header}
    missing = [column for column in columns if column not in spelling]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}.")
    wanted = [spelling[column] for column in columns]
    with _WholeFile(_open(path), needle.encode()) as file:
        try:
            for batch in _open_csv(file, wanted, pa.string(), use_threads=True):
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(columns))
        except (_CutFileError, EOFError, zlib.error, pa.ArrowInvalid):
            raise _explain(path, wanted) from None


def read_discharge_summaries(
    data_dir: str | os.PathLike, layout: Layout = MIMIC3, hadm_ids: Container[str] | None = None
) -> NoteTexts:
    """HADM_ID → discharge summaries, admissions in the order of their first one.

    Notes of other categories and notes without an admission are left out. All summaries of an admission, addenda
    included, are joined with a tab in file order.

    Args:
        data_dir: the folder with the tables.
        layout: how they are named.
        hadm_ids: the admissions wanted; all by default.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`.
    """
    texts = NoteTexts()
    columns = ["HADM_ID", "TEXT"] + (["CATEGORY"] if layout.note_category else [])
    for batch in stream_table(data_dir, layout.notes, columns, needle=layout.note_category or ""):
        if layout.note_category:
            batch = batch.filter(pc.equal(batch["CATEGORY"], layout.note_category))
        for hadm_id, text in zip(batch["HADM_ID"].to_pylist(), batch["TEXT"], strict=True):
            if hadm_id and (hadm_ids is None or hadm_id in hadm_ids):
                texts.add(hadm_id, text.as_buffer())
    return texts


def read_admissions(data_dir: str | os.PathLike, layout: Layout = MIMIC3, icd_version: int = 9) -> dict[str, Admission]:
    """HADM_ID → patient and codes.

    Rows without an admission are left out; one without a code adds none.

    Args:
        data_dir: the folder with the tables.
        layout: how they are named.
        icd_version: 9 or 10; codes of the other one are left out.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`.
    """
    admissions: dict[str, Admission] = {}
    for table, procedure in layout.codes:
        dotted: dict[str, str] = {}  # each code is one object, however often it occurs
        for batch in _stream_version(
            data_dir, table, ["SUBJECT_ID", "HADM_ID", layout.code_column], layout, icd_version
        ):
            for subject_id, hadm_id, code in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if not hadm_id:
                    continue
                if hadm_id not in admissions:
                    admissions[hadm_id] = Admission(subject_id, [])
                if code.strip():
                    if code not in dotted:
                        dotted[code] = add_dot(code, procedure=procedure, icd_version=icd_version)
                    admissions[hadm_id].codes.append(dotted[code])
    return admissions


def read_titles(
    data_dir: str | os.PathLike, layout: Layout = MIMIC3, icd_version: int = 9
) -> tuple[dict[str, str], dict[str, str]]:
    """Dotted code → LONG_TITLE, of diagnoses and of procedures. A table that is not there gives none.

    Raises:
        ValueError: see `stream_table`.
    """
    titles: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for table, procedure in layout.titles:
        try:
            find_table(data_dir, table)
        except FileNotFoundError:
            continue
        for batch in _stream_version(data_dir, table, [layout.code_column, "LONG_TITLE"], layout, icd_version):
            for code, title in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                titles[procedure][add_dot(code, procedure=procedure, icd_version=icd_version)] = title
    return titles[False], titles[True]


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


def listed_admissions(
    hadm_ids: Iterable[str], admissions: Mapping[str, Admission], texts: Container[str]
) -> dict[str, Admission]:
    """The admissions of a split, in the order of its list.

    Those that are not in the tables of codes or have no discharge summary are left out; a warning counts them.

    Args:
        hadm_ids: what `read_hadm_ids` gave.
        admissions: what `read_admissions` gave.
        texts: what `read_discharge_summaries` gave.
    """
    hadm_ids = list(hadm_ids)
    coded = [hadm_id for hadm_id in hadm_ids if hadm_id in admissions]
    found = [hadm_id for hadm_id in coded if hadm_id in texts]
    if len(found) < len(hadm_ids):
        logger.warning(
            "%d of %d listed admissions are left out: %d are not in the tables of codes, %d have no discharge summary.",
            len(hadm_ids) - len(found),
            len(hadm_ids),
            len(hadm_ids) - len(coded),
            len(coded) - len(found),
        )
    return {hadm_id: admissions[hadm_id] for hadm_id in found}


def by_patient(admissions: Mapping[str, Admission]) -> dict[str, Admission]:
    """The admissions sorted by the numbers of patient and admission.

    That is the order of the published data files, which hand-over files between two stages rely on.
    """
    return dict(sorted(admissions.items(), key=lambda item: (int(item[1].subject_id), int(item[0]))))


def note_rows(admissions: Mapping[str, Admission], texts: Mapping[str, str]) -> Iterator[dict]:
    """The rows `note_id`, `subject_id`, `text`, `codes` of a split; a code counts once."""
    for hadm_id, admission in admissions.items():
        yield {
            "note_id": hadm_id,
            "subject_id": admission.subject_id,
            "text": texts[hadm_id],
            "codes": list(dict.fromkeys(admission.codes)),
        }


def described(codes: Sequence[str], titles: Mapping[str, str], parents: Mapping[str, str]) -> ICDCodeSet:
    """The code set of a corpus; one warning counts the codes without a title of their own.

    They are described by the nearest category with a title, and failing that by the code itself.

    Args:
        codes: in the order of the labels.
        titles: code or category → title.
        parents: code → the one above it.
    """
    code_set = ICDCodeSet(codes, titles, parents=parents)
    if code_set.undescribed:
        bare = sum(code_set.describe(code) == code for code in code_set.undescribed)
        logger.warning(
            "%d of %d codes have no title: %d are described by their category's, %d by the code itself.",
            len(code_set.undescribed),
            len(code_set),
            len(code_set.undescribed) - bare,
            bare,
        )
    return code_set


class _CutFileError(Exception):
    """The file ends within a row."""


class _WholeFile(io.RawIOBase):
    """Bytes of a CSV file that must end where a row ends; pyarrow would take the rest of a cut row for a whole one.

    Args:
        file: the bytes of the table.
        needle: leave out stretches of whole rows that do not hold these bytes; looking for them is several times faster
            than parsing. The header stays.
    """

    def __init__(self, file, needle: bytes = b""):
        self._file, self._needle = file, needle
        self._buffer, self._filled = bytearray(_BLOCK_BYTES), 0
        self._inside, self._is_first = False, True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Some whole rows, or b"" at the end; `size` is at least the block size."""
        buffer = self._buffer
        while count := self._file.readinto(memoryview(buffer)[self._filled :]):
            # Faster than bytes.count, which starts anew at each quote.
            new = np.frombuffer(buffer, np.uint8, count, self._filled)
            self._inside ^= bool(np.count_nonzero(new == _QUOTE) % 2)
            filled = self._filled + count
            end = self._end_of_rows(filled)
            if end == 0 and filled == len(buffer):
                end = filled  # a row longer than the block: the parser says so
            wanted = end > 0 and (self._is_first or buffer.find(self._needle, 0, end) >= 0)
            block = bytes(memoryview(buffer)[:end]) if wanted else b""
            self._filled = filled - end
            buffer[: self._filled] = buffer[end:filled]
            if wanted:
                self._is_first = False
                return block
        if self._filled or self._inside:
            raise _CutFileError
        return b""

    def _end_of_rows(self, filled: int) -> int:
        """How many bytes of the buffer are whole rows: up to its last line break outside quotes."""
        inside, end = self._inside, filled
        while (line_break := self._buffer.rfind(b"\n", 0, end)) >= 0:
            inside ^= bool(self._buffer.count(b'"', line_break, end) % 2)
            if not inside:
                return line_break + 1
            end = line_break
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: str):
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb", buffering=0)


def _explain(path: str, columns: Sequence[str]) -> ValueError:
    """What is wrong with a file that could not be read, and in which row: a second, slower reading."""
    rows = 1
    with _WholeFile(_open(path)) as file:
        try:
            # Without threads pyarrow knows the number of a bad row.
            for batch in _open_csv(file, columns, pa.binary(), use_threads=False):
                for column in batch.columns:
                    if (index := _find_bad_utf8(column)) is not None:
                        return ValueError(
                            f"{path}: row {rows + index + 1} holds bytes that are not UTF-8; convert the file, with "
                            "iconv for example."
                        )
                rows += batch.num_rows
        except (_CutFileError, EOFError, zlib.error):
            return _cut_off(path)
        except pa.ArrowInvalid as error:
            # pyarrow's own message ends with the row.
            if found := _BAD_ROW.search(str(error)):
                return ValueError(
                    "{}: row {row} has {got} fields, the header {expected}.".format(path, **found.groupdict())
                )
            if "straddling" in str(error):
                return ValueError(
                    f"{path}: a row after row {rows} is longer than {_BLOCK_BYTES} bytes; is a quote missing?"
                )
    return ValueError(f"{path}: no valid CSV after row {rows}.")


def _find_bad_utf8(column: pa.Array) -> int | None:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        for index, value in enumerate(column.to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError:
                return index
    return None


def _cut_off(path: str) -> ValueError:
    row = _count_whole_rows(path) + 1
    return ValueError(f"{path}: row {row} is cut off by the end of the file; copy the file again.")


def _count_whole_rows(path: str) -> int:
    """The rows, header included, that end before the file does or before it can no longer be decompressed."""
    rows = inside = 0
    for block in _readable_blocks(path):
        parts = block.split(b'"')
        rows += sum(part.count(b"\n") for part in parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
    return rows


def _readable_blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16) if path.endswith(".gz") else None
        while block := file.read(1 << 20):
            if decompressor is None:
                yield block
                continue
            try:
                while block:
                    yield decompressor.decompress(block)
                    block = decompressor.unused_data
                    if decompressor.eof:
                        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
            except zlib.error:
                return


def _stream_version(
    data_dir: str | os.PathLike, name: str, columns: list[str], layout: Layout, icd_version: int
) -> Iterator[pa.RecordBatch]:
    """`stream_table` without the rows of the other ICD version."""
    if layout.version_column is None:
        yield from stream_table(data_dir, name, columns)
        return
    for batch in stream_table(data_dir, name, [*columns, layout.version_column]):
        of_version = pc.equal(pc.utf8_trim_whitespace(batch[layout.version_column]), str(icd_version))
        yield batch.filter(of_version).select(columns)


def _read_header(path: str) -> list[str]:
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            header = next(csv.reader(file), None)
        except (EOFError, zlib.error):
            raise _cut_off(path) from None
    if not header:
        raise ValueError(f"{path} is empty.")
    return header


def _open_csv(
    file: io.RawIOBase, columns: Sequence[str], column_type: pa.DataType, use_threads: bool
) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        file,
        read_options=pa_csv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, column_type),
            strings_can_be_null=False,
        ),
    )
