"""Candidates for training notes from first stages that were not fitted to these notes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from .candidates import Candidates, FirstStage


def propose_out_of_fold(
    fit: Callable[[Sequence[str], Sequence[Iterable[str]]], FirstStage],
    notes: Sequence[str],
    codes: Sequence[Iterable[str]],
    top_k: int,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
) -> Candidates:
    """Propose codes for training notes, each note by a first stage that was not fitted to it.

    A first stage is better on the notes that it was fitted to than on new ones. A second stage or the weights of a
    fusion, trained on such candidates, would trust it too much.

    Args:
        fit: notes and their codes → a fitted first stage.
        notes: texts.
        codes: the codes of each note.
        top_k: number of codes.
        groups: the group of each note, such as its patient. Notes of one group are held out together. By default each
            note is a group of its own.
        folds: number of parts of the notes; fewer where there are fewer groups.

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
        >>> candidates = propose_out_of_fold(fit, notes, codes, top_k=2, folds=3)
        >>> candidates.codes_of(1)  # no other note has I10
        ['R05']
    """
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise ImportError("propose_out_of_fold needs scikit-learn: pip install 'kept-hf[retrieval]'.") from error

    groups = range(len(notes)) if groups is None else groups
    if not len(notes) == len(codes) == len(groups):
        raise ValueError(f"notes, codes and groups have {len(notes)}, {len(codes)} and {len(groups)}; pass one each.")
    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise ValueError(f"There are {folds} folds; pass folds=2 or more, and notes of at least two groups.")
    split = GroupKFold(folds, shuffle=True, random_state=0).split(notes, groups=list(groups))
    parts, order = [], []
    for known, held_out in split:
        stage = fit([notes[row] for row in known], [codes[row] for row in known])
        parts.append(stage.propose([notes[row] for row in held_out], top_k))
        order.extend(held_out)
    return Candidates.concatenate(parts).take(np.argsort(order))
