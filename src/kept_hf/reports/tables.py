"""Tables of figures as text."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


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
