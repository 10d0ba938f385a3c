"""The masked language model as it is trained on long blocks: logits of the masked tokens only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from ...models.modeling_kept_longformer import KeptLongformerForMaskedLM
from ...training.conversion import resize_positions


@dataclass
class BlockOutput(ModelOutput):
    """
    Output of [`KeptLongformerForBlocks`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`):
            Cross entropy of the masked tokens.
        token_losses (`torch.FloatTensor` of shape `(batch_size, num_masked)`, in evaluation mode):
            Cross entropy of each masked token of a row, in their order; -100 in the slots beyond them.
        predictions (`torch.LongTensor` of shape `(batch_size, num_masked)`, in evaluation mode):
            The most probable token at each; -100 likewise.
    """

    loss: torch.FloatTensor | None = None
    token_losses: torch.FloatTensor | None = None
    predictions: torch.LongTensor | None = None


class KeptLongformerForBlocks(KeptLongformerForMaskedLM):
    """
    [`KeptLongformerForMaskedLM`] for training on long blocks; the parameters, the loss and its gradients are the same.

    The last layer and the head are computed at the masked tokens only, and no logits are kept: those of two blocks of
    8,190 tokens over 50,265 words would fill 3.3 GB in float32, and as much again for their gradient. At 30% it is a
    third.

    Args:
        config: the configuration.

    Examples:
        >>> from kept_hf import KeptLongformerConfig
        >>> config = KeptLongformerConfig(
        ...     vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
        ...     attention_window=4,
        ... )
        >>> model = KeptLongformerForBlocks(config).eval()
        >>> labels = torch.tensor([[-100, 10, -100, 12, -100], [-100, -100, 11, -100, -100]])
        >>> output = model(torch.tensor([[0, 4, 11, 4, 2], [0, 10, 4, 12, 2]]), labels=labels)
        >>> output.loss.requires_grad, output.token_losses.shape, int(output.predictions[1, 1])
        (True, torch.Size([2, 2]), -100)
    """

    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch`, the masked tokens of all accumulation steps and processes."""
    # Its checkpoints are read here only; what is published is `as_masked_lm()`.
    _auto_class = None
    # It is what is trained here.
    new_when_missing = (r"^lm_head\.",)

    def freeze_global_projections(self) -> None:
        """Keep the projections of global attention out of the optimizer, where no token has global attention."""
        for name, parameter in self.named_parameters():
            if "_global." in name:
                parameter.requires_grad = False

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> BlockOutput:
        """
        Args:
            input_ids, attention_mask, global_attention_mask (`(batch_size, sequence_length)`):
                As in [`KeptLongformerModel`].
            labels (`(batch_size, sequence_length)`):
                What stood at the masked tokens; -100 elsewhere.
            num_items_in_batch (*optional*):
                Number of tokens over which the loss is averaged. By default those of this batch.

        Raises:
            ValueError: no `labels`, or none but -100.
        """
        is_masked = labels != -100 if labels is not None else None
        if is_masked is None or not is_masked.any():
            raise ValueError("labels names no masked token; pass its id where one was masked and -100 elsewhere.")
        counts = is_masked.sum(dim=1)
        is_slot = torch.arange(int(counts.max()), device=labels.device)[None] < counts[:, None]
        # A stable sort brings the masked positions to the front, in their order.
        positions = is_masked.int().sort(dim=1, descending=True, stable=True).indices[:, : is_slot.shape[1]]
        states = self.longformer(
            input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            output_positions=positions,
        ).last_hidden_state
        logits = self.lm_head(states[is_slot])
        losses = nn.functional.cross_entropy(logits.float(), labels[is_masked], reduction="none")
        loss = losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
        if self.training:
            return BlockOutput(loss=loss)
        token_losses = losses.new_full(is_slot.shape, -100.0)
        predictions = labels.new_full(is_slot.shape, -100)
        token_losses[is_slot], predictions[is_slot] = losses, logits.argmax(dim=-1)
        return BlockOutput(loss=loss, token_losses=token_losses, predictions=predictions)

    def as_masked_lm(self) -> KeptLongformerForMaskedLM:
        """The weights as a [`KeptLongformerForMaskedLM`], whose saved folder every model of this package loads."""
        model = KeptLongformerForMaskedLM(self.config)
        model.load_state_dict(self.state_dict())
        return model


def fit_to_blocks(
    model: KeptLongformerForBlocks,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    max_length: int | None = None,
    position_period: int | None = None,
    trains_global_projections: bool = False,
) -> None:
    """Prepare a loaded model for training on blocks, in place.

    Args:
        model, tokenizer: that training starts from.
        block_size: tokens of a block.
        max_length: positions of the result; the table is extended by repetition. By default it stays.
        position_period: see [`kept_hf.training.conversion.resize_positions`].
        trains_global_projections: whether some tokens have global attention. Without, its projections are frozen.

    Raises:
        ValueError: blocks that are longer than the positions.
    """
    if max_length not in (None, model.config.max_sequence_length):
        resize_positions(model, max_length, position_period)
        tokenizer.model_max_length = max_length
    if block_size > model.config.max_sequence_length:
        raise ValueError(
            f"block_size={block_size} is more than the {model.config.max_sequence_length} positions of the model; pass "
            f"--block_size {model.config.max_sequence_length}, or --model_max_length {block_size}."
        )
    if not trains_global_projections:
        model.freeze_global_projections()
