"""A trained model of the isolated layout, or of late interaction, as the first of two stages."""

from __future__ import annotations

import os
from collections.abc import Sequence

from transformers import AutoModelForSequenceClassification

from ..models.code_set import ICDCodeSet
from ..models.processing_kept import KeptProcessor
from ..reranking import rerank_all
from .candidates import Candidates


class KeptFirstStage:
    """Proposes the codes that a model scores best when it is asked about all: a [`FirstStage`].

    It knows codes by their descriptions, so that it also proposes those that no training note has.

    Args:
        model: a `KeptLongformerForICDMatching`, or a `KeptLongformerForICDPrompting` of the isolated layout.
        processor: its processor, with the codes to propose from.
        batch_size: notes read at a time.

    Examples:
        ```python
        proposer = KeptFirstStage.from_pretrained("outputs/codiesp-late-interaction")
        proposals = proposer.propose(["Admitted with sepsis."], top_k=300)
        ```
    """

    def __init__(self, model, processor: KeptProcessor, batch_size: int = 4):
        self.model, self.processor, self.batch_size = model, processor, batch_size

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, code_set: ICDCodeSet | None = None, batch_size: int = 4
    ) -> KeptFirstStage:
        """The proposer of a folder, or model id, that holds model and processor.

        Args:
            folder: what `train.py` wrote.
            code_set: the codes to propose from; by default those that the model was trained with.
            batch_size: notes read at a time.
        """
        processor = KeptProcessor.from_pretrained(folder, code_set=code_set)
        return cls(AutoModelForSequenceClassification.from_pretrained(folder), processor, batch_size)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in the order of the code set."""
        return self.processor.code_set.codes

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note, in the order of the notes; all codes where there are fewer.

        The descriptions are encoded at every call: pass all notes at once.

        Raises:
            TypeError: `notes` is one string.
            ValueError: as [`kept_hf.reranking.rerank_all`], for the joint layout above all.
        """
        return rerank_all(self.model, self.processor, notes, top_k, self.batch_size)
