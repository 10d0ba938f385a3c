"""Candidates for training notes from first stages that did not learn from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .candidates import Candidates, FirstStage

if TYPE_CHECKING:
    pass


def propose_out_of_fold(
    fit: Callable[[Sequence[str], Sequence[Iterable[str]]], FirstStage],
    notes: Sequence[str],
    codes: Sequence[Iterable[str]],
    top_k: int,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
) -> Candidates:
    """Propose for training notes, each by a proposer that did not learn from it.

    A proposer knows its own training notes by heart. What comes after it, a second stage or the weights of a fusion,
    would learn to trust it more than new notes bear out.

    Args:
        fit: notes and their codes → a fitted proposer.
        notes: texts.
        codes: the codes of each note.
        top_k: how many codes.
        groups: of each note, such as its patient: notes of one group are left out together. By default each note is
            one of its own.
        folds: into how many parts the notes are cut; fewer where there are fewer groups.

    Returns:
        Candidates in the order of the notes.

    Raises:
        ValueError: fewer than two folds or groups, or lists of different lengths.

    Source: Wolpert, *Stacked Generalization*, Neural Networks 1992.

    Examples:
        >>> from kept_hf import ICDCodeSet
        >>> from kept_hf.candidates.text_classifier import TextClassifier
        >>> code_set = ICDCodeSet(["I10", "R05"])
        >>> notes, codes = ["cough", "hypertension", "cough"], [["R05"], ["I10"], ["R05"]]
        >>> fit = lambda *known: TextClassifier(code_set).fit(*known)
        >>> proposals = propose_out_of_fold(fit, notes, codes, top_k=2, folds=3)
        >>> proposals.codes_of(1)  # no other note has I10
        ['R05']
    """
    from sklearn.model_selection import GroupKFold

    groups = range(len(notes)) if groups is None else groups
    if not len(notes) == len(codes) == len(groups):
        raise ValueError(f"notes, codes and groups have {len(notes)}, {len(codes)} and {len(groups)}; pass one each.")
    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise ValueError(f"There are {folds} folds; pass folds=2 or more, and notes of at least two groups.")
    split = GroupKFold(folds, shuffle=True, random_state=0).split(notes, groups=list(groups))
    parts, order = [], []
    for known, left_out in split:
        proposer = fit([notes[row] for row in known], [codes[row] for row in known])
        parts.append(proposer.propose([notes[row] for row in left_out], top_k))
        order.extend(left_out)
    return Candidates.concatenate(parts).take(np.argsort(order))
