"""What a code's mask sees in the isolated prompt layout, and its attention, as pure functions of tensors.

Each code is a block `<s> description <mask>`, whose positions start again. Its description sees itself alone, the note
sees itself alone, and the mask sees its description and the whole note. All three go through the same layers. So the
keys and values of descriptions and notes do not depend on each other, and one token a code and note is all that is
computed per pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.utils.checkpoint import checkpoint

SCORES_AT_A_TIME = {"cpu": 1 << 22, "other": 1 << 27}
"""About so many attention scores are computed at a time: on a CPU they then stay in the cache."""

FEWEST_AT_A_TIME = 32
"""Fewer codes at a time would read the weights of the layers too often."""


def default_chunk_size(num_heads: int, num_keys: int, device: torch.device) -> int:
    """How many codes to ask at a time.

    Args:
        num_heads: of the model.
        num_keys: what a mask sees: the tokens of the note and those of the longest description.
        device: where.

    Examples:
        >>> default_chunk_size(num_heads=12, num_keys=3020, device=torch.device("cpu"))
        115
    """
    budget = SCORES_AT_A_TIME.get(device.type, SCORES_AT_A_TIME["other"])
    return max(budget // (num_heads * max(num_keys, 1)), FEWEST_AT_A_TIME)


@dataclass
class GlobalStates:
    """Keys and values of some rows (notes, or descriptions) for global queries, one row's tokens after the other's.

    Attributes:
        keys, values: for each layer `(num_heads, num_tokens, head_dim)`; no layers for late interaction alone.
        lengths: tokens of each row.
        vectors: `(windows or names, hidden_size)`, what the similarity of windows compares; None without it.
        names: how many of the vectors each row has, one behind the other; None where each description has one, and for
            notes.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    lengths: list[int]
    vectors: torch.Tensor | None = field(default=None, kw_only=True)
    names: list[int] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens_of(self, row: int) -> slice:
        """Where a row's tokens stand."""
        start = sum(self.lengths[:row])
        return slice(start, start + self.lengths[row])

    def slots(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the tokens of some rows stand, as tensors of one shape.

        Returns:
            `(len(rows), longest)` which token stands there, 0 beyond the end of a row; and what to add to its score: 0
            for a token, minus infinity beyond the end.

        Examples:
            >>> slots, bias = GlobalStates([torch.zeros(2, 5, 4)], [torch.zeros(2, 5, 4)], [3, 2]).slots([1, 0])
            >>> slots.tolist(), bias.tolist()
            ([[3, 4, 0], [0, 1, 2]], [[0.0, 0.0, -inf], [0.0, 0.0, 0.0]])
        """
        lengths = torch.tensor(self.lengths)
        starts = lengths.cumsum(0) - lengths
        rows = torch.as_tensor(rows, dtype=torch.long)
        positions = torch.arange(int(lengths[rows].max()) if len(rows) else 0)[None]
        is_beyond = positions >= lengths[rows, None]
        slots = (starts[rows, None] + positions).masked_fill(is_beyond, 0)
        bias = torch.zeros(slots.shape).masked_fill(is_beyond, -torch.inf)
        return slots.to(self.keys[0].device), bias.to(self.keys[0].device)


@dataclass
class SeenByMasks:
    """What the masks of a note see in one layer besides themselves.

    Attributes:
        note_key, note_value: `(num_heads, num_note_tokens, head_dim)`, seen by all.
        block_key, block_value: `(num_heads, num_block_tokens, head_dim)`, of all blocks; on any device.
        slots: `(num_masks, block_length)`, which of these belong to the block of each mask.
        bias: `(num_masks, block_length)`, 0 for a token of the block, minus infinity for none.
    """

    note_key: torch.Tensor
    note_value: torch.Tensor
    block_key: torch.Tensor
    block_value: torch.Tensor
    slots: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def in_layer(cls, notes: GlobalStates, note: int, codes: GlobalStates, slots, layer: int) -> SeenByMasks:
        """In a layer, of a note; `slots` is what `codes.slots` gave."""
        tokens = notes.tokens_of(note)
        block_slots, bias = slots
        return cls(
            note_key=notes.keys[layer][:, tokens],
            note_value=notes.values[layer][:, tokens],
            block_key=codes.keys[layer],
            block_value=codes.values[layer],
            slots=block_slots,
            bias=bias,
        )


def mask_attention(query, key, value, seen: SeenByMasks, dropout: float = 0.0) -> torch.Tensor:
    """Attention of masks to their block, themselves and the whole note, in one softmax.

    For the backward pass the scores are computed again, not kept.

    Args:
        query, key, value: `(num_heads, num_masks, head_dim)`, of the masks, through the global projections; not scaled.
        seen: what else they see.
        dropout: of the attention probabilities.

    Returns:
        `(num_heads, num_masks, head_dim)`.

    Examples:
        >>> note, blocks = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[4.0], [8.0], [16.0]]])
        >>> slots, bias = GlobalStates([blocks], [blocks], [1, 2]).slots([0, 1])
        >>> seen = SeenByMasks(note, note, blocks, blocks, slots, bias)
        >>> query, value = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
        >>> mask_attention(query, value, value, seen)[0, :, 0]  # means of what is seen: (0+1+2+4)/4, (0+1+2+8+16)/5
        tensor([1.7500, 5.4000])
    """
    if not torch.is_grad_enabled():
        return _mask_attention(query, key, value, seen, dropout)
    return checkpoint(_mask_attention, query, key, value, seen, dropout, use_reentrant=False)


def _mask_attention(query, key, value, seen: SeenByMasks, dropout: float) -> torch.Tensor:
    block_key, block_value = (
        states.index_select(1, seen.slots.flatten()).unflatten(1, seen.slots.shape).to(query)
        for states in (seen.block_key, seen.block_value)
    )
    note_key, note_value = seen.note_key.to(query.dtype), seen.note_value.to(query.dtype)
    scaled = query * query.shape[-1] ** -0.5
    scores = torch.cat(
        [
            scaled @ note_key.transpose(1, 2),
            (block_key @ scaled[..., None])[..., 0] + seen.bias.to(query),
            (scaled * key).sum(dim=-1, keepdim=True),
        ],
        dim=-1,
    )
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    probabilities = torch.dropout(probabilities, dropout, train=dropout > 0)
    for_note, for_block, for_itself = probabilities.split([note_key.shape[1], seen.slots.shape[1], 1], dim=-1)
    return for_note @ note_value + (for_block[..., None, :] @ block_value)[..., 0, :] + for_itself * value
