"""The layers of the KEPT Longformer: those of transformers, also on packed tokens.

Parameter names are those of transformers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers.models.longformer.modeling_longformer import (
    LongformerBaseModelOutput,
    LongformerEncoder,
    LongformerLayer,
    LongformerSelfAttention,
)
from transformers.pytorch_utils import apply_chunking_to_forward

from .attention import AttentionPlan
from .configuration_kept_longformer import KeptLongformerConfig


class KeptLongformerSelfAttention(LongformerSelfAttention):
    """`LongformerSelfAttention`, also on packed tokens. The parameters are the same."""

    def attend_packed(self, hidden_states: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """Attention of the tokens of a batch without its padding.

        Args:
            hidden_states: `(1, num_tokens, embed_dim)`, of all packed tokens.
            plan: which of them are queries, and what these see.

        Returns:
            `(1, num_queries, embed_dim)`.
        """
        dropout = self.dropout if self.training else 0.0
        queries = plan.queries
        wanted = hidden_states if queries.are_all else hidden_states.index_select(1, queries.slots)
        global_states, local_states = wanted.tensor_split([queries.num_global], dim=1)
        contexts = []
        if plan.tokens.num_global:
            query, key, value = self._projected("_global", global_states, hidden_states)
            if queries.num_global:
                contexts.append(plan.attend_global(query, key, value, dropout))
            else:
                contexts.append(query + key + value)
        query, key, value = self._projected("", local_states, hidden_states)
        if queries.num_local:
            contexts.append(plan.attend_local(query, key, value, self.one_sided_attn_window_size, dropout))
        else:
            contexts.append(query + key + value)
        return torch.cat(contexts, dim=2).transpose(1, 2).flatten(2)

    def _projected(self, suffix: str, query_states, hidden_states):
        """Query, key and value, `(1, num_heads, number, head_dim)`.

        Without a query there is no key either, but all projections take part, with gradients of zero: where several
        processes train, each must have them all.
        """
        seen = hidden_states if query_states.shape[1] else hidden_states[:, :0]
        return (
            self._heads(getattr(self, name + suffix)(states))
            for name, states in (("query", query_states), ("key", seen), ("value", seen))
        )

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2).contiguous()


class KeptLongformerLayer(LongformerLayer):
    """`LongformerLayer`, also on packed tokens."""

    def __init__(self, config: KeptLongformerConfig, layer_id: int = 0):
        super().__init__(config, layer_id)
        self.attention.self = KeptLongformerSelfAttention(config, layer_id)

    def forward(self, hidden_states, *args, plan: AttentionPlan | None = None, **kwargs):
        """As in `LongformerLayer`; with `plan` as [`KeptLongformerSelfAttention.attend_packed`]."""
        if plan is None:
            return super().forward(hidden_states, *args, **kwargs)
        context = self.attention.self.attend_packed(hidden_states, plan)
        queries = plan.queries
        residual = hidden_states if queries.are_all else hidden_states.index_select(1, queries.slots)
        attended = self.attention.output(context, residual)
        states = apply_chunking_to_forward(self.ff_chunk, self.chunk_size_feed_forward, self.seq_len_dim, attended)
        return (states,)


class KeptLongformerEncoder(LongformerEncoder):
    """`LongformerEncoder`, also on packed tokens."""

    def __init__(self, config: KeptLongformerConfig):
        super().__init__(config)
        self.layer = nn.ModuleList([KeptLongformerLayer(config, i) for i in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states,
        *args,
        plan: AttentionPlan | None = None,
        output_positions: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs,
    ):
        """As in `LongformerEncoder`; with `plan` on packed tokens.

        Args:
            hidden_states: `(1, num_tokens, hidden_size)` with `plan`.
            plan: of all packed tokens.
            output_positions: `(batch_size, num_positions)`, the tokens whose last hidden state is wanted. The last
                layer computes no others.
            output_hidden_states: whether to return all tokens' states after each layer, too.

        Returns:
            With `plan`, `LongformerBaseModelOutput` of unpacked states.
        """
        if plan is None:
            return super().forward(hidden_states, *args, output_hidden_states=output_hidden_states, **kwargs)
        tokens, last_plan = plan.tokens, plan
        if output_positions is not None and not output_hidden_states:
            last_plan, index = plan.at(output_positions)
        states = [hidden_states]
        for layer in self.layer:
            states.append(layer(states[-1], plan=last_plan if layer is self.layer[-1] else plan)[0])
            if not output_hidden_states:
                del states[0]
        if output_positions is None:
            last_hidden_state = tokens.unpack(states[-1])
        elif output_hidden_states:
            last_hidden_state = states_at(tokens.unpack(states[-1]), output_positions)
        else:
            # Padding that is asked for is zero.
            last_hidden_state = nn.functional.pad(states[-1][0], (0, 0, 0, 1))[index]
        return LongformerBaseModelOutput(
            last_hidden_state=last_hidden_state,
            hidden_states=tuple(map(tokens.unpack, states)) if output_hidden_states else None,
        )

    def token_states(self, hidden_states: torch.Tensor, plan: AttentionPlan) -> tuple[torch.Tensor, list[int]]:
        """Last hidden states of all tokens, one row's after the other's.

        Args:
            hidden_states: `(1, num_tokens, hidden_size)`, the embeddings.
            plan: of all packed tokens.

        Returns:
            `(num_tokens, hidden_size)`, and how many of them each row has.
        """
        tokens = plan.tokens
        for layer in self.layer:
            (hidden_states,) = layer(hidden_states, plan=plan)
        # Packed tokens stand row by row unless several rows have global ones.
        order = torch.from_numpy(np.argsort(tokens.rows, kind="stable")).to(tokens.device)
        return hidden_states[0, order], (tokens.global_counts + tokens.local_counts).tolist()


def states_at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`(batch_size, length, size)` and `(batch_size, num_positions)` → `(batch_size, num_positions, size)`."""
    return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[-1]))
