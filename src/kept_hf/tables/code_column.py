"""The column of codes in a table of MIMIC: each code with its dot, or the row that holds none."""

from __future__ import annotations

import os
import re

from ..models.code_systems import AS_TEXT, ICD9_PROCEDURE, code_system, is_missing, lost_zeros
from .csv_tables import find_table, stream_table

_DECIMAL = re.compile(r"\d+\.\d*")


class CodeColumn:
    """Gives the codes of a table their dots. Each code is one object, however often it occurs.

    Args:
        data_dir: the folder with the table.
        table: without suffix.
        column: of the code.
        procedure: whether the codes are of procedures.
        icd_version: 9 or 10.
        version_column: of the version; `None` where all codes are of this one.
        has_categories: the table may also hold what no admission has, such as blocks of codes: of titles.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        table: str,
        column: str,
        procedure: bool,
        icd_version: int = 9,
        version_column: str | None = None,
        has_categories: bool = False,
    ):
        self._data_dir, self._table, self._column = data_dir, table, column
        self._version, self._version_column = icd_version, version_column
        self._system, self._has_categories = code_system(procedure, icd_version), has_categories
        self._dotted: dict[str, str] = {}

    def dotted(self, code: str) -> str:
        """The code with its dot; "" where the value is missing.

        Raises:
            ValueError: no code of the system. The message names the table and the row.
        """
        if code not in self._dotted:
            self._dotted[code] = "" if is_missing(code) else self._read(code)
        return self._dotted[code]

    def check(self) -> None:
        """Look at all codes, when they have been read.

        Raises:
            ValueError: they have visibly been read as numbers.
        """
        codes = [code.strip() for code, dotted in self._dotted.items() if dotted]
        with_dot = [code for code in codes if "." in code]
        why = ""
        if len(with_dot) > 1 and all(code.endswith(".0") for code in with_dot):
            why = f"{len(with_dot)} end with .0"
        elif self._version == 9 and lost_zeros(codes, trailing=True):
            why = f"of {len(codes)} none starts with 0, which many codes do"
        if why:
            path = find_table(self._data_dir, self._table)
            raise ValueError(f"{path}: the codes in {self._column} were read as numbers, since {why}; {AS_TEXT}.")

    def _read(self, code: str) -> str:
        try:
            dotted = self._system.dotted(code)
        except ValueError as error:
            if self._has_categories and not _DECIMAL.fullmatch(code.strip()):
                return code.strip()
            raise ValueError(f"{self._place(code)} {error}.") from None
        if self._system is ICD9_PROCEDURE and len(dotted) == 2 and not self._has_categories:
            raise ValueError(
                f"{self._place(code)} has two digits, as 0040 has where it was read as a number; {AS_TEXT}."
            )
        return dotted

    def _place(self, code: str) -> str:
        """Table, row and column of a code: a second reading, since rows were left out in the first."""
        columns = [self._column] + ([self._version_column] if self._version_column else [])
        row = 1
        for batch in stream_table(self._data_dir, self._table, columns, columns[1:]):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                row += 1
                if values in ((code,), (code, str(self._version))):
                    return f"{find_table(self._data_dir, self._table)}: row {row}: {self._column}"
        raise LookupError(code)
