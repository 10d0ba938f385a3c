"""Tables as text, in two forms: for the terminal and in Markdown."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence

import numpy as np

from .escaping import Markdown, markdown_text, printable


def format_table(rows: Sequence[Mapping[str, object]], digits: int = 4) -> str:
    """Lay out rows as a plain text table for the terminal.

    Args:
        rows: column name → value; the columns come in the order of their first appearance. Floats are printed with
            `digits` decimals, numbers are aligned to the right, a missing value, None and NaN are printed as "-".
        digits: decimals of floats.

    Returns:
        The lines, without a newline at the end. Texts are written as by [`kept_hf.reports.escaping.printable`].

    Raises:
        ValueError: no rows, or only rows without columns.

    Examples:
        >>> rows = [{"split": "dev", "f1_micro": 0.61234, "notes": 250}, {"split": "test", "f1_micro": 0.6}]
        >>> print(format_table(rows))
        split  f1_micro  notes
        -----  --------  -----
        dev      0.6123    250
        test     0.6000      -
    """
    aligned = []
    for name in _column_names(rows):
        values = [row.get(name) for row in rows]
        cells = [printable(name), *(_cell_text(value, digits, missing="-") for value in values)]
        width = max(len(cell) for cell in cells)
        right = any(_is_number(value) for value in values) and all(v is None or _is_number(v) for v in values)
        aligned.append(
            [cell.rjust(width) if right else cell.ljust(width) for cell in (cells[0], "-" * width, *cells[1:])]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def markdown_table(
    rows: Sequence[Mapping[str, object]] | Sequence[Sequence[object]],
    columns: Sequence[str] | None = None,
    digits: int = 3,
) -> Markdown:
    """Lay out rows as a Markdown table, for model cards and documents.

    Args:
        rows: column name → value; or, where `columns` is passed, the values of a row in that order. Floats are written
            with `digits` decimals, a missing value, None and NaN as "–". Line breaks and repeated blanks become one
            blank; "|" and HTML are escaped.
        columns: the header. By default the columns of the rows, in the order of their first appearance.
        digits: decimals of floats.

    Returns:
        The lines, without a newline at the end. Without rows, the header alone.

    Raises:
        ValueError: no column, or a row whose number of values is not that of `columns`.

    Examples:
        >>> print(markdown_table([{"": "loss", "before": 2.0, "after": None}]))
        |  | before | after |
        | --- | --- | --- |
        | loss | 2.000 | – |
        >>> print(markdown_table([["train", 320]], columns=["split", "notes"]))
        | split | notes |
        | --- | --- |
        | train | 320 |
    """
    if columns is None:
        columns = _column_names(rows)
        rows = [[row.get(name) for name in columns] for row in rows]
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"rows[{number}] has {len(row)} values for {len(columns)} columns; pass one for each.")
    lines = [columns, ["---"] * len(columns), *rows]
    return Markdown("\n".join(f"| {' | '.join(_markdown_cell(value, digits) for value in line)} |" for line in lines))


def _column_names(rows: Sequence[Mapping[str, object]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        raise ValueError("rows has no column; pass at least one mapping of column name to value.")
    return columns


def _cell_text(value: object, digits: int, missing: str) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return missing
    return f"{value:.{digits}f}" if isinstance(value, (float, np.floating)) else printable(value)


def _markdown_cell(value: object, digits: int) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else _cell_text(value, digits, missing="–")
    return markdown_text(text).replace("|", "\\|")


def _is_number(value: object) -> bool:
    return isinstance(value, (numbers.Real, np.number)) and not isinstance(value, bool)
