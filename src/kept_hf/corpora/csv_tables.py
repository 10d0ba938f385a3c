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
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

# A row must fit into a block: the longest notes have some hundred thousand characters. Larger blocks cost page faults.
_BLOCK_BYTES = 1 << 20
_QUOTE = ord('"')
_BAD_ROW = re.compile(r"Row #(?P<row>\d+): Expected (?P<expected>\d+) columns, got (?P<got>\d+)")
_COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,29}")
_FIRST_NUMBER = re.compile(rb'"?\d+"?,')
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


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
    data_dir: str | os.PathLike, name: str, columns: Sequence[str], numbers: Sequence[str] = (), needle: str = ""
) -> Iterator[pa.RecordBatch]:
    """The wanted columns of a table, as text, in batches of rows in file order; an empty field is "".

    Args:
        data_dir: the folder with the table.
        name: the table, without suffix.
        columns: names in upper case; a file may write them in lower case.
        numbers: those of the columns that hold whole numbers or nothing; spaces around these are removed.
        needle: stretches of rows without these characters may be left out, unread. For tables whose first column is a
            number.

    Raises:
        FileNotFoundError: no such table.
        ValueError: no header, or a missing column; in the rows that are read, one with more or fewer fields than the
            header, with bytes that are not UTF-8, with something else in `numbers`, one that is too long, or cut off by
            the end of the file. The message has the number of the row, the header being row 1.
    """
    path = find_table(data_dir, name)
    header = _read_header(path)
    spelling = {column.upper(): column for column in header}
    missing = [column for column in columns if column not in spelling]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}.")
    wanted, rows = [spelling[column] for column in columns], 1
    with _WholeRows(_open(path), needle.encode()) as file:
        try:
            for batch in _open_csv(file, wanted, pa.string(), use_threads=True):
                arrays = dict(zip(columns, batch.columns, strict=True))
                for column in numbers:
                    arrays[column] = pc.utf8_trim_whitespace(arrays[column])
                    if (index := _find_no_number(arrays[column])) is not None:
                        if needle:
                            # Rows were left out: only a full reading knows the number.
                            yield from stream_table(data_dir, name, columns, numbers)
                        raise ValueError(f"{path}: row {rows + index + 1} has no whole number in {column}.")
                yield pa.RecordBatch.from_pydict(arrays)
                rows += batch.num_rows
        except _LongRowError:
            raise ValueError(
                f"{path}: row {_first_broken_row(path)} is longer than {_BLOCK_BYTES:,} bytes; is a quote not closed?"
            ) from None
        except _QuoteError:
            raise ValueError(f"{path}: its quotes do not pair up; one within a field must be doubled.") from None
        except (_CutFileError, *_DAMAGE, pa.ArrowInvalid):
            raise _explain(path, wanted) from None


class _CutFileError(Exception):
    """The file ends within a row."""


class _LongRowError(Exception):
    """A row is longer than a block."""


class _QuoteError(Exception):
    """What quotes make of rows cannot be."""


class _WholeRows(io.RawIOBase):
    """Bytes of a CSV file that must end where a row ends; pyarrow would take the rest of a cut row for a whole one.

    Args:
        file: the bytes of the table.
        needle: leave out stretches of whole rows that do not hold these bytes; looking for them is several times faster
            than parsing. The header stays.
    """

    def __init__(self, file, needle: bytes = b""):
        self._file, self._needle = file, needle
        self._buffer, self._filled = bytearray(_BLOCK_BYTES), 0
        # Made once: new memory of this size is handed back to the system, and costs page faults, each time.
        self._is_quote = np.empty(_BLOCK_BYTES, dtype=bool)
        self._inside, self._left_out, self._is_first = False, False, True
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._ready:
            self._ready = self._next_rows()
        block = self._ready if size < 0 else self._ready[:size]
        self._ready = self._ready[len(block) :]
        return block

    def _next_rows(self) -> bytes:
        """Some whole rows, or b"" at the end."""
        buffer = self._buffer
        while count := self._file.readinto(memoryview(buffer)[self._filled :]):
            # Faster than bytes.count, which starts anew at each quote.
            new = np.frombuffer(buffer, np.uint8, count, self._filled)
            quotes = np.count_nonzero(np.equal(new, _QUOTE, out=self._is_quote[:count]))
            self._inside ^= bool(quotes % 2)
            filled = self._filled + count
            end = self._end_of_rows(filled)
            if end == 0 and filled == len(buffer):
                raise _LongRowError
            wanted = end > 0 and (self._is_first or buffer.find(self._needle, 0, end) >= 0)
            if wanted and self._left_out and not _FIRST_NUMBER.match(buffer):
                raise _QuoteError
            rows = bytes(memoryview(buffer)[:end]) if wanted else b""
            self._filled = filled - end
            buffer[: self._filled] = buffer[end:filled]
            if wanted:
                self._is_first = False
                return rows
            self._left_out |= end > 0
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
    if not all(_COLUMN_NAME.fullmatch(name) for name in header):
        # It may be a row with note text.
        raise ValueError(f"{path}: row 1 is no header; write the names of the columns there.")
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


def _explain(path: str, columns: Sequence[str]) -> ValueError:
    """What is wrong with a file that could not be read, and in which row: a second, slower reading."""
    rows = 1
    with _WholeRows(_open(path)) as file:
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
        except (_CutFileError, *_DAMAGE):
            return _cut_off(path)
        except pa.ArrowInvalid as error:
            # pyarrow's own message ends with the row.
            if found := _BAD_ROW.search(str(error)):
                problem = "row {row} has {got} fields, the header {expected}".format(**found.groupdict())
                return ValueError(f"{path}: {problem}.")
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


def _find_no_number(column: pa.Array) -> int | None:
    is_number = pc.match_substring_regex(column, r"^[0-9]*$")
    return None if pc.all(is_number).as_py() in (True, None) else is_number.to_pylist().index(False)


def _cut_off(path: str) -> ValueError:
    row = _first_broken_row(path)
    if path.endswith(".gz"):
        return ValueError(f"{path}: row {row} is cut off or the file is damaged there; copy the file again.")
    return ValueError(
        f"{path}: row {row} is cut off by the end of the file, which must be a line break outside quotes; copy the "
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
                    if length + len(end) >= _BLOCK_BYTES:
                        return row
                    row, length = row + 1, 0
            length += len(part) + 1
            if length > _BLOCK_BYTES:
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
