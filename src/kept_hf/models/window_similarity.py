"""MaxSim of a code's names and the windows of a note, for late interaction.

Pure functions of tensors, and the two numbers that are learnt with them. The maximum is a soft one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

COSINES_AT_A_TIME = 1 << 22
"""About so many are computed at a time, so that all codes of a release take no more memory than these."""


@dataclass
class TextVectors:
    """Unit vectors of some texts, one text's after the other's.

    Attributes:
        vectors: `(sum of counts, hidden_size)`, float32.
        counts: how many each text has: a note those of its windows, a code those of its names.
    """

    vectors: torch.Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.counts)


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
        `(num_windows, hidden_size)`, one row's windows after the other's; their numbers are `num_windows(...)`. A row
        without tokens has one window of zeros.

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
    # What is beyond a row's end is a row of zeros behind all others.
    slots = slots.masked_fill(is_beyond, len(states)).to(device)
    gathered = nn.functional.pad(states, (0, 0, 0, 1))[slots]
    counts = (~is_beyond).sum(dim=1, keepdim=True).clamp(min=1).to(device)
    return gathered.sum(dim=1) / counts


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

    def of_notes(self, states: torch.Tensor, lengths: Sequence[int]) -> TextVectors:
        """The vectors of notes: of their windows.

        Args:
            states: last hidden states `(num_tokens, hidden_size)`, one note's tokens after the other's.
            lengths: tokens of each note.
        """
        window, step = self.config.similarity_window, self.config.similarity_step
        means = window_means(states.float(), lengths, window, step)
        return TextVectors(_unit(means), [num_windows(length, window, step) for length in lengths])

    @staticmethod
    def of_names(states: torch.Tensor, lengths: Sequence[int], counts: Sequence[int]) -> TextVectors:
        """The vectors of codes: of their names.

        Args:
            states: last hidden states `(num_tokens, hidden_size)`, one name's tokens after the other's.
            lengths: tokens of each name.
            counts: names of each code.
        """
        return TextVectors(_unit(row_means(states.float(), lengths)), list(counts))

    def forward(self, notes: TextVectors, note: int, codes: TextVectors, wanted: Sequence[int]) -> torch.Tensor:
        """Scores of one note.

        Args:
            notes, codes: their vectors.
            note: number of the note.
            wanted: numbers of the codes.

        Returns:
            `(len(wanted),)`, float32.
        """
        temperature, start = self.config.similarity_temperature, sum(notes.counts[:note])
        windows = notes.vectors[start : start + notes.counts[note]]
        names, counts = names_of(codes.counts, wanted)
        at_a_time = max(1, COSINES_AT_A_TIME // len(windows))
        # Vectors are float32 and stay so under autocast: differences of cosines are small.
        with torch.autocast(windows.device.type, enabled=False):
            windows = windows.float().T
            similarities = [
                soft_maximum(codes.vectors[part.to(codes.vectors.device)].to(windows) @ windows, temperature)
                for part in names.split(at_a_time)
            ]
            similarity = torch.cat(similarities)
            if len(names) > len(counts):
                similarity = soft_maximum_by_row(similarity, counts.to(similarity.device), temperature)
            return self.scale.float() * (similarity - self.threshold.float())


def names_of(counts: Sequence[int], wanted: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the names of some codes stand, and how many each has.

    Args:
        counts: names of each code; they stand one behind the other.
        wanted: numbers of the codes.

    Examples:
        >>> names_of([1, 3, 2], [2, 1])
        (tensor([4, 5, 1, 2, 3]), tensor([2, 3]))
    """
    all_counts, wanted = torch.tensor(counts), torch.as_tensor(wanted, dtype=torch.long)
    firsts, counts = (all_counts.cumsum(0) - all_counts)[wanted], all_counts[wanted]
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return firsts.repeat_interleave(counts) + within, counts


def _unit(means: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(means, dim=-1)
