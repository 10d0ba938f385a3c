"""Candidate codes of notes: what a first stage proposes and a second stage scores again, and the file between the two.

Candidates are arrays of the best codes of each note: 3,372 notes with 300 of 8,700 codes take 8 MB.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..metrics import metrics_of_counts
from ..models.code_set import ICDCodeSet
from ..models.code_systems import Spellings
from .array_files import read_arrays, write_arrays

logger = logging.getLogger(__name__)

_BLOCK = 1 << 22

_ARRAYS = {"codes": ("U", 1), "indices": ("i", 2), "scores": ("f", 2), "note_ids": ("U", 1)}
"""What a file holds: the kind and the number of dimensions of each array."""


class FirstStage(Protocol):
    """Proposes codes for notes: the interface of all first stages."""

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note, in the order of the notes."""


@dataclass(eq=False)
class Candidates:
    """The best codes of each note, best first.

    A note can have fewer candidates than others, or none: its row is padded.

    Attributes:
        codes: all codes of the code set, in its order.
        indices: `(notes, top_k)` int32, positions in `codes`, none twice in a row; -1 pads a row at its end.
        scores: `(notes, top_k)` float32, descending within a row; minus infinity where `indices` is -1, and nowhere
            else.
        note_ids: `(notes,)` text, or None.

    Raises:
        ValueError: the arrays break one of these rules.

    Examples:
        >>> candidates = Candidates.from_scores([[0.5, -np.inf, 2.0], [-1.0, -1.0, -3.0]], ["I10", "R05", "R50.9"], 2)
        >>> candidates.codes_of(0), candidates.codes_of(1)
        (['R50.9', 'I10'], ['I10', 'R05'])
        >>> gold = [["I10"], ["R50.9"]]
        >>> candidates.candidate_recall(gold), candidates.candidate_recall(gold, k=1)
        (0.5, 0.0)
    """

    codes: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray
    note_ids: tuple[str, ...] | None = None

    def __post_init__(self):
        self.codes = tuple(self.codes)
        if not all(isinstance(code, str) for code in self.codes):
            raise ValueError("codes has one that is no text; pass codes as text.")
        if len(set(self.codes)) < len(self.codes):
            repeated = next(code for code in self.codes if self.codes.count(code) > 1)
            raise ValueError(f"codes has {repeated!r} twice; pass each code once.")
        indices, self.scores = np.asarray(self.indices), np.asarray(self.scores, dtype=np.float32)
        shape = indices.shape
        if len(shape) != 2 or self.scores.shape != shape:
            raise ValueError(f"indices has shape {shape} and scores {self.scores.shape}; pass (notes, top_k) for both.")
        if indices.size and indices.dtype.kind not in "iu":
            raise ValueError(f"indices is of type {indices.dtype}; pass integers, positions in codes.")
        # Before the conversion, which takes 4294967296 for 0.
        if indices.size and not -1 <= indices.min() <= indices.max() < len(self.codes):
            raise ValueError(f"indices has numbers outside -1 … {len(self.codes) - 1}, the positions in codes.")
        self.indices = indices.astype(np.int32, copy=False)
        ordered = np.sort(self.indices, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError("indices has a code twice in one row; pass each candidate of a note once.")
        if ((self.indices == -1) != (self.scores == -np.inf)).any():
            raise ValueError("scores must be minus infinity where indices is -1, and nowhere else.")
        # NaN compares as false.
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
        """The best codes of each row of a matrix of scores. `concatenate` joins the candidates of several batches.

        Args:
            scores: `(notes, codes)`; minus infinity for a code that is no candidate.
            codes: the codes of the columns.
            top_k: number of codes of a note; all where there are fewer. Of equal scores the first in `codes` wins.
            note_ids: `(notes,)` text.

        Raises:
            ValueError: `scores` has another shape or NaN, or `top_k` is less than 1.
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
        """The best codes of notes that are scored a batch at a time. The matrix of all scores is never in memory.

        Args:
            score: maps a batch of notes to scores `(notes, codes)`, as for `from_scores`.
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
        # The empty part is for no notes at all.
        return cls.concatenate([cls.from_scores(np.empty((0, len(codes))), codes, top_k), *batches])

    @classmethod
    def concatenate(cls, parts: Iterable[Candidates]) -> Candidates:
        """The notes of several parts one after the other. Their ids are kept if all parts have them.

        Raises:
            ValueError: no parts, or parts with different codes.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("parts is empty; pass at least one Candidates.")
        if any(part.codes != parts[0].codes for part in parts):
            raise ValueError("parts have different codes; pass candidates of one code set.")
        width = max(part.top_k for part in parts)

        def joined(name: str, fill: float) -> np.ndarray:
            arrays = (getattr(part, name) for part in parts)
            return np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays])

        have_ids = all(part.note_ids is not None for part in parts)
        note_ids = [note_id for part in parts for note_id in part.note_ids] if have_ids else None
        return cls(parts[0].codes, joined("indices", -1), joined("scores", -np.inf), note_ids)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def top_k(self) -> int:
        """The greatest number of candidates that a note can have here."""
        return self.indices.shape[1]

    @property
    def num_candidates(self) -> np.ndarray:
        """`(notes,)` number of candidates of each note."""
        return (self.indices >= 0).sum(axis=1)

    def codes_of(self, note: int) -> list[str]:
        """The candidates of the note at this position, best first."""
        return [self.codes[index] for index in self.indices[note] if index >= 0]

    def top(self, k: int) -> Candidates:
        """The `k` best candidates of each note; all where there are fewer."""
        k = _check_top_k("k", k)
        return replace(self, indices=self.indices[:, :k], scores=self.scores[:, :k])

    def take(self, rows: Sequence[int]) -> Candidates:
        """The notes at these positions, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        note_ids = None if self.note_ids is None else [self.note_ids[row] for row in rows]
        return replace(self, indices=self.indices[rows], scores=self.scores[rows], note_ids=note_ids)

    def for_notes(self, note_ids: Sequence[str]) -> Candidates:
        """The notes with these ids, in this order. Needed for a split that was shuffled, or has fewer notes now.

        Raises:
            ValueError: there are no ids or one twice, or a note is missing.
        """
        rows = {note_id: row for row, note_id in enumerate(self.note_ids or ())}
        if len(rows) < len(self):
            raise ValueError("The candidates have no note_ids, or one twice; make them with the ids of the notes.")
        note_ids = list(map(str, note_ids))
        missing = [position for position, note_id in enumerate(note_ids) if note_id not in rows]
        if missing:
            # An id can identify a patient, so the message has its position only.
            raise ValueError(
                f"note_ids has {len(missing)} notes without candidates, the first at position {missing[0]}; propose "
                "codes for the same notes."
            )
        return self.take([rows[note_id] for note_id in note_ids])

    def scores_matrix(self, fill: float) -> np.ndarray:
        """`(notes, codes)` float32: the scores, and `fill` for codes that are no candidates. Large: for metrics only.

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
            gold: for each note its gold codes; other spellings are found, as by `ICDCodeSet.find`.
            k: count only the `k` best candidates; all by default.

        Returns:
            A share; NaN where no note has a gold code.

        Raises:
            ValueError: another number of notes, or a gold code that is not in `codes`. If it were ignored, the recall
                would be too high: propose from a code set that has it, or remove it from `gold`.
        """
        found, support = self._count_found(gold, k)
        return float(found.sum() / support.sum()) if support.any() else math.nan

    def mean_average_precision(self, gold: Sequence[Iterable[str]]) -> float:
        """The average precision, averaged over the notes with gold codes. Gold codes that are no candidates add 0.

        Args:
            gold: as for `candidate_recall`.

        Returns:
            A share; NaN where no note has a gold code. `kept_hf.metrics.icd_metrics` averages over the orders of equal
            scores and ranks all codes: its value is the same if all codes are candidates and no two scores are equal.
        """
        hits, pairs = self._find(gold)
        golds = np.bincount(pairs // len(self.codes), minlength=len(self))
        if not golds.any():
            return math.nan
        precisions = np.where(hits, np.cumsum(hits, axis=1) / np.arange(1, self.top_k + 1), 0).sum(axis=1)
        return float((precisions[golds > 0] / golds[golds > 0]).mean())

    def oracle(self, gold: Sequence[Iterable[str]], k: int | None = None) -> dict[str, float]:
        """The metrics of assigning exactly the gold codes among the candidates: an upper bound for the second stage.

        Args:
            gold, k: as for `candidate_recall`.

        Returns:
            As [`kept_hf.metrics.metrics_of_counts`]; `recall_micro` is the candidate recall.

        Examples:
            >>> candidates = Candidates.from_scores([[0.5, 2.0], [1.0, 0.0]], ["I10", "R05"], 1)
            >>> round(candidates.oracle([["I10", "R05"], ["I10"]])["f1_micro"], 3)
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
            oracle = self.oracle(gold, k)
            metrics[f"candidate_recall_at_{k}"] = self.candidate_recall(gold, k)
            metrics |= {f"oracle_{name}_at_{k}": oracle[name] for name in ("f1_micro", "f1_macro")}
        return metrics

    def _count_found(self, gold: Sequence[Iterable[str]], k: int | None) -> tuple[np.ndarray, np.ndarray]:
        """For each code the number of notes where it is gold and among the `k` best, and of those where it is gold."""
        hits, pairs = self._find(gold)
        k = self.top_k if k is None else _check_top_k("k", k)
        found = self.indices[:, :k][hits[:, :k]]
        return tuple(np.bincount(chosen, minlength=len(self.codes)) for chosen in (found, pairs % len(self.codes)))

    def _find(self, gold: Sequence[Iterable[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates are gold, `(notes, top_k)`, and all gold pairs as numbers note * codes + code."""
        if len(gold) != len(self):
            raise ValueError(f"gold has {len(gold)} notes and the candidates {len(self)}; pass the same notes.")
        positions, pairs = {code: index for index, code in enumerate(self.codes)}, set()
        spellings = Spellings(self.codes)
        for note, codes in enumerate(gold):
            for code in codes:
                if (found := spellings.find(code)) is None:
                    raise ValueError(
                        f"gold has {code!r} in note {note}, not one of the {len(positions)} codes of the candidates; "
                        "propose from a code set that has it, or remove it from gold."
                    )
                pairs.add(note * len(positions) + positions[found])
        pairs = np.fromiter(pairs, np.int64, len(pairs))
        candidates = np.arange(len(self))[:, None] * len(positions) + self.indices
        return np.isin(candidates, pairs) & (self.indices >= 0), pairs

    def save(self, path: str | os.PathLike) -> None:
        """Write one npz file with a checksum. It contains the ids of the notes: protect it as you protect them.

        Raises:
            ValueError: a code or an id that the format would shorten: one that ends with a null character.
        """
        arrays = {"codes": np.array(self.codes, dtype=str), "indices": self.indices, "scores": self.scores}
        if self.note_ids is not None:
            arrays["note_ids"] = np.array(self.note_ids, dtype=str)
        for name in arrays.keys() & {"codes", "note_ids"}:
            if arrays[name].tolist() != list(getattr(self, name)):
                raise ValueError(f"{name} has one that ends with a null character; remove it.")
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Candidates:
        """Read what `save` wrote. Files of earlier versions have no checksum; their arrays are checked all the same.

        Raises:
            ValueError: the file holds something else, or is damaged.
            OSError: there is no such file, or it cannot be read.
        """
        arrays = read_arrays(path, _ARRAYS, optional={"note_ids"}, what="candidates", saved_by="Candidates.save")
        try:
            return cls(**{name: array.tolist() if array.dtype.kind == "U" else array for name, array in arrays.items()})
        except ValueError as error:
            raise ValueError(f"path={os.fspath(path)!r} holds no candidates, or is damaged: {error}") from None


def in_code_set(proposals: Candidates, code_set: ICDCodeSet, skip_unknown: bool = False) -> Candidates:
    """The same candidates, numbered as in another code set.

    Args:
        proposals: the candidates.
        code_set: the code set of the second stage.
        skip_unknown: omit candidates that it does not have; a warning counts them.

    Raises:
        ValueError: without `skip_unknown`, candidates that the code set does not have.

    Examples:
        >>> candidates = Candidates.from_scores([[0.5, 2.0, 1.0]], ["I10", "R05", "R50.9"], 2)
        >>> in_code_set(candidates, ICDCodeSet(["R50.9", "R05"])).indices.tolist()
        [[1, 0]]
    """
    if proposals.codes == code_set.codes:
        return proposals
    positions = [code_set.index(code) if code in code_set else -1 for code in proposals.codes]
    # The last one is for the padding, -1.
    indices, scores = np.array([*positions, -1], dtype=np.int32)[proposals.indices], proposals.scores
    unknown = (indices < 0) & (proposals.indices >= 0)
    if unknown.any():
        names = [proposals.codes[index] for index in np.unique(proposals.indices[unknown])]
        if not skip_unknown:
            raise ValueError(
                f"proposals has {', '.join(map(repr, names[:5]))} ({len(names)} codes in all), not among the "
                f"{len(code_set)} codes of the code set; propose from that code set, or pass skip_unknown=True."
            )
        logger.warning("%d candidates (%d codes) are not in the code set and were omitted.", unknown.sum(), len(names))
        known_first = np.argsort(indices < 0, axis=1, kind="stable")
        scores = np.take_along_axis(np.where(unknown, -np.inf, scores), known_first, axis=1)
        indices = np.take_along_axis(indices, known_first, axis=1)
    return Candidates(code_set.codes, indices, scores, proposals.note_ids)


def _check_top_k(name: str, value: int) -> int:
    if value < 1 or value != int(value):
        raise ValueError(f"{name}={value!r}; pass a positive integer.")
    return int(value)
