"""The files of a run's report: predictions, metrics per code, two pictures and the table for the terminal.

No note text gets into any of them. Predictions carry the ids of the notes and their codes, so they fall under the same
terms as the data; the table per code and the pictures hold figures of the whole set.
"""

from __future__ import annotations

import csv
import json
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kept_hf.metrics import micro_precision_recall_curve, per_code_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kept_hf.code_set import ICDCodeSet

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

# First train count of each band of plot_f1_by_frequency; a band ends before the next begins.
_BANDS = (0, 1, 2, 6, 11, 51, 101, 501)
_TABLE_BANDS = (0, 1, 6, 51, 501)
_COLOR, _MARK_COLOR, _LIGHT = "#1f5a94", "#c8501e", "#b5b5b5"


def write_predictions(
    path: str | os.PathLike,
    note_ids: Sequence[str | int],
    scores: np.ndarray,
    labels: np.ndarray | None,
    code_set: ICDCodeSet,
    threshold: float = 0.0,
    max_codes: int | None = 50,
) -> None:
    """Write the scored codes of every note as JSON lines.

    A line is `{"note_id": ..., "codes": [...]}`, a code `{"code", "description", "score", "probability", "assigned",
    "gold"}`, from the best score to the worst. `probability` is sigmoid(score), `assigned` is score > threshold; `gold`
    is left out where `labels` is None. Scores are rounded to 6 decimals; an infinite one is written as null.

    Args:
        path: the file to write.
        note_ids: (notes,) ids, text or integers.
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1, or None.
        code_set: the codes, in the order of the columns.
        threshold: a code is assigned where its score is above it.
        max_codes: how many of the best-scored codes of a note to write; assigned and gold ones are always written.
            None writes all, which for a full code set makes a file of gigabytes.

    Raises:
        ValueError: shapes, number of ids or number of codes that do not fit; NaN among the scores; a `max_codes` below
            1.

    Examples:
        >>> import tempfile
        >>> from kept_hf.code_set import ICDCodeSet
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
    with open(path, "w", encoding="utf-8") as file:
        for row, note_id in enumerate(note_ids):
            note_scores = scores[row]
            # Stable, so that equal scores keep the order of the code set.
            order = np.argsort(-note_scores, kind="stable")
            assigned = note_scores > threshold
            if max_codes is not None:
                wanted = assigned.copy() if gold is None else assigned | gold[row]
                wanted[order[:max_codes]] = True
                order = order[wanted[order]]
            codes = []
            for index in order:
                score = float(note_scores[index])
                entry = {
                    "code": code_set.codes[index],
                    "description": descriptions[index],
                    "score": round(score, 6) if math.isfinite(score) else None,
                    # The form with tanh does not overflow.
                    "probability": round(0.5 * (1 + math.tanh(score / 2)), 6),
                    "assigned": bool(assigned[index]),
                }
                if gold is not None:
                    entry["gold"] = bool(gold[row, index])
                codes.append(entry)
            if isinstance(note_id, np.generic):
                note_id = note_id.item()
            file.write(json.dumps({"note_id": note_id, "codes": codes}, ensure_ascii=False) + "\n")


def write_per_code(
    path: str | os.PathLike,
    scores: np.ndarray,
    labels: np.ndarray,
    code_set: ICDCodeSet,
    train_counts: Sequence[int] | Mapping[str, int],
    threshold: float = 0.0,
) -> None:
    """Write one CSV row per code, with the columns `PER_CODE_COLUMNS`.

    Args:
        path: the file to write.
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1.
        code_set: the codes, in the order of the columns.
        train_counts: train notes of each code, (codes,) in that order, or code → number (0 where missing).
        threshold: a code is assigned where its score is above it.

    Raises:
        ValueError: shapes or numbers of codes that do not fit; and as `kept_hf.metrics.per_code_metrics`.

    Examples:
        >>> import tempfile
        >>> from kept_hf.code_set import ICDCodeSet
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
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PER_CODE_COLUMNS)
        for index, code in enumerate(code_set.codes):
            counts = [int(train_counts[index]), int(metrics["support"][index]), int(metrics["predicted"][index])]
            # An undefined AUC is an empty cell, which spreadsheets and pandas read as missing.
            shares = [metrics[name][index] for name in ("precision", "recall", "f1", "auc")]
            writer.writerow(
                [code, code_set.describe(code), *counts, *("" if np.isnan(x) else f"{x:.6f}" for x in shares)]
            )


def plot_precision_recall(
    path: str | os.PathLike, scores: np.ndarray, labels: np.ndarray, threshold: float = 0.0
) -> None:
    """Draw the micro precision-recall curve with the operating point and lines of equal F1.

    Args:
        path: the picture to write; its ending chooses the format (.png, .svg, .pdf).
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1.
        threshold: the operating point: a code is assigned where its score is above it.

    Raises:
        ValueError: as `kept_hf.metrics.icd_metrics`.
    """
    precision, recall, _ = micro_precision_recall_curve(scores, labels)
    assigned, gold = np.asarray(scores) > threshold, np.asarray(labels) != 0
    hit, assigned, gold = (np.count_nonzero(mask) for mask in (assigned & gold, assigned, gold))
    figure, axes = new_figure(6.4, 5.2)
    for f1 in (0.2, 0.4, 0.6, 0.8):
        # Recall at which precision is 1, up to 1.
        x = np.linspace(f1 / (2 - f1), 1, 200)
        y = f1 * x / (2 * x - f1)
        axes.plot(x, y, color=_LIGHT, linewidth=0.8, zorder=1)
        axes.annotate(
            f"F1 = {f1}",
            (1, y[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color="#777777",
            va="center",
        )
    axes.plot(recall, precision, color=_COLOR, linewidth=1.8, zorder=2, label="all pairs of note and code")
    axes.plot(
        hit / max(gold, 1),
        hit / max(assigned, 1),
        "o",
        color=_MARK_COLOR,
        markersize=8,
        zorder=3,
        clip_on=False,
        label=f"score > {threshold:.3g}: F1 = {2 * hit / max(assigned + gold, 1):.3f}",
    )
    axes.set(xlabel="recall (micro)", ylabel="precision (micro)", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Precision and recall over all thresholds", fontsize=11)
    axes.legend(loc="best", fontsize=9, frameon=True, framealpha=0.9)
    figure.savefig(path, dpi=150)


def plot_f1_by_frequency(path: str | os.PathLike, f1_per_code: np.ndarray, train_counts: Sequence[int]) -> None:
    """Draw each code's F1 against the number of its train notes, in bands, with the mean of each band.

    Args:
        path: the picture to write; its ending chooses the format (.png, .svg, .pdf).
        f1_per_code: (codes,) numbers; NaN leaves a code out, such as one without a gold note in the test set.
        train_counts: (codes,) numbers of train notes.

    Raises:
        ValueError: arrays of unequal length, negative counts, or no code left.
    """
    f1_per_code, train_counts = np.asarray(f1_per_code, dtype=np.float64), np.asarray(train_counts)
    if f1_per_code.ndim != 1 or f1_per_code.shape != train_counts.shape:
        raise ValueError(
            f"f1_per_code has shape {f1_per_code.shape} and train_counts {train_counts.shape}; pass (codes,) for both."
        )
    if train_counts.size and train_counts.min() < 0:
        raise ValueError(f"train_counts has {train_counts.min()}; pass numbers of notes.")
    known = ~np.isnan(f1_per_code)
    if not known.any():
        raise ValueError("f1_per_code has no number; pass the F1 of at least one code.")
    f1_per_code, train_counts = f1_per_code[known], train_counts[known]
    band_of = np.searchsorted(_BANDS, train_counts, side="right") - 1
    present = np.unique(band_of)

    figure, axes = new_figure(max(4.8, 1.6 + 0.95 * present.size), 5.0)
    # Seeded, so that the same run draws the same picture.
    generator = np.random.default_rng(0)
    names = []
    for place, band in enumerate(present):
        values = f1_per_code[band_of == band]
        # Many codes share an F1 of exactly 0: sideways jitter shows how many, and upright jitter would misstate it.
        shifts = generator.uniform(-0.32, 0.32, size=values.size)
        axes.scatter(
            place + shifts,
            values,
            s=max(7, min(18, 3000 / f1_per_code.size)),
            color=_COLOR,
            alpha=0.35,
            linewidths=0,
            clip_on=False,
            zorder=3,  # over the bar of the mean
            label="a code" if place == 0 else None,
        )
        axes.plot(
            [place - 0.36, place + 0.36],
            [values.mean()] * 2,
            color=_MARK_COLOR,
            linewidth=2.5,
            solid_capstyle="butt",
            label="mean of the band" if place == 0 else None,
        )
        axes.annotate(
            f"{values.mean():.2f}",
            (place, values.mean()),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=9,
            color=_MARK_COLOR,
            ha="center",
            va="bottom",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        names.append(f"{_band_name(band)}\n({values.size} code{'s' if values.size != 1 else ''})")
    axes.set_xticks(range(present.size), names, fontsize=9)
    axes.set(xlabel="train notes with the code", ylabel="F1 of the code", ylim=(-0.02, 1.02))
    axes.set_xlim(-0.6, present.size - 0.4)
    axes.set_title("F1 by how often a code occurs in training", fontsize=11)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def f1_by_band(
    train_counts: Sequence[int], support: Sequence[int], f1_per_code: Sequence[float]
) -> list[dict[str, str | int | float]]:
    """The codes' F1 by how often they occur in training: no note, 1 to 5, 6 to 50, 51 to 500, more.

    Args:
        train_counts: (codes,) numbers of train notes.
        support: (codes,) numbers of gold notes in the split that is judged.
        f1_per_code: (codes,) numbers.

    Returns:
        A row for each band that has codes: `train_notes` (the band), `codes`, `gold_notes` (sum of the support),
        `codes_with_gold` (codes with a gold note), and of these `codes_found` (an F1 above 0) and `f1` (the mean, NaN
        where there are none).

    Raises:
        ValueError: arrays of unequal length, negative numbers of notes.

    Examples:
        >>> for row in f1_by_band([0, 3, 5, 700], [1, 4, 0, 90], [0.0, 0.5, 0.0, 0.75]):
        ...     print(*row.values())
        0 1 1 1 0 0.0
        1–5 2 4 1 1 0.5
        over 500 1 90 1 1 0.75
    """
    train_counts, support = np.asarray(train_counts), np.asarray(support)
    f1_per_code = np.asarray(f1_per_code, dtype=np.float64)
    if f1_per_code.ndim != 1 or not f1_per_code.shape == train_counts.shape == support.shape:
        raise ValueError(
            f"train_counts has shape {train_counts.shape}, support {support.shape} and f1_per_code "
            f"{f1_per_code.shape}; pass (codes,) for all."
        )
    for name, counts in (("train_counts", train_counts), ("support", support)):
        if counts.size and counts.min() < 0:
            raise ValueError(f"{name} has {counts.min()}; pass numbers of notes.")
    band_of = np.searchsorted(_TABLE_BANDS, train_counts, side="right") - 1
    rows = []
    for band in np.unique(band_of):
        members = band_of == band
        f1 = f1_per_code[members & (support > 0)]
        rows.append(
            {
                "train_notes": _band_name(band, _TABLE_BANDS),
                "codes": int(members.sum()),
                "gold_notes": int(support[members].sum()),
                "codes_with_gold": f1.size,
                "codes_found": int((f1 > 0).sum()),
                "f1": float(f1.mean()) if f1.size else math.nan,
            }
        )
    return rows


def format_table(rows: Sequence[Mapping[str, object]], digits: int = 4) -> str:
    """Lay out rows as a plain text table for the terminal.

    Args:
        rows: column name → value; the columns come in the order of their first appearance. Floats are printed with
            `digits` decimals, numbers are aligned to the right, a missing value, None and NaN are printed as "-".
        digits: decimals of floats.

    Returns:
        The lines, without a newline at the end.

    Raises:
        ValueError: no rows, or a row without columns only.

    Examples:
        >>> rows = [{"split": "dev", "f1_micro": 0.61234, "notes": 250}, {"split": "test", "f1_micro": 0.6}]
        >>> print(format_table(rows))
        split  f1_micro  notes
        -----  --------  -----
        dev      0.6123    250
        test     0.6000      -
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        raise ValueError("rows has no column; pass at least one mapping of column name to value.")

    def text_of(value: object) -> str:
        if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
            return "-"
        return f"{value:.{digits}f}" if isinstance(value, (float, np.floating)) else str(value)

    aligned = []
    for name in columns:
        values = [row.get(name) for row in rows]
        cells = [name, *(text_of(value) for value in values)]
        width = max(len(cell) for cell in cells)
        right = any(_is_number(value) for value in values) and all(v is None or _is_number(v) for v in values)
        aligned.append(
            [cell.rjust(width) if right else cell.ljust(width) for cell in (cells[0], "-" * width, *cells[1:])]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def _is_number(value: object) -> bool:
    return isinstance(value, (numbers.Real, np.number)) and not isinstance(value, bool)


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


def _band_name(band: int, bands: Sequence[int] = _BANDS) -> str:
    first = bands[band]
    if band == len(bands) - 1:
        return f"over {first - 1}"
    last = bands[band + 1] - 1
    return str(first) if first == last else f"{first}–{last}"


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture of that many inches, in the style of this project."""
    # Importing matplotlib takes a second, and pyplot would choose a window system and keep every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="#e8e8e8", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
