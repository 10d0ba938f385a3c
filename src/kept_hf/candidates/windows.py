"""Windows of notes and names of codes, which the retrievers compare."""

from __future__ import annotations

import numpy as np

from ..models.code_set import ICDCodeSet

WINDOW, STEP = 12, 6
"""Words of a window of a note, and words from the start of one window to the start of the next."""


def word_windows(text: str, size: int = WINDOW, step: int = STEP) -> list[str]:
    """Overlapping windows of a text. The last ends with the text. A shorter text is one window.

    Args:
        text: a note.
        size: words of a window.
        step: words from the start of one window to the start of the next; at most `size`, so that no word is omitted.

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
    """All names of all codes, and the index of the first name of each code."""
    names = [[code_set.describe(code), *code_set.synonyms.get(code, ())] for code in code_set]
    starts = np.cumsum([0, *map(len, names[:-1])])
    return [name for code_names in names for name in code_names], starts
