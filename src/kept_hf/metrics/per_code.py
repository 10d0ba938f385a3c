"""Counts and metrics of each code."""

from __future__ import annotations

import numpy as np

from .auc import auc_per_code
from .counting import f1_per_code, ratio
from .inputs import check_arrays, count_codes, default_threshold


def per_code_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float | None = None) -> dict[str, np.ndarray]:
    """Counts and metrics of each code.

    Args:
        scores: (notes, codes) numbers.
        labels: (notes, codes) of 0 and 1.
        threshold: as for `icd_metrics`.

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
    pairs = check_arrays(scores, labels)
    threshold = default_threshold(threshold, pairs.original_scores)
    counts = count_codes(pairs, threshold)
    return {
        "support": counts.support,
        "predicted": counts.predicted,
        "true_positives": counts.hit,
        "precision": ratio(counts.hit, counts.predicted),
        "recall": ratio(counts.hit, counts.support),
        "f1": f1_per_code(counts),
        "auc": auc_per_code(pairs, counts.support),
    }
