"""Predictions that are written note by note, so that a stop loses none, and renamed when they are complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..models.whole_file import write_text

try:
    import fcntl
except ImportError:  # Windows: there a file of another process is known by its being there only
    fcntl = None

BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class UnfinishedPredictions:
    """A file of JSON lines, a note each, that is written to `{output}.part` and renamed at the end.

    Beside it, `{output}.part.json` says what the lines were made with. One process writes at a time. Used as a context:
    afterwards the file is closed, and one without a line is gone.

    Args:
        output: the file, in a folder that exists. It must not exist.
        resume: go on with the `.part` file of a process that was stopped, if there is one.

    Raises:
        ValueError: there is an output; another process writes it; or a process was stopped, and `resume` is False.
        OSError: it cannot be written.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with UnfinishedPredictions(f"{folder}/out.jsonl") as predictions:
        ...         predictions.begin({"threshold": 0.5}, ["a", "b"])
        ...         predictions.write('{"note_id": "a"}')
        ...     with UnfinishedPredictions(f"{folder}/out.jsonl", resume=True) as predictions:
        ...         predictions.begin({"threshold": 0.5}, ["a", "b"])
        ...         predictions.write('{"note_id": "b"}')
        ...         predictions.finish()
        ...     os.listdir(folder), Path(folder, "out.jsonl").read_text().split("\\n")
        0
        1
        (['out.jsonl'], ['{"note_id": "a"}', '{"note_id": "b"}', ''])
    """

    def __init__(self, output: str | os.PathLike, resume: bool = False):
        self.output = Path(output)
        self.path = self.output.with_name(self.output.name + ".part")
        self.record = self.output.with_name(self.output.name + ".part.json")
        if os.path.lexists(self.output):
            raise ValueError(
                f"the {'folder' if self.output.is_dir() else 'file'} exists; pass another one, or delete it"
            )
        self._file = self._open(resume)

    def _open(self, resume: bool) -> BinaryIO:
        try:
            file, is_new = open(self.path, "x+b"), True  # noqa: SIM115 (it stays open)
        except FileExistsError:
            file, is_new = open(self.path, "r+b"), False  # noqa: SIM115
        try:
            if not _lock(file) or not _is_at(file, self.path):
                raise ValueError(f"another process is writing it to {self.path}; wait for it, or pass another one")
            if not is_new and not resume:
                raise ValueError(
                    f"{self.path} was left by a process that was stopped; pass --resume to go on after its last note, "
                    "or delete it"
                )
        except ValueError:
            file.close()
            raise
        return file

    def begin(self, settings: Mapping[str, object], note_ids: Sequence[str]) -> int:
        """Go to the end of what is written, and record what is to be written.

        Args:
            settings: name → value, of all that the lines depend on, as JSON keeps it; a long value as its digest. Names
                are those of the message.
            note_ids: of all notes, in their order.

        Returns:
            How many notes are written already. The rest of a line that was not written to its end is removed.

        Raises:
            ValueError: the lines are of other notes, were made with other settings, or are damaged.
            OSError: they cannot be written.
        """
        written, size = self._written(note_ids)
        if written:
            self._compare_record(settings)
        self._file.truncate(size)
        self._file.seek(size)
        write_text(self.record, json.dumps(settings, indent=1) + "\n")
        return written

    def _written(self, note_ids: Sequence[str]) -> tuple[int, int]:
        """Whole lines, and their bytes."""
        number = size = 0
        self._file.seek(0)
        for line in self._file:
            note_id = _note_id(line)
            if note_id is None:
                if self._file.read(1):
                    raise ValueError(f"{self.path} is damaged in line {number + 1}; delete it")
                break  # the last line, which was not written to its end
            if number == len(note_ids) or note_id != note_ids[number]:
                raise ValueError(
                    f"{self.path} has another note in line {number + 1} than the input; pass the same --input, or "
                    "delete it"
                )
            number, size = number + 1, size + len(line)
        return number, size

    def _compare_record(self, settings: Mapping[str, object]) -> None:
        try:
            before = json.loads(self.record.read_text(encoding="utf-8"))
            known = dict(before)
        except (OSError, ValueError, TypeError):
            raise ValueError(
                f"{self.record}, which says what {self.path} was made with, is lost; delete both"
            ) from None
        changed = [name for name in settings if name not in known or known[name] != settings[name]]
        if changed:
            numbers = (int, float)
            shown = [
                f"{name} ({known.get(name)} before, {settings[name]} now)"
                if isinstance(settings[name], numbers)
                else name
                for name in changed
            ]
            raise ValueError(
                f"{self.path} was made with another {' and another '.join(shown)}; pass the same, or delete it"
            )

    def write(self, line: str) -> None:
        """Write a line; when this returns, the operating system has it.

        Raises:
            ValueError: it cannot be written, on a full disk for example. The lines before stay.
        """
        with self._write_errors():
            # A lone surrogate, such as in a description, becomes \\udXXX, which JSON reads as the same.
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()

    def finish(self) -> None:
        """Bring the lines to the disk and give them their name.

        Raises:
            ValueError: the output exists by now, or they cannot be written. The lines stay where they are.
        """
        with self._write_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            if os.path.lexists(self.output):
                raise ValueError(f"another process has made {self.output}; the predictions are in {self.path}")
            if fcntl is None:  # Windows renames and deletes no file that is open
                self._file.close()
            os.replace(self.path, self.output)
            self.record.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(f"{self.path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> UnfinishedPredictions:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file.closed:
            return
        with contextlib.suppress(OSError):  # of a full disk, once more
            self._file.flush()
        is_empty = _is_at(self._file, self.path) and os.fstat(self._file.fileno()).st_size == 0
        if fcntl is None:
            with contextlib.suppress(OSError):
                self._file.close()
        if is_empty:
            # The record first: what is locked goes last.
            self.record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


def _lock(file: BinaryIO) -> bool:
    """Whether no other process has locked the file; it is this one's until it is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # some network file systems cannot lock
        return error.errno not in BUSY
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether a path is that of an open file, which another process may have renamed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _note_id(line: bytes) -> object:
    """The id of a line that was written to its end; None for any other."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)["note_id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
