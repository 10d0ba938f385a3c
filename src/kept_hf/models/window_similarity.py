"""MaxSim of a code's names and the windows of a note: late interaction, and the isolated layout's prior.

Pure functions of tensors, and the two numbers that are learnt with them. The maximum is a soft one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .mask_attention import GlobalStates


def num_windows(length: int, window: int, step: int) -> int:
    """How many windows cover a row: one each `step` tokens, the last one ends the row and may be shorter.

    Examples:
        >>> [num_windows(length, window=12, step=6) for length in (3, 12, 13, 18, 19)]
        [1, 1, 2, 2, 3]
    """
    return 1 + max(0, -(-(length - window) // step))


def window_means(states: torch.Tensor, lengths: Sequence[int], window: int, step: int) -> torch.Tensor:
    """Means of overlapping windows.

    Args:
        states: `(num_tokens, hidden_size)`, one row's tokens after the other's.
        lengths: tokens of each row.
        window, step: tokens of a window, and between the beginnings of two.

    Returns:
        `(num_windows, hidden_size)`, one row's windows after the other's; their numbers are `num_windows(...)`.

    Examples:
        >>> states = torch.tensor([[1.0], [3.0], [5.0], [9.0]])
        >>> window_means(states, [3, 1], window=2, step=1)[:, 0]
        tensor([2., 4., 9.])
    """
    device = states.device
    lengths = torch.tensor(lengths)
    counts = torch.tensor([num_windows(length, window, step) for length in lengths.tolist()])
    rows = torch.arange(len(lengths)).repeat_interleave(counts)
    number = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    ends = lengths.cumsum(0)
    starts = (ends - lengths)[rows] + number * step
    slots = starts[:, None] + torch.arange(window)
    is_beyond = slots >= ends[rows, None]
    slots, is_beyond = slots.masked_fill(is_beyond, 0).to(device), is_beyond.to(device)
    gathered = states[slots].masked_fill(is_beyond[..., None], 0)
    return gathered.sum(dim=1) / (~is_beyond).sum(dim=1, keepdim=True)


def row_means(states: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Mean of each row.

    Args:
        states: `(num_tokens, hidden_size)`, one row's tokens after the other's.
        lengths: tokens of each row, at least one.

    Returns:
        `(rows, hidden_size)`.

    Examples:
        >>> row_means(torch.tensor([[1.0], [3.0], [5.0]]), [2, 1])[:, 0]
        tensor([2., 5.])
    """
    counts = torch.tensor(lengths, device=states.device)
    rows = torch.arange(len(counts), device=states.device).repeat_interleave(counts)
    return states.new_zeros(len(counts), states.shape[1]).index_add(0, rows, states) / counts[:, None]


def soft_maximum(values: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean along the last dimension, weighted by the softmax of `temperature` times the values.

    Examples:
        >>> soft_maximum(torch.tensor([[0.0, 1.0]]), temperature=0.0), soft_maximum(torch.tensor([[0.0, 1.0]]), 100.0)
        (tensor([0.5000]), tensor([1.]))
    """
    return ((values * temperature).softmax(dim=-1) * values).sum(dim=-1)


def soft_maximum_by_row(values: torch.Tensor, counts: torch.Tensor, temperature: float) -> torch.Tensor:
    """The soft maximum of each row, for rows of different lengths that stand one behind the other.

    Args:
        values: `(sum of counts,)`.
        counts: `(rows,)`, at least 1 each.
        temperature: see [`soft_maximum`].

    Returns:
        `(rows,)`.

    Examples:
        >>> values, counts = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([2, 1])
        >>> soft_maximum_by_row(values, counts, 0.0), soft_maximum_by_row(values, counts, 100.0)
        (tensor([0.5000, 0.5000]), tensor([1.0000, 0.5000]))
    """
    if not len(counts):
        return values
    rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    columns = torch.arange(len(values), device=counts.device) - (counts.cumsum(0) - counts)[rows]
    shape = len(counts), int(counts.max())
    is_value = torch.zeros(shape, dtype=torch.bool, device=values.device).index_put(
        (rows, columns), values.new_ones(1).bool()
    )
    padded = values.new_zeros(shape).index_put((rows, columns), values)
    weights = (padded * temperature).masked_fill(~is_value, -torch.inf).softmax(dim=-1)
    return (weights * padded).sum(dim=-1)


class WindowSimilarity(nn.Module):
    """`scale` · (similarity − `threshold`) of a code and a note.

    The similarity of a name and a note is the soft maximum of the cosines between the name's mean state and the means
    of the note's windows; that of a code with several names is the soft maximum of theirs.

    Args:
        config: a `KeptLongformerConfig`: `similarity_window`, `similarity_step`, `similarity_temperature` and, as
            initial values, `similarity_scale` and `similarity_threshold`.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.scale, self.threshold = nn.Parameter(torch.empty(())), nn.Parameter(torch.empty(()))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set both numbers to those of the configuration."""
        self.scale.fill_(self.config.similarity_scale)
        self.threshold.fill_(self.config.similarity_threshold)

    def vectors(self, states: torch.Tensor, lengths: Sequence[int], is_note: bool) -> torch.Tensor:
        """Unit vectors in float32: of the windows of notes, or of names.

        Args:
            states: last hidden states `(num_tokens, hidden_size)`, one row's tokens after the other's.
            lengths: tokens of each row.
            is_note: whether the rows are notes.

        Returns:
            `(windows or names, hidden_size)`.
        """
        if is_note:
            means = window_means(states.float(), lengths, self.config.similarity_window, self.config.similarity_step)
        else:
            means = row_means(states.float(), lengths)
        return nn.functional.normalize(means, dim=-1)

    def forward(self, notes: GlobalStates, note: int, codes: GlobalStates, wanted: Sequence[int]) -> torch.Tensor:
        """Scores of one note.

        Args:
            notes, codes: with their `vectors`.
            note: number of the note.
            wanted: numbers of the codes.

        Returns:
            `(len(wanted),)`, float32.
        """
        window, step = self.config.similarity_window, self.config.similarity_step
        start = sum(num_windows(length, window, step) for length in notes.lengths[:note])
        windows = notes.vectors[start : start + num_windows(notes.lengths[note], window, step)]
        rows, counts = self._names_of(codes, wanted)
        # Vectors are float32 and stay so under autocast: differences of cosines are small.
        with torch.autocast(windows.device.type, enabled=False):
            cosines = codes.vectors[rows].to(windows.device).float() @ windows.float().T
            similarity = soft_maximum(cosines, self.config.similarity_temperature)
            if counts is not None:
                similarity = soft_maximum_by_row(similarity, counts, self.config.similarity_temperature)
            return self.scale.float() * (similarity - self.threshold.float())

    @staticmethod
    def _names_of(codes: GlobalStates, wanted: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Where the vectors of some codes stand, and how many each has; None for one each."""
        rows = torch.as_tensor(wanted, dtype=torch.long, device=codes.vectors.device)
        if codes.names is None:
            return rows, None
        names = torch.tensor(codes.names, device=rows.device)
        firsts, counts = (names.cumsum(0) - names)[rows], names[rows]
        within = torch.arange(int(counts.sum()), device=rows.device)
        within = within - (counts.cumsum(0) - counts).repeat_interleave(counts)
        return firsts.repeat_interleave(counts) + within, counts
