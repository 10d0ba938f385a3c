"""What the models that score ICD codes return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

PADDED_SCORE = -100.0
"""Score of a label slot that holds no code: the same number with which the Trainer pads."""


@dataclass
class ICDPromptingOutput(ModelOutput):
    """
    Output of [`KeptLongformerForICDPrompting`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned when `labels` is given):
            Cross entropy at the masks.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Score of each code asked: logit of "yes" minus logit of "no" at its mask. `sigmoid` gives the probability.
            Slots beyond the codes of a row hold -100.
        prior (`torch.FloatTensor` of shape `(batch_size, num_labels)`, returned with `config.similarity_prior`):
            The part of the scores that comes from the similarity of description and windows; 0 in slots beyond.
        hidden_states (`tuple(torch.FloatTensor)`, returned when `output_hidden_states=True`):
            One of shape `(batch_size, sequence_length, hidden_size)` for the embeddings and for each layer.
        attentions, global_attentions (`tuple(torch.FloatTensor)`, returned when `output_attentions=True`):
            As in `LongformerBaseModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    prior: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    global_attentions: tuple[torch.FloatTensor, ...] | None = None
