"""What first and second stage share when a KEPT model scores notes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ..models.caches import CodeCache
from ..models.processing_kept import TRUNCATION_MESSAGE, KeptProcessor

logger = logging.getLogger(__name__)


def check_notes(notes: Sequence[str], **positive: int) -> None:
    """Refuse one text in place of several, and numbers below 1.

    Raises:
        TypeError: `notes` is one string.
        ValueError: a number is less than 1.
    """
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")
    if isinstance(notes, str):
        raise TypeError("notes is one string; pass a list of notes.")


def longest_first(notes: Sequence[str]) -> list[int]:
    """Positions of the notes: a note that is too long for the memory fails at once, and batches need little padding."""
    lengths = [len(text) for text in notes]
    return sorted(range(len(lengths)), key=lengths.__getitem__)[::-1]


@contextmanager
def evaluation(model) -> Iterator[None]:
    """Without dropout and gradients; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class TruncationCount:
    """Counts how notes were truncated, to warn once at the end."""

    def __init__(self, max_length: int):
        self.max_length, self.counts = max_length, [0, 0, 0]

    def __enter__(self) -> TruncationCount:
        return self

    def add(self, truncations: Iterable[int]) -> None:
        """Count how the notes of a batch were truncated: 0 not, 1 to their main sections, 2 at the end."""
        for kind in truncations:
            self.counts[kind] += 1

    def __exit__(self, *error) -> None:
        if any(self.counts[1:]):
            truncated, total = sum(self.counts[1:]), sum(self.counts)
            logger.warning(TRUNCATION_MESSAGE, truncated, total, self.max_length, *self.counts[1:])


def encoded_codes(model, processor: KeptProcessor, codes: Sequence[str], cache: CodeCache | None) -> CodeCache:
    """The encoded names of some codes; they are compared with those of a given cache.

    Raises:
        StaleCacheError: the cache has other names.
    """
    blocks = processor.code_blocks(codes)
    if cache is None:
        return model.encode_codes(blocks)
    cache.rows_of(blocks)  # compares the names, once
    return cache
