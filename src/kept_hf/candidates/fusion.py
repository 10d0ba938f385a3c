"""Several proposals joined into one: by rank, or by score with weights tuned on validation notes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from .candidates import Candidates, FirstStage


def fuse_reciprocal_rank(proposals: Sequence[Candidates], k: float = 10, top_k: int | None = None) -> Candidates:
    """Join proposals by rank: a code scores the sum of 1 / (k + its rank) in each. Nothing has to be tuned.

    Args:
        proposals: of the same notes and codes; at least one.
        k: a smaller one lets the first ranks count for more. Published is 60; on CodiEsp 10 had the same recall and the
            higher mean average precision (`docs/retrieval.md`).
        top_k: how many codes of a note to keep; by default as many as the widest of the proposals.

    Raises:
        ValueError: no proposals, or those of different notes or codes; a `k` below 0.

    Source: Cormack, Clarke, Büttcher, *Reciprocal Rank Fusion outperforms Condorcet*, SIGIR 2009.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 3)
        >>> other = Candidates.from_scores([[-np.inf, 0.2, 0.1]], ["I10", "R05", "R50.9"], 3)
        >>> fuse_reciprocal_rank([one, other]).codes_of(0)
        ['R05', 'R50.9', 'I10']
    """
    if k < 0:
        raise ValueError(f"k={k!r}; pass a number of 0 or more, such as 60.")
    reciprocal = [1 / (k + np.arange(1, part.top_k + 1)) for part in proposals]
    parts = [np.broadcast_to(values, part.indices.shape) for values, part in zip(reciprocal, proposals, strict=True)]
    indices, values = _side_by_side(proposals, parts, fills=[np.zeros(len(part)) for part in proposals])
    return _best(proposals, indices, values.sum(axis=2), top_k)


def fuse_weighted(proposals: Sequence[Candidates], weights: Sequence[float], top_k: int | None = None) -> Candidates:
    """Join proposals by score: a code scores the weighted sum of its scores.

    Where it is not proposed it takes the lowest score that the note's candidates have there, which its own cannot
    exceed.

    Args:
        proposals: of the same notes and codes; at least one.
        weights: of each; those with weight 0 are left out. They hold for the scales of the scores, so take them from
            `tune_weights`.
        top_k: how many codes of a note to keep; by default as many as the widest of the proposals.

    Raises:
        ValueError: no proposals, or those of different notes or codes; weights that are not one for each, negative, or
            all 0.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 2)
        >>> other = Candidates.from_scores([[0.0, 0.1, 0.5]], ["I10", "R05", "R50.9"], 2)
        >>> fused = fuse_weighted([one, other], [1.0, 10.0])
        >>> fused.codes_of(0), fused.scores.tolist()
        (['R50.9', 'I10'], [[7.0, 4.0]])
    """
    weights = [float(weight) for weight in weights]
    if len(weights) != len(proposals):
        raise ValueError(f"weights has {len(weights)} numbers for {len(proposals)} proposals; pass one each.")
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(f"weights={weights}; pass numbers of 0 or more, not all 0.")
    kept = [part for part, weight in zip(proposals, weights, strict=True) if weight]
    indices, values = _aligned_scores(kept)
    totals = _weighted(values, np.array([weight for weight in weights if weight]))
    return _best(kept, indices, totals, _width(proposals) if top_k is None else top_k)


def tune_weights(
    proposals: Sequence[Candidates], gold: Sequence[Iterable[str]], k: int | None = None, steps: int = 10
) -> list[float]:
    """Weights for `fuse_weighted`, the best of a grid on validation notes.

    The grid has all shares of 1 in `steps` parts, of scores divided by their standard deviation: 11 points for two
    proposals, 66 for three, 286 for four. Nothing is drawn at random.

    Args:
        proposals: of the validation notes, as deep as those that will be fused.
        gold: the gold codes of each note.
        k: maximise the candidate recall at `k`; by default the mean average precision.
        steps: of the grid.

    Returns:
        A weight for each of `proposals`, for scores as they are. Among equally good ones the first of the grid, which
        gives the most to the later proposals.

    Raises:
        ValueError: as `fuse_weighted`; no note with a gold code; proposals without candidates.

    Examples:
        >>> one = Candidates.from_scores([[3.0, 2.0, 1.0]], ["I10", "R05", "R50.9"], 3)
        >>> other = Candidates.from_scores([[0.1, 0.2, 0.5]], ["I10", "R05", "R50.9"], 3)
        >>> weights = tune_weights([one, other], gold=[["I10"]])
        >>> fuse_weighted([one, other], weights).codes_of(0)[0]
        'I10'
    """
    if steps < 1:
        raise ValueError(f"steps={steps!r}; pass a positive integer.")
    indices, values = _aligned_scores(proposals)
    if not any(map(any, gold)):
        raise ValueError("gold has no code; pass notes with gold codes.")
    is_candidate = [part.indices >= 0 for part in proposals]
    if not all(map(np.any, is_candidate)):
        raise ValueError("proposals has one without candidates; leave it out.")
    spread = [part.scores[chosen].std() for part, chosen in zip(proposals, is_candidate, strict=True)]
    # Equal scores carry no order, whatever their weight.
    scale = np.array([1 / value if value > 0 else 1.0 for value in spread])
    best, chosen = -math.inf, None
    for shares in itertools.product(range(steps + 1), repeat=len(proposals)):
        if sum(shares) != steps:
            continue
        weights = np.array(shares) / steps * scale
        fused = _best(proposals, indices, _weighted(values, weights), top_k=k)
        quality = fused.mean_average_precision(gold) if k is None else fused.candidate_recall(gold, k)
        if quality > best:
            best, chosen = quality, weights
    return chosen.tolist()


class FusedFirstStage:
    """Proposes what several proposers find together.

    Args:
        proposers: the first stages.
        weights: for `fuse_weighted`; without them `fuse_reciprocal_rank`.
        depth: codes that each proposes before they are joined; that with which the weights were tuned.

    Examples:
        >>> from kept_hf import ICDCodeSet
        >>> from kept_hf.candidates.sparse import SparseRetriever
        >>> code_set = ICDCodeSet(["I10", "R05"], {"I10": "Essential (primary) hypertension", "R05": "Cough"})
        >>> by_words = SparseRetriever(code_set, analyzer="word", ngram_range=(1, 1))
        >>> proposer = FusedFirstStage([by_words, SparseRetriever(code_set)])
        >>> proposer.propose(["hypertensive, with a cough"], top_k=2).codes_of(0)
        ['R05', 'I10']
    """

    def __init__(self, proposers: Sequence[FirstStage], weights: Sequence[float] | None = None, depth: int = 300):
        self.proposers, self.weights, self.depth = list(proposers), weights, depth

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note."""
        parts = [proposer.propose(notes, max(top_k, self.depth)) for proposer in self.proposers]
        if self.weights is None:
            return fuse_reciprocal_rank(parts, top_k=top_k)
        return fuse_weighted(parts, self.weights, top_k)


def _aligned_scores(proposals: Sequence[Candidates]) -> tuple[np.ndarray, np.ndarray]:
    """As `_side_by_side`, of scores; a note without candidates has 0 there."""
    lowest = [np.where(part.indices >= 0, part.scores, np.inf).min(axis=1, initial=np.inf) for part in proposals]
    fills = [np.where(np.isfinite(fill), fill, 0) for fill in lowest]
    return _side_by_side(proposals, [part.scores for part in proposals], fills)


def _side_by_side(
    proposals: Sequence[Candidates], parts: Sequence[np.ndarray], fills: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates that each note has in any of the proposals, and their values in each.

    Args:
        proposals: what is joined.
        parts: for each a value for every candidate, `(notes, top_k)`.
        fills: for each the value of codes that are not candidates there, `(notes,)`.

    Returns:
        Places of codes, `(notes, width)`, ascending and filled up with -1, and values `(notes, width, proposals)`.
    """
    if not proposals:
        raise ValueError("proposals is empty; pass at least one.")
    if any(part.codes != proposals[0].codes or len(part) != len(proposals[0]) for part in proposals):
        raise ValueError(
            "proposals are of different codes or numbers of notes; pass those of the same notes and codes."
        )
    if len({part.note_ids for part in proposals} - {None}) > 1:
        raise ValueError("proposals are of notes with different note_ids; bring them into one order with for_notes.")
    united = [
        np.unique(np.concatenate([row[row >= 0] for row in rows]))
        for rows in zip(*(part.indices for part in proposals), strict=True)
    ]
    width = max(map(len, united), default=0)
    indices = np.full((len(united), width), -1, dtype=np.int32)
    values = np.empty((len(united), width, len(proposals)), dtype=np.float32)
    for number, (part, part_values, fill) in enumerate(zip(proposals, parts, fills, strict=True)):
        values[:, :, number] = fill[:, None]
        for note, places in enumerate(united):
            candidates = part.indices[note][part.indices[note] >= 0]
            values[note, np.searchsorted(places, candidates), number] = part_values[note][: len(candidates)]
    for row, places in zip(indices, united, strict=True):
        row[: len(places)] = places
    return indices, values


def _width(proposals: Sequence[Candidates]) -> int:
    return max(part.top_k for part in proposals)


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values @ weights.astype(np.float32)


def _best(proposals: Sequence[Candidates], indices: np.ndarray, totals: np.ndarray, top_k: int | None) -> Candidates:
    """The candidates with the highest totals; of equal ones the first in the order of the codes."""
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k!r}; pass a positive integer.")
    totals = np.where(indices >= 0, totals, -np.inf)
    order = np.argsort(-totals, axis=1, kind="stable")[:, : _width(proposals) if top_k is None else top_k]
    note_ids = next((part.note_ids for part in proposals if part.note_ids is not None), None)
    return Candidates(
        proposals[0].codes,
        np.take_along_axis(indices, order, axis=1),
        np.take_along_axis(totals, order, axis=1),
        note_ids,
    )
