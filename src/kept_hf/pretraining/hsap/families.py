"""Names of a term graph in the batches that HSAP learns from: concepts with their siblings, two names of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ...knowledge import NAME_KINDS

if TYPE_CHECKING:
    from ...knowledge import TermGraph

logger = logging.getLogger(__name__)

PAIR_KINDS = ("synonym", "abbreviation", "parent")
"""What a family begins with: two full names of a concept; an abbreviation and a full name; a full name of a concept and
one of a parent of it."""


class TermFamilies(Dataset):
    """Families of names, for the stock Trainer: each item is a list of `(concept, name)`, always of one length.

    A family begins with a pair of names (see `PAIR_KINDS`). Siblings of the concept follow, in random order, with two
    of their names each, or with the one they have: it is a negative for the others then. (Pairing it with itself under
    dropout, as in SimCSE, costs the place of another sibling.) If siblings do not fill the family, further pairs do,
    of concepts drawn at random. A batch is some families: `per_device_train_batch_size` counts families.

    An item depends on the seed, the epoch and its number alone, so that a run resumes where it stopped and processes
    draw different items. In each epoch every concept that has a pair of some kind is drawn about equally often for it.
    Take them in order (`train_sampling_strategy="sequential"`): they are shuffled already.

    Args:
        graph: concepts, names and hierarchy.
        names_per_family: length of an item.
        synonym_rate, abbreviation_rate, parent_rate: how often a family begins with a pair of that kind; together 1. A
            kind that the graph has no pair of leaves its share to the others, with a warning.
        siblings: False draws concepts at random instead, as SapBERT does.
        held_out: `(graph.num_names,)`, bool: names that are not drawn.
        seed: of the draws.

    Raises:
        ValueError: rates that are none or do not add up to 1; a family of fewer than two names; no pair of any kind
            that has a rate.

    Examples:
        >>> from kept_hf.knowledge import TermGraph
        >>> graph = TermGraph.from_tables(
        ...     ["I10", "I10", "I10", "I11", "I1"],
        ...     ["Essential hypertension", "high blood pressure", "HTN", "Hypertensive heart disease", "Hypertension"],
        ...     ["preferred", "synonym", "abbreviation", "preferred", "preferred"],
        ...     ["I10", "I11"],
        ...     ["I1", "I1"],
        ... )
        >>> families = TermFamilies(graph, names_per_family=3, synonym_rate=1, abbreviation_rate=0, parent_rate=0)
        >>> len(families), sorted(name for _, name in families[0])
        (1, ['Essential hypertension', 'Hypertensive heart disease', 'high blood pressure'])
    """

    def __init__(
        self,
        graph: TermGraph,
        names_per_family: int = 8,
        synonym_rate: float = 0.6,
        abbreviation_rate: float = 0.2,
        parent_rate: float = 0.2,
        siblings: bool = True,
        held_out: np.ndarray | None = None,
        seed: int = 0,
    ):
        rates = np.array([synonym_rate, abbreviation_rate, parent_rate], float)
        if names_per_family < 2:
            raise ValueError(f"names_per_family={names_per_family} holds no pair; pass at least 2.")
        if (rates < 0).any() or abs(rates.sum() - 1) > 1e-6:
            raise ValueError(
                f"synonym_rate={synonym_rate}, abbreviation_rate={abbreviation_rate} and parent_rate={parent_rate} add "
                f"up to {rates.sum():g}; pass numbers from 0 to 1 that add up to 1."
            )
        if held_out is not None and len(held_out) != graph.num_names:
            raise ValueError(f"held_out has {len(held_out)} values; pass one for each of {graph.num_names} names.")
        self.graph, self.names_per_family, self.siblings, self.seed = graph, names_per_family, siblings, seed
        is_drawn = np.ones(graph.num_names, bool) if held_out is None else ~np.asarray(held_out, bool)
        is_short = graph.name_kinds == NAME_KINDS.index("abbreviation")
        self._full = _Rows(graph, is_drawn & ~is_short)
        self._short = _Rows(graph, is_drawn & is_short)
        self._any = _Rows(graph, is_drawn)
        has_parent = _with_parent(graph, self._full.counts > 0)
        pools = (self._full.counts >= 2, (self._short.counts > 0) & (self._full.counts > 0), has_parent)
        self._pools = [np.flatnonzero(pool) for pool in pools]
        self._rates = self._possible(rates)
        # An epoch: as many families as concepts have two names, or, without those, a parent.
        paired = int(np.count_nonzero(pools[0] | pools[1])) if self._rates[:2].any() else 0
        self._length = max(1, round(paired / self._rates[:2].sum())) if paired else len(self._pools[2])
        self.set_epoch(0)

    def _possible(self, rates: np.ndarray) -> np.ndarray:
        """The rates of the kinds that the graph has."""
        wanted = [kind for kind, rate in zip(PAIR_KINDS, rates, strict=True) if rate]
        empty = [kind for kind, pool in zip(PAIR_KINDS, self._pools, strict=True) if kind in wanted and not len(pool)]
        if len(empty) == len(wanted):
            raise ValueError(
                f"The term graph has {self.graph.num_concepts} concepts and {self._any.counts.sum()} names to draw, "
                f"but no pair of the kind{'s' * (len(wanted) > 1)} {', '.join(wanted)}: a concept needs two full "
                "names, an abbreviation beside one, or a parent. Add a source of names, or raise the rate of another "
                "kind."
            )
        rates = np.where([kind in empty for kind in PAIR_KINDS], 0.0, rates)
        if empty:
            logger.warning(
                "The term graph has no pair of the kind%s %s; its share goes to the others.",
                "s" * (len(empty) > 1),
                ", ".join(empty),
            )
        return rates / rates.sum()

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Draw again which concepts the families begin with. The Trainer calls it before each epoch."""
        generator = np.random.default_rng((self.seed, epoch))
        self._epoch = epoch
        self._kinds = generator.choice(len(PAIR_KINDS), len(self), p=self._rates)
        self._anchors = np.zeros(len(self), np.int64)
        for kind, pool in enumerate(self._pools):
            positions = np.flatnonzero(self._kinds == kind)
            if len(positions):
                rounds = [generator.permutation(pool) for _ in range(-(-len(positions) // len(pool)))]
                self._anchors[positions] = np.concatenate(rounds)[: len(positions)]

    def __getitem__(self, index: int) -> list[tuple[int, str]]:
        if not 0 <= index < len(self):
            raise IndexError(f"index={index} is none of the {len(self)} families.")
        generator = np.random.default_rng((self.seed, self._epoch, index))
        anchor, kind = int(self._anchors[index]), PAIR_KINDS[self._kinds[index]]
        family = self._pair(anchor, kind, generator)
        siblings = self.graph.siblings_of(anchor) if self.siblings else ()
        for sibling in generator.permutation(siblings)[: self.names_per_family].tolist():
            if (room := self.names_per_family - len(family)) <= 0:
                break
            family += self._any.draw(sibling, min(2, room), generator)
        while room := self.names_per_family - len(family):
            other = generator.choice(len(PAIR_KINDS), p=self._rates)
            concept = int(generator.choice(self._pools[other]))
            family += self._pair(concept, PAIR_KINDS[other], generator)[:room]
        names = self.graph.name_texts
        return [(concept, names[row].as_py()) for concept, row in family]

    def _pair(self, concept: int, kind: str, generator: np.random.Generator) -> list[tuple[int, int]]:
        """Two (concept, row of the name)."""
        if kind == "synonym":
            return self._full.draw(concept, 2, generator)
        if kind == "abbreviation":
            return self._short.draw(concept, 1, generator) + self._full.draw(concept, 1, generator)
        parents = self.graph.parents_of(concept)
        parent = int(generator.choice(parents[self._full.counts[parents] > 0]))
        return self._full.draw(concept, 1, generator) + self._full.draw(parent, 1, generator)


class _Rows:
    """Some names of the graph, by concept."""

    def __init__(self, graph: TermGraph, is_in: np.ndarray):
        self.rows = np.flatnonzero(is_in).astype(np.int32)
        self.counts = np.bincount(graph.name_concepts[self.rows], minlength=graph.num_concepts)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])

    def draw(self, concept: int, number: int, generator: np.random.Generator) -> list[tuple[int, int]]:
        """So many different names of a concept, or those it has."""
        start, count = int(self.starts[concept]), int(self.counts[concept])
        positions = generator.permutation(count)[:number] if count > 1 else range(count)
        return [(concept, int(self.rows[start + position])) for position in positions]


def _with_parent(graph: TermGraph, has_name: np.ndarray) -> np.ndarray:
    """Which concepts have a name to draw, and a parent that has one."""
    children = np.repeat(np.arange(graph.num_concepts), np.diff(graph.parent_offsets))
    return has_name & (np.bincount(children[has_name[graph.parent_indices]], minlength=graph.num_concepts) > 0)


class TermCollator:
    """Families, or lists of names as evaluation has them, to the tensors of `KeptLongformerForHSAP`.

    Args:
        tokenizer: of the encoder.
        max_length: tokens of a name; longer ones are truncated. 25 in SapBERT.

    Raises:
        ValueError: no room for a token between the special ones.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = 25):
        if max_length <= (special := tokenizer.num_special_tokens_to_add()):
            raise ValueError(f"max_length={max_length} leaves no token of a name; pass more than {special}.")
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, features: Sequence[Sequence[tuple[int, str]]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` `(names, longest)` and `concepts` `(names,)`, in the order given."""
        concepts, names = zip(*(member for family in features for member in family), strict=True)
        encoded = self.tokenizer(
            list(names),
            truncation=True,
            max_length=self.max_length,
            padding=True,
            padding_side="right",
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return {**encoded, "concepts": torch.tensor(concepts)}
