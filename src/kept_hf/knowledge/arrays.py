"""What a term graph consists of, for the functions that build, join and store one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .names import Names


class GraphArrays(NamedTuple):
    """The parameters of `kept_hf.knowledge.TermGraph`: concepts with a name, and a hierarchy without a cycle.

    Attributes:
        concept_ids: (concepts,) arrow strings.
        names: sorted by concept and kind.
        children, parents: (edges,) int32, sorted by child.
        sources: where it is from.
        dropped: how many rows were dropped, by the reason.
        alias_ids, alias_concepts: (aliases,) arrow strings and int32: further ids, of concepts that were merged.
    """

    concept_ids: pa.LargeStringArray
    names: Names
    children: np.ndarray
    parents: np.ndarray
    sources: tuple[str, ...]
    dropped: Mapping[str, int]
    alias_ids: pa.LargeStringArray
    alias_concepts: np.ndarray

    @property
    def num_concepts(self) -> int:
        return len(self.concept_ids)


def no_aliases() -> tuple[pa.LargeStringArray, np.ndarray]:
    """The last two of `GraphArrays` for a graph of one source."""
    return pa.array([], pa.large_string()), np.zeros(0, np.int32)
