"""The real tokens of a batch side by side, and which of them each local query sees.

Padding is left out before the first layer, so nothing is computed for it. Global tokens come first, row by row, then
the local ones, row by row, each in their order: both kinds of query are then contiguous, wherever they stood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

LOCAL, GLOBAL = 1, 2
"""What a token is, as `LongformerModel` merges its two masks; 0 is padding."""

BLOCK_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Lengths of blocks of local queries among which the cheapest is taken."""

KEY_COST = 32
"""To bring a key and its value to a block takes about as long as the products of a key with so many queries."""

MULTIPLE = 16
"""Numbers of keys are rounded up to a multiple that kernels like."""


class Block(NamedTuple):
    """Some queries of one row, and the packed tokens that any of them sees."""

    queries: slice
    global_keys: slice
    local_keys: slice

    @property
    def num_queries(self) -> int:
        return self.queries.stop - self.queries.start

    @property
    def num_keys(self) -> int:
        return self.global_keys.stop - self.global_keys.start + self.local_keys.stop - self.local_keys.start


@dataclass
class BlockTable:
    """Blocks as tensors of one shape.

    Attributes:
        query_slots: `(num_blocks, block_length)`, which query stands there. Shorter blocks are filled up with
            repetitions of their last query, whose results are not read.
        key_slots: `(num_blocks, num_keys)`, which packed token stands there.
        bias: `(num_blocks, 1, block_length, num_keys)`, what is added to the scores: 0 where a key is seen, minus
            infinity elsewhere.
        output_slots: `(num_queries,)`, where in the flattened blocks each query stands.
    """

    query_slots: torch.Tensor
    key_slots: torch.Tensor
    bias: torch.Tensor
    output_slots: torch.Tensor


class QueryBlocks:
    """Queries in blocks, and which keys each query sees.

    Args:
        blocks: in the order of the queries, all of which they hold.
        query_positions: `(num_queries,)`, position of each query in its row.
        key_positions: `(num_tokens,)`, of each packed token.
        window: tokens seen on each side; None for global queries, who see all keys of their block.
        device: of the tensors.
    """

    def __init__(self, blocks, query_positions: np.ndarray, key_positions: np.ndarray, window: int | None, device):
        self.blocks: list[Block] = blocks
        self.window = window
        self._query_positions, self._key_positions, self._device = query_positions, key_positions, device
        self._biases: dict = {}
        self._tables: dict[torch.dtype, BlockTable] = {}

    @property
    def num_scores(self) -> int:
        """Pairs of a query and a key, over all blocks."""
        return sum(block.num_queries * block.num_keys for block in self.blocks)

    def bias(self, block: Block, dtype: torch.dtype) -> torch.Tensor | None:
        """`(queries, keys)`: 0 where a key is seen, minus infinity elsewhere; None where all are seen.

        Blocks of the same shape share one.
        """
        if self.window is None:
            return None
        queries = self._query_positions[block.queries]
        distances = self._key_positions[block.local_keys] - queries[0]
        num_global = block.num_keys - len(distances)
        key = (num_global, dtype, (queries - queries[0]).tobytes(), distances.tobytes())
        if key not in self._biases:
            is_far = np.abs((queries - queries[0])[:, None] - distances) > self.window
            bias = torch.zeros(block.num_queries, block.num_keys, dtype=dtype)
            bias[:, num_global:].masked_fill_(torch.from_numpy(is_far), -torch.inf)
            self._biases[key] = bias.to(self._device)
        return self._biases[key]

    def table(self, dtype: torch.dtype) -> BlockTable:
        """All blocks at once, made once for all layers."""
        if dtype not in self._tables:
            self._tables[dtype] = self._make_table(dtype)
        return self._tables[dtype]

    def _make_table(self, dtype: torch.dtype) -> BlockTable:
        length = max(block.num_queries for block in self.blocks)
        num_keys = -(-max(block.num_keys for block in self.blocks) // MULTIPLE) * MULTIPLE
        queries = np.empty((len(self.blocks), length), dtype=np.int64)
        keys = np.zeros((len(self.blocks), num_keys), dtype=np.int64)
        is_seen = np.zeros((len(self.blocks), 1, length, num_keys), dtype=bool)
        output = np.empty(len(self._query_positions), dtype=np.int64)
        for number, block in enumerate(self.blocks):
            queries[number] = np.minimum(np.arange(length) + block.queries.start, block.queries.stop - 1)
            output[block.queries] = number * length + np.arange(block.num_queries)
            num_global = block.global_keys.stop - block.global_keys.start
            keys[number, :num_global] = np.arange(block.global_keys.start, block.global_keys.stop)
            keys[number, num_global : block.num_keys] = np.arange(block.local_keys.start, block.local_keys.stop)
            distances = self._query_positions[queries[number], None] - self._key_positions[keys[number]]
            is_seen[number, 0] = True if self.window is None else np.abs(distances) <= self.window
            is_seen[number, 0, :, :num_global] = True
            is_seen[number, 0, :, block.num_keys :] = False
        bias = torch.zeros(is_seen.shape, dtype=dtype, device=self._device)
        bias.masked_fill_(~_tensor(is_seen, self._device), -torch.inf)
        query_slots, key_slots, output_slots = (_tensor(array, self._device) for array in (queries, keys, output))
        return BlockTable(query_slots, key_slots, bias, output_slots)


@dataclass
class Queries:
    """The tokens of which a layer's result is wanted.

    Attributes:
        slots: `(num_queries,)`, which packed tokens they are, in the order of these.
        are_all: whether they are all packed tokens.
        num_global, num_local: how many of each kind.
        global_blocks: of the global ones, against all tokens of their row.
        local_blocks: of the local ones, for each one-sided window.
    """

    slots: torch.Tensor
    are_all: bool
    num_global: int
    num_local: int
    global_blocks: QueryBlocks
    local_blocks: dict[int, QueryBlocks]


class PackedTokens:
    """The real tokens of a batch side by side, global ones first.

    Made once for a forward pass. On an accelerator this fetches the masks, the pass's only wait for the device; the
    layers do not wait.

    Args:
        kinds: `(batch_size, sequence_length)`, 0 for padding, 1 for local attention, 2 for global attention.
        one_sided_windows: tokens seen on each side, of all layers.

    Attributes:
        global_counts, local_counts: tokens of each row.
        rows, positions: `(num_tokens,)`, where each packed token came from.

    Examples:
        >>> tokens = PackedTokens(torch.tensor([[2, 1, 1], [1, 2, 0]]), [1])
        >>> tokens.pack(torch.tensor([[10, 11, 12], [20, 21, 22]])).tolist()
        [[10, 21, 11, 12, 20]]
        >>> tokens.unpack(torch.tensor([[[10.0], [21.0], [11.0], [12.0], [20.0]]]))[..., 0].tolist()
        [[10.0, 11.0, 12.0], [20.0, 21.0, 0.0]]
    """

    def __init__(self, kinds: torch.Tensor, one_sided_windows: list[int]):
        self.batch_size, self.sequence_length = kinds.shape
        self.device = kinds.device
        self._windows = sorted(set(one_sided_windows))
        kinds = kinds.cpu().numpy()
        found = [np.nonzero(kinds == kind) for kind in (GLOBAL, LOCAL)]
        self.global_counts, self.local_counts = (np.bincount(rows, minlength=self.batch_size) for rows, _ in found)
        self.rows, self.positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
        self.num_global = int(self.global_counts.sum())
        self._index = _tensor(self.rows * self.sequence_length + self.positions, self.device)
        self._global_starts = np.cumsum(self.global_counts) - self.global_counts
        self._local_starts = self.num_global + np.cumsum(self.local_counts) - self.local_counts

    @property
    def num_tokens(self) -> int:
        return len(self.rows)

    def pack(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, sequence_length, ...)` → `(1, num_tokens, ...)`."""
        return states.flatten(0, 1).index_select(0, self._index)[None]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """`(1, num_tokens, size)` → `(batch_size, sequence_length, size)`, with zeros for padding."""
        flat = packed.new_zeros(self.batch_size * self.sequence_length, packed.shape[-1])
        return flat.index_copy(0, self._index, packed[0]).unflatten(0, (self.batch_size, self.sequence_length))

    def all_queries(self) -> Queries:
        """Every packed token."""
        return self._queries(np.arange(self.num_tokens))

    def queries_at(self, positions: torch.Tensor) -> tuple[Queries, torch.Tensor]:
        """The tokens at some positions.

        Args:
            positions: `(batch_size, num_positions)`, in any order, repeated or not, padding too.

        Returns:
            The queries, and `(batch_size, num_positions)` which of them stands at each position; for padding the number
            of queries.
        """
        positions = positions.cpu().numpy()
        slot_at = np.full((self.batch_size, self.sequence_length), self.num_tokens)
        slot_at[self.rows, self.positions] = np.arange(self.num_tokens)
        slots = np.take_along_axis(slot_at, positions, axis=1)
        wanted = np.unique(slots[slots < self.num_tokens])
        return self._queries(wanted), _tensor(np.searchsorted(wanted, slots), self.device)

    def _queries(self, slots: np.ndarray) -> Queries:
        num_global = int(np.searchsorted(slots, self.num_global))
        local = slots[num_global:]
        return Queries(
            slots=_tensor(slots, self.device),
            are_all=len(slots) == self.num_tokens,
            num_global=num_global,
            num_local=len(local),
            global_blocks=self._global_blocks(slots[:num_global]),
            local_blocks={window: self._local_blocks(local, window) for window in self._windows} if len(local) else {},
        )

    def _global_blocks(self, slots: np.ndarray) -> QueryBlocks:
        """One block a row."""
        counts = np.bincount(self.rows[slots], minlength=self.batch_size)
        stops = np.cumsum(counts)
        blocks = [
            Block(slice(stop - count, stop), *self._keys_of(row))
            for row, (count, stop) in enumerate(zip(counts.tolist(), stops.tolist(), strict=True))
            if count
        ]
        return QueryBlocks(blocks, self.positions[slots], self.positions, None, self.device)

    def _keys_of(self, row: int) -> tuple[slice, slice]:
        """All global and all local tokens of a row."""
        starts = (self._global_starts[row], self._local_starts[row])
        counts = (self.global_counts[row], self.local_counts[row])
        return tuple(slice(int(start), int(start + count)) for start, count in zip(starts, counts, strict=True))

    def _local_blocks(self, local: np.ndarray, window: int) -> QueryBlocks:
        """Blocks of the length that costs least."""
        longest = int(np.bincount(self.rows[local]).max())
        lengths = [length for length in BLOCK_LENGTHS if length < longest] or [longest]
        if longest < BLOCK_LENGTHS[-1]:
            lengths.append(longest)
        candidates = (self._blocks_of_length(local, window, length) for length in lengths)
        blocks = min(
            candidates, key=lambda blocks: sum((block.num_queries + KEY_COST) * block.num_keys for block in blocks)
        )
        return QueryBlocks(blocks, self.positions[local], self.positions, window, self.device)

    def _blocks_of_length(self, local: np.ndarray, window: int, length: int) -> list[Block]:
        """Blocks of a length."""
        rows = self.rows[local]
        stops_of_rows = np.searchsorted(rows, np.arange(self.batch_size), side="right")
        starts_of_rows = np.searchsorted(rows, np.arange(self.batch_size))
        starts = np.concatenate([np.arange(*ends, length) for ends in zip(starts_of_rows, stops_of_rows, strict=True)])
        row = rows[starts]
        stops = np.minimum(starts + length, stops_of_rows[row])
        # Local tokens are in the order of row and position; one number for both lets one search find all ranges.
        stride = self.sequence_length + window + 1
        keys = self.rows[self.num_global :] * stride + self.positions[self.num_global :]
        first = np.maximum(self.positions[local[starts]] - window, 0)
        last = self.positions[local[stops - 1]] + window
        low = self.num_global + np.searchsorted(keys, row * stride + first)
        high = self.num_global + np.searchsorted(keys, row * stride + last, side="right")
        high = np.minimum(high, (self._local_starts + self.local_counts)[row])
        return [
            Block(slice(start, stop), self._keys_of(at)[0], slice(first_key, last_key))
            for start, stop, at, first_key, last_key in zip(
                *(array.tolist() for array in (starts, stops, row, low, high)), strict=True
            )
        ]


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)
