"""The pictures of a run's report, and the style of all pictures of this project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import micro_precision_recall_curve
from ..metrics.inputs import default_threshold
from ..models.whole_file import whole_path
from .bands import FIGURE_BANDS, band_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = (
    "#1f5a94",
    "#c8501e",
    "#2e8b57",
    "#8a5aa8",
    "#b8860b",
    "#7f7f7f",
    "#d4629b",
    "#17a2b8",
    "#6b4f3a",
    "#20262e",
)
"""The palette: the main colour, the one that stands out, then those of further series."""

LIGHT = "#b5b5b5"
"""For what other things are compared with: the state before training, lines of equal F1."""


def plot_precision_recall(
    path: str | os.PathLike, scores: np.ndarray, labels: np.ndarray, threshold: float | None = None
) -> None:
    """Draw the micro precision-recall curve with the operating point and lines of equal F1.

    Args:
        path: the picture to write; its ending chooses the format (.png, .svg, .pdf).
        scores: (notes, codes) logits.
        labels: (notes, codes) of 0 and 1.
        threshold: the operating point: a code is assigned where its score is above it; by default 0.

    Raises:
        ValueError: as `kept_hf.metrics.icd_metrics`.
    """
    precision, recall, _ = micro_precision_recall_curve(scores, labels)
    threshold = default_threshold(threshold, np.asarray(scores))
    assigned, gold = np.asarray(scores) > threshold, np.asarray(labels) != 0
    hit, assigned, gold = (np.count_nonzero(mask) for mask in (assigned & gold, assigned, gold))
    figure, axes = new_figure(6.4, 5.2)
    for f1 in (0.2, 0.4, 0.6, 0.8):
        # Recall at which precision is 1, up to 1.
        x = np.linspace(f1 / (2 - f1), 1, 200)
        y = f1 * x / (2 * x - f1)
        axes.plot(x, y, color=LIGHT, linewidth=0.8, zorder=1)
        axes.annotate(
            f"F1 = {f1}",
            (1, y[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color="#777777",
            va="center",
        )
    axes.plot(recall, precision, color=COLORS[0], linewidth=1.8, zorder=2, label="all pairs of note and code")
    axes.plot(
        hit / max(gold, 1),
        hit / max(assigned, 1),
        "o",
        color=COLORS[1],
        markersize=8,
        zorder=3,
        clip_on=False,
        label=f"score > {threshold:.3g}: F1 = {2 * hit / max(assigned + gold, 1):.3f}",
    )
    axes.set(xlabel="recall (micro)", ylabel="precision (micro)", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Precision and recall over all thresholds", fontsize=11)
    axes.legend(loc="best", fontsize=9, frameon=True, framealpha=0.9)
    with whole_path(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


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
    band_numbers = np.searchsorted(FIGURE_BANDS, train_counts, side="right") - 1
    present = np.unique(band_numbers)

    figure, axes = new_figure(max(4.8, 1.6 + 0.95 * present.size), 5.0)
    # Seeded, so that the same run draws the same picture.
    generator = np.random.default_rng(0)
    names = []
    for position, band in enumerate(present):
        values = f1_per_code[band_numbers == band]
        # Many codes share an F1 of exactly 0: sideways jitter shows how many, and upright jitter would misstate it.
        shifts = generator.uniform(-0.32, 0.32, size=values.size)
        _draw_band(axes, position, shifts, values, dot_size=max(7, min(18, 3000 / f1_per_code.size)))
        names.append(f"{band_name(band)}\n({values.size} code{'s' if values.size != 1 else ''})")
    axes.set_xticks(range(present.size), names, fontsize=9)
    axes.set(xlabel="train notes with the code", ylabel="F1 of the code", ylim=(-0.02, 1.02))
    axes.set_xlim(-0.6, present.size - 0.4)
    axes.set_title("F1 by how often a code occurs in training", fontsize=11)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    with whole_path(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def _draw_band(axes: Axes, position: int, shifts: np.ndarray, values: np.ndarray, dot_size: float) -> None:
    """A dot for each code of a band, moved sideways by `shifts`, and a bar for their mean."""
    axes.scatter(
        position + shifts,
        values,
        s=dot_size,
        color=COLORS[0],
        alpha=0.35,
        linewidths=0,
        clip_on=False,
        zorder=3,  # over the bar of the mean
        label="a code" if position == 0 else None,
    )
    mean = values.mean()
    axes.plot(
        [position - 0.36, position + 0.36],
        [mean, mean],
        color=COLORS[1],
        linewidth=2.5,
        solid_capstyle="butt",
        label="mean of the band" if position == 0 else None,
    )
    axes.annotate(
        f"{mean:.2f}",
        (position, mean),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=9,
        color=COLORS[1],
        ha="center",
        va="bottom",
        fontweight="bold",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def new_figure(
    width: float, height: float, panels: Sequence[float] | None = None
) -> tuple[Figure, Axes] | tuple[Figure, tuple[Axes, ...]]:
    """An empty picture in the style of this project.

    Args:
        width, height: in inches.
        panels: the relative widths of several panels side by side. By default there is one.

    Returns:
        The figure and its axes; the axes of all panels, from left to right, where `panels` is passed.

    Examples:
        >>> figure, (left, right) = new_figure(9, 4, panels=(3, 2))
        >>> left.plot([1, 2], [0.5, 0.7], color=COLORS[0])[0].get_color()
        '#1f5a94'
    """
    # Importing matplotlib takes a second, and pyplot would choose a window system and keep every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    ratios = (1,) if panels is None else tuple(panels)
    all_axes = tuple(figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0])
    for axes in all_axes:
        axes.grid(color="#e8e8e8", linewidth=0.6, zorder=0)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, all_axes[0] if panels is None else all_axes
