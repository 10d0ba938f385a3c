"""Gold codes of notes in the spelling of a code set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from datasets import Dataset

from ..models.code_set import ICDCodeSet
from ..models.code_systems import is_missing

logger = logging.getLogger(__name__)


def respell_gold(notes: Dataset, code_set: ICDCodeSet) -> Dataset:
    """The notes with their codes as the code set writes them; codes that it does not have stay as they are.

    Other case, spaces, and dots that are there or not make no difference where one code of the set can be meant. Each
    code of a note is there once, and words for a missing value are left out.

    Args:
        notes: with the column `codes`, lists of text.
        code_set: the codes of the task.

    Raises:
        ValueError: a note whose codes are no list of text; the message has the row.

    Examples:
        >>> notes = Dataset.from_dict({"text": ["Sepsis."], "codes": [["a419 ", "I10"]]})
        >>> respell_gold(notes, ICDCodeSet(["A41.9"]))["codes"][:]
        [['A41.9', 'I10']]
    """
    return _with_codes(notes, lambda code: code_set.find(code) or code)


def restrict_gold(notes: Dataset, code_set: ICDCodeSet, is_training: bool = False) -> Dataset:
    """As [`respell_gold`], without the codes that the code set does not have; a warning counts them.

    Args:
        notes, code_set: as there.
        is_training: the model is to learn from these notes.

    Raises:
        ValueError: as there; and for training, where most gold codes are not in the code set and at most half of its
            codes have a note: they are of two systems, or in two spellings. Where a part of the codes was chosen, these
            have notes.
    """
    respelled = respell_gold(notes, code_set)
    counts = Counter(code for codes in respelled["codes"] for code in codes)
    unknown = {code: count for code, count in counts.items() if code not in code_set}
    if not unknown:
        return respelled
    missed, total, found = sum(unknown.values()), counts.total(), len(counts) - len(unknown)
    example = next(iter(unknown))
    if is_training and missed * 2 > total and found * 2 <= len(code_set):
        raise ValueError(
            f"notes: {missed} of {total} gold codes, such as {example!r}, are not in the code set, and {found} of its "
            f"{len(code_set)} codes, such as {code_set.codes[0]!r}, have a note; pass a code set of the notes' system "
            "in their spelling, or leave the others out with kept_hf.training.gold.restrict_gold(notes, code_set)."
        )
    logger.warning(
        "%d of %d gold codes of the notes, %d different ones such as %r, are not among the %d codes of the code set: "
        "they are left out.",
        missed,
        total,
        len(unknown),
        example,
        len(code_set),
    )
    return _with_codes(respelled, lambda code: code if code in code_set else None)


def _with_codes(notes: Dataset, spell: Callable[[str], str | None]) -> Dataset:
    """The notes with other codes; the same object where nothing changes."""
    before = notes["codes"][:]
    after = [_spelled(codes, row, spell) for row, codes in enumerate(before)]
    if after == before:
        return notes
    feature, names = notes.features["codes"], notes.column_names
    return notes.remove_columns("codes").add_column("codes", after, feature=feature).select_columns(names)


def _spelled(codes: Sequence[str] | None, row: int, spell: Callable[[str], str | None]) -> list[str]:
    if not isinstance(codes, (list, tuple)) or not all(isinstance(code, str) for code in codes):
        raise ValueError(
            f"notes, row {row}: the column codes is no list of text; write the note's codes as text, and [] for a note "
            "without codes."
        )
    found = (spell(code) for code in codes if not is_missing(code))
    return list(dict.fromkeys(code for code in found if code is not None))
