"""Notes in files: tables with a note a row, text files with a note each, folders of text files.

Tables are CSV, JSON lines or parquet. Every value of a CSV is text: `038.9` and `38.9` are different codes. No message
quotes a note or an id: it names the file and the row, and columns only where they look like names. A lone surrogate,
half of a character that JSON writes as two (`"\\ud83d"`), is no text: nothing could write it again.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..models.code_set import separator_hint

TABLES = (".csv", ".jsonl", ".parquet")
"""Endings of tables. A .csv or a .jsonl may be compressed: .csv.gz, .jsonl.gz."""

WIDEST_CHARACTER = 12
"""Characters with which JSON lines may write one: `"\\ud83d\\ude00"`."""
OTHER_COLUMNS = 1_000_000
"""Characters that a line may have beside its note, where the length of notes is limited."""
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
_OF_NO_CSV = re.compile(r'[^",\r\n]+')
_COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ .-]{0,29}")


@dataclass
class SkippedRows:
    """Rows of a table, or files of a folder, that are left out since they cannot be used.

    Attributes:
        kind: "row", "line" or "file".
        numbers: why → which ones; the first has the number 1.

    Examples:
        >>> skipped = SkippedRows("line", {"not UTF-8": [2, 3, 4, 9], "no JSON": [7]})
        >>> len(skipped), str(skipped)
        (5, '5 lines left out: not UTF-8 (2-4, 9), no JSON (7)')
    """

    kind: str = "row"
    numbers: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.numbers.values()))

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} ({_ranges(numbers)})" for reason, numbers in self.numbers.items())
        return f"{len(self)} {self.kind}{'' if len(self) == 1 else 's'} left out: {reasons}"


def _ranges(numbers: Sequence[int]) -> str:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def table_kind(path: str | os.PathLike) -> str | None:
    """The ending out of `TABLES` that a file has; None for any other file.

    Examples:
        >>> table_kind("notes.jsonl.gz"), table_kind("NOTES.CSV"), table_kind("note.txt")
        ('.jsonl', '.csv', None)
    """
    name = os.fspath(path).lower()
    if name.endswith((".csv.gz", ".jsonl.gz")):
        name = name.removesuffix(".gz")
    return next((ending for ending in TABLES if name.endswith(ending)), None)


def read_rows(
    path: str | os.PathLike, columns: Sequence[str], optional: Sequence[str] = (), argument: str = "path"
) -> Iterator[tuple[str, dict[str, object]]]:
    """The rows of a table, each with where it stands.

    Args:
        path: a file that `table_kind` knows.
        columns: those that the table must have.
        optional: further ones that are read.
        argument: what the user passed the file as, for messages.

    Returns:
        Pairs of a place, such as "notes.csv, row 3" (the header being row 1), "notes.jsonl, line 3" or "notes.parquet,
        row 3" (without a header), and a dict of the wanted columns. A value is text in a CSV, and what JSON or parquet
        have there in others; None where a row of JSON lines lacks the column.

    Raises:
        ValueError: a table that cannot be read, or holds a lone surrogate, with the row where that is known; or that
            lacks a column.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "notes.csv")
        ...     _ = path.write_text("text,codes\\nTreated for sepsis.,A41.9;N17.9\\n")
        ...     [(place.removeprefix(folder), row) for place, row in read_rows(path, ["text"], ["codes"])]
        [('/notes.csv, row 2', {'text': 'Treated for sepsis.', 'codes': 'A41.9;N17.9'})]
    """
    table = _Table(Path(path), argument)
    names, rows = _open_table(table, [*columns, *optional])
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"{argument} has {os.fspath(path)!r}, which has no column {', '.join(missing)}; {_shown(names)}."
        )
    return ((table.place(number), row) for number, row in rows)


def read_texts(paths: Sequence[str | os.PathLike], text_column: str = "text", argument: str = "paths") -> list[str]:
    """Notes of files: a table has one a row, every other file is one, a folder has .txt files.

    Args:
        paths: files and folders.
        text_column: of tables.
        argument: what the user passed the paths as, for messages.

    Returns:
        The notes that are not blank, in the order of the paths.

    Raises:
        FileNotFoundError: a path that does not exist, or a folder without .txt files.
        ValueError: a file that is not UTF-8, or holds no text, or a table that cannot be read or lacks the column.
    """
    notes = []
    for path in map(Path, paths):
        found = [text for text in _texts_of(path, text_column, argument) if text and text.strip()]
        if not found:
            raise ValueError(f"{argument} has {os.fspath(path)!r}, which holds no text; leave it out.")
        notes += found
    return notes


def read_notes(
    path: str | os.PathLike,
    argument: str = "path",
    max_note_chars: int | None = None,
    skipped: SkippedRows | None = None,
) -> tuple[list[str], list[str]]:
    """Ids and texts of a table with the column `text` and, if there is one, `note_id`; of a text file; or of a folder.

    Args:
        path: a note of a text file or of a folder of .txt files has the file's name without ending for its id. One of a
            table that gives none has the number of its row, "row 3" or "line 3".
        argument: what the user passed the path as, for messages.
        max_note_chars: characters that a note may have; any number by default. Text files and lines that could hold no
            other note are not even kept in memory.
        skipped: takes the rows that cannot be used, and the others are read; without it they are errors.

    Returns:
        Ids and texts, as many of both.

    Raises:
        FileNotFoundError: a path that does not exist, or a folder without .txt files.
        ValueError: a file that cannot be read; a row without text, with an id that came before, with bytes of another
            encoding, with a lone surrogate, or with a note that is too long; or no notes.
    """
    table = _Table(Path(path), argument, max_note_chars, skipped)
    if table_kind(path) is None:
        notes = _notes_of_files(table)
    else:
        names, rows = _open_table(table, ["text", "note_id"])
        if "text" not in names and not (skipped and not names):
            raise ValueError(f"{argument} has {os.fspath(path)!r}, which has no column text; {_shown(names)}.")
        notes = _notes_of_rows(table, rows)
    note_ids = list(notes)
    if not note_ids:
        why = f"; {skipped}" if skipped else ""
        raise ValueError(f"{argument} has {os.fspath(path)!r}, which holds no notes{why}.")
    return note_ids, list(notes.values())


def _notes_of_rows(table: _Table, rows: Rows) -> dict[str, str]:
    """Id → text."""
    notes: dict[str, str] = {}
    for number, row in rows:
        note, note_id = row.get("text"), row.get("note_id")
        if not isinstance(note, str):
            found = "empty" if note is None else f"of type {type(note).__name__}"
            table.refuse(number, "no text", f'expected {{"note_id": ..., "text": "..."}}, but text is {found}.')
            continue
        if isinstance(note_id, (list, dict)):
            kind = type(note_id).__name__
            table.refuse(number, "no id", f"the note_id is of type {kind}; pass text or a number.")
            continue
        note_id = f"{table.kind} {number}" if note_id in (None, "") else str(note_id)
        if note_id in notes:
            table.refuse(number, "repeated note_id", "the note_id has occurred before.")
        elif table.max_note_chars is not None and len(note) > table.max_note_chars:
            table.refuse_length(number, f"a note of {len(note):,} characters")
        else:
            notes[note_id] = note
    return notes


def _notes_of_files(table: _Table) -> dict[str, str]:
    """Id → text."""
    notes: dict[str, str] = {}
    for number, file in enumerate(_text_files(table.path, table.argument), start=1):
        size = file.stat().st_size
        if table.max_note_chars is not None and size > 4 * table.max_note_chars:  # bytes of the widest character
            table.refuse_length(number, f"a note of {size:,} bytes", file)
            continue
        try:
            text = _read_text(file, table.argument)
        except ValueError as error:
            if table.skipped is None:
                raise
            table.refuse(number, "not UTF-8", str(error))
            continue
        if not is_unicode(file.stem):
            table.refuse(number, "file name not UTF-8", "its name is not UTF-8; rename it.", file)
        elif table.max_note_chars is not None and len(text) > table.max_note_chars:
            table.refuse_length(number, f"a note of {len(text):,} characters", file)
        else:
            notes[file.stem] = text
    return notes


def _texts_of(path: Path, column: str, argument: str) -> Iterable[str | None]:
    if not (path.is_file() and table_kind(path)):
        return [_read_text(file, argument) for file in _text_files(path, argument)]
    names, rows = _open_table(_Table(path, argument), [column])
    if column not in names:
        raise ValueError(f"text_column={column!r} is no column of {os.fspath(path)!r}; {_shown(names)}.")
    texts = [row[column] for _, row in rows]
    others = sorted({type(text).__name__ for text in texts} - {"str", "NoneType"})
    if others:
        raise ValueError(
            f"text_column={column!r} of {os.fspath(path)!r} holds values of type {', '.join(others)}; write the notes "
            "as text."
        )
    return texts


def _text_files(path: Path, argument: str) -> list[Path]:
    """The file, or the .txt files of the folder, sorted."""
    # Not ._note.txt, which macOS writes beside note.txt on other disks.
    files = sorted(path.glob("[!.]*.txt")) if path.is_dir() else [path] * path.is_file()
    if not files:
        what = "is a folder without .txt files" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"{argument} has {os.fspath(path)!r}, which {what}; pass text files, a note each, folders of them, or "
            f"tables ({', '.join(TABLES)})."
        )
    return files


def _read_text(path: Path, argument: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _not_utf8(path, argument) from None


def _not_utf8(path: Path, argument: str) -> ValueError:
    return ValueError(f"{argument} has {os.fspath(path)!r}, which is not UTF-8; convert it.")


def _shown(names: Sequence[str]) -> str:
    """What the columns are; a first row that is no header may be a note."""
    hint = separator_hint(names)
    if hint and all(map(_COLUMN_NAME.fullmatch, re.split(r"[;\t|]", names[0]))):
        return f"it has: {names[0]}{hint}"
    # pandas writes a first column without a name.
    if not all(map(_COLUMN_NAME.fullmatch, names[not names[0] :])):
        return "its first row is no header; write the names of the columns there"
    return f"it has: {', '.join(names)}"


def is_unicode(text: str) -> bool:
    """Whether text is free of lone surrogates, so that it can be written.

    Examples:
        >>> is_unicode("fever"), is_unicode("\\ud83d")
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Rows = Iterator[tuple[int, dict[str, object]]]
"""Numbers of the rows, and the columns wanted."""


@dataclass
class _Table:
    """A file or folder of notes, what the user passed it as, and what becomes of rows that cannot be used."""

    path: Path
    argument: str
    max_note_chars: int | None = None
    skipped: SkippedRows | None = None

    def __post_init__(self):
        self.kind = {None: "file", ".jsonl": "line"}.get(table_kind(self.path), "row")
        if self.skipped is not None:
            self.skipped.kind = self.kind

    @property
    def longest_line(self) -> int | None:
        """Characters that a line may have at most if it is to hold a note that is not too long."""
        return None if self.max_note_chars is None else WIDEST_CHARACTER * self.max_note_chars + OTHER_COLUMNS

    def place(self, number: int) -> str:
        return f"{os.fspath(self.path)}, {self.kind} {number}"

    def unreadable(self, why: str) -> ValueError:
        """An error about the whole table."""
        kind = table_kind(self.path)[1:]
        return ValueError(f"{self.argument} has {os.fspath(self.path)!r}, which cannot be read as {kind}: {why}.")

    def refuse(self, number: int, reason: str, problem: str | ValueError, file: Path | None = None) -> None:
        """Raise an error, or take note that a row is skipped."""
        if self.skipped is not None:
            self.skipped.numbers.setdefault(reason, []).append(number)
        elif isinstance(problem, ValueError):
            raise problem
        else:
            place = self.place(number) if file is None else repr(os.fspath(file))
            raise ValueError(f"{self.argument} has {place}: {problem}")

    def refuse_length(self, number: int, what: str, file: Path | None = None) -> None:
        problem = f"{what}, and max_note_chars={self.max_note_chars:,} allows no more; shorten it, or raise the limit."
        self.refuse(number, f"longer than {self.max_note_chars:,} characters", problem, file)

    def refuse_bytes(self, number: int) -> None:
        problem = f"which is not UTF-8; convert it ({self.kind} {number} is the first that is not)."
        self.refuse(number, "not UTF-8", ValueError(f"{self.argument} has {os.fspath(self.path)!r}, {problem}"))

    def is_writable(self, number: int, row: dict[str, object]) -> bool:
        """Whether the text of a row is free of lone surrogates; if not, it is refused."""
        for name, value in row.items():
            if isinstance(value, str) and not is_unicode(value):
                problem = f"the column {name} has a lone surrogate, half of a character; replace it."
                self.refuse(number, "lone surrogate", problem)
                return False
        return True


def _open_table(table: _Table, wanted: Sequence[str]) -> tuple[list[str], Rows]:
    """The names of all columns, and the rows with those wanted that are there."""
    kind = table_kind(table.path)
    if not table.path.is_file():
        raise FileNotFoundError(f"{table.argument} has {os.fspath(table.path)!r}, which does not exist.")
    if kind is None:
        raise ValueError(
            f"{table.argument} has {os.fspath(table.path)!r}, which is no table; pass one that ends in "
            f"{', '.join(TABLES)}."
        )
    try:
        return _READERS[kind](table, wanted)
    except _DAMAGE:
        raise table.unreadable("it is truncated or damaged; copy it again") from None


def _open_text(path: Path) -> io.TextIOBase:
    """Bytes of another encoding come as lone surrogates, so that the rows that have them can be named."""
    compressed = path.name.lower().endswith(".gz")
    # newline="": what stands in quotes keeps its line breaks.
    return (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """The lines of a file. Of one that is too long only the beginning is kept in memory, and what a CSV is made of.

    Attributes:
        has_cut: whether a line was too long since this was last set to False.
    """

    def __init__(self, file: io.TextIOBase, longest: int | None):
        self._file, self._longest, self.has_cut = file, longest, False

    def __iter__(self) -> Iterator[str]:
        if self._longest is None:
            yield from self._file
            return
        while line := self._file.readline(self._longest + 1):
            part, shortened = line, [line]
            while len(part) > self._longest and not part.endswith(("\n", "\r")):
                self.has_cut = True
                part = self._file.readline(self._longest + 1)
                shortened.append(_OF_NO_CSV.sub("x", part))
            yield "".join(shortened)


def _read_csv(table: _Table, wanted: Sequence[str]) -> tuple[list[str], Rows]:
    rows, number = [], 0
    with _open_text(table.path) as file, _fields_of_any_size():
        lines = _Lines(file, table.longest_line)
        reader = csv.reader(iter(lines), strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise table.unreadable("it holds no notes")
            if lines.has_cut:
                raise table.unreadable(f"its header has more than {table.longest_line:,} characters")
            if not is_unicode("".join(header)):
                raise _not_utf8(table.path, table.argument)
            repeated = [name for name in wanted if header.count(name) > 1]
            if repeated:
                raise table.unreadable(f"its header has {repeated[0]} twice")
            columns = [(name, header.index(name)) for name in wanted if name in header]
            for number, fields in enumerate(reader, start=2):
                if lines.has_cut:
                    lines.has_cut = False
                    table.refuse_length(number, f"a line of more than {table.longest_line:,} characters")
                elif not fields:
                    continue
                elif not is_unicode("".join(fields)):
                    table.refuse_bytes(number)
                elif len(fields) != len(header):
                    problem = f"row {number} has {len(fields)} fields, the header {len(header)}"
                    table.refuse(number, "another number of fields", table.unreadable(problem))
                else:
                    rows.append((number, [fields[column] for _, column in columns]))
        except csv.Error:
            # Its own message may quote the row.
            raise table.unreadable(f"after row {max(number, 1)} the quotes do not pair up") from None
    names = [name for name, _ in columns]
    return header, ((number, dict(zip(names, values, strict=True))) for number, values in rows)


@contextlib.contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Notes may be longer than what `csv` takes by default."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_json_lines(table: _Table, wanted: Sequence[str]) -> tuple[list[str], Rows]:
    names: dict[str, None] = {}
    rows = []
    with _open_text(table.path) as file:
        lines = _Lines(file, table.longest_line)
        for number, line in enumerate(lines, start=1):
            if lines.has_cut:
                lines.has_cut = False
                table.refuse_length(number, f"more than {table.longest_line:,} characters")
            elif not is_unicode(line):
                table.refuse_bytes(number)
            elif line.strip():
                row, problem = _json_object(line)
                if row is None:
                    table.refuse(number, "no JSON object", table.unreadable(f"line {number} {problem}"))
                    continue
                names.update(dict.fromkeys(row))
                row = {name: row.get(name) for name in wanted}
                if table.is_writable(number, row):
                    rows.append((number, row))
    if not rows and not table.skipped:
        raise table.unreadable("it holds no notes")
    present = [name for name in wanted if name in names]
    return list(names), ((number, {name: row[name] for name in present}) for number, row in rows)


def _json_object(line: str) -> tuple[dict | None, str]:
    """The object of a line of JSON, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError:
        return None, "is no JSON"
    return (row, "") if isinstance(row, dict) else (None, 'is no JSON object, such as {"text": "..."}')


def _read_parquet(table: _Table, wanted: Sequence[str]) -> tuple[list[str], Rows]:
    try:
        names = parquet.ParquetFile(table.path).schema_arrow.names
        content = parquet.read_table(table.path, columns=[name for name in wanted if name in names])
    except (pa.ArrowException, OSError):
        # Arrow's message may hold a value.
        raise table.unreadable("it is damaged, or of another format") from None
    return names, _rows_of(table, content)


def _rows_of(table: _Table, content: pa.Table) -> Rows:
    number = 0
    for batch in content.to_batches(max_chunksize=1000):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            rows = [_row_of(batch, index) for index in range(batch.num_rows)]
        for row in rows:
            number += 1
            if row is None:
                table.refuse_bytes(number)
            elif table.is_writable(number, row):
                yield number, row


def _row_of(batch: pa.RecordBatch, index: int) -> dict[str, object] | None:
    """A row; None if it has bytes of another encoding."""
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None


_READERS = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
