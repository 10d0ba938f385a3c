"""What a model makes of the ways in which notes mention codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def assigned_by_mention(
    note_ids: Sequence[str],
    codes: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    mentions: Mapping[tuple[str, str], str],
) -> list[dict[str, str | int | float]]:
    """How many codes are assigned, by how the note mentions them.

    Args:
        note_ids: (notes,) ids.
        codes: (codes,) dotted codes.
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1.
        threshold: a code is assigned where its score is above it.
        mentions: (note_id, code) → kind of mention.

    Returns:
        A row for each kind, in alphabetical order and apart for gold codes and others, gold ones first: `mention` (the
        kind, or "none"), `gold` (whether the notes carry the codes), `pairs` (of note and code), `assigned` (the share
        that is assigned: right where the codes are gold).

    Examples:
        >>> mentions = {("7", "401.9"): "abbreviation", ("7", "038.9"): "negated"}
        >>> scores, labels = np.array([[2, 3]]), np.array([[0, 1]])
        >>> for row in assigned_by_mention(["7"], ["038.9", "401.9"], scores, labels, 0.5, mentions):
        ...     print(*row.values())
        abbreviation True 1 1.0
        negated False 1 1.0
    """
    assigned, gold = np.asarray(scores) > threshold, np.asarray(labels) != 0
    kinds = np.array([[mentions.get((note_id, code), "none") for code in codes] for note_id in note_ids])
    rows = []
    for is_gold in (True, False):
        for kind in np.unique(kinds[gold == is_gold]):
            members = (kinds == kind) & (gold == is_gold)
            rows.append(
                {
                    "mention": str(kind),
                    "gold": is_gold,
                    "pairs": int(members.sum()),
                    "assigned": float(assigned[members].mean()),
                }
            )
    return rows
