"""KEPT Longformer models: encoder, masked language model and ICD prompting.

Parameter names are those of the published checkpoints: `longformer.*` and `lm_head.*`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.models.longformer.modeling_longformer import (
    LongformerBaseModelOutput,
    LongformerBaseModelOutputWithPooling,
    LongformerEncoder,
    LongformerForMaskedLM,
    LongformerLayer,
    LongformerLMHead,
    LongformerModel,
    LongformerPreTrainedModel,
    LongformerSelfAttention,
    create_position_ids_from_input_ids,
)
from transformers.pytorch_utils import apply_chunking_to_forward
from transformers.utils import ModelOutput, logging

from .attention import FlexMasks, flex_product, longformer_attention
from .auto_map import PUBLISHED_TOGETHER  # noqa: F401 (all published files travel together)
from .configuration_kept_longformer import KeptLongformerConfig
from .isolated_layout import IsolatedPrompting
from .mask_attention import GlobalStates, SeenByMasks, mask_attention
from .packed_tokens import PackedTokens, Queries
from .publication import PublicationMixin
from .window_similarity import WindowSimilarity

logger = logging.get_logger(__name__)

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


class KeptLongformerSelfAttention(LongformerSelfAttention):
    """`LongformerSelfAttention`, also on packed tokens. The parameters are the same."""

    def packed(
        self,
        hidden_states: torch.Tensor,
        tokens: PackedTokens,
        queries: Queries,
        flex_masks: FlexMasks | None = None,
    ) -> torch.Tensor:
        """Attention of the tokens of a batch without its padding.

        Args:
            hidden_states: `(1, num_tokens, embed_dim)`.
            tokens: what stands where.
            queries: the tokens of which the result is wanted.
            flex_masks: to take FlexAttention.

        Returns:
            `(1, num_queries, embed_dim)`.
        """
        dropout = self.dropout if self.training else 0.0
        wanted = hidden_states if queries.are_all else hidden_states.index_select(1, queries.slots)
        global_states, local_states = wanted.tensor_split([queries.num_global], dim=1)
        contexts = []
        if tokens.num_global:
            query, key, value = self._projected("_global", global_states, hidden_states)
            if not queries.num_global:
                context = query + key + value
            elif flex_masks is not None:
                context = flex_product(query, key, value, flex_masks.of_global)
            else:
                context = longformer_attention(query, key, value, queries.global_blocks, dropout)
            contexts.append(context)
        query, key, value = self._projected("", local_states, hidden_states)
        if not queries.num_local:
            context = query + key + value
        elif flex_masks is not None:
            context = flex_product(query, key, value, flex_masks.of_local[self.one_sided_attn_window_size])
        else:
            blocks = queries.local_blocks[self.one_sided_attn_window_size]
            context = longformer_attention(query, key, value, blocks, dropout)
        contexts.append(context)
        return torch.cat(contexts, dim=2).transpose(1, 2).flatten(2)

    def of_masks(self, hidden_states: torch.Tensor, seen: SeenByMasks) -> torch.Tensor:
        """Attention of the masks of one note in the isolated layout.

        Args:
            hidden_states: `(1, num_masks, embed_dim)`.
            seen: what else they see in this layer.

        Returns:
            `(1, num_masks, embed_dim)`.
        """
        query, key, value = (heads[0] for heads in self._projected("_global", hidden_states, hidden_states))
        context = mask_attention(query, key, value, seen, self.dropout if self.training else 0.0)
        context = context.transpose(0, 1).flatten(1)[None]
        if torch.is_grad_enabled():
            # Of the last layer the local projections are not read; see `_projected`.
            context = context + sum(heads.sum() for heads in self._projected("", hidden_states[:, :0], hidden_states))
        return context

    def global_keys_and_values(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(num_tokens, embed_dim)` → keys and values for global queries, `(num_heads, num_tokens, head_dim)` each."""
        return tuple(self._heads(project(hidden_states[None]))[0] for project in (self.key_global, self.value_global))

    def _projected(self, which: str, query_states, hidden_states):
        """Query, key and value, `(1, num_heads, number, head_dim)`.

        Without a query there is no key either, but all projections take part, with gradients of zero: where several
        processes train, each must have them all.
        """
        seen = hidden_states if query_states.shape[1] else hidden_states[:, :0]
        return (
            self._heads(getattr(self, name + which)(states))
            for name, states in (("query", query_states), ("key", seen), ("value", seen))
        )

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2).contiguous()


class KeptLongformerLayer(LongformerLayer):
    """`LongformerLayer`, also on packed tokens, and of the masks of the isolated layout."""

    def __init__(self, config: KeptLongformerConfig, layer_id: int = 0):
        super().__init__(config, layer_id)
        self.attention.self = KeptLongformerSelfAttention(config, layer_id)

    def forward(
        self, hidden_states, *args, tokens=None, queries=None, flex_masks=None, seen=None, order=None, **kwargs
    ):
        """As in `LongformerLayer`; with `tokens` and `queries` as [`KeptLongformerSelfAttention.packed`], with `seen`
        as [`KeptLongformerSelfAttention.of_masks`].

        With `order` the result has two more: keys and values for global queries, of the tokens in that order. Then
        `queries` may be None: these two are wanted alone.
        """
        # In here, because only a layer's own forward pass has its parameters when they are sharded.
        pair = () if order is None else self.attention.self.global_keys_and_values(hidden_states[0, order])
        if order is not None and queries is None:
            return hidden_states, *pair
        if seen is not None:
            context, residual = self.attention.self.of_masks(hidden_states, seen), hidden_states
        elif tokens is not None:
            context = self.attention.self.packed(hidden_states, tokens, queries, flex_masks)
            residual = hidden_states if queries.are_all else hidden_states.index_select(1, queries.slots)
        else:
            return super().forward(hidden_states, *args, **kwargs)
        attended = self.attention.output(context, residual)
        states = apply_chunking_to_forward(self.ff_chunk, self.chunk_size_feed_forward, self.seq_len_dim, attended)
        return states, *pair


class KeptLongformerEncoder(LongformerEncoder):
    """`LongformerEncoder`, also on packed tokens."""

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.layer = nn.ModuleList([KeptLongformerLayer(config, i) for i in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states,
        *args,
        tokens: PackedTokens | None = None,
        output_positions: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        with_flex: bool = False,
        **kwargs,
    ):
        """As in `LongformerEncoder`; with `tokens` on packed tokens.

        Args:
            hidden_states: `(1, num_tokens, hidden_size)` with `tokens`.
            tokens: what stands where.
            output_positions: `(batch_size, num_positions)`, the tokens whose last hidden state is wanted. The last
                layer computes no others.
            output_hidden_states: whether to return all tokens' states after each layer, too.
            with_flex: whether to take FlexAttention.

        Returns:
            With `tokens`, `LongformerBaseModelOutput` of unpacked states.
        """
        if tokens is None:
            return super().forward(hidden_states, *args, output_hidden_states=output_hidden_states, **kwargs)
        every = last = tokens.all_queries()
        if output_positions is not None and not output_hidden_states:
            last, index = tokens.queries_at(output_positions)
        masks = {id(queries): FlexMasks(tokens, queries) if with_flex else None for queries in (every, last)}
        states = [hidden_states]
        for number, layer in enumerate(self.layer, start=1):
            queries = last if number == len(self.layer) else every
            states.append(layer(states[-1], tokens=tokens, queries=queries, flex_masks=masks[id(queries)])[0])
            if not output_hidden_states:
                del states[0]
        if output_positions is None:
            last_hidden_state = tokens.unpack(states[-1])
        elif output_hidden_states:
            last_hidden_state = _at(tokens.unpack(states[-1]), output_positions)
        else:
            # Padding that is asked for is zero.
            last_hidden_state = nn.functional.pad(states[-1][0], (0, 0, 0, 1))[index]
        return LongformerBaseModelOutput(
            last_hidden_state=last_hidden_state,
            hidden_states=tuple(map(tokens.unpack, states)) if output_hidden_states else None,
        )

    def global_states(
        self,
        hidden_states: torch.Tensor,
        tokens: PackedTokens,
        with_flex: bool = False,
        with_keys: bool = True,
        with_last: bool = False,
    ) -> tuple[GlobalStates, torch.Tensor | None]:
        """Keys and values for the masks of the isolated layout, which see what each layer is given.

        Args:
            hidden_states: `(1, num_tokens, hidden_size)`, the embeddings.
            tokens: what stands where.
            with_flex: whether to take FlexAttention.
            with_keys: whether keys and values are wanted.
            with_last: whether the last hidden states are wanted. Else nothing but keys and values of the last layer is
                computed.

        Returns:
            [`GlobalStates`] of the rows, and with `with_last` the last hidden states `(num_tokens, hidden_size)`, one
            row's tokens after the other's.
        """
        every = tokens.all_queries()
        masks = FlexMasks(tokens, every) if with_flex else None
        # Row by row: packed tokens are so unless several rows have global ones.
        order = torch.from_numpy(np.argsort(tokens.rows, kind="stable")).to(tokens.device)
        pairs = []
        for layer in self.layer:
            queries = every if with_last or layer is not self.layer[-1] else None
            hidden_states, *pair = layer(
                hidden_states,
                tokens=tokens,
                queries=queries,
                flex_masks=masks,
                order=order if with_keys else None,
            )
            pairs.append(pair)
        keys, values = ([pair[which] for pair in pairs] if with_keys else [] for which in (0, 1))
        lengths = (tokens.global_counts + tokens.local_counts).tolist()
        return GlobalStates(keys, values, lengths), hidden_states[0, order] if with_last else None


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`(batch_size, length, size)` and `(batch_size, num_positions)` → `(batch_size, num_positions, size)`."""
    return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[-1]))


def choose_backend(config: KeptLongformerConfig, device: torch.device, training: bool, output_attentions: bool) -> str:
    """The implementation for one forward pass, by `config.attention_backend` and what is asked.

    Raises:
        ValueError: "flex" cannot do it; the message says why.
    """
    backend = config.attention_backend
    if output_attentions and backend != "eager":
        logger.warning_once(
            f"output_attentions=True: attention_backend={backend!r} gives no attentions, so 'eager' is taken."
        )
        return "eager"
    dropout = config.attention_probs_dropout_prob if training else 0.0
    if backend == "auto":
        logger.info_once(f"attention_backend='auto': 'sdpa' is taken on {device.type}, attention dropout {dropout}.")
        return "sdpa"
    if backend == "flex" and dropout:
        raise ValueError(
            f"attention_backend='flex' has no dropout, but attention_probs_dropout_prob={dropout}; pass "
            "attention_probs_dropout_prob=0.0 or attention_backend='sdpa'."
        )
    if backend == "flex" and device.type != "cuda" and torch.is_grad_enabled():
        raise ValueError(
            f"attention_backend='flex' has no backward pass on {device.type}; pass attention_backend='sdpa', or call "
            "the model under torch.no_grad()."
        )
    return backend


class KeptLongformerPreTrainedModel(PublicationMixin, LongformerPreTrainedModel):
    """Base class: configuration, and which entries of older checkpoints are of no use here."""

    config_class = KeptLongformerConfig
    config: KeptLongformerConfig
    _keys_to_ignore_on_load_missing = [r"similarity\."]  # noqa: RUF012 (transformers' form)
    _no_split_modules = ["KeptLongformerLayer"]  # noqa: RUF012 (transformers' form)
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"pooler\."]  # noqa: RUF012 (transformers' form)

    def _init_weights(self, module):
        if isinstance(module, WindowSimilarity):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class KeptLongformerModel(KeptLongformerPreTrainedModel, LongformerModel):
    """
    The encoder: Longformer, with a clear error for inputs that are too long.

    Args:
        config: the configuration.
        add_pooling_layer: whether to add Longformer's pooler. KEPT checkpoints have none that is trained.

    Raises:
        ValueError: `config` has fields that do not fit each other.
    """

    _auto_class = "AutoModel"

    def __init__(self, config: KeptLongformerConfig, add_pooling_layer: bool = False):
        config.validate_fields()
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        self.encoder = KeptLongformerEncoder(config)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        global_attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        output_positions=None,
        **kwargs,
    ):
        """As `LongformerModel.forward`: shapes `(batch_size, sequence_length)`, values 0 and 1 in both masks.

        Unless the backend is "eager", nothing is computed for padding, and its hidden states are zero.

        Args:
            output_positions (`(batch_size, num_positions)`, *optional*):
                The tokens whose last hidden state is wanted; `last_hidden_state` then holds these only. All by default.

        Raises:
            ValueError: the sequence is longer than the position table, or the backend cannot do what is asked.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("Pass either input_ids or inputs_embeds, not both.")
        self._check_length(given)
        settings = self.config
        output_attentions = settings.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = settings.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = settings.return_dict if return_dict is None else return_dict
        backend = choose_backend(settings, given.device, self.training, output_attentions)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "global_attention_mask": global_attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "output_hidden_states": output_hidden_states,
        }
        if backend == "eager":
            outputs = super().forward(**inputs, output_attentions=output_attentions, return_dict=True, **kwargs)
            if output_positions is not None:
                outputs["last_hidden_state"] = _at(outputs.last_hidden_state, output_positions)
        else:
            outputs = self._forward_packed(**inputs, output_positions=output_positions, with_flex=backend == "flex")
        return outputs if return_dict else outputs.to_tuple()

    def _forward_packed(
        self,
        input_ids,
        attention_mask,
        global_attention_mask,
        token_type_ids,
        position_ids,
        inputs_embeds,
        output_hidden_states,
        output_positions,
        with_flex,
    ):
        tokens, embeddings = self._embedded(
            input_ids, attention_mask, global_attention_mask, token_type_ids, position_ids, inputs_embeds
        )
        outputs = self.encoder(
            embeddings,
            tokens=tokens,
            output_positions=output_positions,
            output_hidden_states=output_hidden_states,
            with_flex=with_flex,
        )
        last = outputs.last_hidden_state
        return LongformerBaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=None if self.pooler is None else self.pooler(last),
            hidden_states=outputs.hidden_states,
        )

    def _embedded(
        self,
        input_ids,
        attention_mask,
        global_attention_mask,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
    ) -> tuple[PackedTokens, torch.Tensor]:
        """What stands where, and the embeddings of packed tokens, `(1, num_tokens, hidden_size)`."""
        if torch.is_grad_enabled():
            self._known_fingerprint = None  # a step may follow, and a fused optimizer raises no version
        given = input_ids if input_ids is not None else inputs_embeds[..., 0]
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        kinds = torch.ones(given.shape, device=given.device) if attention_mask is None else attention_mask
        if global_attention_mask is not None:
            kinds = self._merge_to_attention_mask(kinds, global_attention_mask)
        tokens = PackedTokens(kinds, [window // 2 for window in self.config.attention_window])
        if position_ids is None:
            if input_ids is not None:
                position_ids = create_position_ids_from_input_ids(input_ids, self.embeddings.padding_idx)
            else:
                position_ids = self.embeddings.create_position_ids_from_inputs_embeds(inputs_embeds)
        embeddings = self.embeddings(
            **{
                name: None if values is None else tokens.pack(values)
                for name, values in (
                    ("input_ids", input_ids),
                    ("token_type_ids", token_type_ids),
                    ("position_ids", position_ids.expand(given.shape)),
                    ("inputs_embeds", inputs_embeds),
                )
            }
        )
        return tokens, embeddings

    def global_states(
        self,
        input_ids,
        attention_mask=None,
        global_attention_mask=None,
        with_keys: bool = True,
        with_last: bool = False,
    ) -> tuple[GlobalStates, torch.Tensor | None]:
        """Keys and values of each layer for the masks of the isolated layout.

        Args:
            input_ids (`(batch_size, sequence_length)`):
                Notes, or code blocks without their mask.
            attention_mask, global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                As in `forward`.
            with_keys, with_last (`bool`, *optional*):
                Whether keys and values are wanted, and whether the last hidden states are.

        Returns:
            [`GlobalStates`] of the rows, without padding; with `with_last` also the last hidden states
            `(num_tokens, hidden_size)`, one row's tokens after the other's.

        Raises:
            ValueError: the sequence is longer than the position table, or the backend cannot do what is asked.
        """
        self._check_length(input_ids)
        backend = choose_backend(self.config, input_ids.device, self.training, output_attentions=False)
        tokens, embeddings = self._embedded(input_ids, attention_mask, global_attention_mask)
        return self.encoder.global_states(embeddings, tokens, backend == "flex", with_keys, with_last)

    def masks(self, notes: GlobalStates, note: int, codes: GlobalStates, wanted: Sequence[int], mask_token_id: int):
        """Last hidden states of the masks that ask a note about some codes.

        Args:
            notes, codes: what `global_states` returned.
            note: number of the note.
            wanted: numbers of the codes.
            mask_token_id: of the tokenizer.

        Returns:
            `(len(wanted), hidden_size)`.
        """
        slots = codes.slots(wanted)
        device = notes.keys[0].device
        # Behind the block, where positions start anew.
        positions = torch.tensor([codes.lengths[code] for code in wanted]) + self.embeddings.padding_idx + 1
        ids = torch.full((1, len(wanted)), mask_token_id, device=device)
        states = self.embeddings(input_ids=ids, position_ids=positions[None].to(device))
        for number, layer in enumerate(self.encoder.layer):
            states = layer(states, seen=SeenByMasks.of(notes, note, codes, slots, number))[0]
        return states[0]

    def _check_length(self, given) -> None:
        if given.shape[1] > self.config.max_sequence_length:
            raise ValueError(
                f"The input has {given.shape[1]} tokens, the model positions for {self.config.max_sequence_length} "
                f"(max_position_embeddings={self.config.max_position_embeddings}). Pass a shorter max_length to the "
                "processor, or a model with a longer position table."
            )


class KeptLongformerForMaskedLM(KeptLongformerPreTrainedModel, LongformerForMaskedLM):
    """
    Longformer masked language model whose decoder is tied to the word embeddings.

    `forward` is `LongformerForMaskedLM.forward`.
    """

    _auto_class = "AutoModelForMaskedLM"

    def __init__(self, config: KeptLongformerConfig):
        LongformerPreTrainedModel.__init__(self, config)
        self.longformer = KeptLongformerModel(config)
        self.lm_head = LongformerLMHead(config)
        self.post_init()


class KeptLongformerForICDPrompting(IsolatedPrompting, KeptLongformerForMaskedLM):
    """
    Scores the codes that a prompt asks about, one at each mask token.

    The parameters are those of [`KeptLongformerForMaskedLM`]; no classifier is added, so the model can be asked about
    codes it was not trained on.

    In the isolated layout (`config.prompt_layout`) each code is a block `<s> description <mask>` of its own. The
    description sees itself, the note sees itself, and the mask sees its description and the whole note, through the
    projections of global attention. Both are encoded by the same layers, once, and can be kept: `encode_codes`,
    `encode_note` and `score`. The score of a code does not depend on the others asked. `attention_backend="eager"`
    computes this layout as `"sdpa"`. With `config.similarity_prior` its scores have a second part: how like the
    description the likest windows of the note are.

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

        The isolated layout: a note asked about two codes.

        >>> config.prompt_layout = "isolated"
        >>> codes = model.encode_codes({"401.9": [0, 10], "038.9": [0, 11, 12]})
        >>> notes = model.encode_note(torch.tensor([[0, 12, 13, 2]]))
        >>> model.score(notes, codes).shape
        torch.Size([1, 2])
    """

    _auto_class = "AutoModelForSequenceClassification"
    accepts_loss_kwargs = True
    """The loss is divided by `num_items_in_batch` where the Trainer gives it (see `forward`)."""

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.config = config
        self.similarity = WindowSimilarity(config) if config.similarity_prior else None

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
        code_input_ids: torch.LongTensor | None = None,
        code_attention_mask: torch.Tensor | None = None,
        code_indices: torch.LongTensor | None = None,
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
            code_input_ids (`(num_blocks, block_length)`, *optional*):
                For the isolated layout: the blocks `<s> description`, without mask, each once. `input_ids` is then the
                note alone, `<s> note </s>`, with global attention on the first token by default. `KeptProcessor` and
                `DataCollatorForICDPrompting` make all three.
            code_attention_mask (`(num_blocks, block_length)`, *optional*):
                1 for tokens, 0 for padding.
            code_indices (`(batch_size, num_labels)`, *optional*):
                Which block each code asked is; -100 for the slots beyond the codes of a row. By default all blocks.

        Returns:
            [`ICDPromptingOutput`], or a tuple of its values with `return_dict=False`.

        Raises:
            ValueError: no `input_ids`, or `inputs_embeds`; a configuration without the ids of "yes", "no" and the mask;
                no mask in the batch; rows whose numbers of masks and labels differ; or, in the isolated layout, an
                index that no block has, or an argument that it cannot serve.
        """
        if input_ids is None:
            raise ValueError("input_ids=None; pass the token ids of prompt and note (KeptProcessor makes them).")
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds is given; pass input_ids alone, the masks are found among them.")
        self._check_token_ids()
        return_dict = return_dict if return_dict is not None else self.config.return_dict
        self._warn_of_layout("joint" if code_input_ids is None else "isolated")
        if code_input_ids is not None:
            asked = {"token_type_ids": token_type_ids, "position_ids": position_ids}
            asked |= {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
            if given := [name for name, value in asked.items() if value is not None and value is not False]:
                raise ValueError(f"{', '.join(given)}: the isolated prompt layout has no use for it; leave it out.")
            at_masks, prior, is_code = self._isolated(
                *(input_ids, attention_mask, global_attention_mask),
                *(code_input_ids, code_attention_mask, code_indices, labels),
            )
            loss, scores = self._read_out(at_masks, is_code, labels, num_items_in_batch, prior)
            result = ICDPromptingOutput(loss=loss, logits=scores.masked_fill(~is_code, PADDED_SCORE), prior=prior)
            return result if return_dict else result.to_tuple()
        if self.similarity is not None:
            raise ValueError(
                "code_input_ids=None with similarity_prior=True: the prior belongs to the isolated layout; pass rows "
                "of KeptProcessor(..., prompt_layout='isolated')."
            )
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

    def _read_out(self, at_masks, is_code, labels, num_items_in_batch, prior=None):
        """Loss and scores `(batch_size, num_labels)` from the hidden states at the masks, and the prior."""
        yes_no = self._yes_no(at_masks.device)
        if labels is not None and self.config.prompt_loss == "full_vocabulary":
            vocabulary_logits = self.lm_head(at_masks)
            answers = vocabulary_logits[..., yes_no]
            if prior is not None:
                # Added to the logit of "yes", so that it is a part of the score.
                is_yes = torch.arange(vocabulary_logits.shape[-1], device=yes_no.device) == yes_no[0]
                vocabulary_logits = vocabulary_logits + is_yes * prior[..., None]
                answers = vocabulary_logits[..., yes_no]
            targets = yes_no[(labels != 1).long()]
        else:
            # Without the published loss only two rows of the vocabulary are needed.
            answers = self._yes_and_no(at_masks).float()
            if prior is not None:
                answers = torch.stack([answers[..., 0] + prior, answers[..., 1]], dim=-1)
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

    def _yes_no(self, device: torch.device) -> torch.Tensor:
        return torch.tensor([self.config.yes_token_id, self.config.no_token_id], device=device)

    def _yes_and_no(self, at_masks: torch.Tensor) -> torch.Tensor:
        """`(..., hidden_size)` → logits of "yes" and "no", `(..., 2)`."""
        yes_no, decoder = self._yes_no(at_masks.device), self.lm_head.decoder
        features = self.lm_head.layer_norm(nn.functional.gelu(self.lm_head.dense(at_masks)))
        return nn.functional.linear(features, decoder.weight[yes_no], decoder.bias[yes_no])
