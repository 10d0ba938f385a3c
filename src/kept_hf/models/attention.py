"""Longformer attention on packed tokens: what every backend computes, and its interface.

Semantics (Beltagy et al., arXiv 2004.05150, and transformers' `LongformerSelfAttention`): a local query sees the tokens
of its window and the global tokens, all through the local projections, each once; a global query sees every token of
its row through the global projections.

A backend is a file with a subclass of [`AttentionBackend`], and a line in the registry (`attention_backends`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .packed_tokens import PackedTokens, Queries


@dataclass
class AttentionPlan:
    """Which token sees which, in the form that a backend wants. Made once for a forward pass, used by all layers.

    Attributes:
        backend: which made it.
        tokens: all tokens of the batch.
        queries: the tokens of which a result is wanted.
        global_part: the global queries, for `backend.attend`.
        local_parts: the local queries, for each one-sided window.
    """

    backend: AttentionBackend
    tokens: PackedTokens
    queries: Queries
    global_part: Any
    local_parts: dict[int, Any]

    def attend_global(self, query, key, value, dropout: float = 0.0) -> torch.Tensor:
        """Attention of the global queries; arguments as for [`AttentionBackend.attend`]."""
        return self.backend.attend(query, key, value, self.global_part, dropout)

    def attend_local(self, query, key, value, window: int, dropout: float = 0.0) -> torch.Tensor:
        """Attention of the local queries, who see `window` tokens on each side, and the global tokens."""
        return self.backend.attend(query, key, value, self.local_parts[window], dropout)

    def at(self, positions: torch.Tensor) -> tuple[AttentionPlan, torch.Tensor]:
        """The plan for some tokens of the batch only.

        Args:
            positions: `(batch_size, num_positions)`.

        Returns:
            The plan, and which of its queries stands at each position ([`PackedTokens.queries_at`]).
        """
        queries, index = self.tokens.queries_at(positions)
        return self.backend.plan(self.tokens, queries), index


class AttentionBackend:
    """One way to compute attention on packed tokens."""

    def check(self, device: torch.device, dropout: float) -> None:
        """Refuse what this backend cannot do.

        Args:
            device: of the model.
            dropout: of the attention probabilities.

        Raises:
            ValueError: the message says what to pass instead.
        """

    def plan(self, tokens: PackedTokens, queries: Queries) -> AttentionPlan:
        """What all layers share.

        Args:
            tokens: all tokens of the batch.
            queries: the tokens of which a result is wanted, of `tokens.all_queries()` or `tokens.queries_at(...)`.
        """
        raise NotImplementedError

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Any, dropout: float = 0.0
    ) -> torch.Tensor:
        """Attention of the global queries, or of the local ones.

        Args:
            query: `(1, num_heads, num_queries, head_dim)`, of the queries of one kind, not scaled.
            key, value: `(1, num_heads, num_tokens, head_dim)`, of all packed tokens, through the same projections.
            plan: the part of the plan for these queries: `global_part`, or one of `local_parts`.
            dropout: of the attention probabilities.

        Returns:
            `(1, num_heads, num_queries, head_dim)`.
        """
        raise NotImplementedError
