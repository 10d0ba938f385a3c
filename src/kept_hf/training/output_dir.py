"""Whether a command can write where it is told to, before it does any work."""

from __future__ import annotations

import os
from pathlib import Path


def check_output_dir(output_dir: str | os.PathLike, argument: str = "output_dir") -> None:
    """Check that a folder can be written to, or made.

    Args:
        output_dir: the folder, which need not exist.
        argument: what the user passed it as, for messages.

    Raises:
        ValueError: a file is in the way, the folder may not be written, or its name is impossible.

    Examples:
        >>> check_output_dir("outputs/demo")
        >>> check_output_dir(Path(__file__, "demo"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: output_dir=...output_dir.py/demo: .../output_dir.py is a file; pass a folder.
    """
    folder = Path(output_dir).absolute()
    existing = next(path for path in (folder, *folder.parents) if _is_there(path, f"{argument}={output_dir}"))
    if not existing.is_dir():
        kind = "a file" if existing.exists() else "a link to nothing"
        raise ValueError(f"{argument}={output_dir}: {existing} is {kind}; pass a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{argument}={output_dir}: {existing} may not be written; pass another folder.")


def _is_there(path: Path, argument: str) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # too long, in a folder that may not be entered, with a null character
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{argument}: {reason}; pass another folder.") from error
    return True
