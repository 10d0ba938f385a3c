"""F1 of codes by how often they occur in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# First train count of each band of `kept_hf.reports.figures.plot_f1_by_frequency`; a band ends before the next begins.
FIGURE_BANDS = (0, 1, 2, 6, 11, 51, 101, 501)
TABLE_BANDS = (0, 1, 6, 51, 501)


def f1_by_band(
    train_counts: Sequence[int], support: Sequence[int], f1_per_code: Sequence[float]
) -> list[dict[str, str | int | float]]:
    """The codes' F1 by how often they occur in training: no note, 1 to 5, 6 to 50, 51 to 500, more.

    Args:
        train_counts: (codes,) numbers of train notes.
        support: (codes,) numbers of gold notes in the evaluated split.
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
    band_of = np.searchsorted(TABLE_BANDS, train_counts, side="right") - 1
    rows = []
    for band in np.unique(band_of):
        members = band_of == band
        f1 = f1_per_code[members & (support > 0)]
        rows.append(
            {
                "train_notes": band_name(band, TABLE_BANDS),
                "codes": int(members.sum()),
                "gold_notes": int(support[members].sum()),
                "codes_with_gold": f1.size,
                "codes_found": int((f1 > 0).sum()),
                "f1": float(f1.mean()) if f1.size else math.nan,
            }
        )
    return rows


def band_name(band: int, bands: Sequence[int] = FIGURE_BANDS) -> str:
    first = bands[band]
    if band == len(bands) - 1:
        return f"over {first - 1}"
    last = bands[band + 1] - 1
    return str(first) if first == last else f"{first}–{last}"
