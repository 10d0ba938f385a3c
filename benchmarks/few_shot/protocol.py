"""How a row is measured: what is chosen is chosen on training notes, and the reported notes are scored once.

The training notes are divided into parts. Each part is scored by a system that learnt from the others; on these scores
the threshold (best micro-F1) and the weights of fusions (best mean average precision) are chosen. Then a system learns
from all training notes and scores the reported ones. Only the first seed does both: what it chose serves the others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.fusion import fuse_weighted, tune_weights
from kept_hf.metrics import best_micro_f1_threshold, icd_metrics, per_code_metrics
from kept_hf.reranking import label_matrix, published_fill

from .sets import BenchmarkSet
from .systems import DEPTH, WITHOUT_LABELS, System

BANDS = {"0": (0, 0), "1 to 5": (1, 5), "6 or more": (6, 10**9)}
"""Groups of codes by their training notes."""

KEPT_METRICS = ("f1_micro", "f1_macro", "auc_macro", "map", "precision_at_8", "precision_at_15")
TUNED_DEPTH = 1000
"""Codes of a note that count when weights are tuned."""
ROUNDED = 5


@dataclass(frozen=True)
class Scores:
    """The best codes of the training notes, each scored by a system that did not learn from it, and of the reported.

    Attributes:
        held_out: of the training notes, in their order.
        reported: split → of its notes.
    """

    held_out: Candidates
    reported: Mapping[str, Candidates]

    def parts(self) -> dict[str, Candidates]:
        """File name → candidates."""
        return {"train": self.held_out, **self.reported}


def fold_of(note_id: str, folds: int) -> int:
    """The part of a note: the same for every system and seed."""
    return int(hashlib.sha256(f"few-shot {note_id}".encode()).hexdigest(), 16) % folds


def score_with(
    system: System,
    name: str,
    data: BenchmarkSet,
    seed: int,
    options: Mapping,
    folds: int,
    held_out: Candidates | None = None,
) -> Scores:
    """Let a system learn and score.

    Args:
        system: one of `SYSTEMS`.
        name: its name there.
        data: the set.
        seed: of the system.
        options: of the system.
        folds: parts of the training notes.
        held_out: their scores, if another seed has made them.
    """
    texts = data.train["text"][:]
    fitted = system(data.train, data.code_set, seed, **options)
    reported = {split: fitted(notes["text"][:]) for split, notes in data.reported.items()}
    if held_out is not None:
        return Scores(held_out, reported)
    if name in WITHOUT_LABELS:
        return Scores(fitted(texts), reported)
    parts = np.array([fold_of(note_id, folds) for note_id in data.train["note_id"]])
    found, order = [], []
    for part in range(folds):
        (others,), (own,) = np.nonzero(parts != part), np.nonzero(parts == part)
        scorer = system(data.train.select(others), data.code_set, seed, **options)
        found.append(scorer([texts[note] for note in own]))
        order += own.tolist()
    return Scores(Candidates.concatenate(found).take(np.argsort(order)), reported)


def fuse(parts: Sequence[Scores], data: BenchmarkSet) -> tuple[Scores, list[float]]:
    """Join the scores of several systems by weights that the training notes choose.

    Returns:
        The joined scores, and the weights.
    """
    weights = tune_weights([part.held_out.top(TUNED_DEPTH) for part in parts], data.train["codes"][:])
    return Scores(
        fuse_weighted([part.held_out for part in parts], weights, DEPTH),
        {split: fuse_weighted([part.reported[split] for part in parts], weights, DEPTH) for split in parts[0].reported},
    ), weights


def evaluate(scores: Scores, data: BenchmarkSet) -> dict:
    """Figures of the reported notes, and of the held-out training notes, on which the threshold was chosen.

    Returns:
        "held_out" → metrics. Split → `codes` (of the set) and, where the set has them, `listed` (the codes of all
        splits): the threshold, metrics of `icd_metrics`, `f1_of_gold_codes` (mean F1 of the codes with a gold note) and
        the same by number of training notes, and for each note its average precision and its counts of codes (gold,
        assigned, both).
    """
    own = _evaluate_codes(scores.held_out, scores.held_out, data.train, data.train, data.code_set.codes)
    report = {"held_out": own["metrics"]}
    for split, notes in data.reported.items():
        lists = {"codes": data.code_set.codes, **({"listed": data.listed} if data.listed else {})}
        report[split] = {
            name: _evaluate_codes(scores.held_out, scores.reported[split], data.train, notes, codes)
            for name, codes in lists.items()
        }
    return report


def _evaluate_codes(
    held_out: Candidates, reported: Candidates, train: Dataset, notes: Dataset, codes: Sequence[str]
) -> dict:
    tuned, scored = (_matrix(candidates, codes) for candidates in (held_out, reported))
    threshold = best_micro_f1_threshold(tuned, _labels(train, codes))
    labels = _labels(notes, codes)
    metrics = icd_metrics(scored, labels, ks=[k for k in (8, 15) if k <= len(codes)], threshold=threshold)
    # Gold codes that no system is asked about are missed.
    missed = np.array([len(set(of_note)) for of_note in notes["codes"]]) - labels.sum(axis=1)
    assigned, hit = (scored > threshold).sum(axis=1), ((scored > threshold) & (labels > 0)).sum(axis=1)
    gold = labels.sum(axis=1) + missed
    average_precisions = _average_precisions(scored, labels) * labels.sum(axis=1) / np.maximum(gold, 1)
    metrics = {name: metrics[name] for name in KEPT_METRICS if name in metrics}
    metrics["f1_micro"] = 2 * hit.sum() / max(1, assigned.sum() + gold.sum())
    metrics["map"] = average_precisions[gold > 0].mean()
    f1, counts = per_code_metrics(scored, labels, threshold)["f1"], _labels(train, codes).sum(axis=0)
    has_notes = labels.sum(axis=0) > 0
    metrics["f1_of_gold_codes"] = f1[has_notes].mean()
    for name, (low, high) in BANDS.items():
        members = has_notes & (counts >= low) & (counts <= high)
        metrics[f"f1_of_gold_codes, training notes: {name}"] = f1[members].mean() if members.any() else None
    return {
        "threshold": float(threshold),
        "metrics": {name: None if value is None else round(float(value), ROUNDED) for name, value in metrics.items()},
        "notes": {
            "average_precision": [round(float(value), ROUNDED) for value in average_precisions],
            "gold": gold.tolist(),
            "assigned": assigned.tolist(),
            "hit": hit.tolist(),
        },
    }


def _matrix(candidates: Candidates, codes: Sequence[str]) -> np.ndarray:
    """`(notes, codes)`; codes that are no candidates have a score below all others."""
    matrix = candidates.scores_matrix(np.float32(published_fill(candidates.scores)))
    known = {code: index for index, code in enumerate(candidates.codes)}
    wanted = np.array([known.get(code, -1) for code in codes])
    found = matrix[:, wanted]
    found[:, wanted < 0] = matrix.min()
    return found


def _labels(notes: Dataset, codes: Sequence[str]) -> np.ndarray:
    known = set(codes)
    return label_matrix([[code for code in of_note if code in known] for of_note in notes["codes"]], codes)


def _average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each note; 0 without a gold code."""
    pairs = zip(scores[:, None], labels[:, None], strict=True)
    return np.nan_to_num(
        [icd_metrics(row, gold, ks=(), threshold=0.0)["map"] if gold.any() else 0 for row, gold in pairs]
    )


def timed(function, *arguments):
    """What a function returns, and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, round(time.perf_counter() - start, 1)
