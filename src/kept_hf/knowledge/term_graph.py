"""`TermGraph`: medical concepts, their names and their hierarchy, as integer arrays beside one column of text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import hierarchy, merging, storage
from .arrays import GraphArrays, no_aliases
from .building import keep_sound, number_tables
from .code_names import names_of_codes
from .hierarchy import MAX_TREE_DISTANCE, rows_to_offsets
from .names import NAME_KINDS, Names, kind_numbers, text_numbers

if TYPE_CHECKING:
    from ..models.code_set import ICDCodeSet

__all__ = ["MAX_TREE_DISTANCE", "NAME_KINDS", "TermGraph"]


class TermGraph:
    """Concepts with names, abbreviations and parents.

    Make one with `from_tables`, `kept_hf.knowledge.load_term_graph` or `load`. A concept is known by its number, which
    every method takes, or by its id, which is text. Each has at least one name. The hierarchy has no cycle; a concept
    may have several parents, or none.

    Attributes:
        concept_ids: (concepts,) arrow strings.
        name_texts: (names,) arrow strings, sorted by concept: the preferred name, synonyms, abbreviations.
        name_kinds: (names,) uint8, numbers in `NAME_KINDS`.
        name_concepts: (names,) int32, sorted.
        name_offsets: (concepts + 1,) int64; the names of concept `c` are rows `name_offsets[c]` to
            `name_offsets[c + 1]`.
        parent_offsets, parent_indices: (concepts + 1,) int64 and (edges,) int32, likewise; sorted.
        child_offsets, child_indices: likewise.
        alias_ids, alias_concepts: (aliases,) arrow strings and int32: further ids, of concepts that were merged and
            of the codes in UMLS ("ICD9CM:401.9").
        sources: where it is from.
        dropped: what building the graph has dropped: the latter part of `counts`.

    Examples:
        >>> graph = TermGraph.from_tables(
        ...     concept_ids=["N17", "N17", "N17", "N17.9", "N17.0"],
        ...     names=["Acute kidney failure", "acute renal failure", "AKF", "Kidney failure, unspecified", "ATN"],
        ...     kinds=["preferred", "synonym", "abbreviation", "preferred", "abbreviation"],
        ...     child_ids=["N17.9", "N17.0"],
        ...     parent_ids=["N17", "N17"],
        ... )
        >>> graph.names_of("N17"), graph.names_of("N17", kinds=["abbreviation"])
        (['Acute kidney failure', 'acute renal failure', 'AKF'], ['AKF'])
        >>> [graph.concept_ids[int(concept)].as_py() for concept in graph.siblings_of("N17.9")]
        ['N17.0']
        >>> graph.tree_distance([graph.concept_index(code) for code in ("N17", "N17.0", "N17.9")]).tolist()
        [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
    """

    def __init__(
        self,
        concept_ids: pa.LargeStringArray,
        names: Names,
        children: np.ndarray,
        parents: np.ndarray,
        sources: Sequence[str],
        dropped: Mapping[str, int],
        alias_ids: pa.LargeStringArray | None = None,
        alias_concepts: np.ndarray | None = None,
    ):
        num_concepts = len(concept_ids)
        self.concept_ids = concept_ids
        self.name_concepts, self.name_texts, self.name_kinds = names
        self.name_offsets = rows_to_offsets(self.name_concepts, num_concepts)
        self.parent_offsets, self.parent_indices = rows_to_offsets(children, num_concepts), parents
        order = np.argsort(parents, kind="stable")
        self.child_offsets, self.child_indices = rows_to_offsets(parents, num_concepts), children[order]
        self.alias_ids, self.alias_concepts = no_aliases() if alias_ids is None else (alias_ids, alias_concepts)
        self.sources, self.dropped = tuple(sources), dict(dropped)

    @classmethod
    def from_tables(
        cls,
        concept_ids: Sequence[str],
        names: Sequence[str],
        kinds: Sequence[str],
        child_ids: Sequence[str] = (),
        parent_ids: Sequence[str] = (),
        source: str = "own",
        max_name_length: int = 500,
    ) -> TermGraph:
        """A graph of rows of names and rows of hierarchy, as lists or arrow columns of text.

        Args:
            concept_ids: (names,) the concept of each name.
            names: (names,) names; runs of white space become one space.
            kinds: (names,) what each is, out of `NAME_KINDS` (or numbers in it, as a numpy array).
            child_ids: (edges,) concepts.
            parent_ids: (edges,) the concept above each.
            source: where the rows are from.
            max_name_length: longer names, in characters, are dropped.

        Returns:
            The graph; its concepts are in the order in which they are first named. `counts` says what was dropped:

            - `names_without_concept` (an empty id), `empty_names`, `long_names`, `duplicate_names` (of one concept,
              differing in case at most);
            - `missing_parents`, `missing_children` (edges whose parent, or whose child, has no name here),
              `self_loops`, `duplicate_edges`, `cycle_edges`: a depth-first walk from child to parent, in the order of
              the concepts, leaves out each edge that leads back onto its own path.

            It also counts what is there: `concepts`, `names`, `preferred`, `synonyms`, `abbreviations`, `edges`,
            `concepts_with_one_name`, `concepts_without_edges`, `ambiguous_names` (those that several concepts have, in
            any case).

        Raises:
            TypeError: columns that are no text.
            ValueError: columns of unequal length, an unknown kind, or no name at all.
        """
        tables = number_tables(concept_ids, names, kinds, child_ids, parent_ids)
        return cls.from_numbers(*tables, (source,), {}, max_name_length=max_name_length)

    @classmethod
    def from_numbers(
        cls,
        concept_ids: pa.LargeStringArray,
        names: Names,
        children: np.ndarray,
        parents: np.ndarray,
        sources: Sequence[str],
        dropped: Mapping[str, int],
        max_name_length: int = 500,
    ) -> TermGraph:
        """As `from_tables`, with rows that name a concept by its number in `concept_ids`, or by -1 for none.

        Args:
            dropped: counts of what was dropped before; what is dropped here is added.
        """
        return cls(*keep_sound(concept_ids, names, children, parents, sources, dropped, max_name_length))

    @property
    def arrays(self) -> GraphArrays:
        """What the graph consists of: the parameters that make it."""
        names = Names(self.name_concepts, self.name_texts, self.name_kinds)
        edges = (self.edge_children, self.parent_indices)
        return GraphArrays(
            self.concept_ids, names, *edges, self.sources, self.dropped, self.alias_ids, self.alias_concepts
        )

    @cached_property
    def counts(self) -> dict[str, int]:
        """What is there and what was dropped; see `from_tables` and `merge`."""
        kinds = np.bincount(self.name_kinds, minlength=len(NAME_KINDS)).tolist()
        edges = np.diff(self.parent_offsets) + np.diff(self.child_offsets)
        times = np.bincount(text_numbers(pc.utf8_lower(self.name_texts)))
        return {
            "concepts": self.num_concepts,
            "names": self.num_names,
            "preferred": kinds[0],
            "synonyms": kinds[1],
            "abbreviations": kinds[2],
            "edges": self.num_edges,
            "concepts_with_one_name": int((np.diff(self.name_offsets) == 1).sum()),
            "concepts_without_edges": int((edges == 0).sum()),
            "ambiguous_names": int((times > 1).sum()),
            **self.dropped,
        }

    @property
    def num_concepts(self) -> int:
        return len(self.concept_ids)

    @property
    def num_names(self) -> int:
        return len(self.name_texts)

    @property
    def num_edges(self) -> int:
        return len(self.parent_indices)

    @property
    def edge_children(self) -> np.ndarray:
        """(edges,) int32: the child of each of `parent_indices`."""
        return np.repeat(np.arange(self.num_concepts, dtype=np.int32), np.diff(self.parent_offsets))

    @property
    def has_hierarchy(self) -> bool:
        """Whether any concept has a parent."""
        return self.num_edges > 0

    def __repr__(self) -> str:
        return (
            f"TermGraph({self.num_concepts} concepts, {self.num_names} names, {self.num_edges} edges, "
            f"from {', '.join(self.sources)})"
        )

    def describe(self) -> str:
        """What is there and what was dropped, a line each, for `print`.

        Examples:
            >>> print(TermGraph.from_tables(["a", "a"], ["flu", "Flu "], ["preferred", "synonym"]).describe())
            TermGraph(1 concepts, 1 names, 0 edges, from own)
              concepts                        1
              names                           1
              preferred                       1
              concepts_with_one_name          1
              concepts_without_edges          1
              duplicate_names                 1
        """
        return "\n".join([repr(self), *(f"  {name:24}{count:>9,}" for name, count in self.counts.items() if count)])

    def concept_index(self, concept_id: str) -> int:
        """The number of a concept.

        Raises:
            KeyError: no concept has this id.
        """
        found = self._find(concept_id)
        if found is None:
            example = self.concept_ids[0].as_py()
            raise KeyError(
                f"concept_id={concept_id!r} is none of the {self.num_concepts} concepts of this term graph; ids are "
                f"text, such as {example!r}."
            )
        return found

    def __contains__(self, concept_id: object) -> bool:
        return self._find(concept_id) is not None

    def _find(self, concept_id: object) -> int | None:
        # A dict of millions of ids would take more memory than all the names.
        ids, concepts, order = self._sorted_ids
        low, high = 0, len(order)
        while isinstance(concept_id, str) and low < high:
            middle = (low + high) // 2
            at = int(order[middle])
            if (value := ids[at].as_py()) == concept_id:
                return int(concepts[at])
            low, high = (middle + 1, high) if value < concept_id else (low, middle)
        return None

    @cached_property
    def _sorted_ids(self) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        ids = pa.concat_arrays([self.concept_ids, self.alias_ids])
        concepts = np.concatenate([np.arange(self.num_concepts, dtype=np.int32), self.alias_concepts])
        return ids, concepts, pc.array_sort_indices(ids).to_numpy().astype(np.int32)

    def _number(self, concept: int | str) -> int:
        if isinstance(concept, str):
            return self.concept_index(concept)
        if not 0 <= concept < self.num_concepts:
            raise IndexError(f"concept={concept!r} is no concept; pass an id or 0 to {self.num_concepts - 1}.")
        return int(concept)

    def names_of(self, concept: int | str, kinds: Iterable[str] | None = None) -> list[str]:
        """The names of a concept, the preferred one first, abbreviations last.

        Args:
            concept: its number or id.
            kinds: only names of these kinds, out of `NAME_KINDS`; by default all.

        Raises:
            KeyError, IndexError: no such concept.
            ValueError: an unknown kind.
        """
        start, end = self._rows(self.name_offsets, concept)
        names = self.name_texts[start:end].to_pylist()
        if kinds is None:
            return names
        wanted = set(kind_numbers(list(kinds)).tolist())
        return [name for name, kind in zip(names, self.name_kinds[start:end].tolist(), strict=True) if kind in wanted]

    def names_of_codes(self, codes: Sequence[str]) -> dict[str, list[str]]:
        """The names of ICD codes: of the concept with this id, and of the concept that UMLS gives the code.

        A warning counts the codes without any; another those that ICD-9 and ICD-10 both have for different things, if
        the other codes are not all of one of the two.

        Args:
            codes: dotted where their system has a dot.

        Returns:
            Code → its names, each once in any case; an empty list where there are none.

        Examples:
            >>> graph = TermGraph.from_tables(["I10", "I10"], ["Hypertension", "HTN"], ["preferred", "abbreviation"])
            >>> graph.names_of_codes(["I10", "R05"])
            {'I10': ['Hypertension', 'HTN'], 'R05': []}
        """
        return names_of_codes(self, codes)

    def _rows(self, offsets: np.ndarray, concept: int | str) -> tuple[int, int]:
        number = self._number(concept)
        return int(offsets[number]), int(offsets[number + 1])

    def parents_of(self, concept: int | str) -> np.ndarray:
        """Numbers of the concepts directly above."""
        return self.parent_indices[slice(*self._rows(self.parent_offsets, concept))]

    def children_of(self, concept: int | str) -> np.ndarray:
        """Numbers of the concepts directly below."""
        return self.child_indices[slice(*self._rows(self.child_offsets, concept))]

    def siblings_of(self, concept: int | str) -> np.ndarray:
        """Numbers of the other concepts that share a parent with this one, sorted, each once."""
        number = self._number(concept)
        siblings, _ = hierarchy.gather_rows(self.child_offsets, self.child_indices, self.parents_of(number))
        siblings = np.unique(siblings)
        return siblings[siblings != number]

    @cached_property
    def depth(self) -> np.ndarray:
        """(concepts,) int32: fewest edges up to a concept without parents."""
        return hierarchy.depths(self.parent_offsets, self.child_offsets, self.child_indices)

    def tree_distance(self, concepts: Sequence[int] | np.ndarray) -> np.ndarray:
        """Fewest edges between each two of (n,) concepts, over a common ancestor; (n, n) int32.

        Child and parent are 1 apart, siblings 2, cousins 4; concepts without a common ancestor `MAX_TREE_DISTANCE`,
        which is also the largest value returned.

        Raises:
            IndexError: a number of no concept.
        """
        concepts = np.asarray(concepts, np.int64)
        for concept in concepts[(concepts < 0) | (concepts >= self.num_concepts)][:1].tolist():
            self._number(concept)
        return hierarchy.tree_distances(self.parent_offsets, self.parent_indices, concepts)

    @classmethod
    def merge(cls, graphs: Sequence[TermGraph]) -> TermGraph:
        """One graph of several, in which concepts of different sources with the same name are one.

        The graphs are joined one after the other. A concept of the next graph becomes one with a concept of those
        before it if they share a name, compared by letters and digits without case, that is an abbreviation of neither,
        and each is the other's only best match: two preferred names that agree are the best, then a preferred name and
        a synonym, then two synonyms. A name without its "unspecified" or "NOS" counts as a synonym here. So no concept
        takes in two of one source, and a name that several concepts of a source have joins none of them. Inclusion
        terms of ICD-10-CM join nothing: many are narrower than their code.

        Where one of two graphs is from a source of one's own (`csv`, or any other name than those of
        `kept_hf.knowledge.SOURCES`), their concepts are first joined by their ids.

        A concept keeps the id it has in the first graph; its further ids find it too (`concept_index`). An id that
        means something else in an earlier graph (V10 is one thing in ICD-9, another in ICD-10) gets the source in
        front: "icd10cm:V10". What cycles this closes are opened as in `from_tables`.

        Returns:
            The graph. Its `counts` add up what was dropped in each, and have `merged_concepts`, `ambiguous_matches`
            (concepts of a later graph that share a name with an earlier one, but stay apart by the rule) and
            `renamed_ids`.

        Raises:
            ValueError: no graph.
        """
        graphs = list(graphs)
        if not graphs:
            raise ValueError("graphs=[] is empty; pass at least one term graph.")
        if len(graphs) == 1:
            return graphs[0]
        return cls(*merging.merge([graph.arrays for graph in graphs]))

    def save(self, folder: str | os.PathLike) -> None:
        """Write the graph into a folder: four parquet tables, and `term_graph.json` with its sources, counts and a
        checksum."""
        storage.save(self.arrays, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> TermGraph:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no term graph, or lacks one of its files.
            ValueError: its files were written by a later version of this package, or are damaged.
        """
        return cls(*storage.load(folder))

    def synonym_table(self, code_set: ICDCodeSet, max_synonyms: int) -> list[list[str]]:
        """The names of each code, as MSMN reads them.

        Args:
            code_set: the codes; see `names_of_codes`.
            max_synonyms: how many names a code.

        Returns:
            For each code, in order, `max_synonyms` names: what `code_set.describe` says, then its synonyms, then the
            further names of this graph, none twice. Shorter lists are repeated from their start.

        Raises:
            ValueError: `max_synonyms` below 1.

        Source:
            Yuan et al., *Code Synonyms Do Matter*, ACL 2022.

        Examples:
            >>> from kept_hf import ICDCodeSet
            >>> graph = TermGraph.from_tables(["N17.9"] * 2, ["AKI", "Renal failure"], ["abbreviation", "synonym"])
            >>> graph.synonym_table(ICDCodeSet(["N17.9", "I10"], {"N17.9": "Acute kidney failure"}), 4)
            [['Acute kidney failure', 'Renal failure', 'AKI', 'Acute kidney failure'],
             ['I10', 'I10', 'I10', 'I10']]
        """
        return code_set.with_synonyms(self).synonym_table(max_synonyms)
