"""Thresholds that are best on dev data, and the curve of all thresholds."""

from __future__ import annotations

import numpy as np

from .counting import EPSILON, ratio
from .inputs import ScoredPairs, check_arrays
from .ordering import BLOCK, count_in_all


def best_micro_f1_threshold(scores: np.ndarray, labels: np.ndarray, published: bool = False) -> float:
    """The threshold with the highest micro-F1, to be found on dev data and applied to test data.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.
        published: whether to reproduce the published search with its three faults. It counts one assigned code too
            many at every cut, so that among nearly equal cuts it favours the one that assigns more. It considers cuts
            between equal scores, which no threshold can make, in the order that the sort happens to give them. It
            never considers the cut that assigns everything. The default considers each cut that `score > threshold` can
            make, by its true F1. With thousands of notes and few equal scores the two hardly ever differ. The
            published search sorts all scores with their positions and so takes several times as long.

    Returns:
        A value of `scores`: the highest one that is not assigned. Among equally good cuts the lowest, as published. Two
        ends: where assigning everything is best, the next number below the lowest score; where no code is gold, the
        highest score, so that nothing is assigned (the published search returns the lowest).

    Raises:
        ValueError: as `icd_metrics`.

    Source:
        `find_threshold_micro` of MSMN's (Yuan et al., ACL 2022) and KEPT's public code.

    Examples:
        >>> scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
        >>> best_micro_f1_threshold(scores, np.array([[1, 1, 0, 1, 0]]))
        1.0

        One of two gold codes among 1 assigned (F1 2/3) beats both among 5 (F1 4/7):

        >>> labels = np.array([[1, 0, 0, 0, 1, 0]])
        >>> scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
        >>> best_micro_f1_threshold(scores, labels), best_micro_f1_threshold(scores, labels, published=True)
        (4.0, 0.0)
    """
    pairs = check_arrays(scores, labels)
    if published:
        return _published_threshold(pairs)
    values, assigned, correct = _achievable_cuts(pairs)
    if values.size == 0:
        return float(pairs.scores.max())
    f1 = 2 * correct / (assigned + pairs.rows.size)
    # Cuts run from the highest to the lowest: the last of the best is the lowest.
    best = values[f1.size - 1 - np.argmax(f1[::-1])]
    below = None
    for start in range(0, pairs.scores.size, BLOCK):
        block = pairs.scores.reshape(-1)[start : start + BLOCK]
        block = block[block < best]
        if block.size:
            below = block.max() if below is None else max(below, block.max())
    return float(_just_below(best, pairs.original_scores.dtype) if below is None else below)


def best_macro_f1_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the highest `f1_macro` (CAML's), to be found on dev data and applied to test data.

    Where most codes are rare, the threshold with the best micro-F1 is decided by the few frequent ones. All scores are
    sorted twice: some seconds and four times the memory of the scores at the size of MIMIC-III.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.

    Returns:
        A number just below a score, so that this score is assigned; where no code is gold, the highest score, so that
        nothing is. Among equally good cuts the highest.

    Raises:
        ValueError: as `icd_metrics`.

    Examples:
        >>> scores = np.array([[5.0, 1.0], [4.0, 0.0], [3.0, -1.0]])
        >>> labels = np.array([[1, 1], [1, 0], [1, 0]])
        >>> round(best_macro_f1_threshold(scores, labels), 3), best_micro_f1_threshold(scores, labels)
        (1.0, 0.0)
    """
    pairs = check_arrays(scores, labels)
    if not pairs.rows.size:
        return float(pairs.scores.max())
    notes, codes = pairs.scores.shape
    gold = np.zeros((notes, codes), dtype=bool)
    gold[pairs.rows, pairs.columns] = True
    support = np.bincount(pairs.columns, minlength=codes)
    # What assigning a pair, after all pairs of its code with higher scores, adds to the sums over codes.
    precision_gain = np.empty((notes, codes))
    assigned = np.arange(1, notes + 1)[:, None]
    for start in range(0, codes, size := max(1, BLOCK // notes)):
        block = slice(start, start + size)
        order = np.argsort(-pairs.scores[:, block], axis=0, kind="stable")
        hit = np.cumsum(np.take_along_axis(gold[:, block], order, axis=0), axis=0)
        precision = ratio(hit, assigned)
        np.put_along_axis(precision_gain[:, block], order, np.diff(precision, axis=0, prepend=0), axis=0)
    order = np.argsort(-pairs.scores.reshape(-1), kind="stable")
    precision = np.cumsum(precision_gain.reshape(-1)[order])
    del precision_gain
    is_gold = gold.reshape(-1)[order]
    recall = np.cumsum(np.where(is_gold, 1 / (support[order % codes] + EPSILON), 0))
    ordered = pairs.scores.reshape(-1)[order]
    # A threshold cannot part equal scores, and no threshold lies below minus infinity.
    is_cut = np.append(ordered[1:] != ordered[:-1], True) & (ordered > -np.inf)
    f1 = np.where(is_cut, precision * recall / np.maximum(precision + recall, EPSILON), -1)
    return float(_just_below(ordered[[np.argmax(f1)]], pairs.original_scores.dtype)[0])


def micro_precision_recall_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Micro precision and recall at every threshold that matters.

    Those are the cuts just below the score of a gold code: any other one assigns more codes for the same recall.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.

    Returns:
        `precision`, `recall` and `thresholds`, each of shape (distinct scores of gold codes,), from the highest
        threshold to the lowest, so that recall rises. `scores > thresholds[i]` has `precision[i]` and `recall[i]`.
        Empty where no code is gold.

    Raises:
        ValueError: as `icd_metrics`.

    Examples:
        >>> scores = np.array([[3.0, 2.0, 1.0, 0.0]])
        >>> precision, recall, thresholds = micro_precision_recall_curve(scores, np.array([[1, 0, 1, 0]]))
        >>> precision.round(3).tolist(), recall.tolist(), thresholds.round(3).tolist()
        ([1.0, 0.667], [0.5, 1.0], [3.0, 1.0])
        >>> [int((scores > threshold).sum()) for threshold in thresholds]
        [1, 3]
    """
    pairs = check_arrays(scores, labels)
    values, assigned, correct = _achievable_cuts(pairs)
    return correct / assigned, correct / max(pairs.rows.size, 1), _just_below(values, pairs.original_scores.dtype)


def _achievable_cuts(pairs: ScoredPairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores of gold codes, descending; how many scores are at or above each; how many of them are gold.

    For a given number of gold codes found the fewest assigned are best, so no other cut can have the highest F1.
    """
    values, repeats = np.unique(pairs.gold_scores, return_counts=True)
    if values.size and values[0] == -np.inf:
        # No threshold lies below.
        values, repeats = values[1:], repeats[1:]
    if not values.size:
        return values, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    below, _ = count_in_all(pairs.scores.reshape(-1), values)
    return values[::-1], (pairs.scores.size - below)[::-1], np.cumsum(repeats[::-1])


def _just_below(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The next lower numbers of the type in which the caller will compare scores with them."""
    if dtype.kind != "f":
        dtype = np.dtype(np.float64)
    return np.nextafter(values.astype(dtype), dtype.type(-np.inf))


def _published_threshold(pairs: ScoredPairs) -> float:
    flat = pairs.original_scores.reshape(-1)
    order = np.argsort(flat)
    gold = np.flatnonzero(pairs.labels.reshape(-1)[order])
    # Between two gold codes the published F1 grows with the cut, so its maximum lies just below a gold code.
    cuts = gold - 1
    correct = np.arange(gold.size, 0, -1)[cuts >= 0]
    cuts = cuts[cuts >= 0]
    if not cuts.size:
        return float(flat[order[0]])
    published_assigned = flat.size - cuts
    return float(flat[order[cuts[np.argmax(2 * correct / (published_assigned + gold.size))]]])
