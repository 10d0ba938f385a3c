"""A bidirectional LSTM over rows of different lengths, as fast as a CPU and a GPU can each, and chunks of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def read_packed(lstm: nn.LSTM, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What [`read_both_ways`] gives, by packing the rows, which is faster on a GPU; `lengths` are on the CPU."""
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    # Of full length also where each row of a chunk is shorter: with `pool_term_padding` the zeros count.
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=inputs.shape[1])[0]


def read_both_ways(lstm: nn.LSTM, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What a bidirectional LSTM gives for packed rows, without packing them.

    PyTorch's backward pass through packed rows is about ten times slower on a CPU.

    Args:
        lstm: bidirectional, `batch_first`, with biases.
        inputs: `(rows, words, input_size)`.
        lengths: `(rows,)` words of each row.

    Returns:
        `(rows, words, 2 * hidden_size)`, zero behind the words of a row.

    Examples:
        >>> lstm = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
        >>> read_both_ways(lstm, torch.randn(2, 5, 3), torch.tensor([5, 2])).shape
        torch.Size([2, 5, 8])
    """
    positions = torch.arange(inputs.shape[1], device=inputs.device)[None]
    lengths = lengths.to(inputs.device)[:, None]
    is_word = positions < lengths
    # Each row the other way round; what is behind it stays there, where neither direction has read it before its words.
    mirrored = torch.where(is_word, lengths - 1 - positions, positions)[..., None]
    states = inputs
    for layer in range(lstm.num_layers):
        if layer:
            states = torch.dropout(states, lstm.dropout, lstm.training)
        both = []
        for suffix in ("", "_reverse"):
            weights = [getattr(lstm, f"{name}_l{layer}{suffix}") for name in LSTM_WEIGHTS]
            layer_inputs = states.gather(1, mirrored.expand_as(states)) if suffix else states
            initial = layer_inputs.new_zeros(1, len(layer_inputs), lstm.hidden_size)
            outputs = torch.lstm(layer_inputs, (initial, initial), weights, True, 1, 0.0, lstm.training, False, True)[0]
            both.append(outputs.gather(1, mirrored.expand_as(outputs)) if suffix else outputs)
        states = torch.cat(both, dim=-1)
    return states.masked_fill(~is_word[..., None], 0)


def in_chunks(
    function: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...], chunk_size: int, dim: int
) -> torch.Tensor:
    """A function of rows, a chunk of rows at a time.

    With gradients only the inputs of a chunk are kept, and the chunk is computed again, with the same dropout, when its
    gradients are wanted: memory is that of one chunk.

    Args:
        function: of tensors with as many rows each.
        tensors: its arguments, each with the rows first.
        chunk_size: rows at a time; 0 for all.
        dim: of the result, along which the rows lie.

    Examples:
        >>> in_chunks(lambda rows: rows.sum(dim=1), (torch.ones(5, 3),), chunk_size=2, dim=0)
        tensor([3., 3., 3., 3., 3.])
    """
    if not 0 < chunk_size < len(tensors[0]):
        return function(*tensors)
    chunks = zip(*(tensor.split(chunk_size) for tensor in tensors), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*chunk) for chunk in chunks], dim=dim)
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks], dim=dim)
