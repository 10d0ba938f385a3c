"""Attention on packed tokens in blocks of queries, exact, as pure functions of tensors: the backend "sdpa".

`attention` says what is computed. In all functions `query`, `key` and `value` are `(1, num_heads, number, head_dim)`,
heads first because the CPU kernel is slower on transposed views, and not scaled. Keys are all packed tokens
([`PackedTokens`]: without padding, global ones first).
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from .attention import AttentionBackend, AttentionPlan
from .packed_tokens import Block, PackedTokens, Queries, QueryBlocks

SCORES_AT_A_TIME = 1 << 22
"""On a CPU, about so many scores of a block are computed at a time, so that they stay in the cache."""

SMALL_BLOCK = 1 << 16
"""On a CPU, blocks of fewer scores are computed all at once: one by one they would be too many small steps."""

MANY_ROWS = 8
"""Elsewhere, the global queries of more rows are computed all at once, and of fewer row by row, without a mask."""


class BlockAttention(AttentionBackend):
    """Blocks of queries, each with the keys that any of them sees ([`longformer_attention`])."""

    def plan(self, tokens: PackedTokens, queries: Queries) -> AttentionPlan:
        """The blocks of these queries."""
        return AttentionPlan(self, tokens, queries, queries.global_blocks, queries.local_blocks)

    def attend(self, query, key, value, plan: QueryBlocks, dropout: float = 0.0) -> torch.Tensor:
        """See [`AttentionBackend.attend`]."""
        return longformer_attention(query, key, value, plan, dropout)


@torch.compiler.disable  # blocks differ from batch to batch: each would be compiled again
def longformer_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: QueryBlocks, dropout: float = 0.0
) -> torch.Tensor:
    """Attention of local queries to their window and the global tokens, or of global queries to all of their row.

    Args:
        query: of the tokens wanted, all local or all global ones.
        key, value: of all packed tokens, through the same projections as `query`.
        blocks: of these queries ([`kept_hf.models.packed_tokens.Queries`]).
        dropout: of the attention probabilities.

    Returns:
        `(1, num_heads, num_queries, head_dim)`.

    Examples:
        >>> tokens = PackedTokens(torch.tensor([[2, 1, 1, 1, 0]]), [1])  # a global token, three local ones, padding
        >>> query, key = torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 4, 8)
        >>> value = torch.tensor([1.0, 2.0, 4.0, 8.0])[None, None, :, None].expand(1, 1, 4, 8)
        >>> blocks = tokens.all_queries().local_blocks[1]
        >>> longformer_attention(query, key, value, blocks)[0, 0, :, 0]  # means of what is seen
        tensor([2.3333, 3.7500, 4.3333])
    """
    if is_faster_at_once(blocks, query.device):
        return attention_at_once(query, key, value, blocks, dropout)
    return attention_by_block(query, key, value, blocks, dropout)


def is_faster_at_once(blocks: QueryBlocks, device: torch.device) -> bool:
    """Whether one product of all blocks is faster than one product a block."""
    if device.type == "cpu":
        return blocks.num_scores < SMALL_BLOCK * len(blocks.blocks)
    return blocks.window is not None or len(blocks.blocks) > MANY_ROWS


def attention_at_once(query, key, value, blocks: QueryBlocks, dropout: float = 0.0) -> torch.Tensor:
    """As [`longformer_attention`], all blocks in one `scaled_dot_product_attention`.

    Where blocks share keys, the copies of these are not kept for the backward pass, which makes them again.
    """
    if not torch.is_grad_enabled() or blocks.table(query.dtype).key_slots.numel() <= 2 * key.shape[2]:
        return _at_once(query, key, value, blocks, dropout)
    return checkpoint(_at_once, query, key, value, blocks, dropout, use_reentrant=False, preserve_rng_state=dropout > 0)


def _at_once(query, key, value, blocks: QueryBlocks, dropout: float) -> torch.Tensor:
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.device.type == "cpu" and torch.is_grad_enabled():
        # The CPU kernel's backward pass takes half as long again in bfloat16.
        query, key, value = query.float(), key.float(), value.float()
    table = blocks.table(query.dtype)

    def at(states, slots):
        """`(num_blocks, num_heads, slots of a block, head_dim)`"""
        return states[0].index_select(1, slots.flatten()).unflatten(1, slots.shape).transpose(0, 1)

    query, key, value = at(query, table.query_slots), at(key, table.key_slots), at(value, table.key_slots)
    with torch.autocast(query.device.type, enabled=False):
        context = scaled_dot_product_attention(query, key, value, attn_mask=table.bias, dropout_p=dropout).to(dtype)
    return context.transpose(0, 1).flatten(1, 2)[None].index_select(2, table.output_slots)


def attention_by_block(query, key, value, blocks: QueryBlocks, dropout: float = 0.0) -> torch.Tensor:
    """As [`longformer_attention`], one block after the other, with no more than its own keys."""
    if query.device.type == "cpu":
        return _blocked(query, key, value, blocks, dropout)
    contexts = []
    for block in blocks.blocks:
        keys, values = (_keys(states, block) for states in (key, value))
        mask = blocks.bias(block, query.dtype)
        contexts.append(scaled_dot_product_attention(query[:, :, block.queries], keys, values, mask, dropout))
    return torch.cat(contexts, dim=2)


def _keys(states: torch.Tensor, block: Block) -> torch.Tensor:
    """Keys or values of a block, without a copy where they stand side by side."""
    if block.global_keys.stop == block.local_keys.start:
        return states[..., block.global_keys.start : block.local_keys.stop, :]
    return torch.cat([states[..., block.global_keys, :], states[..., block.local_keys, :]], dim=-2)


def _blocked(query, key, value, blocks: QueryBlocks, dropout: float) -> torch.Tensor:
    return _BlockedAttention.apply(query[0], key[0], value[0], blocks, dropout)[None]


class _BlockedAttention(torch.autograd.Function):
    """Block by block and a few heads at a time, so that scores stay in the cache; the backward pass makes them again.

    On a CPU this is as fast as `scaled_dot_product_attention` in float32 and twice as fast in bfloat16, and dropout
    costs no memory.
    """

    @staticmethod
    def forward(ctx, query, key, value, blocks, dropout):
        ctx.blocks, ctx.dropout = blocks, dropout
        ctx.random_state = torch.get_rng_state() if dropout else None
        context = torch.empty_like(query)
        with torch.autocast("cpu", enabled=False):
            for block, heads, keys, values in _parts(key, value, blocks, len(query)):
                probabilities = _probabilities(query[heads, block.queries], keys, block, blocks)
                if dropout:
                    probabilities *= _kept(probabilities, dropout)
                context[heads, block.queries] = torch.bmm(probabilities, values)
        ctx.save_for_backward(query, key, value)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        query, key, value = ctx.saved_tensors
        query_gradient = torch.empty_like(query)
        key_gradient, value_gradient = torch.zeros_like(key), torch.zeros_like(value)
        scale = query.shape[-1] ** -0.5
        with torch.random.fork_rng(devices=[], enabled=ctx.dropout > 0):
            if ctx.dropout:
                torch.set_rng_state(ctx.random_state)
            for block, heads, keys, values in _parts(key, value, ctx.blocks, len(query)):
                queries = query[heads, block.queries]
                context_gradient = gradient[heads, block.queries].contiguous()
                probabilities = _probabilities(queries, keys, block, ctx.blocks)
                score_gradient = torch.bmm(context_gradient, values.transpose(1, 2)).float()
                kept = probabilities
                if ctx.dropout:
                    factors = _kept(probabilities, ctx.dropout)
                    kept = probabilities * factors
                    score_gradient *= factors
                _add(value_gradient[heads], torch.bmm(kept.transpose(1, 2), context_gradient), block)
                # Of the softmax.
                mean = (score_gradient * probabilities).sum(dim=-1, keepdim=True)
                score_gradient = score_gradient.sub_(mean).mul_(probabilities).mul_(scale).to(query.dtype)
                query_gradient[heads, block.queries] = torch.bmm(score_gradient, keys)
                _add(key_gradient[heads], torch.bmm(score_gradient.transpose(1, 2), queries), block)
        return query_gradient, key_gradient, value_gradient, None, None


def _parts(key, value, blocks: QueryBlocks, num_heads: int):
    """Each block, a few heads at a time: block, heads, their keys and values."""
    for block in blocks.blocks:
        keys, values = _keys(key, block), _keys(value, block)
        at_a_time = max(torch.get_num_threads(), SCORES_AT_A_TIME // (block.num_queries * block.num_keys))
        for first in range(0, num_heads, at_a_time):
            heads = slice(first, min(first + at_a_time, num_heads))
            yield block, heads, keys[heads], values[heads]


def _probabilities(queries, keys, block: Block, blocks: QueryBlocks) -> torch.Tensor:
    """`(heads, queries of the block, its keys)`"""
    scale = queries.shape[-1] ** -0.5
    bias = blocks.bias(block, queries.dtype)
    if bias is None:
        scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(bias.expand(len(queries), -1, -1), queries, keys.transpose(1, 2), alpha=scale)
    return torch.softmax(scores, dim=-1)


def _kept(probabilities: torch.Tensor, dropout: float) -> torch.Tensor:
    """Factors of dropout: 0, or what makes up for it."""
    return torch.empty_like(probabilities).bernoulli_(1 - dropout).div_(1 - dropout)


def _add(gradient: torch.Tensor, part: torch.Tensor, block: Block) -> None:
    """Add a block's gradients of its keys or values where they stand."""
    num_local = block.local_keys.stop - block.local_keys.start
    global_part, local_part = part.split([part.shape[1] - num_local, num_local], dim=1)
    gradient[:, block.global_keys] += global_part
    gradient[:, block.local_keys] += local_part
