"""HSAP: hierarchical self-alignment pretraining on the names of a term graph. The model.

Names of one concept are drawn together, names of other concepts pushed apart, relatives in the hierarchy less so than
strangers (`loss`). KEPT's weights were made in this way from UMLS (Yang et al., Findings of EMNLP 2022,
section 3.1, arXiv 2210.03304), as an extension of SapBERT (Liu et al., NAACL 2021, arXiv 2010.11784).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed
from transformers.utils import ModelOutput

from ...candidates.pooling import check_pooling, pool
from ...models.configuration_kept_longformer import KeptLongformerConfig
from ...models.modeling_kept_longformer import KeptLongformerForMaskedLM
from .loss import MAX_DISTANCE, check_hierarchy, hsap_loss

if TYPE_CHECKING:
    from ...knowledge import TermGraph

logger = logging.getLogger(__name__)


class _Gather(torch.autograd.Function):
    """The rows of all processes, one after the other; the gradient goes to those of this process.

    Each process computes the same loss of all rows, and DistributedDataParallel takes the mean of the processes'
    gradients: times their number it is the gradient that a single process would have.
    """

    @staticmethod
    def forward(ctx, rows):
        return _all_rows(rows)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()] * distributed.get_world_size()


def _all_rows(rows: torch.Tensor) -> torch.Tensor:
    gathered = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def gather_names(embeddings: torch.Tensor, concepts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and concepts of all processes, so that each name meets all others; without processes, those given.

    Every process must pass the same number of rows, as [`kept_hf.pretraining.hsap.families.TermFamilies`] makes them.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return embeddings, concepts
    return _Gather.apply(embeddings), _all_rows(concepts)


@dataclass
class TermEmbeddingOutput(ModelOutput):
    """
    Output of [`KeptLongformerForHSAP`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned when `concepts` is given):
            [`kept_hf.pretraining.hsap.loss.hsap_loss`] in training mode, 0 in evaluation mode.
        embeddings (`torch.FloatTensor` of shape `(batch_size, hidden_size)`):
            A vector for each name, float32, not normalised.
    """

    loss: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None


class KeptLongformerForHSAP(KeptLongformerForMaskedLM):
    """
    The encoder with HSAP's loss; its parameters are those of [`KeptLongformerForMaskedLM`].

    The masked-LM head takes no part: it goes along unchanged and no longer fits the encoder, so that masked-LM or
    zero-shot pretraining comes next. Nor do the projections of global attention, which names are too short for. Neither
    is trained.

    Args:
        config: the configuration.
        graph: the hierarchy, whose concept numbers `concepts` are. Without one, or with one that has no edge, the loss
            is SapBERT's; with a `hierarchy_weight` a warning says so.
        pooling: "cls", the vector of the first token, as published; or "mean" of all tokens, for encoders that were
            trained that way.
        hierarchy_weight, max_distance, margin: see [`kept_hf.pretraining.hsap.loss.hsap_loss`].
        chunk_size: encode so many names at a time, sorted by length, so that short ones are not padded to the longest
            of the batch. Saves half of the work on a CPU. By default all at once.

    Raises:
        ValueError: another pooling; a weight, distance or chunk size that is none.

    Examples:
        >>> config = KeptLongformerConfig(
        ...     vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
        ...     attention_window=4,
        ... )
        >>> model = KeptLongformerForHSAP(config).train()
        >>> output = model(torch.tensor([[0, 10, 2], [0, 11, 2], [0, 12, 2]]), concepts=torch.tensor([3, 3, 4]))
        >>> output.embeddings.shape, output.loss.requires_grad
        (torch.Size([3, 16]), True)
    """

    accepts_loss_kwargs = False
    """The Trainer divides the loss of an accumulation step itself."""
    # Its checkpoints are read here only; what is published is `as_masked_lm()`.
    _auto_class = None

    def __init__(
        self,
        config: KeptLongformerConfig,
        graph: TermGraph | None = None,
        pooling: str = "cls",
        hierarchy_weight: float = 1.0,
        max_distance: int = MAX_DISTANCE,
        margin: float = 0.2,
        chunk_size: int | None = None,
    ):
        check_pooling(pooling)
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} is less than 1; pass None to encode all names at once.")
        check_hierarchy(hierarchy_weight, max_distance)
        if graph is not None and hierarchy_weight and not graph.has_hierarchy:
            logger.warning(
                "hierarchy_weight=%s has no effect: the term graph has no hierarchy. Names are aligned as in SapBERT.",
                hierarchy_weight,
            )
        super().__init__(config)
        self.graph, self.pooling, self.chunk_size = graph, pooling, chunk_size
        self.hierarchy_weight, self.max_distance, self.margin = hierarchy_weight, max_distance, margin
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Keep parameters without a gradient out of the optimizer: those of the head and of global attention."""
        for name, parameter in self.named_parameters():
            # The decoder's weights are the word embeddings.
            if "_global." in name or (name.startswith("lm_head.") and not name.startswith("lm_head.decoder.weight")):
                parameter.requires_grad = False

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        concepts: torch.LongTensor | None = None,
    ) -> TermEmbeddingOutput:
        """
        Args:
            input_ids (`(batch_size, sequence_length)`):
                Names with their special tokens, padded on the right.
            attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding. By default all are tokens.
            concepts (`(batch_size,)`, *optional*):
                Number of each name's concept.
        """
        embeddings = self.encode(input_ids, attention_mask)
        if concepts is None:
            return TermEmbeddingOutput(embeddings=embeddings)
        loss = self.loss(*gather_names(embeddings, concepts)) if self.training else embeddings.new_zeros(())
        return TermEmbeddingOutput(loss=loss, embeddings=embeddings)

    def encode(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch_size, sequence_length)` → `(batch_size, hidden_size)`, float32."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Once for all chunks, since each look-up has a gradient of the size of the vocabulary.
        words = self.longformer.embeddings.word_embeddings(input_ids)
        order = attention_mask.sum(dim=1).argsort(stable=True)
        parts = []
        for rows in order.split(self.chunk_size or len(order)):
            mask = attention_mask[rows]
            longest = int(mask.sum(dim=1).max())
            parts.append(self._pooled(words[rows, :longest], mask[:, :longest]))
        return torch.cat(parts)[order.argsort()]

    def _pooled(self, words, attention_mask):
        first = attention_mask.new_zeros(len(words), 1) if self.pooling == "cls" else None
        states = self.longformer(
            inputs_embeds=words, attention_mask=attention_mask, output_positions=first
        ).last_hidden_state
        return pool(states, attention_mask, self.pooling)

    def loss(self, embeddings: torch.Tensor, concepts: torch.Tensor) -> torch.Tensor:
        """The loss of `(N, hidden_size)` and `(N,)`, in float32 whatever the precision of the encoder."""
        distances = None
        if self.graph is not None and self.graph.has_hierarchy and self.hierarchy_weight:
            numbers, rows = np.unique(concepts.cpu().numpy(), return_inverse=True)
            among = self.graph.tree_distance(numbers)[rows[:, None], rows[None]]
            distances = torch.from_numpy(among).to(concepts.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            return hsap_loss(embeddings, concepts, distances, self.hierarchy_weight, self.max_distance, self.margin)

    def as_masked_lm(self) -> KeptLongformerForMaskedLM:
        """The weights as a [`KeptLongformerForMaskedLM`], whose saved folder every model of this package loads."""
        model = KeptLongformerForMaskedLM(self.config)
        model.load_state_dict(self.state_dict())
        return model
