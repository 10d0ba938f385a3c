"""Prompts about concepts of a term graph over passages of unlabelled notes: what zero-shot pretraining learns from.

The texts are known to say a concept: names found in real notes, and sentences put between those of the notes. No code
of any note is needed.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from ...knowledge import NAME_KINDS
from ...knowledge.mentions import Mention, MentionFinder
from ...models.prompting import remove_deidentification_tags
from .examples import AFFIRMATIONS, FILLERS, NEGATIONS, PromptExample, mentioned_name
from .sentences import split_sentences

if TYPE_CHECKING:
    from ...knowledge import TermGraph

PREFERRED_RATE = 0.5
"""How often a prompt has a concept under its preferred name; else under one of all its full names."""
SIBLING_RATE = 0.3
"""How often a prompt has a sibling of an affirmed concept, too."""
NEGATED_RATE = 0.08
"""How many of the concepts that do not apply are mentioned as denied or as a relative's."""


@dataclass
class Sentence:
    """A sentence of a note.

    Attributes:
        text: the sentence.
        mentions: concepts found in it.
    """

    text: str
    mentions: list[Mention] = field(default_factory=list)


def note_sentences(note: str, finder: MentionFinder) -> list[Sentence]:
    """The sentences of a note, each with what it mentions.

    Examples:
        >>> from kept_hf.knowledge import TermGraph
        >>> finder = MentionFinder(TermGraph.from_tables(["R50.9"], ["Fever"], ["preferred"]))
        >>> [(s.text, len(s.mentions)) for s in note_sentences("Came with fever.\\nWent home.", finder)]
        [('Came with fever.', 1), ('Went home.', 0)]
    """
    return [Sentence(text, finder(text)) for text in split_sentences(remove_deidentification_tags(note))]


class PassageSource:
    """Draws examples.

    A third of the concepts of a prompt apply at most, one at least. Half of those, where the passage has so many, are
    ones that the note itself mentions; the others are mentioned in inserted sentences, put between those of the note,
    under another name than the prompt's where there is one. Those that do not apply are drawn like those that do:
    concepts that other notes mention, others, siblings of those that apply, some denied or a relative's. No concept
    that is mentioned in the passage, and none directly above or below one that applies, is among those that do not
    apply.

    Args:
        graph: concepts, names and hierarchy.
        notes: unlabelled notes; without any, stock phrases stand between the mentions.
        held_out: numbers of concepts that are in no prompt, nor in an inserted sentence.
        excluded: numbers of concepts that no code is about, such as "severe": treated likewise.

    Attributes:
        pool: numbers of the concepts that prompts are drawn from.
        mentioned: those of them that the notes mention.

    Raises:
        ValueError: a graph with too few concepts to draw from.

    Examples:
        >>> import random
        >>> from kept_hf.knowledge import load_term_graph
        >>> source = PassageSource(load_term_graph("icd10cm"), ["Came with chest pain. Two nights without fever."])
        >>> example = source.draw(random.Random(0), num_codes=4, num_sentences=2)
        >>> len(example.names), len(example.labels), sum(example.labels) >= 1
        (4, 4, True)
    """

    def __init__(
        self,
        graph: TermGraph,
        notes: Sequence[str] = (),
        held_out: Collection[int] = (),
        excluded: Collection[int] = (),
    ):
        self.graph = graph
        if len(notes):
            finder = MentionFinder(graph)
            self.notes = [sentences for note in notes if (sentences := note_sentences(note, finder))]
        else:
            self.notes = [[Sentence(filler[0].upper() + filler[1:])] for filler in FILLERS]
        full = np.bincount(graph.name_concepts[graph.name_kinds != NAME_KINDS.index("abbreviation")])
        full = np.pad(full, (0, graph.num_concepts - len(full)))
        is_eligible = full > 0
        is_eligible[list(held_out)] = False
        is_eligible[list(excluded)] = False
        # A concept outside the hierarchy is a mere expansion of an abbreviation, "patient" for example.
        if graph.has_hierarchy:
            is_eligible &= np.diff(graph.parent_offsets) + np.diff(graph.child_offsets) > 0
        self.is_eligible = is_eligible
        self.pool = np.flatnonzero(is_eligible)
        self._with_several_names = np.flatnonzero(is_eligible & (np.diff(graph.name_offsets) > 1))
        if len(self.pool) < 2:
            raise ValueError(
                f"graph has {graph.num_concepts} concepts, of which {len(self.pool)} are left for prompts; hold out "
                "fewer, or add a source of names."
            )
        counts = Counter(
            m.concept for note in self.notes for m in {m.concept: m for s in note for m in s.mentions}.values()
        )
        self.mentioned = [concept for concept in counts if is_eligible[concept]]
        # The square root, so that the most common do not crowd out the rest.
        self._weights = list(accumulate(counts[concept] ** 0.5 for concept in self.mentioned))

    def draw(
        self,
        generator: random.Random,
        num_codes: int,
        num_sentences: int,
        other_name: float = 0.8,
        only: np.ndarray | None = None,
    ) -> PromptExample[int]:
        """One example.

        Args:
            generator: the source of randomness.
            num_codes: how many concepts the prompt has; fewer if the graph has no more.
            num_sentences: of the note; a shorter note is taken whole.
            other_name: how often an inserted sentence uses another name than the prompt.
            only: numbers of concepts: take these only, and mention them in inserted sentences only. For evaluation
                with concepts that were held out.
        """
        note = generator.choice(self.notes)
        start = generator.randrange(max(1, len(note) - num_sentences + 1))
        passage = note[start : start + num_sentences]
        draft = _Draft(self, generator, passage, num_codes, other_name, only)
        draft.add_affirmed()
        draft.add_siblings()
        draft.add_denied_in_the_passage()
        draft.add_unmentioned()
        draft.insert_others(most=min(num_sentences // 4, 4))
        return draft.finish()


def held_out_concepts(graph: TermGraph, number: int, excluded: Collection[int] = (), seed: int = 0) -> np.ndarray:
    """Numbers of concepts to hold out of training, sorted: at most a quarter of those that prompts are drawn from.

    Args:
        graph: concepts, names and hierarchy.
        number: how many.
        excluded: see [`PassageSource`].
        seed: of the draw.
    """
    pool = PassageSource(graph, excluded=excluded).pool
    return np.sort(np.random.default_rng(seed).permutation(pool)[: min(number, len(pool) // 4)])


class _Draft:
    """An example in the making. The order of the steps, and of the draws in each, is the order of `PassageSource.draw`.

    Attributes:
        negations: concept that the passage mentions → whether each of its mentions is negated.
        blocked: concepts that cannot be added: they are mentioned, or directly above or below one that is or applies.
        prompt: concept → its name in the prompt, and its label.
        inserted: sentences to be put between those of the passage.
    """

    def __init__(
        self,
        source: PassageSource,
        generator: random.Random,
        passage: Sequence[Sentence],
        num_codes: int,
        other_name: float,
        only: np.ndarray | None,
    ):
        self.source, self.graph, self.generator, self.passage = source, source.graph, generator, passage
        self.num_codes, self.other_name, self.only = num_codes, other_name, only
        self.negations: dict[int, list[bool]] = {}
        for mention in (mention for sentence in passage for mention in sentence.mentions):
            self.negations.setdefault(mention.concept, []).append(mention.negated)
        self.blocked = set(self.negations)
        for concept in self.negations:
            self.blocked |= self._neighbours(concept)
        self.prompt: dict[int, tuple[str, int]] = {}
        self.inserted: list[str] = []

    def add_affirmed(self) -> None:
        """Concepts that apply: those that the passage affirms, up to half, and others with an inserted sentence."""
        generator = self.generator
        number = generator.randint(1, max(1, self.num_codes // 3))
        if self.only is None:
            affirmed = [c for c, negated in self.negations.items() if self._is_eligible(c) and not any(negated)]
            generator.shuffle(affirmed)
            for concept in affirmed[: round(number / 2 + generator.random() / 2)]:
                self._add(concept, 1)
        for concept in self._others():
            if len(self.prompt) >= number:
                break
            self._add(concept, 1)
            self.blocked |= self._neighbours(concept)
            self._insert(AFFIRMATIONS, concept)

    def add_siblings(self) -> None:
        """Some siblings of the concepts that apply."""
        for concept in list(self.prompt):
            if len(self.prompt) < self.num_codes and self.generator.random() < SIBLING_RATE:
                siblings = [
                    sibling
                    for sibling in self.graph.siblings_of(concept).tolist()
                    if sibling not in self.prompt and sibling not in self.blocked and self._is_eligible(sibling)
                ]
                if siblings:
                    self._add(self.generator.choice(siblings), 0)

    def add_denied_in_the_passage(self) -> None:
        """Half of the concepts that the passage mentions as negated only."""
        if self.only is not None:
            return
        for concept, negated in self.negations.items():
            has_room = len(self.prompt) < self.num_codes
            if has_room and self._is_eligible(concept) and all(negated) and self.generator.random() < 0.5:
                self._add(concept, 0)

    def add_unmentioned(self) -> None:
        """Concepts that do not apply, until the prompt is full; for some a sentence that denies them."""
        for concept in self._others(mentioned=0.6):
            if len(self.prompt) >= self.num_codes:
                break
            self._add(concept, 0)
            if self.generator.random() < NEGATED_RATE:
                self._insert(NEGATIONS, concept)

    def insert_others(self, most: int) -> None:
        """Sentences that affirm concepts which are not in the prompt."""
        for concept in self._others(most=most):
            if self.generator.random() < 0.5:
                self._insert(AFFIRMATIONS, concept)

    def finish(self) -> PromptExample[int]:
        """The example, with the inserted sentences and the concepts in random order."""
        sentences = [sentence.text for sentence in self.passage]
        for sentence in self.inserted:
            sentences.insert(self.generator.randint(0, len(sentences)), sentence)
        concepts = list(self.prompt)
        self.generator.shuffle(concepts)
        names, labels = ([self.prompt[concept][field] for concept in concepts] for field in (0, 1))
        return PromptExample(" ".join(sentences), concepts, names, labels)

    def _is_eligible(self, concept: int) -> bool:
        return bool(self.source.is_eligible[concept]) if self.only is None else concept in self.only

    def _neighbours(self, concept: int) -> set[int]:
        return {*self.graph.parents_of(concept).tolist(), *self.graph.children_of(concept).tolist(), concept}

    def _others(self, mentioned: float = 0.0, most: int = 10_000) -> Iterator[int]:
        """Concepts that are not yet in the prompt and not blocked, for as long as there are any to be found."""
        generator, source = self.generator, self.source
        for _ in range(most):
            if self.only is not None:
                concept = int(generator.choice(self.only))
            elif source.mentioned and generator.random() < mentioned:
                concept = source.mentioned[bisect(source._weights, generator.random() * source._weights[-1])]
            else:
                has_several = len(source._with_several_names) and generator.random() < 0.6
                concept = int(generator.choice(source._with_several_names if has_several else source.pool))
            if concept not in self.prompt and concept not in self.blocked:
                yield concept

    def _add(self, concept: int, label: int) -> None:
        """Put a concept into the prompt, under its preferred name or any full one."""
        names = self.graph.names_of(concept, kinds=NAME_KINDS[:2])
        is_preferred = self.generator.random() < PREFERRED_RATE
        self.prompt[concept] = (names[0] if is_preferred else self.generator.choice(names), label)

    def _insert(self, templates: Sequence[str], concept: int) -> None:
        """Add a sentence that mentions a concept, mostly under another name than the prompt's."""
        name = self.prompt[concept][0] if concept in self.prompt else None
        names = self.graph.names_of(concept)
        others = [other for other in names if name is None or other.lower() != name.lower()]
        mention = mentioned_name(name, others or names, self.other_name, self.generator)
        self.inserted.append(self.generator.choice(templates).format(mention))
