"""Metrics that count assigned codes: accuracy, precision, recall and F1, macro and micro."""

from __future__ import annotations

import numpy as np

from .inputs import Counts, MetricInput

# CAML adds this to denominators.
EPSILON = 1e-10


def counting_metrics(inputs: MetricInput) -> dict[str, float]:
    """`metrics_of_counts` of the codes' counts."""
    return metrics_of_counts(*inputs.counts)


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
    counts, metrics = Counts(hit, predicted, support), {}
    for average in ("macro", "micro"):
        hit, predicted, support = counts if average == "macro" else (values.sum(keepdims=True) for values in counts)
        precision, recall = ratio(hit, predicted).mean(), ratio(hit, support).mean()
        metrics[f"accuracy_{average}"] = ratio(hit, predicted + support - hit).mean()
        metrics[f"precision_{average}"] = precision
        metrics[f"recall_{average}"] = recall
        metrics[f"f1_{average}"] = harmonic_mean(precision, recall)
        if average == "macro":
            metrics["f1_macro_per_code"] = f1_per_code(counts).mean()
    return {name: float(value) for name, value in metrics.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A share as CAML computes it: 0 where the denominator is."""
    return numerator / (denominator + EPSILON)


def harmonic_mean(first: float, second: float) -> float:
    """Of two shares; 0 where both are."""
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def f1_per_code(counts: Counts) -> np.ndarray:
    """F1 of shape (codes,); 0 for a code that is neither gold nor assigned."""
    return 2 * counts.hit / np.maximum(counts.predicted + counts.support, 1)
