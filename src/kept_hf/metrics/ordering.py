"""Counting among many scores: how many are below a value, one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 1 << 20
"""How many scores are sorted or compared at a time."""

_GRID_CELLS = 1 << 20


def row_blocks(array: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last row of blocks of about `BLOCK` entries."""
    size = max(1, BLOCK // array.shape[1])
    for start in range(0, array.shape[0], size):
        yield start, min(start + size, array.shape[0])


def count_in_rows(ordered: np.ndarray, rows: np.ndarray, values: np.ndarray, or_equal: bool) -> np.ndarray:
    """How many entries of row `rows[i]` of the row-wise sorted `ordered` are below (or equal to) `values[i]`.

    `np.searchsorted` for many rows at once: halving steps, each taken by all values together.
    """
    width = ordered.shape[1]
    count = np.zeros(rows.size, dtype=np.int64)
    for power in reversed(range(width.bit_length())):
        probe = count + (1 << power)
        found = ordered[rows, np.minimum(probe, width) - 1]
        further = (found <= values) if or_equal else (found < values)
        count = np.where(further & (probe <= width), probe, count)
    return count


def count_in_all(scores: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the flat `scores` are below, and up to, each of the ascending distinct `values`.

    A sort of all scores answers that, but most scores lie far from any of the values. So a fine grid over the range of
    the values counts the scores in each cell, and only those that share a cell with a value are sorted.
    """
    if scores.size > _GRID_CELLS:
        with np.errstate(over="ignore", invalid="ignore"):
            scale = (_GRID_CELLS - 2) / (values[-1] - values[0]) if values[-1] > values[0] else scores.dtype.type(0)
        if 0 < scale < np.inf:
            return _count_by_grid(scores, values, scale)
    ordered = np.sort(scores)
    return np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")


def _count_by_grid(scores: np.ndarray, values: np.ndarray, scale: np.floating) -> tuple[np.ndarray, np.ndarray]:
    low = values[0]

    def cells_of(numbers: np.ndarray) -> np.ndarray:
        # Each step keeps the order, rounding included: a lower score never gets a higher cell. The first and the last
        # cell take what lies outside.
        cells = numbers - low
        cells *= scale
        cells += 1
        np.clip(cells, 0, _GRID_CELLS - 1, out=cells)
        return cells.astype(np.int64)

    # Scores near the ends of the type's range overflow to infinity, which the last cell takes.
    with np.errstate(over="ignore"):
        return _count_by_cells(scores, values, cells_of)


def _count_by_cells(
    scores: np.ndarray, values: np.ndarray, cells_of: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    value_cells = cells_of(values)
    shared = np.zeros(_GRID_CELLS, dtype=bool)
    shared[value_cells] = True
    counts = np.zeros(_GRID_CELLS, dtype=np.int64)
    rest = []
    for start in range(0, scores.size, BLOCK):
        block = scores[start : start + BLOCK]
        cells = cells_of(block)
        counts += np.bincount(cells, minlength=_GRID_CELLS)
        rest.append(block[shared[cells]])
    counts[shared] = 0
    in_lower_cells = np.cumsum(counts)[value_cells]
    ordered = np.concatenate(rest)
    ordered.sort()
    return (
        in_lower_cells + np.searchsorted(ordered, values, "left"),
        in_lower_cells + np.searchsorted(ordered, values, "right"),
    )
