"""One writer for each output folder."""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

LOCK_NAME = ".lock"
_held: dict[Path, tuple[int, list[Path]]] = {}
"""Lock file → the process that holds it (a forked child does not hold its parent's), and the folders made for it."""


class OutputInUseError(ValueError):
    """Another process writes to the folder."""


def lock_output(folder: str | os.PathLike) -> None:
    """Make this process the only one that writes to a folder, until [`unlock_outputs`].

    The folder gets a file with process, host and time. That of a process that has ended on this host is replaced.
    Calling it again changes nothing.

    Raises:
        OutputInUseError: another process has it; the message names process and host.
        OSError: the folder cannot be written.
    """
    path = Path(folder).absolute() / LOCK_NAME
    if path in _held and _held[path][0] == os.getpid() and path.exists():
        return
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {"process": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid()), "at": time.ctime()}
    for _ in range(10):
        if _created(path, json.dumps(mine)):
            _held[path] = os.getpid(), made
            atexit.register(unlock_outputs)
            return
        owner = _owner_of(path)
        if owner is not None and _is_alive(owner):
            raise OutputInUseError(
                f"output_dir={folder} is being written by process {owner.get('process')} on {owner.get('host')}, since "
                f"{owner.get('at')}. Wait for it or pass another --output_dir; if it has ended, delete {path}."
            )
        _remove_stale(path, owner)
    raise OutputInUseError(f"output_dir={folder}: others take {path} all the time; pass another --output_dir.")


def unlock_outputs() -> None:
    """Give the folders of this process back; those that were made for a lock and are empty go, too."""
    for path, (process, made) in list(_held.items()):
        if process == os.getpid():
            owner = _owner_of(path)
            if owner is not None and (owner.get("process"), owner.get("host")) == (process, socket.gethostname()):
                path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                for folder in made:
                    folder.rmdir()
            del _held[path]


def _created(path: Path, content: str) -> bool:
    """Create a file with this content at once; False if there is one."""
    part = path.with_name(f"{path.name}-{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(content)
        os.link(part, path)
        return True
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)


def _remove_stale(path: Path, owner: dict | None) -> None:
    """Remove the lock of a process that has ended; not one that somebody else has put there meanwhile."""
    aside = path.with_name(f"{path.name}-stale-{os.getpid()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _owner_of(aside) != owner:
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _owner_of(path: Path) -> dict | None:
    """What a lock file says; None if it is gone or says nothing."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _is_alive(owner: dict) -> bool:
    """Whether the process runs; those of other hosts are believed to."""
    if owner.get("host") != socket.gethostname():
        return True
    process = owner.get("process")
    if not isinstance(process, int) or process < 1:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _start_of(process) == owner.get("started")  # another one may have its number by now


def _start_of(process: int) -> str | None:
    """When a process started, in the ticks of this host; None where that cannot be read."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
    except OSError:
        return None
    return after_name.split()[19]
