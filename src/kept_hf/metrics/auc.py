"""Areas under the ROC curve, by the rank-sum identity."""

from __future__ import annotations

import numpy as np

from .inputs import MetricInput, ScoredPairs
from .ordering import BLOCK, count_in_all, count_in_rows


def auc_metrics(inputs: MetricInput) -> dict[str, float]:
    """`auc_macro` and `auc_micro`, NaN where they are undefined and for a single note."""
    metrics = {"auc_macro": np.nan, "auc_micro": np.nan}
    if len(inputs.pairs.scores) > 1:
        areas = auc_per_code(inputs.pairs, inputs.counts.support)
        if not np.isnan(areas).all():
            metrics["auc_macro"] = np.nanmean(areas)
        metrics["auc_micro"] = auc_micro(inputs.pairs)
    return metrics


def auc_per_code(pairs: ScoredPairs, support: np.ndarray) -> np.ndarray:
    """Areas under the ROC curves of shape (codes,), by the rank-sum identity; equal scores share their mean rank."""
    notes, codes = pairs.scores.shape
    areas = np.full(codes, np.nan)
    defined = np.flatnonzero((support > 0) & (support < notes))
    by_column = np.argsort(pairs.columns, kind="stable")
    columns, values = pairs.columns[by_column], pairs.gold_scores[by_column]
    size = max(1, BLOCK // notes)
    for start in range(0, defined.size, size):
        block = defined[start : start + size]
        ordered = np.ascontiguousarray(pairs.scores[:, block].T)
        ordered.sort(axis=1)
        first, last = np.searchsorted(columns, [block[0], block[-1] + 1])
        # Codes gold in every note may lie between those of the block.
        here = np.flatnonzero(support[columns[first:last]] < notes) + first
        rows = np.searchsorted(block, columns[here])
        below = count_in_rows(ordered, rows, values[here], or_equal=False)
        up_to = count_in_rows(ordered, rows, values[here], or_equal=True)
        rank_sum = np.bincount(rows, weights=(below + up_to + 1) / 2, minlength=block.size)
        positives = support[block].astype(np.float64)
        areas[block] = (rank_sum - positives * (positives + 1) / 2) / (positives * (notes - positives))
    return areas


def auc_micro(pairs: ScoredPairs) -> float:
    positives = pairs.rows.size
    negatives = pairs.scores.size - positives
    if not positives or not negatives:
        return np.nan
    values, repeats = np.unique(pairs.gold_scores, return_counts=True)
    below, up_to = count_in_all(pairs.scores.reshape(-1), values)
    twice_rank_sum = int(((below + up_to + 1) * repeats).sum())
    return (twice_rank_sum - positives * (positives + 1)) / 2 / positives / negatives
