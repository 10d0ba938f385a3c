"""What metrics are computed from: checked scores and labels, and how often each code is assigned and gold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .ordering import row_blocks


class ScoredPairs(NamedTuple):
    """Checked input. `rows`, `columns` and `gold_scores` have one entry for each gold pair, in row order."""

    original_scores: np.ndarray  # the scores in the caller's type
    scores: np.ndarray  # the same in a type with a fast sort
    labels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    gold_scores: np.ndarray


class Counts(NamedTuple):
    """Numbers of notes, each of shape (codes,)."""

    hit: np.ndarray
    predicted: np.ndarray
    support: np.ndarray


class MetricInput(NamedTuple):
    """What the metrics of `kept_hf.metrics.registry.METRICS` are computed from."""

    pairs: ScoredPairs
    threshold: float  # a code is assigned where its score is above it
    counts: Counts  # at the threshold
    ks: list[int]  # without those above the number of codes


def check_arrays(scores: np.ndarray, labels: np.ndarray) -> ScoredPairs:
    """Check both arrays of shape (notes, codes), and find the gold pairs.

    Raises:
        ValueError: see `kept_hf.metrics.icd_metrics`.
    """
    scores, labels = _as_matrix("scores", scores), _as_matrix("labels", labels)
    if scores.shape != labels.shape:
        raise ValueError(
            f"scores has shape {scores.shape} and labels {labels.shape}; pass both as (notes, codes) of equal shape."
        )
    # The maximum of an array with a NaN is NaN, and takes no mask of the array's size.
    if np.isnan(scores.max()):
        note, code = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"scores has NaN, first at note {note}, code {code}; pass numbers (-inf for codes ruled out).")
    gold = np.flatnonzero(labels)
    rows, columns = np.divmod(gold, labels.shape[1])
    wrong = np.flatnonzero(labels[rows, columns] != 1)
    if wrong.size:
        note, code = int(rows[wrong[0]]), int(columns[wrong[0]])
        raise ValueError(
            f"labels has {labels[note, code]} at note {note}, code {code}; pass 0 and 1 only (padding with -100 comes "
            "from a collator: leave those positions out of both arrays)."
        )
    original_scores = scores
    if scores.dtype not in (np.float32, np.float64):
        # Half precision is exact in single; integers up to 2**53 are in double.
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    return ScoredPairs(original_scores, scores, labels, rows, columns, scores.reshape(-1)[gold])


def _as_matrix(name: str, values: np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} has rows of unequal length; pass an array of shape (notes, codes).") from error
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; pass an array of shape (notes, codes).")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} and so no entry; pass at least one note and one code.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is of type {array.dtype}; pass numbers.")
    return np.ascontiguousarray(array)


def check_ks(ks: Sequence[int]) -> list[int]:
    """Distinct positive integers, or a ValueError."""
    if isinstance(ks, (int, np.integer)):
        raise ValueError(f"ks={ks} is one number; pass a sequence: ks=({ks},).")
    ks = list(ks)
    for k in ks:
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise ValueError(f"ks has {k!r}; pass positive integers such as (5, 8, 15, 50).")
    return [int(k) for k in dict.fromkeys(ks)]


def check_threshold(threshold: float) -> float:
    """A number, or a ValueError."""
    try:
        number = float(threshold)
    except (TypeError, ValueError):
        number = np.nan
    if np.isnan(number):
        raise ValueError(f"threshold={threshold!r}; pass one number, such as best_micro_f1_threshold returns.")
    return number


def default_threshold(threshold: float | None, scores: np.ndarray) -> float:
    """`threshold`, or 0 where it is None: that of logits.

    Raises:
        ValueError: a `threshold` that is no number.

    Warns:
        UserWarning: it is None, and the scores lie in [0, 1] like probabilities; 0 and 1 alone are decisions.
    """
    if threshold is not None:
        return check_threshold(threshold)
    # Integers are no probabilities. Codes may be ruled out by minus infinity.
    lowest = np.min(scores, where=scores > -np.inf, initial=np.inf) if scores.dtype.kind == "f" else np.inf
    if 0 <= lowest < np.inf and scores.max() <= 1 and ((scores > 0) & (scores < 1)).any():
        warnings.warn(
            "scores lie between 0 and 1 as probabilities do, and without a threshold each code above 0 is assigned; "
            "pass threshold=0.5, or threshold=0.0 if these are logits.",
            stacklevel=3,
        )
    return 0.0


def count_codes(pairs: ScoredPairs, threshold: float) -> Counts:
    """How often each code is assigned above the threshold, gold, and both."""
    codes = pairs.scores.shape[1]
    predicted = np.zeros(codes, dtype=np.int64)
    for start, stop in row_blocks(pairs.original_scores):
        predicted += np.count_nonzero(pairs.original_scores[start:stop] > threshold, axis=0)
    assigned = pairs.original_scores[pairs.rows, pairs.columns] > threshold
    hit = np.bincount(pairs.columns[assigned], minlength=codes)
    return Counts(hit, predicted, np.bincount(pairs.columns, minlength=codes))
