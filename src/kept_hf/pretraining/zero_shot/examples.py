"""Examples of prompts that a text answers, and what their two generators share.

A masked language model that was never prompted does not look from the mask to its description and on to the note;
trained on notes and codes alone it stays at chance for long. Prompts about texts that are known to say a concept, under
another name than the prompt's, teach just that: `synthetic` makes texts of the names of a code set alone, `passages`
puts sentences between those of real notes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Concept = TypeVar("Concept", str, int)

AFFIRMATIONS = (
    "history of {}.",
    "patient with {}.",
    "he was found to have {}.",
    "she was admitted for {} and improved.",
    "course complicated by {}.",
    "imaging showed {}.",
    "assessment: {}.",
    "known {}, stable on treatment.",
    "{} was treated accordingly.",
    "presented with {} for several days.",
    "diagnosis of {}.",
    "{}.",
)
"""Sentences that say a concept of the patient."""
NEGATIONS = (
    "no evidence of {}.",
    "denies {}.",
    "{} was ruled out.",
    "mother had {}.",
    "negative for {}.",
    "family history of {}.",
)
"""Sentences that deny a concept, or say it of a relative."""
FILLERS = (
    "vital signs stable.",
    "tolerated diet well.",
    "labs within normal limits.",
    "follow up with primary care in two weeks.",
    "lungs clear, abdomen soft, no edema.",
    "lives at home with family.",
    "discharged in good condition.",
    "medications were continued at home doses.",
)
"""Sentences that say no concept, where there are no notes to take any from."""
_UNINFORMATIVE = (
    ", unspecified",
    " unspecified",
    "unspecified ",
    ", not elsewhere classified",
    "other specified ",
    "other ",
)


@dataclass
class PromptExample(Generic[Concept]):
    """A text and the concepts of a prompt about it.

    Attributes:
        text: some sentences.
        concepts: `(concepts,)` codes, or numbers in a term graph.
        names: `(concepts,)` the name of each in the prompt.
        labels: `(concepts,)` 1 for those that the text affirms.

    Examples:
        >>> PromptExample("denies pain. known fever.", ["R52", "R50.9"], ["Pain", "Pyrexia"], [0, 1]).gold
        ['R50.9']
    """

    text: str
    concepts: list[Concept]
    names: list[str]
    labels: list[int]

    @property
    def gold(self) -> list[Concept]:
        """The concepts that the text affirms."""
        return [concept for concept, label in zip(self.concepts, self.labels, strict=True) if label]


def check_range(name: str, sizes: tuple[int, int]) -> None:
    """Raises a ValueError where (fewest, most) is no range of numbers from 1."""
    low, high = sizes
    if not 1 <= low <= high:
        raise ValueError(f"{name}={(low, high)} is no range; pass (fewest, most) with 1 <= fewest <= most.")


def size_between(sizes: Sequence[int], share: float) -> int:
    """The size at a share of the way from the fewest to the most.

    Examples:
        >>> [size_between((5, 50), share) for share in (0.0, 0.5, 1.0)]
        [5, 28, 50]
    """
    low, high = sizes
    return round(low + share * (high - low))


def mentioned_name(name: str | None, others: Sequence[str], other_name: float, generator: random.Random) -> str:
    """The name under which a text mentions a concept: that of the prompt, or a variant of another.

    Args:
        name: that of the prompt; None where the prompt does not have the concept.
        others: names to choose from.
        other_name: how often one of them is taken.
        generator: the source of randomness.

    Examples:
        >>> [mentioned_name("Fever", ["Pyrexia"], share, random.Random(0)) for share in (0.0, 1.0)]
        ['fever', 'pyreixa']
    """
    if name is not None and generator.random() >= other_name:
        return name.lower()
    return name_variant(generator.choice(others), generator)


def name_variant(name: str, generator: random.Random) -> str:
    """Another way to write a code's title: lower case, without filler words, parts swapped or a letter mistyped.

    Examples:
        >>> name_variant("Acute kidney failure, unspecified", random.Random(0))
        'acute kidney failure'
    """
    name = original = name.lower()
    for phrase in _UNINFORMATIVE:
        name = name.replace(phrase, " ")
    name = " ".join(name.split()) or original
    head, _, tail = name.partition(", ")
    if head and tail and generator.random() < 0.5:
        name = f"{tail} {head}" if generator.random() < 0.5 else head
    words = name.split()
    if len(words) > 3 and generator.random() < 0.3:
        words.pop(generator.randrange(len(words)))
    if generator.random() < 0.15:
        position = generator.randrange(len(words))
        word = words[position]
        if len(word) > 4:
            letter = generator.randrange(1, len(word) - 2)
            words[position] = word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :]
    return " ".join(words)
