"""KEPT Longformer models: encoder, masked language model and ICD prompting.

Parameter names are those of the published checkpoints: `longformer.*` and `lm_head.*`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn
from transformers.models.longformer.modeling_longformer import (
    LongformerBaseModelOutput,
    LongformerEncoder,
    LongformerForMaskedLM,
    LongformerLayer,
    LongformerLMHead,
    LongformerModel,
    LongformerPreTrainedModel,
    LongformerSelfAttention,
)
from transformers.pytorch_utils import apply_chunking_to_forward
from transformers.utils import ModelOutput

from .auto_map import auto_classes  # noqa: F401 (all published modules travel together)
from .configuration_kept_longformer import KeptLongformerConfig
from .data_access import check_publication
from .longformer_attention import dense_local_attention, global_attention, local_visibility, token_slots

MAX_DENSE_LENGTH = 1024
"""With `attention_backend="auto"`, up to so many tokens the dense product is taken."""

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


def needs_eager_attention(config: KeptLongformerConfig, sequence_length: int, output_attentions: bool) -> bool:
    """Whether an input is left to transformers' implementation.

    A length that is so before it is padded to whole windows is so afterwards, therefore model and layers agree.
    """
    if output_attentions:
        return True  # only that implementation returns them
    if config.attention_backend == "auto":
        # Beyond a few windows the dense product does more work than the sliding one.
        return sequence_length > max(MAX_DENSE_LENGTH, 2 * max(config.attention_window))
    return config.attention_backend == "eager"


class KeptLongformerSelfAttention(LongformerSelfAttention):
    """
    Longformer self-attention with a choice of implementation (`config.attention_backend`).

    Parameters, arguments and results are those of `LongformerSelfAttention`.
    """

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        is_index_masked=None,
        is_index_global_attn=None,
        is_global_attn=None,
        output_attentions=False,
    ):
        if needs_eager_attention(self.config, hidden_states.shape[1], output_attentions):
            return super().forward(
                hidden_states,
                attention_mask=attention_mask,
                is_index_masked=is_index_masked,
                is_index_global_attn=is_index_global_attn,
                is_global_attn=is_global_attn,
                output_attentions=output_attentions,
            )
        dropout = self.dropout if self.training else 0.0
        context = torch.zeros_like(hidden_states, dtype=self._projected_dtype(hidden_states))
        # Global tokens have no local attention; only what stands between them and padding is computed.
        positions, _ = token_slots(~(is_index_global_attn | is_index_masked))
        if positions.shape[1]:
            local = self._local_at(hidden_states, positions, is_index_masked, is_index_global_attn, dropout)
            context = context.scatter(1, _expanded(positions, self.embed_dim), local)
        if is_global_attn:
            # Where a row has fewer local tokens than another, its slots held global tokens or padding.
            positions, used = token_slots(is_index_global_attn)
            index = _expanded(positions, self.embed_dim)
            everywhere = self._global_at(hidden_states, positions, is_index_masked, dropout)
            # Likewise the other way round: local tokens keep what they have.
            everywhere = torch.where(used[:, :, None], everywhere, context.gather(1, index))
            context = context.scatter(1, index, everywhere)
        return (context.masked_fill(is_index_masked[:, :, None], 0.0),)

    def at_positions(self, hidden_states, positions, is_index_masked, is_index_global_attn):
        """The dense result for some tokens only.

        Args:
            hidden_states: `(batch_size, sequence_length, embed_dim)`.
            positions: `(batch_size, num_positions)`.
            is_index_masked, is_index_global_attn: `(batch_size, sequence_length)`, bool.

        Returns:
            `(batch_size, num_positions, embed_dim)`.
        """
        dropout = self.dropout if self.training else 0.0
        local = self._local_at(hidden_states, positions, is_index_masked, is_index_global_attn, dropout)
        everywhere = self._global_at(hidden_states, positions, is_index_masked, dropout)
        context = torch.where(is_index_global_attn.gather(1, positions)[:, :, None], everywhere, local)
        return context.masked_fill(is_index_masked.gather(1, positions)[:, :, None], 0.0)

    def _local_at(self, hidden_states, positions, is_index_masked, is_index_global_attn, dropout):
        """Through the local projections, `(batch_size, num_positions, embed_dim)`."""
        context = dense_local_attention(
            self._heads(self.query(_at(hidden_states, positions))),
            self._heads(self.key(hidden_states)),
            self._heads(self.value(hidden_states)),
            local_visibility(is_index_global_attn, is_index_masked, self.one_sided_attn_window_size, positions),
            dropout,
        )
        return context.transpose(1, 2).flatten(2)

    def _global_at(self, hidden_states, positions, is_index_masked, dropout):
        """Through the global projections, `(batch_size, num_positions, embed_dim)`."""
        context = global_attention(
            self._heads(self.query_global(_at(hidden_states, positions))),
            self._heads(self.key_global(hidden_states)),
            self._heads(self.value_global(hidden_states)),
            is_index_masked,
            dropout,
        )
        return context.transpose(1, 2).flatten(2)

    def _projected_dtype(self, hidden_states: torch.Tensor) -> torch.dtype:
        device = hidden_states.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """`(batch_size, length, embed_dim)` → `(batch_size, num_heads, length, head_dim)`, contiguous.

        The CPU kernel's backward pass takes a third longer on a transposed view.
        """
        return projected.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2).contiguous()


class KeptLongformerLayer(LongformerLayer):
    """`LongformerLayer` that can leave out the tokens whose result nobody reads."""

    def __init__(self, config: KeptLongformerConfig, layer_id: int = 0):
        super().__init__(config, layer_id)
        self.attention.self = KeptLongformerSelfAttention(config, layer_id)

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        is_index_masked=None,
        is_index_global_attn=None,
        is_global_attn=None,
        output_attentions=False,
        output_positions=None,
    ):
        """As in `LongformerLayer`; with `output_positions` `(batch_size, num_positions)` for these tokens only."""
        if output_positions is None:
            return super().forward(
                hidden_states,
                attention_mask=attention_mask,
                is_index_masked=is_index_masked,
                is_index_global_attn=is_index_global_attn,
                is_global_attn=is_global_attn,
                output_attentions=output_attentions,
            )
        context = self.attention.self.at_positions(
            hidden_states, output_positions, is_index_masked, is_index_global_attn
        )
        attended = self.attention.output(context, _at(hidden_states, output_positions))
        return (apply_chunking_to_forward(self.ff_chunk, self.chunk_size_feed_forward, self.seq_len_dim, attended),)


class KeptLongformerEncoder(LongformerEncoder):
    """
    `LongformerEncoder` that can end with some tokens only.

    Attributes:
        output_positions (`torch.LongTensor` of shape `(batch_size, num_positions)`, *optional*):
            The tokens whose last hidden state is wanted, for the next call. `LongformerModel.forward` has no argument
            to hand it through.
    """

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.layer = nn.ModuleList([KeptLongformerLayer(config, i) for i in range(config.num_hidden_layers)])
        self.output_positions: torch.Tensor | None = None

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        padding_len=0,
        output_attentions=False,
        output_hidden_states=False,
        return_dict=True,
    ):
        """As in `LongformerEncoder`; with `output_positions` the last hidden state holds these tokens only."""
        positions, self.output_positions = self.output_positions, None
        is_dense = not needs_eager_attention(self.config, hidden_states.shape[1], output_attentions)
        if positions is None or output_hidden_states or not is_dense:
            outputs = super().forward(
                hidden_states,
                attention_mask=attention_mask,
                padding_len=padding_len,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
            )
            if positions is not None:
                outputs["last_hidden_state"] = _at(outputs.last_hidden_state, positions)
        else:
            masks = {"is_index_masked": attention_mask < 0, "is_index_global_attn": attention_mask > 0}
            masks["is_global_attn"] = masks["is_index_global_attn"].any().item()
            *layers, last = self.layer
            for layer in layers:
                hidden_states = layer(hidden_states, attention_mask=attention_mask, **masks)[0]
            hidden_states = last(hidden_states, attention_mask=attention_mask, **masks, output_positions=positions)[0]
            outputs = LongformerBaseModelOutput(last_hidden_state=hidden_states)
        return outputs if return_dict else outputs.to_tuple()


def _expanded(positions: torch.Tensor, size: int) -> torch.Tensor:
    """`(batch_size, num_positions)` → `(batch_size, num_positions, size)`, as `gather` and `scatter` want it."""
    return positions[:, :, None].expand(-1, -1, size)


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`(batch_size, length, size)` and `(batch_size, num_positions)` → `(batch_size, num_positions, size)`."""
    return states.gather(1, _expanded(positions, states.shape[-1]))


class KeptLongformerPreTrainedModel(LongformerPreTrainedModel):
    """Base class: configuration, and which entries of older checkpoints are of no use here."""

    config_class = KeptLongformerConfig
    config: KeptLongformerConfig
    _no_split_modules = ["KeptLongformerLayer"]  # noqa: RUF012 (transformers' form)
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"pooler\."]  # noqa: RUF012 (transformers' form)

    def save_pretrained(self, save_directory, push_to_hub=False, permitted_by=None, **kwargs):
        """As in transformers; with `push_to_hub` see there."""
        if push_to_hub:
            self._check_publication(kwargs.get("repo_id", os.path.basename(save_directory)), permitted_by, kwargs)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def push_to_hub(self, repo_id, *, permitted_by=None, **kwargs):
        """As in transformers, but what was trained on credentialed data (`config.data_license`) only goes public by an
        explicit permission.

        Args:
            repo_id: where to.
            permitted_by: the licence or permission that allows it.
            kwargs: `private`, `token`, `revision`, … as in transformers.

        Raises:
            PermissionError: see [`kept_hf.data_access.check_publication`].
        """
        self._check_publication(repo_id, permitted_by, kwargs)
        return super().push_to_hub(repo_id, **kwargs)

    def _check_publication(self, repo_id, permitted_by, options):
        check_publication(
            "this model",
            self.config.data_license,
            repo_id,
            private=options.get("private"),
            token=options.get("token"),
            permitted_by=permitted_by,
        )


class KeptLongformerModel(KeptLongformerPreTrainedModel, LongformerModel):
    """
    The encoder: Longformer, with a clear error for inputs that are too long.

    Args:
        config: the configuration.
        add_pooling_layer: whether to add Longformer's pooler. KEPT checkpoints have none that is trained.

    Raises:
        ValueError: `config` has fields that do not fit each other.
    """

    def __init__(self, config: KeptLongformerConfig, add_pooling_layer: bool = False):
        config.validate_fields()
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        self.encoder = KeptLongformerEncoder(config)
        self.post_init()

    def _pad_to_window_size(self, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, pad_token_id):
        """As in `LongformerModel`; the dense product needs no padding."""
        if not self._pads:
            return 0, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
        return super()._pad_to_window_size(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, pad_token_id
        )

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        global_attention_mask=None,
        inputs_embeds=None,
        output_attentions=None,
        output_positions=None,
        **kwargs,
    ):
        """As `LongformerModel.forward`: shapes `(batch_size, sequence_length)`, values 0 and 1 in both masks.

        Args:
            output_positions (`(batch_size, num_positions)`, *optional*):
                The tokens whose last hidden state is wanted; `last_hidden_state` then holds these only. All by default.

        Raises:
            ValueError: the sequence is longer than the position table.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        if given is not None and given.shape[1] > self.config.max_sequence_length:
            raise ValueError(
                f"The input has {given.shape[1]} tokens, the model positions for {self.config.max_sequence_length} "
                f"(max_position_embeddings={self.config.max_position_embeddings}). Pass a shorter max_length to the "
                "processor, or a model with a longer position table."
            )
        if given is not None:
            returns_attentions = self.config.output_attentions if output_attentions is None else output_attentions
            self._pads = needs_eager_attention(self.config, given.shape[1], returns_attentions)
        self.encoder.output_positions = output_positions
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            **kwargs,
        )


class KeptLongformerForMaskedLM(KeptLongformerPreTrainedModel, LongformerForMaskedLM):
    """
    Longformer masked language model whose decoder is tied to the word embeddings.

    `forward` is `LongformerForMaskedLM.forward`.
    """

    def __init__(self, config: KeptLongformerConfig):
        LongformerPreTrainedModel.__init__(self, config)
        self.longformer = KeptLongformerModel(config)
        self.lm_head = LongformerLMHead(config)
        self.post_init()


class KeptLongformerForICDPrompting(KeptLongformerForMaskedLM):
    """
    Scores the codes that a prompt asks about, one at each mask token.

    The parameters are those of [`KeptLongformerForMaskedLM`]; no classifier is added, so the model can be asked about
    codes it was not trained on.

    Source: Yang et al., Findings of EMNLP 2022, section 3 (arXiv 2210.03304).

    Examples:
        >>> import torch
        >>> from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting
        >>> config = KeptLongformerConfig(
        ...     vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
        ...     attention_window=4, yes_token_id=5, no_token_id=6, mask_token_id=4, id2label={0: "401.9", 1: "038.9"},
        ... )
        >>> model = KeptLongformerForICDPrompting(config).eval()
        >>> output = model(torch.tensor([[0, 10, 4, 11, 4, 12, 13, 2]]), labels=torch.tensor([[1, 0]]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([1, 2]), torch.Size([]))
    """

    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch` where the Trainer gives it (see `forward`)."""

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.config = config

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        inputs_embeds: None = None,
    ) -> ICDPromptingOutput | tuple:
        """
        Args:
            input_ids (`(batch_size, sequence_length)`):
                Prompt and note as `KeptProcessor` makes them. Rows may hold different numbers of mask tokens.
            attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.
            global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 where a token has global attention. By default every `config.global_attention_stride`-th token from
                the first to the last mask, and every mask.
            labels (`(batch_size, num_labels)`, *optional*):
                1 for a code that applies, 0 for one that does not, in the order of the masks; -100 for the slots
                beyond the codes of a row.
            num_items_in_batch (*optional*):
                Number of codes over which the loss is averaged, counted by the Trainer over all accumulation steps
                and processes. By default the codes of this batch.
            inputs_embeds (*optional*):
                None, which peft's classes hand on. The masks are found among `input_ids`.

        Returns:
            [`ICDPromptingOutput`], or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: no `input_ids`, or `inputs_embeds`; a configuration without the ids of "yes", "no" and the mask;
                no mask in the batch; or rows whose numbers of masks and labels differ.
        """
        if input_ids is None:
            raise ValueError("input_ids=None; pass the token ids of prompt and note (KeptProcessor makes them).")
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds is given; pass input_ids alone, the masks are found among them.")
        self._check_token_ids()
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        is_mask = input_ids == self.config.mask_token_id
        if attention_mask is not None:
            is_mask = is_mask & (attention_mask > 0)
        if global_attention_mask is None:
            global_attention_mask = self._prompt_attention(is_mask)

        positions, is_code = self._mask_slots(is_mask, labels)
        outputs = self.longformer(
            input_ids,
            attention_mask=attention_mask,
            global_attention_mask=global_attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            output_positions=positions,
            return_dict=True,
        )
        loss, scores = self._read_out(outputs.last_hidden_state, is_code, labels, num_items_in_batch)
        result = ICDPromptingOutput(
            loss=loss,
            logits=scores.masked_fill(~is_code, PADDED_SCORE),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            global_attentions=outputs.global_attentions,
        )
        return result if return_dict else result.to_tuple()

    def _check_token_ids(self):
        missing = [n for n in ("yes_token_id", "no_token_id", "mask_token_id") if getattr(self.config, n) is None]
        if missing:
            raise ValueError(
                f"The configuration lacks {', '.join(missing)}. Load the model with its processor's ids: "
                "KeptLongformerForICDPrompting.from_pretrained(path, **processor.config_overrides())."
            )

    def _prompt_attention(self, is_mask: torch.Tensor) -> torch.Tensor:
        """Global attention on the prompt: each stride-th token up to the last mask, and the masks themselves."""
        positions = torch.arange(is_mask.shape[1], device=is_mask.device)
        last_mask = (is_mask * positions).amax(dim=1, keepdim=True)
        on_stride = (positions <= last_mask) & (positions % self.config.global_attention_stride == 0)
        return (on_stride | is_mask).long()

    @staticmethod
    def _mask_slots(is_mask: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of the masks, `(batch_size, num_labels)`, and which of these slots hold a code."""
        counts = is_mask.sum(dim=1)
        if not counts.any():
            raise ValueError("input_ids holds no mask token, so no code is asked; prompts come from KeptProcessor.")
        num_slots = int(counts.max()) if labels is None else labels.shape[1]
        is_code = torch.arange(num_slots, device=is_mask.device)[None, :] < counts[:, None]
        if labels is not None and (wrong := (counts > num_slots) | ((labels != -100) != is_code).any(dim=1)).any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"Row {row} of the batch has {int(counts[row])} mask tokens and {int((labels[row] != -100).sum())} "
                "labels; pass one label for each code of the prompt, in its order, and -100 beyond them."
            )
        # A stable sort brings the mask positions to the front, in their order.
        positions = is_mask.int().sort(dim=1, descending=True, stable=True).indices[:, :num_slots]
        return positions, is_code

    def _read_out(self, at_masks, is_code, labels, num_items_in_batch):
        """Loss and scores `(batch_size, num_labels)` from the hidden states at the masks."""
        yes_no = torch.tensor([self.config.yes_token_id, self.config.no_token_id], device=at_masks.device)
        decoder = self.lm_head.decoder
        if labels is not None and self.config.prompt_loss == "full_vocabulary":
            vocabulary_logits = self.lm_head(at_masks)
            answers = vocabulary_logits[..., yes_no]
            targets = yes_no[(labels != 1).long()]
        else:
            # Without the published loss only two rows of the vocabulary are needed.
            features = self.lm_head.layer_norm(nn.functional.gelu(self.lm_head.dense(at_masks)))
            answers = nn.functional.linear(features, decoder.weight[yes_no], decoder.bias[yes_no])
            vocabulary_logits, targets = answers, None if labels is None else (labels != 1).long()
        scores = (answers[..., 0] - answers[..., 1]).float()
        if labels is None:
            return None, scores
        loss = nn.functional.cross_entropy(
            vocabulary_logits.flatten(0, 1).float(),
            targets.masked_fill(~is_code, -100).flatten(),
            reduction="sum",
        )
        return loss / (is_code.sum() if num_items_in_batch is None else num_items_in_batch), scores
