"""Which notes are for training, validation and testing."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

SPLIT_NAMES = {"train": "train", "dev": "validation", "val": "validation", "validation": "validation", "test": "test"}
"""What a split may be called in files, and what it is called here."""

SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Shares of the patients in the splits that are drawn."""


def draw_splits(patients: Sequence[str], seed: int = 0) -> list[str]:
    """The split of each note, drawn by patient: nobody is in two splits.

    The patients are put into an order by the SHA-256 digest of "seed:patient"; the first of them are taken for test,
    the next for validation, each by its share, and at least one for each split.

    Args:
        patients: (notes,) the patient of each note.
        seed: of the draw. Its result depends on the set of patients, not on the order of the notes.

    Raises:
        ValueError: fewer than three patients.

    Examples:
        >>> draw_splits(["1", "2", "3", "1"])
        ['train', 'validation', 'test', 'train']
    """
    order = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    if len(order) < len(SPLIT_SHARES):
        raise ValueError(f"{len(order)} are too few for {', '.join(SPLIT_SHARES)}")
    sizes = {split: max(1, round(SPLIT_SHARES[split] * len(order))) for split in ("test", "validation")}
    split_of = dict.fromkeys(order, "train")
    split_of.update(dict.fromkeys(order[: sizes["test"]], "test"))
    split_of.update(dict.fromkeys(order[sizes["test"] :][: sizes["validation"]], "validation"))
    return [split_of[patient] for patient in patients]


def warn_of_shared_patients(splits: Mapping[str, Iterable[str]]) -> None:
    """A warning that counts the patients with notes in several splits.

    Args:
        splits: split → the patients of its notes.
    """
    splits_of: dict[str, set[str]] = {}
    for split, patients in splits.items():
        for patient in patients:
            splits_of.setdefault(patient, set()).add(split)
    shared = sum(len(found) > 1 for found in splits_of.values())
    if shared:
        logger.warning(
            "%d of %d patients are in more than one split: results will be optimistic.", shared, len(splits_of)
        )
