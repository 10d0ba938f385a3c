"""The files of a run's report: predictions and metrics per code.

No note text gets into them. Predictions carry the ids of the notes and their codes, so they fall under the same terms
as the data; the table per code holds figures of the whole set.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import per_code_metrics
from ..metrics.inputs import default_threshold
from ..models.whole_file import whole_file
from .escaping import csv_text

if TYPE_CHECKING:
    from ..models.code_set import ICDCodeSet

PER_CODE_COLUMNS = (
    "code",
    "description",
    "train_notes",
    "support",
    "predicted",
    "precision",
    "recall",
    "f1",
    "auc",
)


def write_predictions(
    path: str | os.PathLike,
    note_ids: Sequence[str | int],
    scores: np.ndarray,
    labels: np.ndarray | None,
    code_set: ICDCodeSet,
    threshold: float | None = None,
    max_codes: int | None = 50,
) -> None:
    """Write the best-scored, the assigned and the gold codes of every note as JSON lines.

    A line is `{"note_id": ..., "codes": [...]}`, a code `{"code", "description", "score", "probability", "assigned",
    "gold"}`, from the best score to the worst. `probability` is sigmoid(score), `assigned` is score > threshold; `gold`
    is left out where `labels` is None. Scores are rounded to 6 decimals; an infinite one is written as null.

    Args:
        path: the file to write.
        note_ids: (notes,) ids, text or integers.
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1, or None.
        code_set: the codes, in the order of the columns.
        threshold: a code is assigned where its score is above it; by default 0.
        max_codes: how many of the best-scored codes of a note to write; assigned and gold ones are always written.
            None writes all: gigabytes for a full code set.

    Raises:
        ValueError: shapes, number of ids or number of codes that do not fit; NaN among the scores; a `max_codes` below
            1.

    Examples:
        >>> import tempfile
        >>> from kept_hf.models.code_set import ICDCodeSet
        >>> code_set = ICDCodeSet(["401.9", "038.9"], {"401.9": "Hypertension", "038.9": "Septicemia"})
        >>> path = os.path.join(tempfile.mkdtemp(), "predictions.jsonl")
        >>> write_predictions(path, ["7"], np.array([[-1.0, 2.0]]), np.array([[0, 1]]), code_set)
        >>> with open(path, encoding="utf-8") as file:
        ...     prediction = json.loads(file.readline())
        >>> prediction["note_id"], [code["code"] for code in prediction["codes"]]
        ('7', ['038.9', '401.9'])
        >>> prediction["codes"][0]["probability"], prediction["codes"][0]["assigned"], prediction["codes"][0]["gold"]
        (0.880797, True, True)
    """
    scores = _check_scores(scores, code_set)
    threshold = default_threshold(threshold, scores)
    if len(note_ids) != len(scores):
        raise ValueError(f"note_ids has {len(note_ids)} ids and scores {len(scores)} rows; pass one id per note.")
    if max_codes is not None and max_codes < 1:
        raise ValueError(f"max_codes={max_codes}; pass a positive integer, or None for all codes.")
    gold = None
    if labels is not None:
        gold = np.asarray(labels)
        if gold.shape != scores.shape:
            raise ValueError(f"labels has shape {gold.shape} and scores {scores.shape}; pass equal shapes, or None.")
        gold = gold != 0
    descriptions = [code_set.describe(code) for code in code_set.codes]
    with whole_file(path) as file:
        for row, note_id in enumerate(note_ids):
            if isinstance(note_id, np.generic):
                note_id = note_id.item()
            note_gold = None if gold is None else gold[row]
            line = prediction_line(note_id, scores[row], code_set.codes, descriptions, threshold, max_codes, note_gold)
            file.write(line + "\n")


def prediction_line(
    note_id: str | int,
    scores: np.ndarray,
    codes: Sequence[str],
    descriptions: Sequence[str],
    threshold: float,
    max_codes: int | None = 50,
    gold: np.ndarray | None = None,
) -> str:
    """A line of [`write_predictions`], without its line end.

    Args:
        note_id: of the note.
        scores: (codes,) logits.
        codes, descriptions: in the order of the scores.
        threshold: a code is assigned where its score is above it.
        max_codes: see [`write_predictions`].
        gold: (codes,) truth values, or None.

    Examples:
        >>> prediction_line("7", np.array([-1.0, 2.0]), ["I10", "A41.9"], ["Hypertension", "Sepsis"], 0, max_codes=1)
        '{"note_id": "7", "codes": [{"code": "A41.9", "description": "Sepsis", "score": 2.0, ...}]}'
    """
    entries = _scored_codes(scores, gold, codes, descriptions, threshold, max_codes)
    return json.dumps({"note_id": note_id, "codes": entries}, ensure_ascii=False)


def _scored_codes(
    scores: np.ndarray,
    gold: np.ndarray | None,
    codes: Sequence[str],
    descriptions: Sequence[str],
    threshold: float,
    max_codes: int | None,
) -> list[dict[str, object]]:
    """The entries of one note's codes, from the best score to the worst; `scores` and `gold` are of shape (codes,)."""
    # Stable, so that equal scores keep the order of the code set.
    order = np.argsort(-scores, kind="stable")
    assigned = scores > threshold
    if max_codes is not None:
        kept = assigned.copy() if gold is None else assigned | gold
        kept[order[:max_codes]] = True
        order = order[kept[order]]
    entries = []
    for index in order:
        score = float(scores[index])
        entry = {
            "code": codes[index],
            "description": descriptions[index],
            "score": round(score, 6) if math.isfinite(score) else None,
            # The form with tanh does not overflow.
            "probability": round(0.5 * (1 + math.tanh(score / 2)), 6),
            "assigned": bool(assigned[index]),
        }
        if gold is not None:
            entry["gold"] = bool(gold[index])
        entries.append(entry)
    return entries


def write_per_code(
    path: str | os.PathLike,
    scores: np.ndarray,
    labels: np.ndarray,
    code_set: ICDCodeSet,
    train_counts: Sequence[int] | Mapping[str, int],
    threshold: float | None = None,
) -> None:
    """Write one CSV row per code, with the columns `PER_CODE_COLUMNS`.

    A code or description that a spreadsheet would take for a formula has an apostrophe before it
    ([`kept_hf.reports.escaping.csv_text`]).

    Args:
        path: the file to write.
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1.
        code_set: the codes, in the order of the columns.
        train_counts: train notes of each code, (codes,) in that order, or code → number (0 where missing).
        threshold: a code is assigned where its score is above it; by default 0.

    Raises:
        ValueError: shapes or numbers of codes that do not fit; and as `kept_hf.metrics.per_code_metrics`.

    Examples:
        >>> import tempfile
        >>> from kept_hf.models.code_set import ICDCodeSet
        >>> code_set = ICDCodeSet(["401.9", "038.9"], {"401.9": "Hypertension", "038.9": "Septicemia"})
        >>> path = os.path.join(tempfile.mkdtemp(), "per_code.csv")
        >>> write_per_code(path, np.array([[1.0, -2.0], [-1.0, 3.0]]), np.array([[1, 0], [1, 0]]), code_set, [12, 3])
        >>> with open(path, encoding="utf-8") as file:
        ...     print(file.read().strip())
        code,description,train_notes,support,predicted,precision,recall,f1,auc
        401.9,Hypertension,12,2,1,1.000000,0.500000,0.666667,
        038.9,Septicemia,3,0,1,0.000000,0.000000,0.000000,
    """
    scores = _check_scores(scores, code_set)
    if isinstance(train_counts, Mapping):
        train_counts = [train_counts.get(code, 0) for code in code_set.codes]
    if len(train_counts) != len(code_set):
        raise ValueError(f"train_counts has {len(train_counts)} numbers; pass one for each of {len(code_set)} codes.")
    metrics = per_code_metrics(scores, labels, threshold)
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PER_CODE_COLUMNS)
        for index, code in enumerate(code_set.codes):
            counts = [int(train_counts[index]), int(metrics["support"][index]), int(metrics["predicted"][index])]
            # An undefined AUC is an empty cell, which spreadsheets and pandas read as missing.
            shares = [metrics[name][index] for name in ("precision", "recall", "f1", "auc")]
            writer.writerow(
                [
                    csv_text(code),
                    csv_text(code_set.describe(code)),
                    *counts,
                    *("" if np.isnan(x) else f"{x:.6f}" for x in shares),
                ]
            )


def _check_scores(scores: np.ndarray, code_set: ICDCodeSet) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] != len(code_set):
        raise ValueError(
            f"scores has shape {scores.shape}; pass (notes, codes) with one column for each of the {len(code_set)} "
            "codes of code_set."
        )
    if np.isnan(scores).any():
        raise ValueError("scores has NaN; pass numbers (-inf for codes ruled out).")
    return scores
