"""A trained MSMN as the first of two stages: the candidate codes of notes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoTokenizer

from ..models.modeling_msmn import MSMNForICDCoding
from ..models.tokenization_msmn import MSMNTokenizer
from .candidates import Candidates
from .definition import TrainedStage


class MSMNFirstStage:
    """Proposes the codes that MSMN scores best: a [`kept_hf.candidates.candidates.FirstStage`].

    Args:
        model: with the terms of its codes. It is set to evaluation mode before it scores.
        tokenizer: of the model.
        batch_size: notes at a time.

    Raises:
        ValueError: a tokenizer of another size than the model's, or a `batch_size` below 1.

    Examples:
        >>> from kept_hf import MSMNConfig
        >>> tokenizer = MSMNTokenizer.from_texts(["fever and high blood pressure"], min_count=1)
        >>> config = MSMNConfig(vocab_size=len(tokenizer), num_synonyms=1, id2label={0: "I10", 1: "R50.9"})
        >>> model = MSMNForICDCoding(config)
        >>> model.set_label_terms(**tokenizer(["high blood pressure", "fever"], padding=True, return_tensors="pt"))
        >>> candidates = MSMNFirstStage(model, tokenizer).propose(["Fever.", "No fever; high blood pressure"], top_k=1)
        >>> len(candidates), candidates.top_k, candidates.codes
        (2, 1, ('I10', 'R50.9'))
    """

    def __init__(self, model: MSMNForICDCoding, tokenizer: MSMNTokenizer, batch_size: int = 16):
        if len(tokenizer) != model.config.vocab_size:
            raise ValueError(
                f"tokenizer has {len(tokenizer)} words, the model {model.config.vocab_size}; pass that of the model."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; pass 1 or more.")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, batch_size: int = 16) -> MSMNFirstStage:
        """The first stage of a folder, or model id, with model and tokenizer.

        Raises:
            ValueError: another model, or one with damaged weights.
        """
        model = MSMNForICDCoding.from_pretrained(folder)
        return cls(model, AutoTokenizer.from_pretrained(folder), batch_size)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in the order of the model's labels."""
        return tuple(self.model.config.id2label[index] for index in range(self.model.config.num_labels))

    @torch.no_grad()
    def scores(self, notes: Sequence[str]) -> np.ndarray:
        """The logits of a batch of notes: `(notes, codes)`."""
        inputs = self.tokenizer(
            list(notes), padding=True, truncation=True, max_length=self.model.config.max_words, return_tensors="pt"
        )
        return self.model.eval()(**inputs.to(self.model.device)).logits.float().cpu().numpy()

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note, in the order of the notes; all codes where there are fewer.

        Raises:
            TypeError: `notes` is one string.
            ValueError: `top_k` below 1.
        """
        if isinstance(notes, str):
            raise TypeError("notes is one string; pass a list of notes.")
        # Notes of similar length together, so that batches need little padding.
        order = np.argsort([len(note) for note in notes], kind="stable")
        sorted_notes = [notes[row] for row in order]
        candidates = Candidates.from_scorer(self.scores, sorted_notes, self.codes, top_k, self.batch_size)
        return candidates.take(np.argsort(order))


STAGE = TrainedStage(lambda folder, code_set: MSMNFirstStage.from_pretrained(folder))
