"""Printing that never stops a command."""

from __future__ import annotations

import contextlib
import os
from typing import IO


class LenientStream:
    """A text stream for `print` and `tqdm` that raises nothing.

    Characters that the stream cannot encode are replaced by "?". Once its reader is gone (`| head -1`), or its disk is
    full, nothing more is written to it: a command that prints as it goes does its work to the end.

    Args:
        stream: such as `sys.stdout`; None, which that is where it was closed, prints nothing.

    Examples:
        >>> import io
        >>> ascii_terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        >>> print("37 °C", file=LenientStream(ascii_terminal), flush=True)
        >>> ascii_terminal.buffer.getvalue()
        b'37 ?C\\n'
    """

    def __init__(self, stream: IO[str] | None):
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            shown = text.encode(encoding, "replace").decode(encoding)
            self._attempt(lambda stream: stream.write(shown))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def _attempt(self, action) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except (OSError, ValueError):  # ValueError: it was closed
            # What is buffered goes nowhere: Python would write it once more when it ends, and complain.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
            self._stream = None
