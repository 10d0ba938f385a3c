"""Several systems on the same notes: metrics at thresholds tuned elsewhere, and F1 by how often a code was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ..metrics import best_micro_f1_threshold, icd_metrics, per_code_metrics
from .bands import f1_by_band
from .figures import new_figure

Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Scores and labels of the notes on which a threshold is tuned, then of those that are judged by it."""


def halves(num_notes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the notes, drawn at random: where there is no test split, each is judged by what the other tuned.

    Returns:
        Places of the notes, ascending; the first half has one more of an odd number.

    Examples:
        >>> [half.size for half in halves(5)]
        [3, 2]
    """
    order = np.random.default_rng(seed).permutation(num_notes)
    return np.sort(order[: (num_notes + 1) // 2]), np.sort(order[(num_notes + 1) // 2 :])


def judge(folds: Sequence[Fold], ks: Sequence[int] = (5, 8, 15)) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Metrics of all judged notes, each at the threshold with the best micro-F1 on the other notes of its fold.

    Args:
        folds: one, validation and test; or two, whose judged notes are together all notes.
        ks: see `icd_metrics`.

    Returns:
        The metrics of [`kept_hf.metrics.icd_metrics`] (without the AUC of all pairs and codes where there are several
        folds: it would compare scores across thresholds), and those of [`kept_hf.metrics.per_code_metrics`].

    Examples:
        >>> tuned, judged = np.array([[2.0, 0.0]]), np.array([[-0.5, 3.0]])
        >>> judge([(tuned, np.array([[1, 0]]), judged, np.array([[0, 1]]))])[0]["f1_micro"]
        0.99...
    """
    scores, labels = [], []
    for tuned, tuned_labels, judged, judged_labels in folds:
        threshold = best_micro_f1_threshold(tuned, tuned_labels)
        # What is above its threshold is above 0, in whatever fold.
        scores.append(judged - judged.dtype.type(threshold))
        labels.append(judged_labels)
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    metrics = icd_metrics(scores, labels, ks=ks)
    if len(folds) > 1:
        metrics = {name: value for name, value in metrics.items() if not name.startswith("auc")}
    return metrics, per_code_metrics(scores, labels)


def compare_by_band(
    f1_per_code: Mapping[str, Sequence[float]], train_counts: Sequence[int], support: Sequence[int]
) -> list[dict[str, str | int | float]]:
    """Mean F1 of each system by how often a code occurs in training: see [`kept_hf.reports.bands.f1_by_band`].

    Args:
        f1_per_code: system → (codes,) numbers.
        train_counts, support: as for `f1_by_band`.

    Returns:
        A row for each band that has codes: `train_notes` (the band), `codes`, `gold_notes`, and under each system's
        name the mean F1 of the codes with a gold note.

    Raises:
        ValueError: no systems, or as `f1_by_band`.

    Examples:
        >>> compare_by_band({"a": [0.5, 1.0], "b": [0.0, 0.5]}, [0, 3], [1, 2])[1]
        {'train_notes': '1–5', 'codes': 1, 'gold_notes': 2, 'a': 1.0, 'b': 0.5}
    """
    if not f1_per_code:
        raise ValueError("f1_per_code has no system; pass the F1 of each code for at least one.")
    bands = {system: f1_by_band(train_counts, support, f1) for system, f1 in f1_per_code.items()}
    return [
        {
            **{name: of_systems[0][name] for name in ("train_notes", "codes", "gold_notes")},
            **{system: row["f1"] for system, row in zip(bands, of_systems, strict=True)},
        }
        for of_systems in zip(*bands.values(), strict=True)
    ]


def plot_by_band(path: str | os.PathLike, bands: Sequence[Mapping[str, object]]) -> None:
    """Draw the rows of `compare_by_band`: a group of bars for each band, a bar for each system, an outline for what is
    called "ceiling …".

    Args:
        path: the picture to write; its ending chooses the format (.png, .svg, .pdf).
        bands: the rows; a band without gold notes is left out.

    Raises:
        ValueError: no band with gold notes.
    """
    bands = [row for row in bands if row["gold_notes"]]
    if not bands:
        raise ValueError("bands has no row with gold notes; pass what compare_by_band returned.")
    systems = [name for name in bands[0] if name not in ("train_notes", "codes", "gold_notes")]
    width = 0.8 / len(systems)
    figure, axes = new_figure(max(4.8, 1.2 + 0.35 * len(bands) * (len(systems) + 1)), 4.4)
    colors = (
        *("#1f5a94", "#c8501e", "#2e8b57", "#8a5aa8", "#b8860b"),
        *("#7f7f7f", "#d4629b", "#17a2b8", "#6b4f3a", "#20262e"),
    )
    for number, system in enumerate(systems):
        places = np.arange(len(bands)) + (number - (len(systems) - 1) / 2) * width
        values = [row[system] for row in bands]
        if system.startswith("ceiling"):  # no system, but what bounds some
            style = {"facecolor": "white", "edgecolor": "#7f7f7f", "linestyle": "--"}
        else:
            style = {"facecolor": colors[number % len(colors)], "hatch": "//" * (number // len(colors))}
        axes.bar(places, values, width * 0.92, label=system, zorder=3, **style)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{100 * value:.0f}",
                (place, value),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
    names = [f"{row['train_notes']}\n({row['codes']} codes)" for row in bands]
    axes.set_xticks(range(len(bands)), names, fontsize=9)
    axes.set(xlabel="train notes with the code", ylabel="mean F1 of the codes with a gold note")
    axes.set_ylim(0, 1.1 * max(max(row[system] for system in systems) for row in bands) or 1)
    axes.set_title("F1 by how often a code occurs in training (figures in percent)", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
