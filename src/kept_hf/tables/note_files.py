"""Notes in files: tables with a note a row, text files with a note each, folders of text files.

Tables are CSV, JSON lines or parquet. Every value of a CSV is text: `038.9` and `38.9` are different codes. No message
quotes a note or an id: it names the file and the row, and columns only where they look like names.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..models.code_set import separator_hint

TABLES = (".csv", ".jsonl", ".parquet")
"""Endings of tables. A .csv or a .jsonl may be compressed: .csv.gz, .jsonl.gz."""

_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
_COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ .-]{0,29}")


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
        ValueError: a table that cannot be read, with the row where that is known; or that lacks a column.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "notes.csv")
        ...     _ = path.write_text("text,codes\\nTreated for sepsis.,A41.9;N17.9\\n")
        ...     [(place.removeprefix(folder), row) for place, row in read_rows(path, ["text"], ["codes"])]
        [('/notes.csv, row 2', {'text': 'Treated for sepsis.', 'codes': 'A41.9;N17.9'})]
    """
    names, rows = _open_table(Path(path), [*columns, *optional], argument)
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"{argument} has {os.fspath(path)!r}, which has no column {', '.join(missing)}; {_shown(names)}."
        )
    return rows


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


def read_notes(path: str | os.PathLike, argument: str = "path") -> tuple[list[str], list[str]]:
    """Ids and texts of a table with the column `text` and, if there is one, `note_id`; of a text file; or of a folder.

    Args:
        path: a note of a text file or of a folder of .txt files has the file's name without ending for its id. One of a
            table that gives none has the number of its row, "row 3" or "line 3".
        argument: what the user passed the path as, for messages.

    Returns:
        Ids and texts, as many of both.

    Raises:
        FileNotFoundError: a path that does not exist, or a folder without .txt files.
        ValueError: a file that cannot be read; a row without text or with an id that came before; or no notes.
    """
    path = Path(path)
    if table_kind(path) is None:
        files = _text_files(path, argument)
        return [file.stem for file in files], [_read_text(file, argument) for file in files]
    note_ids, texts, seen = [], [], set()
    for place, row in read_rows(path, ["text"], ["note_id"], argument):
        if not isinstance(row["text"], str):
            found = "empty" if row["text"] is None else f"of type {type(row['text']).__name__}"
            raise ValueError(
                f'{argument} has {place}: expected {{"note_id": ..., "text": "..."}}, but text is {found}.'
            )
        note_id = row.get("note_id")
        note_ids.append(place.rpartition(", ")[2] if note_id in (None, "") else str(note_id))
        texts.append(row["text"])
        if note_ids[-1] in seen:
            raise ValueError(f"{argument} has {place}: the note_id has occurred before.")
        seen.add(note_ids[-1])
    if not texts:
        raise ValueError(f"{argument} has {os.fspath(path)!r}, which holds no notes.")
    return note_ids, texts


def _texts_of(path: Path, column: str, argument: str) -> Iterable[str | None]:
    if not (path.is_file() and table_kind(path)):
        return [_read_text(file, argument) for file in _text_files(path, argument)]
    names, rows = _open_table(path, [column], argument)
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


Rows = Iterator[tuple[str, dict[str, object]]]


def _open_table(path: Path, wanted: Sequence[str], argument: str) -> tuple[list[str], Rows]:
    """The names of all columns, and the rows with those wanted that are there."""
    kind = table_kind(path)
    if not path.is_file():
        raise FileNotFoundError(f"{argument} has {os.fspath(path)!r}, which does not exist.")
    if kind is None:
        raise ValueError(
            f"{argument} has {os.fspath(path)!r}, which is no table; pass one that ends in {', '.join(TABLES)}."
        )

    def unreadable(why: str) -> ValueError:
        return ValueError(f"{argument} has {os.fspath(path)!r}, which cannot be read as {kind[1:]}: {why}.")

    try:
        return _READERS[kind](path, wanted, unreadable)
    except UnicodeDecodeError:
        raise _not_utf8(path, argument) from None
    except _DAMAGE:
        raise unreadable("it is truncated or damaged; copy it again") from None


def _open_text(path: Path) -> io.TextIOBase:
    compressed = path.name.lower().endswith(".gz")
    # newline="": what stands in quotes keeps its line breaks.
    return (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig", newline="")


def _read_csv(path: Path, wanted: Sequence[str], unreadable: Callable[[str], ValueError]) -> tuple[list[str], Rows]:
    rows, number = [], 0
    with _open_text(path) as file, _fields_of_any_size():
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise unreadable("it holds no notes")
            repeated = [name for name in wanted if header.count(name) > 1]
            if repeated:
                raise unreadable(f"its header has {repeated[0]} twice")
            columns = [(name, header.index(name)) for name in wanted if name in header]
            for number, fields in enumerate(reader, start=2):
                if fields and len(fields) != len(header):
                    raise unreadable(f"row {number} has {len(fields)} fields, the header {len(header)}")
                if fields:
                    rows.append((number, [fields[column] for _, column in columns]))
        except csv.Error:
            # Its own message may quote the row.
            raise unreadable(f"after row {max(number, 1)} the quotes do not pair up") from None
    names = [name for name, _ in columns]
    return header, (
        (f"{os.fspath(path)}, row {number}", dict(zip(names, values, strict=True))) for number, values in rows
    )


@contextlib.contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Notes may be longer than what `csv` takes by default."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_json_lines(
    path: Path, wanted: Sequence[str], unreadable: Callable[[str], ValueError]
) -> tuple[list[str], Rows]:
    names: dict[str, None] = {}
    rows = []
    with _open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise unreadable(f"line {number} is no JSON") from None
            if not isinstance(row, dict):
                raise unreadable(f'line {number} is no JSON object, such as {{"text": "..."}}')
            names.update(dict.fromkeys(row))
            rows.append((number, {name: row.get(name) for name in wanted}))
    if not rows:
        raise unreadable("it holds no notes")
    present = [name for name in wanted if name in names]
    return list(names), (
        (f"{os.fspath(path)}, line {number}", {name: row[name] for name in present}) for number, row in rows
    )


def _read_parquet(path: Path, wanted: Sequence[str], unreadable: Callable[[str], ValueError]) -> tuple[list[str], Rows]:
    try:
        names = parquet.ParquetFile(path).schema_arrow.names
        table = parquet.read_table(path, columns=[name for name in wanted if name in names])
    except (pa.ArrowException, OSError):
        # Arrow's message may hold a value.
        raise unreadable("it is damaged, or of another format") from None
    rows = (row for batch in table.to_batches(max_chunksize=1000) for row in batch.to_pylist())
    return names, ((f"{os.fspath(path)}, row {number}", row) for number, row in enumerate(rows, start=1))


_READERS = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
