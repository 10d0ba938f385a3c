"""Several first stages as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..models.whole_file import write_text
from .candidates import Candidates, FirstStage
from .definition import StageContext
from .fusion import fuse_reciprocal_rank, fuse_weighted, tune_weights
from .stage_files import digest_of_candidates

TUNING_NOTES = 2_000


class FusedFirstStage:
    """Proposes what several first stages find together.

    Args:
        stages: the first stages.
        weights: for `fuse_weighted`; without them `fuse_reciprocal_rank` is used.
        depth: candidates of each stage before they are joined, as when the weights were tuned.

    Examples:
        >>> from kept_hf import ICDCodeSet
        >>> from kept_hf.candidates.sparse import SparseRetriever
        >>> code_set = ICDCodeSet(["I10", "R05"], {"I10": "Essential (primary) hypertension", "R05": "Cough"})
        >>> by_words = SparseRetriever(code_set, analyzer="word", ngram_range=(1, 1))
        >>> stage = FusedFirstStage([by_words, SparseRetriever(code_set)])
        >>> stage.propose(["hypertensive, with a cough"], top_k=2).codes_of(0)
        ['R05', 'I10']
    """

    def __init__(self, stages: Sequence[FirstStage], weights: Sequence[float] | None = None, depth: int = 300):
        self.stages, self.weights, self.depth = list(stages), weights, depth

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note."""
        parts = [stage.propose(notes, max(top_k, self.depth)) for stage in self.stages]
        if self.weights is None:
            return fuse_reciprocal_rank(parts, top_k=top_k)
        return fuse_weighted(parts, self.weights, top_k)


@dataclass(frozen=True)
class JoinedStages:
    """Joins the candidates of other first stages. The weights are tuned on those of the training notes.

    Attributes:
        joins: names of the stages.
    """

    joins: tuple[str, ...]
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def settings(self, context: StageContext) -> dict:
        """The digests of all candidates that are joined."""
        parts = [context.parts[name] for name in self.joins]
        return {"inputs": [digest_of_candidates(part[split]) for part in parts for split in context.corpus.dataset]}

    def prepare(self, context: StageContext) -> Callable[[str], Candidates]:
        """Tunes the weights, and writes them to `weights.json` in the stage's folder."""
        train, parts = context.corpus.dataset["train"], [context.parts[name] for name in self.joins]
        tuned_on = range(min(TUNING_NOTES, len(train)))
        weights = tune_weights([part["train"].take(tuned_on) for part in parts], train.select(tuned_on)["codes"][:])
        content = {"stages": self.joins, "weights": weights, "tuned_on": f"{len(tuned_on)} training notes"}
        write_text(context.folder / "weights.json", json.dumps(content, indent=1) + "\n")
        return lambda split: fuse_weighted([part[split] for part in parts], weights)


STAGE = JoinedStages(("sparse", "dense", "classifier"))
