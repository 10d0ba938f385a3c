"""A plain reading of the public definitions of the metrics, for comparison only: slow, but every line is one sentence
of CAML's definitions. Needs scikit-learn. `tests/test_metrics.py` and `bench_metrics.py` use it.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.metrics import auc, label_ranking_average_precision_score, roc_curve

EPSILON = 1e-10


def reference_metrics(scores, labels, ks=(5, 8, 15, 50), threshold=0.0):
    """The metrics of `kept_hf.metrics.icd_metrics`, by their definitions."""
    scores, labels = np.asarray(scores), np.asarray(labels).astype(np.int64)
    assigned = scores > threshold
    results = {}
    for average, first, second in (
        ("macro", assigned, labels),
        ("micro", assigned.reshape(-1, 1), labels.reshape(-1, 1)),
    ):
        both = np.logical_and(first, second).sum(axis=0).astype(float)
        either = np.logical_or(first, second).sum(axis=0).astype(float)
        precision = np.mean(both / (first.sum(axis=0) + EPSILON))
        recall = np.mean(both / (second.sum(axis=0) + EPSILON))
        results[f"accuracy_{average}"] = np.mean(both / (either + EPSILON))
        results[f"precision_{average}"] = precision
        results[f"recall_{average}"] = recall
        results[f"f1_{average}"] = harmonic_mean(precision, recall)
    results["f1_macro_per_code"] = np.mean([f1_of_code(assigned[:, j], labels[:, j]) for j in range(labels.shape[1])])

    for k in ks:
        if k > labels.shape[1]:
            continue
        best = np.argsort(scores)[:, ::-1][:, :k]
        found = np.array([labels[i, best[i]].sum() for i in range(len(labels))])
        gold = labels.sum(axis=1)
        precision = np.mean(found / k)
        recall = np.mean([f / g if g else 0.0 for f, g in zip(found, gold, strict=True)])
        results[f"precision_at_{k}"], results[f"recall_at_{k}"] = precision, recall
        results[f"f1_at_{k}"] = harmonic_mean(precision, recall)

    results["auc_macro"] = results["auc_micro"] = np.nan
    if len(labels) > 1:
        areas = [area(scores[:, j], labels[:, j]) for j in range(labels.shape[1]) if labels[:, j].any()]
        areas = [value for value in areas if not np.isnan(value)]
        results["auc_macro"] = np.mean(areas) if areas else np.nan
        results["auc_micro"] = area(scores.ravel(), labels.ravel())

    with_gold = labels.any(axis=1)
    results["map"] = (
        # In float64: newer versions of scikit-learn compute in the precision of the scores.
        label_ranking_average_precision_score(labels[with_gold], scores[with_gold].astype(np.float64))
        if with_gold.any()
        else np.nan
    )
    return results


def reference_threshold(scores, labels):
    """The published search for the threshold of the highest micro-F1."""
    scores, labels = np.asarray(scores).reshape(-1), np.asarray(labels).astype(np.int64).reshape(-1)
    order = np.argsort(scores)
    gold = labels.sum()
    correct = gold - np.cumsum(labels[order])
    assigned = len(labels) + 1 - np.arange(1, len(labels) + 1)
    return scores[order][np.argmax(2 * correct / (assigned + gold))]


def harmonic_mean(first, second):
    return 0.0 if first + second == 0 else 2 * first * second / (first + second)


def f1_of_code(assigned, gold):
    both = np.logical_and(assigned, gold).sum()
    return 2 * both / (assigned.sum() + gold.sum()) if both else 0.0


def area(scores, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return auc(false_positive_rate, true_positive_rate)
