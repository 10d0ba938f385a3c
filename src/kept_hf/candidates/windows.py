"""Windows of notes and names of codes, which retrieval compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..models.code_set import ICDCodeSet

if TYPE_CHECKING:
    pass

WINDOW, STEP = 12, 6
"""Words of a window of a note, and from the start of one to that of the next."""


def word_windows(text: str, size: int = WINDOW, step: int = STEP) -> list[str]:
    """Overlapping windows of a text; the last ends with it. One, of all there is, where the text is shorter.

    Args:
        text: a note.
        size: words of a window.
        step: words from the start of one to the start of the next, `size` at most, so that no word is left out.

    Raises:
        ValueError: a `step` that is not between 1 and `size`.

    Examples:
        >>> word_windows("a b c d e f", size=4, step=3)
        ['a b c d', 'c d e f']
    """
    if not 1 <= step <= size:
        raise ValueError(f"step={step!r} and size={size!r}; pass 1 <= step <= size, such as size=12, step=6.")
    words = text.split()
    last = max(0, len(words) - size)
    starts = [*range(0, last, step), last]
    return [" ".join(words[start : start + size]) for start in starts]


def code_names(code_set: ICDCodeSet) -> tuple[list[str], np.ndarray]:
    """All names of all codes, and where those of each code begin."""
    names = [[code_set.describe(code), *code_set.synonyms.get(code, ())] for code in code_set]
    starts = np.cumsum([0, *map(len, names[:-1])])
    return [name for of_code in names for name in of_code], starts
