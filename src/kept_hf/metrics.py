"""Metrics of ICD coding, after the definitions of CAML's public evaluation code. Pure functions of numpy arrays.

All of them take `scores` and `labels` of shape (notes, codes). A code is assigned to a note where its score is above
the threshold; a score is `logit("yes") - logit("no")` or any other number that grows with the belief in the code.

The gold codes are few beside notes × codes (16 of 8,692 a note in MIMIC-III), so whatever needs the rank of a score is
worked out for the gold codes alone, and the scores are sorted one block at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

ICD_METRIC_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "evaluate_modules", "icd_coding")
"""Folder of the evaluate module: `evaluate.load(ICD_METRIC_PATH)`."""

# CAML adds this to denominators.
_EPSILON = 1e-10
_BLOCK = 1 << 20
_GRID_CELLS = 1 << 20


def icd_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    ks: Sequence[int] = (5, 8, 15, 50),
    threshold: float = 0.0,
) -> dict[str, float]:
    """The metrics that papers on ICD coding report.

    Args:
        scores: (notes, codes) numbers; infinite ones are allowed, NaN is not.
        labels: (notes, codes) of 0 and 1, as integers, booleans or floats. Notes without a gold code are allowed: they
            count as recall 0 at k.
        ks: the numbers of best-scored codes a note for the metrics at k; those above the number of codes are skipped.
        threshold: a code is assigned where its score is above it.

    Returns:
        Metric → value between 0 and 1:

        - `accuracy_macro`, `precision_macro`, `recall_macro`: means over all codes. Accuracy is the Jaccard index,
          gold and assigned / gold or assigned. A code without gold and without assigned notes counts 0, as published.
        - `f1_macro`: CAML's, the harmonic mean of `precision_macro` and `recall_macro`.
        - `f1_macro_per_code`: the mean over all codes of each code's F1, which scikit-learn calls macro-F1. It is never
          above `f1_macro`, and can be far below: compare like with like.
        - `accuracy_micro`, `precision_micro`, `recall_micro`, `f1_micro`: over all pairs of a note and a code.
        - `auc_macro`: mean area under the ROC curve of the codes that have both a note with and a note without them.
          `auc_micro`: the area over all pairs. Both are NaN where there is no such code or pair, and for a single note.
        - `precision_at_{k}`, `recall_at_{k}`: means over the notes; `f1_at_{k}`: harmonic mean of these two means (0
          where both are 0; the published code gives NaN there). Codes with equal scores at the k-th place are taken in
          the order of `np.argsort(scores)[:, ::-1]`, as published.
        - `map`: mean over the notes with gold codes of the average precision. Equal scores share the last of their
          places, so the value does not depend on the order of the codes and never profits from ties (scikit-learn's
          label ranking average precision). NaN where no note has a gold code.

    Raises:
        ValueError: arrays of unequal shape, not two-dimensional or empty; NaN; labels other than 0 and 1; a `ks` that
            is no sequence of positive integers; a `threshold` that is no number.

    Source:
        Mullenbach et al., *Explainable Prediction of Medical Codes from Clinical Text*, NAACL 2018, and its public
        evaluation code, which KEPT uses.

    Examples:
        >>> scores = np.array([[2.0, 1.0, -1.0], [0.5, -2.0, 3.0]])
        >>> labels = np.array([[1, 0, 0], [1, 0, 1]])
        >>> metrics = icd_metrics(scores, labels, ks=(1, 2))
        >>> {name: round(value, 3) for name, value in metrics.items() if "micro" in name}
        {'accuracy_micro': 0.75, 'precision_micro': 0.75, 'recall_micro': 1.0, 'f1_micro': 0.857, 'auc_micro': 0.889}
        >>> round(metrics["precision_at_1"], 3), round(metrics["recall_at_1"], 3), round(metrics["map"], 3)
        (1.0, 0.75, 1.0)
    """
    ks = _check_ks(ks)
    threshold = _check_threshold(threshold)
    pairs = _check_arrays(scores, labels)
    notes, codes = pairs.scores.shape
    counts = _count_codes(pairs, threshold)

    metrics = metrics_of_counts(*counts)
    metrics["auc_macro"] = metrics["auc_micro"] = np.nan
    if notes > 1:
        areas = _auc_per_code(pairs, counts.support)
        if not np.isnan(areas).all():
            metrics["auc_macro"] = np.nanmean(areas)
        metrics["auc_micro"] = _auc_micro(pairs)

    hits_at, average_precisions = _rank_within_notes(pairs, [k for k in ks if k <= codes])
    golds = np.bincount(pairs.rows, minlength=notes)
    for k, hits in hits_at.items():
        precision, recall = hits.mean() / k, (hits / np.maximum(golds, 1)).mean()
        metrics[f"precision_at_{k}"] = precision
        metrics[f"recall_at_{k}"] = recall
        metrics[f"f1_at_{k}"] = _harmonic_mean(precision, recall)
    metrics["map"] = average_precisions[golds > 0].mean() if golds.any() else np.nan
    return {name: float(value) for name, value in metrics.items()}


def metrics_of_counts(hit: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> dict[str, float]:
    """Those of `icd_metrics` that count assigned codes, from the counts alone.

    Args:
        hit: (codes,) numbers of notes in which the code is gold and assigned.
        predicted: (codes,) numbers of notes in which it is assigned.
        support: (codes,) numbers of notes in which it is gold.

    Returns:
        `accuracy_`, `precision_`, `recall_` and `f1_`, each with `macro` and `micro`, and `f1_macro_per_code`.

    Examples:
        >>> metrics = metrics_of_counts(np.array([1, 0]), np.array([1, 1]), np.array([2, 0]))
        >>> round(metrics["precision_micro"], 3), round(metrics["f1_macro"], 3), round(metrics["f1_macro_per_code"], 3)
        (0.5, 0.333, 0.333)
    """
    counts, metrics = _Counts(hit, predicted, support), {}
    for average in ("macro", "micro"):
        hit, predicted, support = counts if average == "macro" else (values.sum(keepdims=True) for values in counts)
        precision, recall = _ratio(hit, predicted).mean(), _ratio(hit, support).mean()
        metrics[f"accuracy_{average}"] = _ratio(hit, predicted + support - hit).mean()
        metrics[f"precision_{average}"] = precision
        metrics[f"recall_{average}"] = recall
        metrics[f"f1_{average}"] = _harmonic_mean(precision, recall)
        if average == "macro":
            metrics["f1_macro_per_code"] = _f1_per_code(counts).mean()
    return {name: float(value) for name, value in metrics.items()}


def best_micro_f1_threshold(scores: np.ndarray, labels: np.ndarray, published: bool = False) -> float:
    """The threshold with the highest micro-F1, to be found on dev data and applied to test data.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.
        published: whether to reproduce the published search with its three faults. It counts one assigned code too
            many at every cut, so that among nearly equal cuts it favours the one that assigns more. It weighs cuts
            between equal scores, which no threshold can make, in the order that the sort happens to give them. It
            never weighs the cut that assigns everything. The default weighs each cut that `score > threshold` can
            make, by its true F1. With thousands of notes and few equal scores the two hardly ever differ. The
            published search sorts all scores with their places and so takes several times as long.

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
    pairs = _check_arrays(scores, labels)
    if published:
        return _published_threshold(pairs)
    values, assigned, correct = _achievable_cuts(pairs)
    if values.size == 0:
        return float(pairs.scores.max())
    f1 = 2 * correct / (assigned + pairs.rows.size)
    # Cuts run from the highest to the lowest: the last of the best is the lowest.
    best = values[f1.size - 1 - np.argmax(f1[::-1])]
    below = None
    for start in range(0, pairs.scores.size, _BLOCK):
        block = pairs.scores.reshape(-1)[start : start + _BLOCK]
        block = block[block < best]
        if block.size:
            below = block.max() if below is None else max(below, block.max())
    return float(_just_below(best, pairs.given.dtype) if below is None else below)


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
    pairs = _check_arrays(scores, labels)
    if not pairs.rows.size:
        return float(pairs.scores.max())
    notes, codes = pairs.scores.shape
    gold = np.zeros((notes, codes), dtype=bool)
    gold[pairs.rows, pairs.columns] = True
    support = np.bincount(pairs.columns, minlength=codes)
    # What assigning a pair, after all pairs of its code with higher scores, adds to the sums over codes.
    precision_gain = np.empty((notes, codes))
    assigned = np.arange(1, notes + 1)[:, None]
    for start in range(0, codes, size := max(1, _BLOCK // notes)):
        block = slice(start, start + size)
        order = np.argsort(-pairs.scores[:, block], axis=0, kind="stable")
        hit = np.cumsum(np.take_along_axis(gold[:, block], order, axis=0), axis=0)
        precision = _ratio(hit, assigned)
        np.put_along_axis(precision_gain[:, block], order, np.diff(precision, axis=0, prepend=0), axis=0)
    order = np.argsort(-pairs.scores.reshape(-1), kind="stable")
    precision = np.cumsum(precision_gain.reshape(-1)[order])
    del precision_gain
    is_gold = gold.reshape(-1)[order]
    recall = np.cumsum(np.where(is_gold, 1 / (support[order % codes] + _EPSILON), 0))
    ordered = pairs.scores.reshape(-1)[order]
    # A threshold cannot part equal scores, and no threshold lies below minus infinity.
    is_cut = np.append(ordered[1:] != ordered[:-1], True) & (ordered > -np.inf)
    f1 = np.where(is_cut, precision * recall / np.maximum(precision + recall, _EPSILON), -1)
    return float(_just_below(ordered[[np.argmax(f1)]], pairs.given.dtype)[0])


def per_code_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float = 0.0) -> dict[str, np.ndarray]:
    """Counts and metrics of each code.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.
        threshold: a code is assigned where its score is above it.

    Returns:
        Name → array of shape (codes,): `support` (gold notes), `predicted` (notes it is assigned to) and
        `true_positives` (both), integers; `precision`, `recall` and `f1`, 0 where undefined; `auc`, NaN where the
        code has no gold note or no other.

    Raises:
        ValueError: as `icd_metrics`.

    Examples:
        >>> metrics = per_code_metrics(np.array([[2.0, 1.0], [0.5, -2.0]]), np.array([[1, 0], [0, 0]]))
        >>> metrics["support"].tolist(), metrics["predicted"].tolist(), metrics["true_positives"].tolist()
        ([1, 0], [2, 1], [1, 0])
        >>> metrics["f1"].round(3).tolist(), metrics["auc"].tolist()
        ([0.667, 0.0], [1.0, nan])
    """
    threshold = _check_threshold(threshold)
    pairs = _check_arrays(scores, labels)
    counts = _count_codes(pairs, threshold)
    return {
        "support": counts.support,
        "predicted": counts.predicted,
        "true_positives": counts.hit,
        "precision": _ratio(counts.hit, counts.predicted),
        "recall": _ratio(counts.hit, counts.support),
        "f1": _f1_per_code(counts),
        "auc": _auc_per_code(pairs, counts.support),
    }


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
    pairs = _check_arrays(scores, labels)
    values, assigned, correct = _achievable_cuts(pairs)
    return correct / assigned, correct / max(pairs.rows.size, 1), _just_below(values, pairs.given.dtype)


class _Pairs(NamedTuple):
    """Checked input. `rows`, `columns` and `gold_scores` have one entry for each gold pair, in row order."""

    given: np.ndarray  # the scores in the caller's type
    scores: np.ndarray  # the same in a type with a fast sort
    labels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    gold_scores: np.ndarray


class _Counts(NamedTuple):
    """Numbers of notes, each of shape (codes,)."""

    hit: np.ndarray
    predicted: np.ndarray
    support: np.ndarray


def _check_arrays(scores: np.ndarray, labels: np.ndarray) -> _Pairs:
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
            "from a collator: leave those places out of both arrays)."
        )
    given = scores
    if scores.dtype not in (np.float32, np.float64):
        # Half precision is exact in single; integers up to 2**53 are in double.
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    return _Pairs(given, scores, labels, rows, columns, scores.reshape(-1)[gold])


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


def _check_ks(ks: Sequence[int]) -> list[int]:
    if isinstance(ks, (int, np.integer)):
        raise ValueError(f"ks={ks} is one number; pass a sequence: ks=({ks},).")
    ks = list(ks)
    for k in ks:
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise ValueError(f"ks has {k!r}; pass positive integers such as (5, 8, 15, 50).")
    return [int(k) for k in dict.fromkeys(ks)]


def _check_threshold(threshold: float) -> float:
    try:
        number = float(threshold)
    except (TypeError, ValueError):
        number = np.nan
    if np.isnan(number):
        raise ValueError(f"threshold={threshold!r}; pass one number, such as best_micro_f1_threshold returns.")
    return number


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / (denominator + _EPSILON)


def _harmonic_mean(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def _f1_per_code(counts: _Counts) -> np.ndarray:
    return 2 * counts.hit / np.maximum(counts.predicted + counts.support, 1)


def _row_blocks(array: np.ndarray) -> Iterator[tuple[int, int]]:
    size = max(1, _BLOCK // array.shape[1])
    for start in range(0, array.shape[0], size):
        yield start, min(start + size, array.shape[0])


def _count_codes(pairs: _Pairs, threshold: float) -> _Counts:
    codes = pairs.scores.shape[1]
    predicted = np.zeros(codes, dtype=np.int64)
    for start, stop in _row_blocks(pairs.given):
        predicted += np.count_nonzero(pairs.given[start:stop] > threshold, axis=0)
    assigned = pairs.given[pairs.rows, pairs.columns] > threshold
    hit = np.bincount(pairs.columns[assigned], minlength=codes)
    return _Counts(hit, predicted, np.bincount(pairs.columns, minlength=codes))


def _count_in_rows(ordered: np.ndarray, rows: np.ndarray, values: np.ndarray, or_equal: bool) -> np.ndarray:
    """How many entries of row `rows[i]` of the row-wise sorted `ordered` are below (or equal to) `values[i]`.

    `np.searchsorted` for many rows at once: halving steps, each taken by all values together.
    """
    width = ordered.shape[1]
    count = np.zeros(rows.size, dtype=np.int64)
    for power in reversed(range(width.bit_length())):
        probe = count + (1 << power)
        found = ordered[rows, np.minimum(probe, width) - 1]
        further = (found <= values) if or_equal else (found < values)
        count = np.where(further & (probe <= width), probe, count)
    return count


def _auc_per_code(pairs: _Pairs, support: np.ndarray) -> np.ndarray:
    """Areas under the ROC curves of shape (codes,), by the rank-sum identity; equal scores share their mean rank."""
    notes, codes = pairs.scores.shape
    areas = np.full(codes, np.nan)
    defined = np.flatnonzero((support > 0) & (support < notes))
    by_column = np.argsort(pairs.columns, kind="stable")
    columns, values = pairs.columns[by_column], pairs.gold_scores[by_column]
    size = max(1, _BLOCK // notes)
    for start in range(0, defined.size, size):
        block = defined[start : start + size]
        ordered = np.ascontiguousarray(pairs.scores[:, block].T)
        ordered.sort(axis=1)
        first, last = np.searchsorted(columns, [block[0], block[-1] + 1])
        # Codes gold in every note may lie between those of the block.
        here = np.flatnonzero(support[columns[first:last]] < notes) + first
        rows = np.searchsorted(block, columns[here])
        below = _count_in_rows(ordered, rows, values[here], or_equal=False)
        up_to = _count_in_rows(ordered, rows, values[here], or_equal=True)
        rank_sum = np.bincount(rows, weights=(below + up_to + 1) / 2, minlength=block.size)
        positives = support[block].astype(np.float64)
        areas[block] = (rank_sum - positives * (positives + 1) / 2) / (positives * (notes - positives))
    return areas


def _auc_micro(pairs: _Pairs) -> float:
    positives = pairs.rows.size
    negatives = pairs.scores.size - positives
    if not positives or not negatives:
        return np.nan
    values, repeats = np.unique(pairs.gold_scores, return_counts=True)
    below, up_to = _count_in_all(pairs.scores.reshape(-1), values)
    twice_rank_sum = int(((below + up_to + 1) * repeats).sum())
    return (twice_rank_sum - positives * (positives + 1)) / 2 / positives / negatives


def _count_in_all(scores: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the flat `scores` are below, and up to, each of the ascending distinct `values`.

    A sort of all scores answers that, but most scores lie far from any of the values. So a fine grid over the range of
    the values counts the scores in each cell, and only those that share a cell with a value are sorted.
    """
    if scores.size > _GRID_CELLS:
        with np.errstate(over="ignore", invalid="ignore"):
            scale = (_GRID_CELLS - 2) / (values[-1] - values[0]) if values[-1] > values[0] else scores.dtype.type(0)
        if 0 < scale < np.inf:
            return _count_by_grid(scores, values, scale)
    ordered = np.sort(scores)
    return np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")


def _count_by_grid(scores: np.ndarray, values: np.ndarray, scale: np.floating) -> tuple[np.ndarray, np.ndarray]:
    low = values[0]

    def cells_of(numbers: np.ndarray) -> np.ndarray:
        # Each step keeps the order, rounding included: a lower score never gets a higher cell. The first and the last
        # cell take what lies outside.
        cells = numbers - low
        cells *= scale
        cells += 1
        np.clip(cells, 0, _GRID_CELLS - 1, out=cells)
        return cells.astype(np.int64)

    # Scores near the ends of the type's range overflow to infinity, which the last cell takes.
    with np.errstate(over="ignore"):
        return _count_by_cells(scores, values, cells_of)


def _count_by_cells(
    scores: np.ndarray, values: np.ndarray, cells_of: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    value_cells = cells_of(values)
    shared = np.zeros(_GRID_CELLS, dtype=bool)
    shared[value_cells] = True
    counts = np.zeros(_GRID_CELLS, dtype=np.int64)
    rest = []
    for start in range(0, scores.size, _BLOCK):
        block = scores[start : start + _BLOCK]
        cells = cells_of(block)
        counts += np.bincount(cells, minlength=_GRID_CELLS)
        rest.append(block[shared[cells]])
    counts[shared] = 0
    in_lower_cells = np.cumsum(counts)[value_cells]
    ordered = np.concatenate(rest)
    ordered.sort()
    return (
        in_lower_cells + np.searchsorted(ordered, values, "left"),
        in_lower_cells + np.searchsorted(ordered, values, "right"),
    )


def _rank_within_notes(pairs: _Pairs, ks: list[int]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """For each k the gold codes among the k best of every note, and the average precisions, of shape (notes,)."""
    notes, codes = pairs.scores.shape
    hits_at = {k: np.zeros(notes, dtype=np.int64) for k in ks}
    average_precisions = np.zeros(notes)
    for start, stop in _row_blocks(pairs.scores):
        first, last = np.searchsorted(pairs.rows, [start, stop])
        rows, values = pairs.rows[first:last] - start, pairs.gold_scores[first:last]
        ordered = np.sort(pairs.scores[start:stop], axis=1)

        undecided: dict[int, np.ndarray] = {}
        for k in ks:
            lowest = ordered[:, codes - k]
            hits = np.bincount(rows[values >= lowest[rows]], minlength=stop - start)
            if k < codes:
                # Where the k-th and the next score are equal and gold codes have it, the order of the sort decides.
                tied = ordered[:, codes - k - 1] == lowest
                undecided[k] = np.unique(rows[tied[rows] & (values == lowest[rows])])
            hits_at[k][start:stop] = hits
        doubtful = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *undecided.values()]))
        if doubtful.size:
            best = np.argsort(pairs.given[start:stop][doubtful], axis=1)[:, ::-1][:, : max(undecided)]
            gold = np.take_along_axis(pairs.labels[start:stop][doubtful], best, axis=1) != 0
            for k, where in undecided.items():
                chosen = np.searchsorted(doubtful, where)
                hits_at[k][start + where] = np.count_nonzero(gold[chosen, :k], axis=1)

        average_precisions[start:stop] = _average_precisions(ordered, rows, values)
    return hits_at, average_precisions


def _average_precisions(ordered: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    notes, codes = ordered.shape
    golds = np.bincount(rows, minlength=notes)
    place = codes - _count_in_rows(ordered, rows, values, or_equal=False)
    # The same among the gold codes: sorted within each note, how many are at or above; equal ones share the last place.
    by_score = np.lexsort((values, rows))
    rows, place = rows[by_score], place[by_score]
    gold_place = np.cumsum(golds)[rows] - np.arange(rows.size)
    equal = (np.diff(rows) == 0) & (np.diff(place) == 0)
    first_of_equals = np.maximum.accumulate(np.where(np.append(True, ~equal)[: rows.size], np.arange(rows.size), 0))
    precisions = gold_place[first_of_equals] / place
    return np.bincount(rows, weights=precisions, minlength=notes) / np.maximum(golds, 1)


def _achievable_cuts(pairs: _Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores of gold codes, descending; how many scores are at or above each; how many of them are gold.

    For a given number of gold codes found the fewest assigned are best, so no other cut can have the highest F1.
    """
    values, repeats = np.unique(pairs.gold_scores, return_counts=True)
    if values.size and values[0] == -np.inf:
        # No threshold lies below.
        values, repeats = values[1:], repeats[1:]
    if not values.size:
        return values, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    below, _ = _count_in_all(pairs.scores.reshape(-1), values)
    return values[::-1], (pairs.scores.size - below)[::-1], np.cumsum(repeats[::-1])


def _just_below(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The next lower numbers of the type in which the caller will compare scores with them."""
    if dtype.kind != "f":
        dtype = np.dtype(np.float64)
    return np.nextafter(values.astype(dtype), dtype.type(-np.inf))


def _published_threshold(pairs: _Pairs) -> float:
    flat = pairs.given.reshape(-1)
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
