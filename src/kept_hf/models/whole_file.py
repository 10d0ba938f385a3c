"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes its place when the `with` block has ended: see [`whole_path`].

    Args:
        path: of the file, in a folder that exists.
        mode: "w" for text (UTF-8, lines end as they are written) or "wb".

    Yields:
        The file to write to.

    Raises:
        OSError: it cannot be written.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(f"{folder}/a.txt") as file:
        ...         _ = file.write("all of it")
        ...     open(f"{folder}/a.txt").read(), os.listdir(folder)
        ('all of it', ['a.txt'])
    """
    options = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with whole_path(path) as unfinished, open(unfinished, mode, **options) as file:
        yield file


@contextmanager
def whole_path(path: str | os.PathLike) -> Iterator[str]:
    """Where to write a file that takes its place when the `with` block has ended.

    It is written beside its place, brought to the disk and renamed: whoever reads `path`, also after a kill or a full
    disk, finds what was there before, or all of the new content. After an error nothing of it is left.

    Args:
        path: of the file, in a folder that exists.

    Yields:
        The path to write to, with the same ending.

    Raises:
        OSError: it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".part-{os.getpid()}-{name}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole or not at all: see [`whole_path`]."""
    with whole_file(path) as file:
        file.write(text)
