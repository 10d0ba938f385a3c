"""Notes as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...models.prompting import remove_deidentification_tags

_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_END_AFTER_WORD = re.compile(r"(?<=[a-z0-9)][.!?])\s+(?=[A-Z])")


def split_sentences(text: str, keep_initials: bool = False) -> list[str]:
    """The sentences of a text, with single blanks for all white space.

    A sentence ends with a full stop, an exclamation mark or a question mark, before a capital letter.

    Args:
        text: a note or a paragraph of it.
        keep_initials: end no sentence after a capital letter, as in "J. Smith", nor after a sign: only after a
            lower-case letter, a digit or a closing bracket.

    Examples:
        >>> split_sentences("Seen by J. Smith.\\nWent home.")
        ['Seen by J.', 'Smith.', 'Went home.']
        >>> split_sentences("Seen by J. Smith.\\nWent home.", keep_initials=True)
        ['Seen by J. Smith.', 'Went home.']
    """
    end = _END_AFTER_WORD if keep_initials else _END
    return [part for part in end.split(" ".join(text.split())) if part]


def background_sentences(texts: Iterable[str], words: tuple[int, int] = (4, 25)) -> list[str]:
    """Sentences of unlabelled notes, without section headers, each once: they stand between the mentions of synthetic
    texts.

    Args:
        texts: notes.
        words: fewest and most words of a sentence.

    Examples:
        >>> background_sentences(["She walked with the nurses twice a day. Stable.", "No fever."])
        ['She walked with the nurses twice a day.']
    """
    sentences = []
    for text in texts:
        # Tags may run over several paragraphs.
        for paragraph in remove_deidentification_tags(text).split("\n\n"):
            body = " ".join(line for line in paragraph.splitlines() if not line.strip().endswith(":"))
            sentences += split_sentences(body, keep_initials=True)
    return [sentence for sentence in dict.fromkeys(sentences) if words[0] <= len(sentence.split()) <= words[1]]
