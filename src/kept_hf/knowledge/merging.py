"""Joining term graphs: which concepts of several sources are one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .arrays import GraphArrays
from .building import keep_sound
from .hierarchy import gather_rows, rows_to_offsets
from .names import ABBREVIATION, PREFERRED, Names, normalise_names, text_numbers
from .sources import SOURCES

_UNSPECIFIED = r"^unspecified | (unspecified|nos)$"


def merge(graphs: Sequence[GraphArrays]) -> GraphArrays:
    """One graph of several, at least one; see `TermGraph.merge`."""
    merged = _Merger(graphs[0])
    for graph in graphs[1:]:
        merged.add(graph)
    dropped = merged.counts
    for graph in graphs:
        dropped.update(graph.dropped)
    positions = merged.positions
    result = keep_sound(
        merged.ids,
        Names(
            np.concatenate([position[graph.names.concepts] for position, graph in zip(positions, graphs, strict=True)]),
            pa.concat_arrays([graph.names.texts for graph in graphs]),
            np.concatenate([graph.names.kinds for graph in graphs]),
        ),
        np.concatenate([position[graph.children] for position, graph in zip(positions, graphs, strict=True)]),
        np.concatenate([position[graph.parents] for position, graph in zip(positions, graphs, strict=True)]),
        tuple(dict.fromkeys(source for graph in graphs for source in graph.sources)),
        dropped,
        # Each graph has had its own limit, so that every concept is named and keeps its number.
        max_name_length=np.iinfo(np.int32).max,
    )
    return result._replace(alias_ids=merged.alias_ids, alias_concepts=merged.alias_concepts.astype(np.int32))


class _Merger:
    """Concepts of the graphs so far.

    Attributes:
        ids: the id of each.
        alias_ids, alias_concepts: further ids and the concepts they stand for.
        positions: for each graph, (its concepts,) numbers in `ids`.
        counts: what `TermGraph.merge` counts.
    """

    def __init__(self, graph: GraphArrays):
        self.ids, self.alias_ids, self.alias_concepts = graph.concept_ids, graph.alias_ids, graph.alias_concepts
        self.positions = [np.arange(graph.num_concepts)]
        self.counts = Counter(merged_concepts=0, ambiguous_matches=0, renamed_ids=0)
        self._own_ids = _has_own_ids(graph)
        self._names = [_joining_names(graph, self.positions[0])]

    def add(self, graph: GraphArrays) -> None:
        """Join the concepts of another graph, or put them after those that are there."""
        known_ids = pa.concat_arrays([self.ids, self.alias_ids])
        found = pc.fill_null(pc.index_in(graph.concept_ids, value_set=known_ids), -1).to_numpy(zero_copy_only=False)
        owners = np.where(found >= 0, np.append(np.arange(len(self.ids)), self.alias_concepts)[found], -1)
        own_ids = _has_own_ids(graph)
        by_id = np.full(graph.num_concepts, -1)
        if not (own_ids and self._own_ids):
            # Two concepts may be one here, an id and its alias; the first of them joins.
            _, first = np.unique(owners, return_index=True)
            by_id[first] = owners[first]
        positions, ambiguous = self._match_by_name(graph, by_id)
        joined, new = np.flatnonzero(positions >= 0), np.flatnonzero(positions < 0)
        renamed = (owners >= 0) & (owners != positions)
        positions[new] = len(self.ids) + np.arange(len(new))

        ids = graph.concept_ids
        prefixed = pc.binary_join_element_wise(pa.scalar(graph.sources[0], ids.type), ids, pa.scalar(":", ids.type))
        ids = pc.if_else(pa.array(renamed), prefixed, ids)
        alias_ids = pa.concat_arrays([ids.take(pa.array(joined)), graph.alias_ids])
        alias_concepts = np.append(positions[joined], positions[graph.alias_concepts])
        fresh = pc.invert(pc.is_in(alias_ids, value_set=known_ids))
        self.alias_ids = pa.concat_arrays([self.alias_ids, alias_ids.filter(fresh)])
        self.alias_concepts = np.append(self.alias_concepts, alias_concepts[fresh.to_numpy(zero_copy_only=False)])
        self.ids = pa.concat_arrays([self.ids, ids.take(pa.array(new))])
        self.positions.append(positions)
        self.counts.update(merged_concepts=len(joined), ambiguous_matches=ambiguous, renamed_ids=int(renamed.sum()))
        self._own_ids &= own_ids
        self._names.append(_joining_names(graph, positions))

    def _match_by_name(self, graph: GraphArrays, by_id: np.ndarray) -> tuple[np.ndarray, int]:
        """`by_id` with the matches by name, -1 where there is none; and how many share a name but match nothing."""
        is_open = np.ones(len(self.ids), bool)
        is_open[by_id[by_id >= 0]] = False
        ours = _concat(self._names).of(is_open)
        theirs = _joining_names(graph, np.arange(graph.num_concepts)).of(by_id < 0)
        left, right, levels = _pairs(ours, theirs)
        sole = _is_only_best(left, levels) & _is_only_best(right, levels)
        positions = by_id.copy()
        positions[right[sole]] = left[sole]
        return positions, len(np.unique(right)) - int(sole.sum())


class _JoiningNames(NamedTuple):
    """Names by which concepts may be joined.

    Attributes:
        concepts: (names,) numbers.
        texts: (names,) normalised.
        levels: (names,) 0 for a preferred name, 1 for a synonym, and for either without "unspecified".
    """

    concepts: np.ndarray
    texts: pa.LargeStringArray
    levels: np.ndarray

    def where(self, mask: pa.BooleanArray) -> _JoiningNames:
        rows = mask.to_numpy(zero_copy_only=False)
        return _JoiningNames(self.concepts[rows], self.texts.filter(mask), self.levels[rows])

    def of(self, concepts: np.ndarray) -> _JoiningNames:
        """Those of some concepts, given as a mask."""
        return self.where(pa.array(concepts[self.concepts]))


def _has_own_ids(graph: GraphArrays) -> bool:
    """Whether its ids mean something else than those of other sources."""
    return all(name in SOURCES and SOURCES[name].has_own_ids for name in graph.sources)


def _joining_names(graph: GraphArrays, positions: np.ndarray) -> _JoiningNames:
    narrow = any(name in SOURCES and SOURCES[name].has_narrow_synonyms for name in graph.sources)
    mask = graph.names.kinds == PREFERRED if narrow else graph.names.kinds != ABBREVIATION
    texts = normalise_names(graph.names.texts.filter(pa.array(mask)))
    shorter = pc.replace_substring_regex(texts, _UNSPECIFIED, "")
    concepts, levels = positions[graph.names.concepts[mask]], graph.names.kinds[mask] != PREFERRED
    is_shorter = pc.not_equal(shorter, texts)
    names = _concat(
        [
            _JoiningNames(concepts, texts, levels.astype(np.int8)),
            _JoiningNames(concepts, shorter, np.ones(len(concepts), np.int8)).where(is_shorter),
        ]
    )
    # What has neither letter nor digit becomes nothing, and would join all of its like.
    return names.where(pc.not_equal(names.texts, ""))


def _concat(names: list[_JoiningNames]) -> _JoiningNames:
    concepts, texts, levels = zip(*names, strict=True)
    return _JoiningNames(np.concatenate(concepts), pa.concat_arrays(texts), np.concatenate(levels))


def _pairs(ours: _JoiningNames, theirs: _JoiningNames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair of concepts that share a name, once, with the lowest sum of levels."""
    numbers = text_numbers(pa.concat_arrays([ours.texts, theirs.texts]))
    our_numbers, their_numbers = np.split(numbers, [len(ours.texts)])
    offsets = rows_to_offsets(our_numbers, int(numbers.max(initial=-1)) + 1)
    rows, times = gather_rows(offsets, np.argsort(our_numbers, kind="stable"), their_numbers)
    left, right = ours.concepts[rows], np.repeat(theirs.concepts, times)
    levels = ours.levels[rows] + np.repeat(theirs.levels, times)
    order = np.lexsort((levels, right, left))
    left, right, levels = left[order], right[order], levels[order]
    first = np.ones(len(left), bool)
    first[1:] = (np.diff(left) != 0) | (np.diff(right) != 0)
    return left[first], right[first], levels[first]


def _is_only_best(concepts: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Whether each pair has the lowest level of its concept, and has it alone."""
    _, numbers = np.unique(concepts, return_inverse=True)
    best = np.full(len(concepts), np.iinfo(np.int8).max, np.int8)
    np.minimum.at(best, numbers, levels)
    is_best = levels == best[numbers]
    return is_best & (np.bincount(numbers[is_best], minlength=len(concepts))[numbers] == 1)
