"""Metrics of the order of a note's codes: precision, recall and F1 at k, mean average precision."""

from __future__ import annotations

import numpy as np

from .counting import harmonic_mean
from .inputs import MetricInput, ScoredPairs
from .ordering import count_in_rows, row_blocks


def ranking_metrics(inputs: MetricInput) -> dict[str, float]:
    """`precision_at_{k}`, `recall_at_{k}` and `f1_at_{k}` for each k, then `map`."""
    hits_at, average_precisions = _rank_within_notes(inputs.pairs, inputs.ks)
    golds = np.bincount(inputs.pairs.rows, minlength=len(inputs.pairs.scores))
    metrics = {}
    for k, hits in hits_at.items():
        precision, recall = hits.mean() / k, (hits / np.maximum(golds, 1)).mean()
        metrics[f"precision_at_{k}"] = precision
        metrics[f"recall_at_{k}"] = recall
        metrics[f"f1_at_{k}"] = harmonic_mean(precision, recall)
    metrics["map"] = average_precisions[golds > 0].mean() if golds.any() else np.nan
    return metrics


def _rank_within_notes(pairs: ScoredPairs, ks: list[int]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """For each k the gold codes among the k best of every note, and the average precisions, of shape (notes,)."""
    notes, codes = pairs.scores.shape
    hits_at = {k: np.zeros(notes, dtype=np.int64) for k in ks}
    average_precisions = np.zeros(notes)
    for start, stop in row_blocks(pairs.scores):
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
            best = np.argsort(pairs.original_scores[start:stop][doubtful], axis=1)[:, ::-1][:, : max(undecided)]
            gold = np.take_along_axis(pairs.labels[start:stop][doubtful], best, axis=1) != 0
            for k, where in undecided.items():
                chosen = np.searchsorted(doubtful, where)
                hits_at[k][start + where] = np.count_nonzero(gold[chosen, :k], axis=1)

        average_precisions[start:stop] = _average_precisions(ordered, rows, values)
    return hits_at, average_precisions


def _average_precisions(ordered: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    notes, codes = ordered.shape
    golds = np.bincount(rows, minlength=notes)
    rank = codes - count_in_rows(ordered, rows, values, or_equal=False)
    # The same among the gold codes: sorted within each note, how many are at or above; equal ones share the last rank.
    by_score = np.lexsort((values, rows))
    rows, rank = rows[by_score], rank[by_score]
    gold_rank = np.cumsum(golds)[rows] - np.arange(rows.size)
    equal = (np.diff(rows) == 0) & (np.diff(rank) == 0)
    first_of_equals = np.maximum.accumulate(np.where(np.append(True, ~equal)[: rows.size], np.arange(rows.size), 0))
    precisions = gold_rank[first_of_equals] / rank
    return np.bincount(rows, weights=precisions, minlength=notes) / np.maximum(golds, 1)
