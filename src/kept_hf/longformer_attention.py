"""Longformer attention as pure functions of tensors.

Semantics (Beltagy et al., arXiv 2004.05150, and transformers' `LongformerSelfAttention`): a local query sees the tokens
of its window and the global tokens, all through the local projections, each once; a global query sees every token
through the global projections; padded rows are zero.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def local_visibility(
    is_global: torch.Tensor, is_padding: torch.Tensor, one_sided_window: int, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Which keys each local query sees.

    Args:
        is_global: `(batch_size, sequence_length)`, bool.
        is_padding: `(batch_size, sequence_length)`, bool.
        one_sided_window: tokens seen on each side.
        positions: of the queries, `(batch_size, num_queries)`; by default all tokens in order.

    Returns:
        `(batch_size, num_queries, sequence_length)`, bool. Rows of padding see everything, so that no row is empty;
        their result is not to be used.

    Examples:
        >>> no = torch.zeros(1, 4, dtype=torch.bool)
        >>> local_visibility(torch.tensor([[True, False, False, False]]), no, 1)[0].int().tolist()
        [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]]
    """
    keys = torch.arange(is_global.shape[1], device=is_global.device)
    queries = keys[None] if positions is None else positions
    in_window = (queries[:, :, None] - keys).abs() <= one_sided_window
    pads = is_padding if positions is None else is_padding.gather(1, positions)
    return ((in_window | is_global[:, None, :]) & ~is_padding[:, None, :]) | pads[:, :, None]


def dense_local_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visibility: torch.Tensor, dropout: float = 0.0
) -> torch.Tensor:
    """Attention of tokens through the local projections, as one masked dense product.

    Exact at any length. Its cost grows with the square of the length, so it pays for sequences of a few windows.

    Args:
        query: `(batch_size, num_heads, num_queries, head_dim)`, not scaled.
        key, value: `(batch_size, num_heads, sequence_length, head_dim)`.
        visibility: the queries' rows of [`local_visibility`].
        dropout: of the attention probabilities.

    Returns:
        `(batch_size, num_heads, num_queries, head_dim)`.
    """
    return _masked_product(query, key, value, visibility[:, None], dropout)


def token_slots(is_wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of some tokens of each row, in order, padded to the most that a row has.

    Args:
        is_wanted: `(batch_size, sequence_length)`, bool.

    Returns:
        Positions and whether each slot is used, both `(batch_size, most wanted tokens)`. Slots that are not used hold
        positions of other tokens.

    Examples:
        >>> positions, used = token_slots(torch.tensor([[True, False, True], [False, True, False]]))
        >>> positions[used].tolist(), used.tolist()
        ([0, 2, 1], [[True, True], [True, False]])
    """
    counts = is_wanted.sum(dim=1)
    positions = is_wanted.int().sort(dim=1, descending=True, stable=True).indices[:, : int(counts.max())]
    return positions, torch.arange(positions.shape[1], device=is_wanted.device)[None] < counts[:, None]


def global_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_padding: torch.Tensor, dropout: float = 0.0
) -> torch.Tensor:
    """Attention of the global tokens to all tokens, through the global projections.

    Args:
        query: `(batch_size, num_heads, most global tokens, head_dim)`, not scaled.
        key, value: `(batch_size, num_heads, sequence_length, head_dim)`.
        is_padding: `(batch_size, sequence_length)`, bool.
        dropout: of the attention probabilities.

    Returns:
        `(batch_size, num_heads, most global tokens, head_dim)`.
    """
    return _masked_product(query, key, value, ~is_padding[:, None, None, :], dropout)


def _masked_product(query, key, value, mask: torch.Tensor, dropout: float) -> torch.Tensor:
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.device.type == "cpu" and torch.is_grad_enabled():
        # The CPU kernel's backward pass takes half as long again in bfloat16.
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout).to(dtype)
