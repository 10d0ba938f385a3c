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
    Output of [`KeptLongformerForICDPrompting`] and [`KeptLongformerForICDMatching`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned when `labels` is given):
            Cross entropy at the masks, or binary cross entropy of the scores.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Score of each code asked: logit of "yes" minus logit of "no" at its mask, or the scaled similarity of its
            names. `sigmoid` gives the probability.
            Slots beyond the codes of a row hold -100.
        hidden_states (`tuple(torch.FloatTensor)`, returned when `output_hidden_states=True`):
            One of shape `(batch_size, sequence_length, hidden_size)` for the embeddings and for each layer.
        attentions, global_attentions (`tuple(torch.FloatTensor)`, returned when `output_attentions=True`):
            As in `LongformerBaseModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    global_attentions: tuple[torch.FloatTensor, ...] | None = None
