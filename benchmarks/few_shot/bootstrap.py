"""The paired bootstrap over notes: is one system better than another on notes like these?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def _of_runs(runs: Sequence[dict], samples: np.ndarray) -> dict[str, np.ndarray]:
    """Metric → its mean over the runs (seeds), for each resample of notes."""
    found = {"map": [], "f1_micro": []}
    for run in runs:
        notes = {name: np.asarray(values) for name, values in run.items()}
        scored = notes["gold"][samples] > 0
        found["map"].append((notes["average_precision"][samples] * scored).sum(axis=1) / scored.sum(axis=1))
        total = (notes["gold"][samples] + notes["assigned"][samples]).sum(axis=1)
        found["f1_micro"].append(2 * notes["hit"][samples].sum(axis=1) / np.maximum(1, total))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def compare(runs: Sequence[dict], others: Sequence[dict], seed: int = 0) -> dict[str, dict[str, float]]:
    """Differences of two systems on the same notes.

    Args:
        runs, others: for each seed of a system `average_precision`, `gold`, `assigned` and `hit` of every note.
        seed: of the resamples.

    Returns:
        For `map` and `f1_micro`: `difference` (first minus second) and the two-sided `p`.

    Examples:
        >>> good = {"average_precision": [1.0, 0.9, 1.0], "gold": [1, 1, 1], "assigned": [1, 1, 1], "hit": [1, 1, 1]}
        >>> bad = {**good, "average_precision": [0.2, 0.3, 0.1], "hit": [0, 0, 1]}
        >>> compare([good], [bad])["map"]["p"] < 0.05
        True
    """
    count = len(runs[0]["gold"])
    every = np.arange(count)[None]
    samples = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    observed = [_of_runs(system, every) for system in (runs, others)]
    resampled = [_of_runs(system, samples) for system in (runs, others)]
    result = {}
    for name in ("map", "f1_micro"):
        differences = resampled[0][name] - resampled[1][name]
        p = 2 * min((differences <= 0).mean(), (differences >= 0).mean())
        difference = float((observed[0][name] - observed[1][name])[0])
        result[name] = {"difference": difference, "p": float(min(1.0, max(p, 1 / RESAMPLES)))}
    return result
