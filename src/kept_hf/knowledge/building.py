"""From rows to the arrays of a term graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .arrays import GraphArrays, no_aliases
from .hierarchy import tidy_edges
from .names import Names, kind_numbers, text_column, tidy_names


class Tables(NamedTuple):
    """Rows that name a concept by its number in `concept_ids`, or by -1 for none.

    Attributes:
        concept_ids: arrow strings.
        names: the names.
        children, parents: (edges,) int64.
    """

    concept_ids: pa.LargeStringArray
    names: Names
    children: np.ndarray
    parents: np.ndarray


def number_tables(
    concept_ids: Sequence[str],
    names: Sequence[str],
    kinds: Sequence[str],
    child_ids: Sequence[str],
    parent_ids: Sequence[str],
) -> Tables:
    """Number the concepts of the tables that `TermGraph.from_tables` takes, in the order in which they are named.

    Raises:
        TypeError, ValueError: see `TermGraph.from_tables`.
    """
    concept_ids, names = text_column(concept_ids, "concept_ids"), text_column(names, "names")
    child_ids, parent_ids = text_column(child_ids, "child_ids"), text_column(parent_ids, "parent_ids")
    kinds = kind_numbers(kinds)
    if not len(concept_ids) == len(names) == len(kinds):
        raise ValueError(
            f"concept_ids, names and kinds have {len(concept_ids)}, {len(names)} and {len(kinds)} rows; pass as many "
            "of each."
        )
    if len(child_ids) != len(parent_ids):
        raise ValueError(
            f"child_ids and parent_ids have {len(child_ids)} and {len(parent_ids)} rows; pass as many of each."
        )
    encoded = pc.dictionary_encode(concept_ids)
    concepts = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    concepts[pc.equal(concept_ids, "").to_numpy(zero_copy_only=False)] = -1
    children, parents = (
        pc.fill_null(pc.index_in(ids, value_set=encoded.dictionary), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for ids in (child_ids, parent_ids)
    )
    return Tables(encoded.dictionary, Names(concepts, names, kinds), children, parents)


def keep_sound(
    concept_ids: pa.LargeStringArray,
    names: Names,
    children: np.ndarray,
    parents: np.ndarray,
    sources: Sequence[str],
    dropped: Mapping[str, int],
    max_name_length: int,
) -> GraphArrays:
    """Leave out names and edges that `TermGraph.from_tables` drops, and concepts that have no name then.

    Args:
        dropped: counts of what was dropped before; what is dropped here is added.

    Raises:
        ValueError: no name remains, or `max_name_length` below 1.
    """
    if max_name_length < 1:
        raise ValueError(f"max_name_length={max_name_length!r}; pass at least 1 character.")
    names, names_dropped = tidy_names(*names, len(concept_ids), max_name_length)
    if not len(names.texts):
        found = ", ".join(f"{name}: {count}" for name, count in names_dropped.items() if count) or "there are none"
        raise ValueError(
            f"The term graph of {', '.join(sources)} is empty: no row has both a concept and a name ({found}). Pass at "
            "least one such row, or set wider filters."
        )
    # The last number is that of no concept: -1 finds it.
    renumbered = np.full(len(concept_ids) + 1, -1, np.int64)
    present = np.unique(names.concepts)
    renumbered[present] = np.arange(len(present))
    children, parents, edges_dropped = tidy_edges(renumbered[children], renumbered[parents], len(present))
    total = {name: dropped.get(name, 0) + count for name, count in {**names_dropped, **edges_dropped}.items()}
    return GraphArrays(
        concept_ids.take(pa.array(present)),
        names._replace(concepts=renumbered[names.concepts].astype(np.int32)),
        children,
        parents,
        tuple(sources),
        {**dropped, **total},
        *no_aliases(),
    )
