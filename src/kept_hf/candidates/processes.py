"""First and second stages on several processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from .candidates import Candidates


def share_notes(score: Callable[[list[int]], Candidates], num_notes: int) -> Candidates:
    """Let each process score some of the notes. To be called on all processes.

    Args:
        score: positions of notes → their candidates, in this order.
        num_notes: number of notes.

    Returns:
        The candidates of all notes, in their order, on each process.
    """
    state = PartialState()
    positions = list(range(state.process_index, num_notes, state.num_processes))
    parts = gather_object([(positions, score(positions))])
    order = np.argsort([position for part_positions, _ in parts for position in part_positions])
    return Candidates.concatenate(part for _, part in parts).take(order)
