"""How a first stage is registered: what it needs, and how it is made for a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from ..corpora import Corpus
from ..models.code_set import ICDCodeSet
from .candidates import Candidates, FirstStage
from .out_of_fold import propose_out_of_fold

NEEDS = frozenset({"texts", "labels", "encoder"})
"""What a first stage may need: the training notes, their codes too, an encoder."""


@dataclass(frozen=True)
class StageContext:
    """All that a first stage can be made from.

    Attributes:
        corpus: the notes and codes.
        folder: a folder of the stage's own. Its candidates are written there.
        top_k: candidates of a note.
        folds: parts of the training notes, each held out once by a stage that is made out of fold.
        encoder: folder or model id; None if no stage needs one.
        parts: for each stage that this one joins, its candidates by split.
    """

    corpus: Corpus
    folder: Path
    top_k: int
    folds: int
    encoder: str | None = None
    parts: Mapping[str, Mapping[str, Candidates]] = field(default_factory=dict)


class StageDefinition(Protocol):
    """What the registry holds for the name of a first stage.

    Attributes:
        needs: some of `NEEDS`.
        joins: names of the stages whose candidates it joins.
    """

    needs: frozenset[str]
    joins: tuple[str, ...]

    def settings(self, context: StageContext) -> dict:
        """All that the candidates depend on, beside the notes, the codes and `top_k`; as JSON keeps it."""

    def prepare(self, context: StageContext) -> Callable[[str], Candidates]:
        """Make the stage. Returns a function from the name of a split to the candidates of its notes."""


@dataclass(frozen=True)
class StageInputs:
    """What a [`NotesStage`] is made from. What it does not need is None.

    Attributes:
        code_set: the codes to propose from.
        texts: the training notes.
        labels: the codes of each.
        encoder: folder or model id.
    """

    code_set: ICDCodeSet
    texts: Sequence[str] | None = None
    labels: Sequence[Sequence[str]] | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class NotesStage:
    """A first stage that reads notes.

    Attributes:
        make: its inputs → the first stage, fitted.
        needs: some of `NEEDS`; "labels" includes "texts".
        out_of_fold: it learns from the labels. The candidates of a training note come from a stage that was made
            without this note and others of the same patient.
        own_settings: its inputs → further settings, such as the digest of a model.

    Raises:
        ValueError: `needs` has something else.
    """

    make: Callable[[StageInputs], FirstStage]
    needs: frozenset[str] = frozenset()
    out_of_fold: bool = False
    own_settings: Callable[[StageInputs], dict] = field(default=lambda inputs: {})
    joins: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if unknown := sorted(set(self.needs) - NEEDS):
            raise ValueError(f"needs has {', '.join(unknown)}; pass some of {', '.join(sorted(NEEDS))}.")

    def settings(self, context: StageContext) -> dict:
        """See [`StageDefinition`]."""
        folds = {"folds": context.folds} if self.out_of_fold else {}
        return {**folds, **self.own_settings(self._inputs(context))}

    def prepare(self, context: StageContext) -> Callable[[str], Candidates]:
        """See [`StageDefinition`]."""
        inputs, splits = self._inputs(context), context.corpus.dataset
        stage = cache(lambda: self.make(inputs))

        def fit(texts: Sequence[str], labels: Sequence[Sequence[str]]) -> FirstStage:
            return self.make(replace(inputs, texts=texts, labels=labels))

        def propose(split: str) -> Candidates:
            notes = splits[split]
            if split == "train" and self.out_of_fold:
                patients = notes["subject_id"][:] if "subject_id" in notes.column_names else None
                texts, labels = notes["text"][:], notes["codes"][:]
                return propose_out_of_fold(fit, texts, labels, context.top_k, patients, context.folds)
            return stage().propose(notes["text"], context.top_k)

        return propose

    def _inputs(self, context: StageContext) -> StageInputs:
        inputs = StageInputs(context.corpus.code_set)
        if self.needs & {"texts", "labels"}:
            inputs = replace(inputs, texts=context.corpus.dataset["train"]["text"])
        if "labels" in self.needs:
            inputs = replace(inputs, labels=context.corpus.dataset["train"]["codes"])
        if "encoder" in self.needs:
            inputs = replace(inputs, encoder=context.encoder)
        return inputs


@dataclass(frozen=True)
class TrainedStage:
    """A first stage that is the folder of a trained model.

    Attributes:
        load: a folder or model id, and the code set of the corpus → the first stage. Its attribute `model` is the
            model.
    """

    load: Callable[[str, ICDCodeSet], FirstStage]


def default_device() -> str:
    """The device of first stages that are models."""
    return "cuda" if torch.cuda.is_available() else "cpu"
