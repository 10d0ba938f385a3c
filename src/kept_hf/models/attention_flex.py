"""Attention on packed tokens through PyTorch's FlexAttention: the backend "flex"."""

from __future__ import annotations

import functools

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .attention import AttentionBackend, AttentionPlan
from .packed_tokens import PackedTokens, Queries


class FlexAttention(AttentionBackend):
    """FlexAttention under block masks: on CUDA; on a CPU without gradients. No dropout."""

    def check(self, device: torch.device, dropout: float) -> None:
        """See [`AttentionBackend.check`]."""
        if dropout:
            raise ValueError(
                f"attention_backend='flex' has no dropout, but attention_probs_dropout_prob={dropout}; pass "
                "attention_probs_dropout_prob=0.0 or attention_backend='sdpa'."
            )
        if device.type != "cuda" and torch.is_grad_enabled():
            raise ValueError(
                f"attention_backend='flex' has no backward pass on {device.type}; pass attention_backend='sdpa', or "
                "call the model under torch.no_grad()."
            )

    def plan(self, tokens: PackedTokens, queries: Queries) -> AttentionPlan:
        """The block masks of these queries."""
        global_slots, local_slots = queries.slots.tensor_split([queries.num_global])
        return AttentionPlan(
            self,
            tokens,
            queries,
            block_mask(tokens, global_slots, None),
            {window: block_mask(tokens, local_slots, window) for window in queries.local_blocks},
        )

    def attend(self, query, key, value, plan: BlockMask, dropout: float = 0.0) -> torch.Tensor:
        """See [`AttentionBackend.attend`]."""
        return _compiled_flex_attention()(query, key, value, block_mask=plan)


def block_mask(tokens: PackedTokens, slots: torch.Tensor, window: int | None) -> BlockMask | None:
    """Which tokens some queries see.

    Args:
        tokens: all tokens of the batch.
        slots: `(num_queries,)`, which of them are the queries.
        window: tokens seen on each side; None for global queries, who see all tokens of their row.

    Returns:
        None without queries.
    """
    if not len(slots):
        return None
    rows, positions = (torch.from_numpy(array).to(tokens.device) for array in (tokens.rows, tokens.positions))
    query_rows, query_positions = rows[slots], positions[slots]
    num_global = tokens.num_global

    def sees(batch, head, query, key):
        is_of_row = query_rows[query] == rows[key]
        if window is None:
            return is_of_row
        is_near = (query_positions[query] - positions[key]).abs() <= window
        return is_of_row & (is_near | (key < num_global))

    return create_block_mask(sees, None, None, len(slots), tokens.num_tokens, device=tokens.device)


@functools.cache
def _compiled_flex_attention():
    return torch.compile(flex_attention, dynamic=True)
