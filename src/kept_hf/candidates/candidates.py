"""Candidate codes of notes: what a first stage proposes and a second stage scores anew, and the file between the two.

Candidates are arrays of the best codes of each note: 3,372 notes with 300 of 8,700 codes take 8 MB.
"""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..metrics import metrics_of_counts
from ..models.code_set import ICDCodeSet

logger = logging.getLogger(__name__)

_BLOCK = 1 << 22


class FirstStage(Protocol):
    """Whatever proposes codes for notes."""

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note, in the order of the notes."""


@dataclass(eq=False)
class Candidates:
    """The best codes of each note, best first.

    A note can have fewer candidates than others, or none: its row is filled up.

    Attributes:
        codes: of the code set, in its order.
        indices: `(notes, top_k)` int32, places in `codes`, none twice in a row; -1 fills rows up at their end.
        scores: `(notes, top_k)` float32, never rising from left to right; minus infinity where `indices` is -1, and
            nowhere else.
        note_ids: `(notes,)` text, or None.

    Raises:
        ValueError: arrays that are not so.

    Examples:
        >>> proposals = Candidates.from_scores([[0.5, -np.inf, 2.0], [-1.0, -1.0, -3.0]], ["I10", "R05", "R50.9"], 2)
        >>> proposals.codes_of(0), proposals.codes_of(1)
        (['R50.9', 'I10'], ['I10', 'R05'])
        >>> gold = [["I10"], ["R50.9"]]
        >>> proposals.candidate_recall(gold), proposals.candidate_recall(gold, k=1)
        (0.5, 0.0)
    """

    codes: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray
    note_ids: tuple[str, ...] | None = None

    def __post_init__(self):
        self.codes = tuple(self.codes)
        if len(set(self.codes)) < len(self.codes):
            repeated = next(code for code in self.codes if self.codes.count(code) > 1)
            raise ValueError(f"codes has {repeated!r} twice; pass each code once.")
        self.indices = np.asarray(self.indices, dtype=np.int32)
        self.scores = np.asarray(self.scores, dtype=np.float32)
        shape = self.indices.shape
        if len(shape) != 2 or self.scores.shape != shape:
            raise ValueError(f"indices has shape {shape} and scores {self.scores.shape}; pass (notes, top_k) for both.")
        if self.indices.size and not -1 <= self.indices.min() <= self.indices.max() < len(self.codes):
            raise ValueError(f"indices has numbers outside -1 … {len(self.codes) - 1}, the places of codes.")
        ordered = np.sort(self.indices, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError("indices has a code twice in one row; pass each candidate of a note once.")
        if ((self.indices == -1) != (self.scores == -np.inf)).any():
            raise ValueError("scores must be minus infinity where indices is -1, and nowhere else.")
        # NaN is not at least anything.
        if np.isnan(self.scores[:, :1]).any() or not (self.scores[:, :-1] >= self.scores[:, 1:]).all():
            raise ValueError("scores has NaN or rises within a row; pass each row's best candidate first.")
        if self.note_ids is not None:
            self.note_ids = tuple(map(str, self.note_ids))  # as `save` keeps them
            if len(self.note_ids) != shape[0]:
                raise ValueError(f"note_ids has {len(self.note_ids)} ids for {shape[0]} notes; pass one each, or None.")

    @classmethod
    def from_scores(
        cls, scores: np.ndarray, codes: Sequence[str], top_k: int, note_ids: Sequence[str] | None = None
    ) -> Candidates:
        """The best codes of a matrix of scores, or of a batch of notes: `concatenate` joins batches.

        Args:
            scores: `(notes, codes)`; minus infinity for a code that is no candidate.
            codes: the codes of the columns.
            top_k: how many codes a note; all where there are fewer. Of equal scores the first in `codes` wins.
            note_ids: `(notes,)` text.

        Raises:
            ValueError: a shape that does not fit, NaN, or `top_k` below 1.
        """
        scores = np.asarray(scores)
        scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(codes) or not len(codes):
            raise ValueError(f"scores has shape {scores.shape}; pass (notes, codes) with {len(codes)} columns.")
        if np.isnan(scores).any():
            raise ValueError("scores has NaN; pass numbers (-inf for codes that are no candidates).")
        top_k = min(_check_top_k("top_k", top_k), len(codes))
        indices = np.empty((len(scores), top_k), dtype=np.int32)
        rows = max(1, _BLOCK // len(codes))
        for start in range(0, len(scores), rows):
            # Stable, so that equal scores keep the order of the codes.
            order = np.argsort(-scores[start : start + rows], axis=1, kind="stable")
            indices[start : start + rows] = order[:, :top_k]
        best = np.take_along_axis(scores, indices.astype(np.int64), axis=1).astype(np.float32)
        indices[best == -np.inf] = -1
        return cls(codes, indices, best, note_ids)

    @classmethod
    def from_scorer(
        cls,
        score: Callable[[Sequence[str]], np.ndarray],
        notes: Sequence[str],
        codes: Sequence[str],
        top_k: int,
        batch_size: int = 64,
    ) -> Candidates:
        """The best codes of notes that are scored a batch at a time, so that no matrix of all scores is held.

        Args:
            score: some notes → `(notes, codes)`, as for `from_scores`.
            notes: texts.
            codes, top_k: as for `from_scores`.
            batch_size: notes at a time.

        Raises:
            TypeError: `notes` is one string.
            ValueError: as `from_scores`.
        """
        if isinstance(notes, str):
            raise TypeError("notes is one string; pass a list of notes.")
        starts = range(0, len(notes), batch_size)
        batches = (cls.from_scores(score(notes[start : start + batch_size]), codes, top_k) for start in starts)
        # Without notes there are no batches, and no scores either.
        return cls.concatenate([cls.from_scores(np.empty((0, len(codes))), codes, top_k), *batches])

    @classmethod
    def concatenate(cls, parts: Iterable[Candidates]) -> Candidates:
        """The notes of several proposals one after the other; the ids of notes are kept if all have them.

        Raises:
            ValueError: no parts, or parts of different codes.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("parts is empty; pass at least one Candidates.")
        if any(part.codes != parts[0].codes for part in parts):
            raise ValueError("parts are of different codes; pass proposals of one code set.")
        width = max(part.top_k for part in parts)

        def joined(name: str, fill: float) -> np.ndarray:
            arrays = (getattr(part, name) for part in parts)
            return np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays])

        named = all(part.note_ids is not None for part in parts)
        note_ids = [note_id for part in parts for note_id in part.note_ids] if named else None
        return cls(parts[0].codes, joined("indices", -1), joined("scores", -np.inf), note_ids)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def top_k(self) -> int:
        """The most candidates that a note can have here."""
        return self.indices.shape[1]

    @property
    def num_candidates(self) -> np.ndarray:
        """`(notes,)` how many candidates each note has."""
        return (self.indices >= 0).sum(axis=1)

    def codes_of(self, note: int) -> list[str]:
        """The candidates of the note in this place, best first."""
        return [self.codes[index] for index in self.indices[note] if index >= 0]

    def top(self, k: int) -> Candidates:
        """The `k` best candidates of each note; all where there are fewer."""
        k = _check_top_k("k", k)
        return replace(self, indices=self.indices[:, :k], scores=self.scores[:, :k])

    def take(self, rows: Sequence[int]) -> Candidates:
        """The notes in these places, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        note_ids = None if self.note_ids is None else [self.note_ids[row] for row in rows]
        return replace(self, indices=self.indices[rows], scores=self.scores[rows], note_ids=note_ids)

    def for_notes(self, note_ids: Sequence[str]) -> Candidates:
        """The notes with these ids, in this order: those of a split that was shuffled, or lost some of its notes.

        Raises:
            ValueError: proposals without ids or with one twice, or a note that has no proposals.
        """
        rows = {note_id: row for row, note_id in enumerate(self.note_ids or ())}
        if len(rows) < len(self):
            raise ValueError("The proposals have no note_ids, or one twice; make them with the ids of the notes.")
        note_ids = list(map(str, note_ids))
        missing = [place for place, note_id in enumerate(note_ids) if note_id not in rows]
        if missing:
            # An id can name a patient, so only its place is told.
            raise ValueError(
                f"note_ids has {len(missing)} notes without proposals, the first in place {missing[0]}; propose for "
                "the same notes."
            )
        return self.take([rows[note_id] for note_id in note_ids])

    def scores_matrix(self, fill: float) -> np.ndarray:
        """`(notes, codes)` float32: all codes, those not proposed at `fill`. Large: for metrics, not for storage.

        Examples:
            >>> Candidates.from_scores([[0.5, 2.0]], ["I10", "R05"], 1).scores_matrix(fill=-np.inf).tolist()
            [[-inf, 2.0]]
        """
        matrix = np.full((len(self), len(self.codes)), fill, dtype=np.float32)
        rows, columns = np.nonzero(self.indices >= 0)
        matrix[rows, self.indices[rows, columns]] = self.scores[rows, columns]
        return matrix

    def candidate_recall(self, gold: Sequence[Iterable[str]], k: int | None = None) -> float:
        """The share of all gold codes of all notes that are among the candidates (micro recall).

        Args:
            gold: for each note its gold codes.
            k: count only the `k` best candidates; all by default.

        Returns:
            A share; NaN where no note has a gold code.

        Raises:
            ValueError: another number of notes, or a gold code that is not in `codes`. Left out, it would embellish the
                recall: propose from a code set that has it, or take it out of `gold`.
        """
        found, support = self._count_found(gold, k)
        return float(found.sum() / support.sum()) if support.any() else math.nan

    def mean_average_precision(self, gold: Sequence[Iterable[str]]) -> float:
        """The mean, over the notes with gold codes, of the average precision; a gold code not proposed adds nothing.

        Args:
            gold: as for `candidate_recall`.

        Returns:
            A share; NaN where no note has a gold code. That of `kept_hf.metrics.icd_metrics` shares out the places of
            equal scores, and counts all codes: it is the same where all are candidates and no two scores are equal.
        """
        hits, pairs = self._find(gold)
        golds = np.bincount(pairs // len(self.codes), minlength=len(self))
        if not golds.any():
            return math.nan
        precisions = np.where(hits, np.cumsum(hits, axis=1) / np.arange(1, self.top_k + 1), 0).sum(axis=1)
        return float((precisions[golds > 0] / golds[golds > 0]).mean())

    def oracle(self, gold: Sequence[Iterable[str]], k: int | None = None) -> dict[str, float]:
        """The ceiling of whatever re-scores the candidates: metrics of assigning exactly the proposed gold codes.

        Args:
            gold, k: as for `candidate_recall`.

        Returns:
            As [`kept_hf.metrics.metrics_of_counts`]; `recall_micro` is the candidate recall.

        Examples:
            >>> proposals = Candidates.from_scores([[0.5, 2.0], [1.0, 0.0]], ["I10", "R05"], 1)
            >>> round(proposals.oracle([["I10", "R05"], ["I10"]])["f1_micro"], 3)
            0.8
        """
        found, support = self._count_found(gold, k)
        return metrics_of_counts(found, found, support)

    def candidate_metrics(self, gold: Sequence[Iterable[str]], ks: Sequence[int] = (50, 100, 300)) -> dict[str, float]:
        """`candidate_recall_at_{k}`, `oracle_f1_micro_at_{k}` and `oracle_f1_macro_at_{k}`.

        Args:
            gold: as for `candidate_recall`.
            ks: numbers of candidates; those above `top_k` are skipped.
        """
        metrics = {}
        for k in (k for k in ks if k <= self.top_k):
            ceiling = self.oracle(gold, k)
            metrics[f"candidate_recall_at_{k}"] = self.candidate_recall(gold, k)
            metrics |= {f"oracle_{name}_at_{k}": ceiling[name] for name in ("f1_micro", "f1_macro")}
        return metrics

    def _count_found(self, gold: Sequence[Iterable[str]], k: int | None) -> tuple[np.ndarray, np.ndarray]:
        """For each code the notes in which it is gold and among the best, and in which it is gold."""
        hits, pairs = self._find(gold)
        k = self.top_k if k is None else _check_top_k("k", k)
        found = self.indices[:, :k][hits[:, :k]]
        return tuple(np.bincount(chosen, minlength=len(self.codes)) for chosen in (found, pairs % len(self.codes)))

    def _find(self, gold: Sequence[Iterable[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates are gold, `(notes, top_k)`, and the gold codes as numbers note * codes + code."""
        if len(gold) != len(self):
            raise ValueError(f"gold has {len(gold)} notes and the proposals {len(self)}; pass the same notes.")
        place, pairs = {code: index for index, code in enumerate(self.codes)}, set()
        for note, codes in enumerate(gold):
            for code in codes:
                if code not in place:
                    raise ValueError(
                        f"gold has {code!r} in note {note}, not one of the {len(place)} codes of the proposals; "
                        "propose from a code set that has it, or take it out of gold."
                    )
                pairs.add(note * len(place) + place[code])
        pairs = np.fromiter(pairs, np.int64, len(pairs))
        candidates = np.arange(len(self))[:, None] * len(place) + self.indices
        return np.isin(candidates, pairs) & (self.indices >= 0), pairs

    def save(self, path: str | os.PathLike) -> None:
        """Write one npz file. The ids of notes go into it: keep it as you keep them."""
        arrays = {"codes": np.array(self.codes), "indices": self.indices, "scores": self.scores}
        if self.note_ids is not None:
            arrays["note_ids"] = np.array(self.note_ids, dtype=str)
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Candidates:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False) if zipfile.is_zipfile(file) else {}
            if not {"codes", "indices", "scores"} <= set(content):
                raise ValueError(
                    f"path={os.fspath(path)!r} holds no proposals; pass a file that Candidates.save wrote."
                )
            note_ids = content["note_ids"].tolist() if "note_ids" in content else None
            return cls(content["codes"].tolist(), content["indices"], content["scores"], note_ids)


def read_handover_file(
    path: str | os.PathLike,
    code_set: ICDCodeSet,
    num_notes: int | None = None,
    note_ids: Sequence[str] | None = None,
    skip_unknown: bool = False,
) -> Candidates:
    """Read a hand-over file, `{version}_{split}_predtop50.txt`, as KEPT publishes them.

    It has a line for each note, in the order of the split: its candidates with ";" between them, 300 of them whatever
    the name says. An empty line is a note without candidates.

    Args:
        path: the file.
        code_set: the codes of the task.
        num_notes: how many notes the split has; needed without `note_ids`.
        note_ids: the ids of the split's notes, in its order.
        skip_unknown: leave out candidates that are not in the code set; a warning counts them.

    Returns:
        The candidates in the order of the file. It holds no scores: 0, -1, -2 … stand for them.

    Raises:
        ValueError: another number of lines than of notes; a separator at the end of a line or two in a row, a code with
            spaces around it, twice in a line or (without `skip_unknown`) not in the code set, or bytes that are not
            UTF-8: the message names the line.

    Source: public code of Yang et al., Findings of EMNLP 2022 (branch rerank300).
    """
    if num_notes is None and note_ids is None:
        raise ValueError("num_notes=None and note_ids=None; pass one, so that missing lines are noticed.")
    num_notes = len(note_ids) if num_notes is None else num_notes
    # Only the ends of lines end them here: str.splitlines knows further ones.
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
    unknown, rows = 0, []
    for number, line in enumerate(lines, start=1):
        codes = line.split(";") if line else []
        for place, code in enumerate(codes):
            if not code.strip():
                where = "the end of the line" if place == len(codes) - 1 else f"code {place + 1}"
                raise ValueError(f'{os.fspath(path)}, line {number}: no code at {where}; write ";" between codes only.')
            if code != code.strip():
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: {code!r} has spaces around it; write the code alone, and "
                    '";" without spaces between codes.'
                )
            if code not in code_set and not skip_unknown:
                raise ValueError(
                    f"{os.fspath(path)}, line {number}: {code!r} is not among the {len(code_set)} codes of the code "
                    "set; pass the code set that the file was made with, or skip_unknown=True."
                )
        if len(set(codes)) < len(codes):
            repeated = next(code for code in codes if codes.count(code) > 1)
            raise ValueError(f"{os.fspath(path)}, line {number}: {repeated!r} is there twice; write each code once.")
        rows.append([code_set.index(code) for code in codes if code in code_set])
        unknown += len(codes) - len(rows[-1])
    if unknown:
        logger.warning("%s: %d candidates are not in the code set and were left out.", os.fspath(path), unknown)
    indices = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for row, places in zip(indices, rows, strict=True):
        row[: len(places)] = places
    scores = np.where(indices >= 0, -np.arange(indices.shape[1], dtype=np.float32), -np.inf)
    return Candidates(code_set.codes, indices, scores, note_ids)


def write_handover_file(path: str | os.PathLike, proposals: Candidates) -> None:
    """Write the candidates as `read_handover_file` reads them, best first; the scores do not go along.

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
    for code in proposals.codes:
        if ";" in code or code.split() != [code]:
            raise ValueError(f'codes has {code!r}, which the file cannot hold; pass codes without ";" and spaces.')
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(";".join(proposals.codes_of(note)) + "\n" for note in range(len(proposals)))


def _check_top_k(name: str, value: int) -> int:
    if value < 1 or value != int(value):
        raise ValueError(f"{name}={value!r}; pass a positive integer.")
    return int(value)
