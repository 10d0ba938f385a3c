"""Several candidates of the same notes joined into one: by rank, or by score with weights tuned on validation notes.

[`AlignedScores`] aligns, weights and tunes; [`kept_hf.reranking.fuse`] uses it, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .candidates import Candidates


@dataclass(frozen=True, eq=False)
class AlignedScores:
    """The candidates that each note has in any of several parts, and their scores in each.

    Attributes:
        parts: what is joined.
        indices: `(notes, width)` int32, positions of codes, ascending; -1 pads rows at their end.
        values: `(notes, width, parts)` floats.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 2)
        >>> other = Candidates.from_scores([[0.0, 0.125, 0.5]], ["I10", "R05", "R50.9"], 2)
        >>> aligned = AlignedScores.of_scores([one, other])
        >>> aligned.indices.tolist(), aligned.values.tolist()
        ([[0, 1, 2]], [[[3.0, 0.125], [2.0, 0.125], [2.0, 0.5]]])
        >>> aligned.fuse([1.0, 10.0]).codes_of(0)
        ['R50.9', 'I10']
    """

    parts: Sequence[Candidates]
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of_scores(cls, parts: Sequence[Candidates]) -> AlignedScores:
        """Align scores. A code that is no candidate of a part has the lowest score that the note has there, or 0."""
        lowest = [np.where(part.indices >= 0, part.scores, np.inf).min(axis=1, initial=np.inf) for part in parts]
        fills = [np.where(np.isfinite(fill), fill, 0) for fill in lowest]
        return cls.of_values(parts, [part.scores for part in parts], fills)

    @classmethod
    def of_values(
        cls, parts: Sequence[Candidates], values: Sequence[np.ndarray], fills: Sequence[np.ndarray]
    ) -> AlignedScores:
        """Align any values of the candidates.

        Args:
            parts: candidates of the same notes and codes; at least one.
            values: for each part `(notes, top_k)`, a value for each candidate.
            fills: for each part `(notes,)`, the value of codes that are no candidates there.

        Raises:
            ValueError: no parts, or parts with different notes or codes.
        """
        _check_parts(parts)
        united = [
            np.unique(np.concatenate([row[row >= 0] for row in rows]))
            for rows in zip(*(part.indices for part in parts), strict=True)
        ]
        width = max(map(len, united), default=0)
        indices = np.full((len(united), width), -1, dtype=np.int32)
        aligned = np.empty((len(united), width, len(parts)), dtype=np.float32)
        for number, (part, part_values, fill) in enumerate(zip(parts, values, fills, strict=True)):
            aligned[:, :, number] = fill[:, None]
            for note, positions in enumerate(united):
                codes = part.indices[note][part.indices[note] >= 0]
                aligned[note, np.searchsorted(positions, codes), number] = part_values[note][: len(codes)]
        for row, positions in zip(indices, united, strict=True):
            row[: len(positions)] = positions
        return cls(parts, indices, aligned)

    def standardised(self, means: Sequence[float], scales: Sequence[float]) -> AlignedScores:
        """The values of each part minus its mean, divided by its scale; float64."""
        return replace(self, values=(self.values - np.asarray(means, np.float64)) / np.asarray(scales, np.float64))

    def fuse(self, weights: Sequence[float] | None, top_k: int | None = None) -> Candidates:
        """The codes with the highest weighted sums; of equal ones the first in the order of the codes.

        Args:
            weights: a number for each part; None adds the values as they are.
            top_k: number of codes of a note to keep; by default as many as the widest part has.

        Raises:
            ValueError: `top_k` is less than 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k!r}; pass a positive integer.")
        if weights is None:
            totals = self.values.sum(axis=2)
        else:
            totals = self.values @ np.asarray(weights, dtype=self.values.dtype)
        totals = np.where(self.indices >= 0, totals, -np.inf).astype(np.float32)
        order = np.argsort(-totals, axis=1, kind="stable")[:, : _width(self.parts) if top_k is None else top_k]
        return Candidates(
            self.parts[0].codes,
            np.take_along_axis(self.indices, order, axis=1),
            np.take_along_axis(totals, order, axis=1),
            next((part.note_ids for part in self.parts if part.note_ids is not None), None),
        )

    def tune(
        self,
        grid: Iterable[Sequence[float]],
        quality: Callable[[Candidates], float],
        top_k: int | None = None,
    ) -> Sequence[float]:
        """The weights of the grid whose fusion has the best quality; the first of equally good ones."""
        return max(grid, key=lambda weights: quality(self.fuse(weights, top_k)))


def scale_of(scores: np.ndarray) -> np.floating:
    """The standard deviation of scores, by which they can be divided: 1 where they are all equal, or none."""
    deviation = scores.std() if scores.size else 0
    # Equal scores carry no order, whatever they are divided by.
    return deviation if deviation > 0 else scores.dtype.type(1)


def fuse_reciprocal_rank(parts: Sequence[Candidates], k: float = 10, top_k: int | None = None) -> Candidates:
    """Join candidates by rank: a code scores the sum of 1 / (k + its rank) in each part. Nothing has to be tuned.

    Args:
        parts: candidates of the same notes and codes; at least one.
        k: a smaller one gives more weight to the first ranks. Published is 60; on CodiEsp 10 had the same recall and
            the higher mean average precision (`docs/retrieval.md`).
        top_k: number of codes of a note to keep; by default as many as the widest part has.

    Raises:
        ValueError: no parts, or parts with different notes or codes; a `k` below 0.

    Source: Cormack, Clarke, Büttcher, *Reciprocal Rank Fusion outperforms Condorcet*, SIGIR 2009.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 3)
        >>> other = Candidates.from_scores([[-np.inf, 0.2, 0.1]], ["I10", "R05", "R50.9"], 3)
        >>> fuse_reciprocal_rank([one, other]).codes_of(0)
        ['R05', 'R50.9', 'I10']
    """
    if k < 0:
        raise ValueError(f"k={k!r}; pass a number of 0 or more, such as 60.")
    reciprocal = [
        np.broadcast_to(1 / (k + np.arange(1, part.top_k + 1)), part.indices.shape).astype(np.float32) for part in parts
    ]
    aligned = AlignedScores.of_values(parts, reciprocal, fills=[np.zeros(len(part)) for part in parts])
    return aligned.fuse(None, top_k)


def fuse_weighted(parts: Sequence[Candidates], weights: Sequence[float], top_k: int | None = None) -> Candidates:
    """Join candidates by score: a code scores the weighted sum of its scores.

    Where it is no candidate it takes the lowest score of the note's candidates, which its own cannot exceed.

    Args:
        parts: candidates of the same notes and codes; at least one.
        weights: a number for each part; parts with weight 0 are omitted. The weights depend on the scales of the
            scores: take them from `tune_weights`.
        top_k: number of codes of a note to keep; by default as many as the widest part has.

    Raises:
        ValueError: no parts, or parts with different notes or codes; weights that are not one for each, negative, or
            all 0.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 2)
        >>> other = Candidates.from_scores([[0.0, 0.1, 0.5]], ["I10", "R05", "R50.9"], 2)
        >>> fused = fuse_weighted([one, other], [1.0, 10.0])
        >>> fused.codes_of(0), fused.scores.tolist()
        (['R50.9', 'I10'], [[7.0, 4.0]])
    """
    weights = [float(weight) for weight in weights]
    if len(weights) != len(parts):
        raise ValueError(f"weights has {len(weights)} numbers for {len(parts)} parts; pass one each.")
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(f"weights={weights}; pass numbers of 0 or more, not all 0.")
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight]
    aligned = AlignedScores.of_scores([part for part, _ in used])
    return aligned.fuse([weight for _, weight in used], _width(parts) if top_k is None else top_k)


def tune_weights(
    parts: Sequence[Candidates], gold: Sequence[Iterable[str]], k: int | None = None, steps: int = 10
) -> list[float]:
    """Weights for `fuse_weighted`, the best of a grid on validation notes.

    The grid has all ways to divide 1 into multiples of 1 / `steps`, for scores divided by their standard deviation:
    11 points for two parts, 66 for three, 286 for four. Nothing is random.

    Args:
        parts: candidates of the validation notes, with the `top_k` of those that will be fused.
        gold: the gold codes of each note.
        k: maximise the candidate recall at `k`; by default the mean average precision.
        steps: of the grid.

    Returns:
        A weight for each of `parts`, for unscaled scores. Among equally good ones the first of the grid, which gives
        the most to the later parts.

    Raises:
        ValueError: as `fuse_weighted`; no note with a gold code; a part without candidates.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 3)
        >>> other = Candidates.from_scores([[0.1, 0.2, 0.5]], ["I10", "R05", "R50.9"], 3)
        >>> weights = tune_weights([one, other], gold=[["I10"]])
        >>> fuse_weighted([one, other], weights).codes_of(0)[0]
        'I10'
    """
    if steps < 1:
        raise ValueError(f"steps={steps!r}; pass a positive integer.")
    aligned = AlignedScores.of_scores(parts)
    if not any(map(any, gold)):
        raise ValueError("gold has no code; pass notes with gold codes.")
    scores = [part.scores[part.indices >= 0] for part in parts]
    if not all(map(np.size, scores)):
        raise ValueError("parts has one without candidates; omit it.")
    scale = np.array([1 / scale_of(values) for values in scores])
    shares = itertools.product(range(steps + 1), repeat=len(parts))
    grid = [np.array(share) / steps * scale for share in shares if sum(share) == steps]

    def quality(fused: Candidates) -> float:
        return fused.mean_average_precision(gold) if k is None else fused.candidate_recall(gold, k)

    return aligned.tune(grid, quality, top_k=k).tolist()


def _check_parts(parts: Sequence[Candidates]) -> None:
    if not parts:
        raise ValueError("parts is empty; pass at least one Candidates.")
    if any(part.codes != parts[0].codes or len(part) != len(parts[0]) for part in parts):
        raise ValueError("parts have different codes or numbers of notes; pass candidates of the same notes and codes.")
    if len({part.note_ids for part in parts} - {None}) > 1:
        raise ValueError("parts have different note_ids; bring them into one order with for_notes.")


def _width(parts: Sequence[Candidates]) -> int:
    return max(part.top_k for part in parts)
