"""Prompts about concepts of a term graph over passages of unlabelled notes: what match pretraining learns from.

A masked language model that was never prompted does not look from the mask to its description and on to the note. It
learns to from texts that are known to say a concept, under another name than the one that is asked: names found in real
notes, and sentences put between those of the notes. No code of any note is needed.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from ...knowledge import NAME_KINDS
from ...knowledge.mentions import Mention, MentionFinder
from ...models.code_set import ICDCodeSet
from ...models.processing_kept import KeptProcessor
from ...models.prompting import remove_deidentification_tags
from ...training.collators import MODEL_INPUTS, DataCollatorForICDPrompting
from .synthetic import CARRIERS, FILLERS, NEGATIONS, name_variant

if TYPE_CHECKING:
    from ...knowledge import TermGraph

PREFERRED_RATE = 0.5
"""How often a concept is asked under its preferred name; else under one of all its full names."""
SIBLING_RATE = 0.3
"""How often a sibling of an affirmed concept is asked beside it."""
NEGATED_RATE = 0.08
"""How many of the concepts that do not apply are mentioned as denied or as a relative's."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass
class Sentence:
    """A sentence of a note.

    Attributes:
        text: the sentence.
        mentions: concepts found in it.
    """

    text: str
    mentions: list[Mention] = field(default_factory=list)


@dataclass
class MatchingExample:
    """A text and concepts asked of it.

    Attributes:
        text: sentences of a note with others between them.
        concepts: `(asked,)` numbers in the graph.
        names: `(asked,)` the name under which each is asked.
        labels: `(asked,)` 1 for those that the text affirms.
    """

    text: str
    concepts: list[int]
    names: list[str]
    labels: list[int]


def note_sentences(note: str, finder: MentionFinder) -> list[Sentence]:
    """The sentences of a note, each with what it mentions.

    Examples:
        >>> from kept_hf.knowledge import TermGraph
        >>> finder = MentionFinder(TermGraph.from_tables(["R50.9"], ["Fever"], ["preferred"]))
        >>> [(s.text, len(s.mentions)) for s in note_sentences("Came with fever.\\nWent home.", finder)]
        [('Came with fever.', 1), ('Went home.', 0)]
    """
    text = " ".join(remove_deidentification_tags(note).split())
    return [Sentence(part, finder(part)) for part in _SENTENCE_END.split(text) if part]


class MatchingSource:
    """Draws examples.

    A third of the concepts asked apply at most, one at least. Half of those, where the passage has so many, are ones
    that the note itself mentions; the others are mentioned in sentences of their own put between those of the note,
    under another name than the one asked where there is one. Those that do not apply are drawn like those that do:
    concepts that other notes mention, others, siblings of those that apply, some denied or a relative's. No concept
    that is mentioned in the passage, and none directly above or below one that applies, is asked as one that does not
    apply.

    Args:
        graph: concepts, names and hierarchy.
        notes: unlabelled notes; without any, stock phrases stand between the mentions.
        withheld: numbers of concepts that are never asked, nor mentioned in a sentence of their own.
        left_out: numbers of concepts that are no matter of codes, such as "severe": treated likewise.

    Raises:
        ValueError: a graph with too few concepts left to draw from.

    Examples:
        >>> import random
        >>> from kept_hf.knowledge import load_term_graph
        >>> source = MatchingSource(load_term_graph("icd10cm"), ["Came with chest pain. Two nights without fever."])
        >>> example = source.draw(random.Random(0), num_codes=4, num_sentences=2)
        >>> len(example.names), len(example.labels), sum(example.labels) >= 1
        (4, 4, True)
    """

    def __init__(
        self,
        graph: TermGraph,
        notes: Sequence[str] = (),
        withheld: Collection[int] = (),
        left_out: Collection[int] = (),
    ):
        self.graph = graph
        if len(notes):
            finder = MentionFinder(graph)
            self.notes = [sentences for note in notes if (sentences := note_sentences(note, finder))]
        else:
            self.notes = [[Sentence(filler[0].upper() + filler[1:])] for filler in FILLERS]
        full = np.bincount(graph.name_concepts[graph.name_kinds != NAME_KINDS.index("abbreviation")])
        full = np.pad(full, (0, graph.num_concepts - len(full)))
        is_asked = full > 0
        is_asked[list(withheld)] = False
        is_asked[list(left_out)] = False
        # A concept outside the hierarchy is a mere expansion of an abbreviation, "patient" for example.
        related = np.diff(graph.parent_offsets) + np.diff(graph.child_offsets) > 0
        if graph.has_hierarchy:
            is_asked &= related
        self.is_asked = is_asked
        self.pool = np.flatnonzero(is_asked)
        self.pool_of_several = np.flatnonzero(is_asked & (np.diff(graph.name_offsets) > 1))
        if len(self.pool) < 2:
            raise ValueError(
                f"graph has {graph.num_concepts} concepts, of which {len(self.pool)} are left to ask about; withhold "
                "fewer, or add a source of names."
            )
        counts = Counter(
            m.concept for note in self.notes for m in {m.concept: m for s in note for m in s.mentions}.values()
        )
        self.mentioned = [concept for concept in counts if is_asked[concept]]
        # The square root, so that the most common do not crowd out the rest.
        self._weights = list(accumulate(counts[concept] ** 0.5 for concept in self.mentioned))

    def draw(
        self,
        generator: random.Random,
        num_codes: int,
        num_sentences: int,
        other_name: float = 0.8,
        only: np.ndarray | None = None,
    ) -> MatchingExample:
        """One example.

        Args:
            generator: the source of randomness.
            num_codes: how many concepts are asked; fewer if the graph has no more.
            num_sentences: of the note; a shorter note is taken whole.
            other_name: how often a sentence of its own uses another name than the one asked.
            only: numbers of concepts: ask these only, and mention them in sentences of their own only. For judging
                with concepts that were withheld.
        """
        note = generator.choice(self.notes)
        start = generator.randrange(max(1, len(note) - num_sentences + 1))
        passage = note[start : start + num_sentences]
        negations: dict[int, list[bool]] = {}
        for mention in (mention for sentence in passage for mention in sentence.mentions):
            negations.setdefault(mention.concept, []).append(mention.negated)
        blocked = set(negations)
        for concept in negations:
            blocked |= self._next_to(concept)
        asked: dict[int, tuple[str, int]] = {}
        own: list[str] = []

        def ask(concept: int, label: int) -> None:
            asked[concept] = (self._name_to_ask(concept, generator), label)

        num_true = generator.randint(1, max(1, num_codes // 3))
        if only is None:
            affirmed = [c for c, negated in negations.items() if self.is_asked[c] and not any(negated)]
            generator.shuffle(affirmed)
            for concept in affirmed[: round(num_true / 2 + generator.random() / 2)]:
                ask(concept, 1)
        for concept in self._others(generator, only, asked, blocked):
            if len(asked) >= num_true:
                break
            ask(concept, 1)
            blocked |= self._next_to(concept)
            mention = self._name_to_mention(concept, asked[concept][0], other_name, generator)
            own.append(generator.choice(CARRIERS).format(mention))

        for concept in list(asked):
            if len(asked) < num_codes and generator.random() < SIBLING_RATE:
                siblings = [s for s in self.graph.siblings_of(concept).tolist() if s not in asked and s not in blocked]
                siblings = (
                    [s for s in siblings if self.is_asked[s]] if only is None else [s for s in siblings if s in only]
                )
                if siblings:
                    ask(generator.choice(siblings), 0)
        if only is None:
            for concept, negated in negations.items():
                if len(asked) < num_codes and self.is_asked[concept] and all(negated) and generator.random() < 0.5:
                    ask(concept, 0)
        for concept in self._others(generator, only, asked, blocked, mentioned=0.6):
            if len(asked) >= num_codes:
                break
            ask(concept, 0)
            if generator.random() < NEGATED_RATE:
                mention = self._name_to_mention(concept, asked[concept][0], other_name, generator)
                own.append(generator.choice(NEGATIONS).format(mention))

        for concept in self._others(generator, only, asked, blocked, most=min(num_sentences // 4, 4)):
            if generator.random() < 0.5:
                mention = self._name_to_mention(concept, None, other_name, generator)
                own.append(generator.choice(CARRIERS).format(mention))
        sentences = [sentence.text for sentence in passage]
        for sentence in own:
            sentences.insert(generator.randint(0, len(sentences)), sentence)
        concepts = list(asked)
        generator.shuffle(concepts)
        return MatchingExample(
            " ".join(sentences), concepts, [asked[c][0] for c in concepts], [asked[c][1] for c in concepts]
        )

    def _next_to(self, concept: int) -> set[int]:
        return {*self.graph.parents_of(concept).tolist(), *self.graph.children_of(concept).tolist(), concept}

    def _others(self, generator, only, asked, blocked, mentioned: float = 0.0, most: int = 10_000):
        """Concepts that are not yet asked and not blocked, for as long as there are any to be found."""
        for _ in range(most):
            if only is not None:
                concept = int(generator.choice(only))
            elif self.mentioned and generator.random() < mentioned:
                concept = self.mentioned[bisect(self._weights, generator.random() * self._weights[-1])]
            else:
                several = len(self.pool_of_several) and generator.random() < 0.6
                concept = int(generator.choice(self.pool_of_several if several else self.pool))
            if concept not in asked and concept not in blocked:
                yield concept

    def _full_names(self, concept: int) -> list[str]:
        return self.graph.names_of(concept, kinds=NAME_KINDS[:2])

    def _name_to_ask(self, concept: int, generator: random.Random) -> str:
        names = self._full_names(concept)
        return names[0] if generator.random() < PREFERRED_RATE else generator.choice(names)

    def _name_to_mention(self, concept: int, asked: str | None, other_name: float, generator: random.Random) -> str:
        if asked is not None and generator.random() >= other_name:
            return asked.lower()
        names = self.graph.names_of(concept)
        others = [name for name in names if asked is None or name.lower() != asked.lower()]
        return name_variant(generator.choice(others or names), generator)


class MatchingPrompts(Dataset):
    """Prompts from short to long, for the stock Trainer: each item is a list of rows with about as many tokens.

    Long prompts over long texts are not learnt from the start, and what is learnt on short ones does not carry to long
    ones by itself. So the first `warm_up` of the items has the fewest codes and sentences, and more often the very
    name that is asked; then both grow, until `growth` of the items later they are drawn between half and all of the
    most.

    An item depends on the seed and its number alone, so that a run resumes where it stopped and processes draw
    different items. Take them in order (`train_sampling_strategy="sequential"`), one at a time
    (`per_device_train_batch_size=1`), with [`DataCollatorForMatching`].

    Args:
        source: draws the examples.
        processor: writes the prompts.
        num_items: how many items.
        num_codes, num_sentences: fewest and most concepts of a prompt, and sentences of a passage.
        tokens_per_item: an item has as few rows as make up so many tokens.
        warm_up, growth: shares of the items, see above.
        seed: of the draws.

    Raises:
        ValueError: ranges that are no ranges, shares that are none, or no items.

    Examples:
        >>> prompts = MatchingPrompts(source, processor, num_items=1000)  # doctest: +SKIP
        >>> len(prompts[0]), len(prompts[999])  # doctest: +SKIP
        (29, 3)
    """

    def __init__(
        self,
        source: MatchingSource,
        processor: KeptProcessor,
        num_items: int,
        num_codes: tuple[int, int] = (5, 50),
        num_sentences: tuple[int, int] = (2, 20),
        tokens_per_item: int = 4000,
        warm_up: float = 0.2,
        growth: float = 0.6,
        seed: int = 0,
    ):
        for name, (low, high) in (("num_codes", num_codes), ("num_sentences", num_sentences)):
            if not 1 <= low <= high:
                raise ValueError(f"{name}={(low, high)} is no range; pass (fewest, most) with 1 <= fewest <= most.")
        if warm_up < 0 or growth < 0 or warm_up + growth > 1:
            raise ValueError(f"warm_up={warm_up} and growth={growth} are no shares; pass two of 0 to 1 together.")
        for name, value in (("num_items", num_items), ("tokens_per_item", tokens_per_item)):
            if value < 1:
                raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")
        self.source, self.processor, self.num_items = source, processor, num_items
        self.num_codes, self.num_sentences, self.tokens_per_item = num_codes, num_sentences, tokens_per_item
        self.warm_up, self.growth, self.seed = warm_up, growth, seed

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> list[dict[str, list[int]]]:
        if not 0 <= index < len(self):
            raise IndexError(f"index={index} is none of the {len(self)} items.")
        generator = random.Random(f"{self.seed} {index}")
        progress = index / self.num_items
        grown = (
            min(1.0, max(0.0, progress - self.warm_up) / self.growth)
            if self.growth
            else float(progress >= self.warm_up)
        )
        other_name = 0.8 if progress >= self.warm_up else 0.3 + 0.5 * progress / self.warm_up
        rows: list[dict[str, list[int]]] = []
        while sum(row["length"] for row in rows) < self.tokens_per_item:
            share = grown * generator.uniform(0.5, 1)
            codes, sentences = (round(low + share * (high - low)) for low, high in (self.num_codes, self.num_sentences))
            rows.append(prompt_row(self.source.draw(generator, codes, sentences, other_name), self.processor))
        return rows


def prompt_row(example: MatchingExample, processor: KeptProcessor) -> dict[str, list]:
    """The model's inputs and `labels` for an example, in the isolated layout the `names` asked beside them.

    A text that is too long is cut at its end. `length` counts the tokens of text and names.
    """
    places = [str(place) for place in range(len(example.names))]
    asked = ICDCodeSet(places, dict(zip(places, example.names, strict=True)))
    gold = [[place for place, label in zip(places, example.labels, strict=True) if label]]
    is_isolated = processor.prompt_layout == "isolated"
    # Asked for the cut, the processor does not warn of each.
    batch = processor(
        [example.text], codes=asked, gold_codes=gold, return_tensors="np" if is_isolated else None, return_cut=True
    )
    row = {name: np.asarray(batch[name][0]).tolist() for name in MODEL_INPUTS if name in batch}
    if not is_isolated:
        return {**row, "length": len(row["input_ids"])}
    masks_and_blocks = len(example.names) + int(batch["code_attention_mask"].sum())
    return {**with_names(row, example.names), "length": len(row["input_ids"]) + masks_and_blocks}


def with_names(row: Mapping[str, list], names: Sequence[str]) -> dict[str, list]:
    """A row of the isolated layout that asks by names, and no longer by numbers in a code set."""
    return {**{name: row[name] for name in row if name != "code_indices"}, "names": list(names)}


@dataclass
class DataCollatorForMatching:
    """Puts the rows of one or several items of [`MatchingPrompts`] into a batch; single rows pass as they are.

    Args:
        processor: the processor that wrote the rows.
    """

    processor: KeptProcessor

    def __call__(self, features: Sequence[list[dict] | Mapping]) -> dict[str, torch.Tensor]:
        """Tensors of shape `(rows, longest)`; in the isolated layout the blocks of all names of the batch, too."""
        rows = [row for item in features for row in (item if isinstance(item, list) else [item])]
        if self.processor.prompt_layout != "isolated":
            return DataCollatorForICDPrompting(self.processor)(rows)
        names = list(dict.fromkeys(name for row in rows for name in row["names"]))
        numbers = {name: number for number, name in enumerate(names)}
        codes = list(map(str, range(len(names))))
        numbered = [
            {
                **{name: row[name] for name in MODEL_INPUTS if name in row},
                "code_indices": [numbers[name] for name in row["names"]],
            }
            for row in rows
        ]
        return self.processor.pad(numbered, code_set=ICDCodeSet(codes, dict(zip(codes, names, strict=True))))
