"""The metrics that papers on ICD coding report, all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .auc import auc_metrics
from .counting import counting_metrics
from .inputs import MetricInput, check_arrays, check_ks, count_codes, default_threshold
from .ranking import ranking_metrics

METRICS = (counting_metrics, auc_metrics, ranking_metrics)
"""Functions of a `MetricInput` that give metric → value, in the order of `icd_metrics`. A new metric has its own
file and an entry here."""


def icd_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    ks: Sequence[int] = (5, 8, 15, 50),
    threshold: float | None = None,
) -> dict[str, float]:
    """The metrics that papers on ICD coding report.

    Args:
        scores: (notes, codes) numbers; infinite ones are allowed, NaN is not.
        labels: (notes, codes) of 0 and 1, as integers, booleans or floats. Notes without a gold code are allowed: they
            count as recall 0 at k.
        ks: the numbers of best-scored codes a note for the metrics at k; those above the number of codes are skipped.
        threshold: a code is assigned where its score is above it. By default 0, which suits logits; for probabilities
            pass 0.5.

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
          ranks, so the value does not depend on the order of the codes and never profits from ties (scikit-learn's
          label ranking average precision). NaN where no note has a gold code.

    Raises:
        ValueError: arrays of unequal shape, not two-dimensional or empty; NaN; labels other than 0 and 1; a `ks` that
            is no sequence of positive integers; a `threshold` that is no number.

    Warns:
        UserWarning: no `threshold`, and scores that lie in [0, 1] like probabilities.

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
    ks = check_ks(ks)
    pairs = check_arrays(scores, labels)
    threshold = default_threshold(threshold, pairs.original_scores)
    codes = pairs.scores.shape[1]
    inputs = MetricInput(pairs, threshold, count_codes(pairs, threshold), [k for k in ks if k <= codes])
    return {name: float(value) for metric in METRICS for name, value in metric(inputs).items()}
