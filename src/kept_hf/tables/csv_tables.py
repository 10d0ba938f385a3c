"""Large CSV tables as a stream of columns of text.

Tables (`.csv` or `.csv.gz`) are read block by block with pyarrow, and every value is text: `0389` and `389` are
different codes. A file that ends within a row, or is damaged, is an error. No message quotes a row, since rows hold
note text.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ..models.code_set import separator_hint
from ..models.code_systems import MISSING

# A row must fit; the longest notes have some hundred thousand characters. Larger buffers leave the cache.
_ROW_BYTES = 1 << 20
# Rows are parsed in pieces of this size, and so many pieces are found ahead: fewer cost time, more cost memory.
_PARSED_BYTES = 4 << 20
_AHEAD = 8
# Where wanted rows come closer than this, all rows between are parsed too, which takes less time than to find each.
_DENSE_BYTES = 20_000
_QUOTE = ord('"')
_BAD_ROW = re.compile(r"Row #(?P<row>\d+): Expected (?P<expected>\d+) columns, got (?P<got>\d+)")
_COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,29}")
_FIRST_NUMBER = re.compile(rb'"?\d+"?,')
# What can be searched for needles: a first column that has a number in every row.
_NUMBERED = ("ROW_ID", "")
_OTHER_SEPARATORS = re.compile(r"[;\t|]")
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
_WHOLE = re.compile(r"^([0-9]+)\.0*$")
# Where `wget -r` leaves a release of PhysioNet, in a folder named by its version.
_PROJECTS = ("mimiciii", "mimiciv", "mimic-iv-note")
_DOWNLOADS = ("", "files", "physionet.org/files")


def find_table(data_dir: str | os.PathLike, name: str) -> str:
    """The path of `{name}.csv` or, where that is missing, `{name}.csv.gz` in `data_dir`, in upper or lower case.

    Where `data_dir` has neither, the folders are searched that PhysioNet's `wget` command makes in it, such as
    `physionet.org/files/mimiciv/3.1` and `mimic-iv-note/2.2`.

    Raises:
        FileNotFoundError: neither exists.
        ValueError: several releases have it.
    """
    if path := _table_in(os.fspath(data_dir), name):
        return path
    releases = [
        os.path.join(parent, version)
        for download in _DOWNLOADS
        for project in _PROJECTS
        if os.path.isdir(parent := os.path.join(data_dir, download, project))
        for version in sorted(os.listdir(parent))
    ]
    paths = [path for folder in releases if (path := _table_in(folder, name))]
    if not paths:
        raise FileNotFoundError(f"data_dir={os.fspath(data_dir)!r} holds neither {name}.csv nor {name}.csv.gz.")
    if len(paths) > 1:
        shown = " and ".join(os.path.relpath(path, data_dir) for path in paths)
        raise ValueError(
            f"data_dir={os.fspath(data_dir)!r} has the table {name} of several releases: {shown}; leave one there."
        )
    return paths[0]


def _table_in(folder: str, name: str) -> str | None:
    *parents, table = name.split("/")
    for suffix in (".csv", ".csv.gz"):
        path: str | None = folder
        for part in (*parents, table + suffix):
            path = path and _entry(path, part)
        if path and os.path.isfile(path):
            return path
    return None


def _entry(folder: str, name: str) -> str | None:
    """The path of what has that name in the folder; failing that, of what has it in other letters' case."""
    if os.path.exists(path := os.path.join(folder, name)):
        return path
    entries = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return next((os.path.join(folder, entry) for entry in entries if entry.lower() == name.lower()), None)


def stream_table(
    data_dir: str | os.PathLike, name: str, columns: Sequence[str], numbers: Sequence[str] = (), needle: str = ""
) -> Iterator[pa.Table]:
    """The wanted columns of a table, as text, some rows at a time in file order; an empty field is "".

    Args:
        data_dir: the folder with the table.
        name: the table, without suffix.
        columns: names in upper case; a file may write them in lower case.
        numbers: those of the columns that hold whole numbers or nothing; spaces around these are removed, 100.0 is
            100, and a word for a missing value (NULL, nan) is "".
        needle: rows without these characters may be left out, unread. Without effect in a table whose first
            column is not ROW_ID or the number that pandas writes.

    Raises:
        FileNotFoundError: no such table.
        ValueError: no header, or a missing column; in the rows that are read, one with more or fewer fields than the
            header, with bytes that are not UTF-8, with something else in `numbers`, one that is too long, or truncated
            by the end of the file. The message has the number of the row, the header being row 1.
    """
    path = find_table(data_dir, name)
    header = _read_header(path)
    if header[0].upper() not in _NUMBERED:
        needle = ""
    spelling = {column.upper(): column for column in header}
    missing = [column for column in columns if column not in spelling]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}.")
    wanted, rows = [spelling[column] for column in columns], 1
    with _open(path) as file, closing(_ahead(_WholeRows(file, needle.encode()))) as pieces:
        try:
            for content in pieces:
                table = _parse(content, header, wanted, pa.string()).rename_columns(columns)
                for column in numbers:
                    values = _whole_numbers(pc.utf8_trim_whitespace(table[column]))
                    if (index := _find_no_number(values)) is not None:
                        if needle:
                            # Rows were left out: only a full reading knows the number.
                            yield from stream_table(data_dir, name, columns, numbers)
                        raise ValueError(f"{path}: row {rows + index + 1} has no whole number in {column}.")
                    table = table.set_column(table.column_names.index(column), column, values)
                yield table
                rows += table.num_rows
        except _LongRowError:
            raise ValueError(
                f"{path}: row {_first_broken_row(path)} is longer than {_ROW_BYTES:,} bytes; is a quote not closed?"
            ) from None
        except _QuoteError:
            raise ValueError(f"{path}: its quotes do not pair up; one within a field must be doubled.") from None
        except (_CutFileError, *_DAMAGE, pa.ArrowInvalid):
            raise _explain(path, header, wanted) from None


class _CutFileError(Exception):
    """The file ends within a row."""


class _LongRowError(Exception):
    """A row is longer than the buffer."""


class _QuoteError(Exception):
    """What quotes make of rows cannot be."""


class _WholeRows(Iterable[bytes]):
    """The rows below the header of a CSV file that must end where a row ends, some megabytes at a time.

    Args:
        file: the bytes of the table, from the start.
        needle: leave out most rows that do not hold these bytes; finding them is several times faster than parsing.
    """

    def __init__(self, file: io.BufferedIOBase | io.RawIOBase, needle: bytes = b""):
        self._file, self._needle = file, needle
        # Made once: new memory of this size is handed back to the system, and costs page faults, each time.
        self._buffer = bytearray(_ROW_BYTES)
        self._is_quote = np.empty(_ROW_BYTES, np.uint8)
        self._is_first = np.empty(_ROW_BYTES, bool)

    def __iter__(self) -> Iterator[bytes]:
        pieces, size = [], 0
        for start, end in self._stretches():
            for first, stop in self._wanted(start, end):
                pieces.append(self._buffer[first:stop])
                size += stop - first
            if size >= _PARSED_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if size:  # a table may be its header alone
            yield b"".join(pieces)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Where some whole rows start and stop in the buffer, until all of the file was there."""
        buffer, filled, in_header = self._buffer, 0, True
        while count := self._file.readinto(memoryview(buffer)[filled:]):
            filled += count
            start, end = 0, self._end_of_rows(filled)
            if end == 0 and filled == len(buffer):
                raise _LongRowError
            if end and in_header:
                in_header, start = False, self._row_stop(0, end, inside=False)
            yield start, end
            buffer[: filled - end] = buffer[end:filled]
            filled -= end
        if filled:
            raise _CutFileError

    def _end_of_rows(self, filled: int) -> int:
        """How many bytes of the buffer are whole rows: up to its last line break outside quotes."""
        # Faster than bytes.count, which starts again at each quote.
        np.equal(np.frombuffer(self._buffer, np.uint8, filled), _QUOTE, out=self._is_quote[:filled].view(bool))
        inside, end = self._odd_quotes(0, filled), filled
        while (line_break := self._buffer.rfind(b"\n", 0, end)) >= 0:
            inside ^= self._odd_quotes(line_break, end)
            if not inside:
                return line_break + 1
            end = line_break
        return 0

    def _wanted(self, position: int, end: int) -> Iterator[tuple[int, int]]:
        """Where wanted rows start and stop between two ends of rows."""
        if not self._needle:
            yield position, end
            return
        if position < end:
            self._check_row(position)
        found = self._find_all(position, end)
        if len(found) * _DENSE_BYTES > end - position:
            found = []
            yield position, end
        for hit in found:
            if hit >= position:
                inside = self._odd_quotes(position, hit)
                start, stop = self._row_start(position, hit, inside), self._row_stop(hit, end, inside)
                self._check_row(start)
                if stop < end:
                    self._check_row(stop)
                yield start, stop
                position = stop

    def _find_all(self, start: int, end: int) -> list[int]:
        """Where the needle stands between two ends of rows. Faster than `bytearray.find`, and halts no other thread."""
        content = np.frombuffer(self._buffer, np.uint8, end)
        first, *others = self._needle
        found = np.flatnonzero(np.equal(content[start:], first, out=self._is_first[: end - start])) + start
        found = found[found < end - len(others)]
        for offset, byte in enumerate(others, start=1):
            found = found[content[found + offset] == byte]
        return found.tolist()

    def _check_row(self, start: int) -> None:
        if not _FIRST_NUMBER.match(self._buffer, start):
            raise _QuoteError

    def _row_start(self, first: int, at: int, inside: bool) -> int:
        """Where the row with byte `at`, which is inside quotes or not, starts; another one starts at `first`."""
        while True:
            quote = self._buffer.rfind(b'"', first, at)
            if not inside and (line_break := self._buffer.rfind(b"\n", max(quote, first), at)) >= 0:
                return line_break + 1
            if quote < 0:
                return first
            at, inside = quote, not inside

    def _row_stop(self, at: int, end: int, inside: bool) -> int:
        """Where the row with byte `at`, which is inside quotes or not, stops; another one stops at `end`."""
        while True:
            quote = self._buffer.find(b'"', at, end)
            if not inside and (line_break := self._buffer.find(b"\n", at, end if quote < 0 else quote)) >= 0:
                return line_break + 1
            if quote < 0:
                return end
            at, inside = quote + 1, not inside

    def _odd_quotes(self, start: int, stop: int) -> bool:
        return bool(np.bitwise_xor.reduce(self._is_quote[start:stop]))


def _ahead(items: Iterable[bytes]) -> Iterator[bytes]:
    """The items, the next ones being made in a thread while one is used."""
    iterator, thread = iter(items), ThreadPoolExecutor(1)
    try:
        coming = deque(thread.submit(next, iterator, None) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, iterator, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


def _open(path: str):
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb", buffering=0)


def _read_header(path: str) -> list[str]:
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            header = next(csv.reader(file), [])
        except csv.Error:
            header = [""]
        except _DAMAGE:
            raise _cut_off(path) from None
    if not header:
        raise ValueError(f"{path} is empty.")
    if len(header) == 1 and all(map(_COLUMN_NAME.fullmatch, _OTHER_SEPARATORS.split(header[0].replace('"', "")))):
        hint = separator_hint(header)
        if hint:
            raise ValueError(f"{path} has one column where its names are read by commas{hint}.")
    # pandas and R write a first column without a name, the number of the row.
    if not all(map(_COLUMN_NAME.fullmatch, header[not header[0] :] or [""])):
        # It may be a row with note text.
        raise ValueError(f"{path}: row 1 is no header; write the names of the columns there.")
    return header


def _parse(
    content: bytes, header: list[str], columns: Sequence[str], column_type: pa.DataType, use_threads: bool = True
) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(content),
        # A row must fit into a block.
        read_options=pa_csv.ReadOptions(use_threads=use_threads, block_size=_ROW_BYTES, column_names=header),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, column_type),
            strings_can_be_null=False,
        ),
    )


def _explain(path: str, header: list[str], columns: Sequence[str]) -> ValueError:
    """What is wrong with a file that could not be read, and in which row: a second, slower reading."""
    rows = 1
    with _open(path) as file:
        try:
            for content in _WholeRows(file):
                # Without threads pyarrow knows the number of a bad row.
                table = _parse(content, header, columns, pa.binary(), use_threads=False)
                for column in table.columns:
                    if (index := _find_bad_utf8(column)) is not None:
                        return ValueError(
                            f"{path}: row {rows + index + 1} holds bytes that are not UTF-8; convert the file, with "
                            "iconv for example."
                        )
                rows += table.num_rows
        except (_CutFileError, *_DAMAGE):
            return _cut_off(path)
        except pa.ArrowInvalid as error:
            # pyarrow's own message ends with the row.
            if found := _BAD_ROW.search(str(error)):
                row, expected, got = (int(number) for number in found.groups())
                return ValueError(f"{path}: row {rows + row} has {got} fields, the header {expected}.")
    return ValueError(f"{path}: no valid CSV after row {rows}.")


def _find_bad_utf8(column: pa.ChunkedArray) -> int | None:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        for index, value in enumerate(column.to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError:
                return index
    return None


def whole_number(text: str) -> str:
    """An id as it was before it was read as a number with decimals; any other text without spaces around it.

    Examples:
        >>> whole_number("100.0"), whole_number(" 100 "), whole_number("100.5")
        ('100', '100', '100.5')
    """
    return _WHOLE.sub(r"\1", text.strip())


def _whole_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """`whole_number` of each, and nothing for a missing value."""
    if _find_no_number(values) is None:
        return values
    values = pc.replace_substring_regex(values, _WHOLE.pattern, r"\1")
    return pc.if_else(pc.is_in(pc.utf8_upper(values), pa.array(sorted(MISSING))), "", values)


def _find_no_number(column: pa.ChunkedArray) -> int | None:
    is_number = pc.match_substring_regex(column, r"^[0-9]*$")
    return None if pc.all(is_number).as_py() in (True, None) else is_number.to_pylist().index(False)


def _cut_off(path: str) -> ValueError:
    row = _first_broken_row(path)
    if path.endswith(".gz"):
        return ValueError(f"{path}: row {row} is truncated or the file is damaged there; copy the file again.")
    return ValueError(
        f"{path}: row {row} is truncated by the end of the file, which must be a line break outside quotes; copy the "
        "file again, or end its last row."
    )


def _first_broken_row(path: str) -> int:
    """The number of the first row that is longer than a block, or does not end before the readable part of the file."""
    row, length, inside = 1, 0, 0
    for block in _readable_blocks(path):
        parts = block.split(b'"')
        for number, part in enumerate(parts):
            if (inside + number) % 2 == 0:
                *ends, part = part.split(b"\n")
                for end in ends:
                    if length + len(end) >= _ROW_BYTES:
                        return row
                    row, length = row + 1, 0
            length += len(part) + 1
            if length > _ROW_BYTES:
                return row
        inside = (inside + len(parts) - 1) % 2
    return row


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
