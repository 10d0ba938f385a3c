"""From the states of the tokens of a name to one vector."""

from __future__ import annotations

import torch

POOLINGS = ("cls", "mean")
"""What represents a name: the state of its first token, or the mean of its tokens' states."""


def check_pooling(pooling: str) -> None:
    """Raises a ValueError for a name that is not in `POOLINGS`."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r} is unknown; pass one of {', '.join(POOLINGS)}.")


def pool(states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """`(texts, tokens, hidden_size)` → `(texts, hidden_size)`, float32.

    Args:
        states: of the tokens; for "cls" those of the first token are enough.
        attention_mask: `(texts, tokens)`, 1 for tokens, 0 for padding; not used by "cls".
        pooling: one of `POOLINGS`.

    Raises:
        ValueError: another pooling.

    Examples:
        >>> states = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> pool(states, torch.tensor([[1, 1, 0]]), "mean"), pool(states, torch.tensor([[1, 1, 0]]), "cls")
        (tensor([[2.]]), tensor([[1.]]))
    """
    check_pooling(pooling)
    if pooling == "cls":
        return states[:, 0].float()
    weights = attention_mask[:, :, None].float()
    return (states.float() * weights).sum(dim=1) / weights.sum(dim=1)
