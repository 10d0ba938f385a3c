"""UMLS's Rich Release Format: large tables without header, `|` between the columns and at the end of each row.

They are read block by block with pyarrow, a few columns at a time, every value as text. No message quotes a row.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

# fmt: off
COLUMNS = {
    "MRCONSO": (
        "CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI",
        "SCUI", "SDUI", "SAB", "TTY", "CODE", "STR", "SRL", "SUPPRESS", "CVF",
    ),
    "MRREL": (
        "CUI1", "AUI1", "STYPE1", "REL", "CUI2", "AUI2", "STYPE2", "RELA", "RUI",
        "SRUI", "SAB", "SL", "RG", "DIR", "SUPPRESS", "CVF",
    ),
}
# fmt: on
_BLOCK_BYTES = 16 << 20
_LARGEST_CUI = 10**7


def find_table(folder: str | os.PathLike, table: str) -> str:
    """The path of `{table}.RRF` or, where that is missing, `{table}.RRF.gz`.

    Raises:
        FileNotFoundError: neither exists.
    """
    for suffix in (".RRF", ".RRF.gz"):
        path = os.path.join(folder, table + suffix)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"folder={os.fspath(folder)!r} holds neither {table}.RRF nor {table}.RRF.gz; pass the META folder of a UMLS "
        "release, which has MRCONSO and MRREL."
    )


def stream_table(path: str, table: str, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a table as text, some rows at a time in file order; an empty field is "".

    Args:
        path: the file.
        table: one of `COLUMNS`.
        wanted: names of columns.

    Raises:
        ValueError: a row with more or fewer columns, or with bytes that are not UTF-8; a file that is empty or damaged.
            The message has the number of the row.
    """
    try:
        with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else None) as file:
            yield from pa_csv.open_csv(
                file,
                read_options=pa_csv.ReadOptions(column_names=[*COLUMNS[table], "end of row"], block_size=_BLOCK_BYTES),
                parse_options=pa_csv.ParseOptions(delimiter="|", quote_char=False, double_quote=False),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(wanted),
                    column_types=dict.fromkeys(wanted, pa.string()),
                    strings_can_be_null=False,
                ),
            )
    except (pa.ArrowInvalid, OSError, zlib.error):
        raise explain(path, table) from None


def cui_numbers(column: pa.Array) -> np.ndarray | None:
    """C0000005 → 5; `None` if something in the column is no CUI.

    Examples:
        >>> cui_numbers(pa.array(["C0000005", "C1234567"])).tolist(), cui_numbers(pa.array(["C0000005", "C12"]))
        ([5, 1234567], None)
    """
    if not pc.all(pc.match_substring_regex(column, r"^C\d{7}$")).as_py() and len(column):
        return None
    return pc.cast(pc.utf8_slice_codeunits(column, 1), pa.int32()).to_numpy(zero_copy_only=False)


def cui_texts(numbers: np.ndarray) -> pa.LargeStringArray:
    """5 → C0000005.

    Examples:
        >>> cui_texts(np.array([5, 1234567])).to_pylist()
        ['C0000005', 'C1234567']
    """
    digits = pc.utf8_slice_codeunits(pc.cast(pa.array(numbers + _LARGEST_CUI), pa.large_string()), 1)
    return pc.binary_join_element_wise(pa.scalar("C", pa.large_string()), digits, pa.scalar("", pa.large_string()))


def number_lookup(numbers: np.ndarray) -> np.ndarray:
    """Number of a CUI → its position among the sorted `numbers`, -1 where it is not among them."""
    lookup = np.full(_LARGEST_CUI, -1, np.int32)
    lookup[numbers] = np.arange(len(numbers), dtype=np.int32)
    return lookup


def explain(path: str, table: str) -> ValueError:
    """What is wrong with a file that could not be read, and in which row: a second, slower reading."""
    columns = COLUMNS[table]
    cuis = [index for index, name in enumerate(columns) if name.startswith("CUI")]
    row = 0
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for row, line in enumerate(file, start=1):
                line = line.rstrip(b"\r\n")
                fields = line.split(b"|")
                if line and len(fields) != len(columns) + 1:
                    return ValueError(
                        f"{path}: row {row} has {len(fields) - 1} columns, each followed by |, and {table} has "
                        f"{len(columns)}: {', '.join(columns)}."
                    )
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return ValueError(f"{path}: row {row} holds bytes that are not UTF-8; copy the file again.")
                for index in cuis if line else ():
                    if not (len(fields[index]) == 8 and fields[index][:1] == b"C" and fields[index][1:].isdigit()):
                        return ValueError(f"{path}: row {row} has no CUI (C and seven digits) in {columns[index]}.")
    except (EOFError, OSError, zlib.error):
        return ValueError(f"{path}: damaged after row {row}; copy the file again.")
    return ValueError(f"{path} is empty." if row == 0 else f"{path} cannot be read as {table}.")
