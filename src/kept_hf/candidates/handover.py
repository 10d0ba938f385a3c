"""KEPT's published hand-over files: the candidates of a split as text, a line for each note."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np

from ..models.code_set import ICDCodeSet
from ..models.whole_file import whole_file
from .candidates import Candidates

logger = logging.getLogger(__name__)

PUBLISHED_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
"""The names of the splits in the names of the files, `{version}_{split}_predtop50.txt`."""


def read_handover_file(
    path: str | os.PathLike,
    code_set: ICDCodeSet,
    num_notes: int | None = None,
    note_ids: Sequence[str] | None = None,
    skip_unknown: bool = False,
) -> Candidates:
    """Read a hand-over file, `{version}_{split}_predtop50.txt`, as KEPT publishes them.

    It has a line for each note, in the order of the split: its candidates with ";" between them. In spite of the name
    there are 300. An empty line is a note without candidates.

    Args:
        path: the file.
        code_set: the codes of the task.
        num_notes: number of notes of the split; needed without `note_ids`.
        note_ids: the ids of the split's notes, in its order.
        skip_unknown: omit candidates that are not in the code set; a warning counts them.

    Returns:
        The candidates in the order of the file. It has no scores: 0, -1, -2 … take their place.

    Raises:
        ValueError: another number of lines than of notes; a separator at the end of a line or two in a row, a code with
            spaces around it, twice in a line or (without `skip_unknown`) not in the code set, or bytes that are not
            UTF-8: the message names the line.

    Source: public code of Yang et al., Findings of EMNLP 2022 (branch rerank300).
    """
    if num_notes is None and note_ids is None:
        raise ValueError("num_notes=None and note_ids=None; pass one, so that missing lines are noticed.")
    num_notes = len(note_ids) if num_notes is None else num_notes
    lines = _read_lines(path, num_notes)
    unknown, rows = 0, []
    for number, line in enumerate(lines, start=1):
        codes = line.split(";") if line else []
        _check_line(codes, f"{os.fspath(path)}, line {number}", code_set, skip_unknown)
        rows.append([code_set.index(code) for code in codes if code in code_set])
        unknown += len(codes) - len(rows[-1])
    if unknown:
        logger.warning("%s: %d candidates are not in the code set and were omitted.", os.fspath(path), unknown)
    indices = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for row, positions in zip(indices, rows, strict=True):
        row[: len(positions)] = positions
    scores = np.where(indices >= 0, -np.arange(indices.shape[1], dtype=np.float32), -np.inf)
    return Candidates(code_set.codes, indices, scores, note_ids)


def _read_lines(path: str | os.PathLike, num_notes: int) -> list[str]:
    # Iterating a file splits at line feeds only; str.splitlines would split at further characters.
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.removesuffix("\n") for line in file]
    for number, line in enumerate(lines, start=1):
        if not line.isprintable() and any("\ud800" <= character <= "\udfff" for character in line):
            raise ValueError(f"{os.fspath(path)}, line {number}: bytes that are not UTF-8; save the file as UTF-8.")
    if len(lines) != num_notes:
        raise ValueError(
            f"{os.fspath(path)} has {len(lines)} lines, but there are {num_notes} notes; it needs a line for each note "
            "of the split, in its order (an empty one for a note without candidates)."
        )
    return lines


def _check_line(codes: Sequence[str], line: str, code_set: ICDCodeSet, skip_unknown: bool) -> None:
    """Raise a `ValueError` if a line has something else than codes; `line` is what the message calls it."""
    for position, code in enumerate(codes):
        if not code.strip():
            where = "the end of the line" if position == len(codes) - 1 else f"code {position + 1}"
            raise ValueError(f'{line}: no code at {where}; write ";" between codes only.')
        if code != code.strip():
            raise ValueError(
                f'{line}: {code!r} has spaces around it; write the code alone, and ";" without spaces between codes.'
            )
        if code not in code_set and not skip_unknown:
            raise ValueError(
                f"{line}: {code!r} is not among the {len(code_set)} codes of the code set; pass the code set that the "
                "file was made with, or skip_unknown=True."
            )
    if len(set(codes)) < len(codes):
        repeated = next(code for code in codes if codes.count(code) > 1)
        raise ValueError(f"{line}: {repeated!r} is there twice; write each code once.")


def write_handover_file(path: str | os.PathLike, candidates: Candidates) -> None:
    """Write candidates as `read_handover_file` reads them, best first, without their scores.

    Raises:
        ValueError: a code that would be read as another: with ";" in it, or with spaces around it.

    Examples:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "mimic3_dev_predtop50.txt")
        >>> write_handover_file(path, Candidates.from_scores([[0.5, 2.0], [-np.inf, 1.0]], ["401.9", "038.9"], 300))
        >>> with open(path, encoding="utf-8") as file:
        ...     print(file.read(), end="")
        038.9;401.9
        038.9
        >>> read_handover_file(path, ICDCodeSet(["401.9", "038.9"]), num_notes=2).codes_of(1)
        ['038.9']
    """
    for code in candidates.codes:
        if ";" in code or code.split() != [code]:
            raise ValueError(f'codes has {code!r}, which the file cannot hold; pass codes without ";" and spaces.')
    with whole_file(path) as file:
        file.writelines(";".join(candidates.codes_of(note)) + "\n" for note in range(len(candidates)))
