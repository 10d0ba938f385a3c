"""Names of a term graph found in notes, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .term_graph import TermGraph

NEGATION_CUES = frozenset(
    (
        *("no", "not", "without", "never", "neither", "nor", "denies", "denied", "denying", "negative", "absence"),
        *("absent", "exclude", "excluded", "excluding", "rule", "ruled", "discarded", "mother", "father", "brother"),
        *("sister", "sibling", "siblings", "family", "relatives", "grandmother", "grandfather"),
    )
)
"""Words before a mention that take it from the patient: it is denied, excluded or a relative's."""

_WORD = re.compile(r"\w+")
_OPENING = re.compile(r"[(\[]")
# What titles say and notes do not.
_UNSAID = re.compile(r"\b(unspecified|not elsewhere classified|not otherwise specified|nos|nec)\b")


class Mention(NamedTuple):
    """A name found in a text.

    Attributes:
        concept: its number in the graph.
        start, end: characters of the text.
        negated: whether a word of `NEGATION_CUES` stands shortly before it.
    """

    concept: int
    start: int
    end: int
    negated: bool


class MentionFinder:
    """Finds the names of concepts in texts: the longest name at each place, in any case, in the singular or plural.

    Full names only: an abbreviation means different things to different people. A name that several concepts have is
    left out, since a text does not say which it means. Names are also found without what stands in brackets, and
    without "unspecified" and the like, unless another concept is called so.

    It needs some 200 bytes of memory a name.

    Args:
        graph: concepts and names.
        max_words: longer names are not looked for.
        min_letters: shorter names are not looked for; many are words of the language.
        cue_distance: how many words before a mention are looked at for a negation.

    Raises:
        ValueError: a number below 1.

    Source: cues before a mention, as in NegEx (Chapman et al., Journal of Biomedical Informatics 34, 2001).

    Examples:
        >>> from kept_hf.knowledge import TermGraph
        >>> graph = TermGraph.from_tables(
        ...     ["N17.9", "R50.9"], ["Acute kidney failure, unspecified", "Fever"], ["preferred", "preferred"]
        ... )
        >>> text = "Acute  kidney failure without fever."
        >>> [(m.concept, text[m.start : m.end], m.negated) for m in MentionFinder(graph)(text)]
        [(0, 'Acute  kidney failure', False), (1, 'fever', True)]
    """

    def __init__(self, graph: TermGraph, max_words: int = 7, min_letters: int = 5, cue_distance: int = 6):
        for name, value in (("max_words", max_words), ("min_letters", min_letters), ("cue_distance", cue_distance)):
            if value < 1:
                raise ValueError(f"{name}={value} is less than 1.")
        self.max_words, self.cue_distance = max_words, cue_distance
        is_full = graph.name_kinds != 2
        concepts = graph.name_concepts[is_full].tolist()
        texts = [text.lower() for text in graph.name_texts.filter(is_full).to_pylist()]
        self._concepts: dict[tuple[str, ...], int] = {}
        # Names as they are come first, so that a shortened one never takes the place of another's full one.
        for shorten in (str, _as_said):
            found: dict[tuple[str, ...], int] = {}
            for concept, text in zip(concepts, texts, strict=True):
                words = tuple(map(_singular, _WORD.findall(shorten(text))))
                if 0 < len(words) <= max_words and sum(map(len, words)) >= min_letters and words not in self._concepts:
                    found[words] = concept if found.get(words, concept) == concept else -1
            self._concepts |= found
        self._first = {words[0] for words, concept in self._concepts.items() if concept >= 0}

    def __call__(self, text: str) -> list[Mention]:
        """The mentions in a text, a sentence for example, in order; none overlap."""
        return list(self._mentions(text))

    def _mentions(self, text: str) -> Iterator[Mention]:
        spans = [(match.start(), match.end()) for match in _WORD.finditer(text)]
        words = [text[start:end].lower() for start, end in spans]
        stems = [_singular(word) for word in words]
        at = 0
        while at < len(words):
            if stems[at] in self._first:
                for length in range(min(self.max_words, len(words) - at), 0, -1):
                    concept = self._concepts.get(tuple(stems[at : at + length]), -1)
                    if concept >= 0:
                        before = words[max(0, at - self.cue_distance) : at]
                        yield Mention(
                            concept, spans[at][0], spans[at + length - 1][1], not NEGATION_CUES.isdisjoint(before)
                        )
                        at += length - 1
                        break
            at += 1


def below(graph: TermGraph, concept_ids: list[str] | tuple[str, ...]) -> np.ndarray:
    """Which concepts are one of some, or below one of them; (concepts,), bool.

    Raises:
        KeyError: an id that the graph lacks.

    Examples:
        >>> from kept_hf.knowledge import TermGraph
        >>> graph = TermGraph.from_tables(["a", "b"], ["A", "B"], ["preferred"] * 2, ["b"], ["a"])
        >>> below(graph, ["b"]).tolist(), below(graph, ["a"]).tolist()
        ([False, True], [True, True])
    """
    is_below = np.zeros(graph.num_concepts, bool)
    waiting = [graph.concept_index(concept_id) for concept_id in concept_ids]
    is_below[waiting] = True
    while waiting:
        children = [child for child in graph.children_of(waiting.pop()).tolist() if not is_below[child]]
        is_below[children] = True
        waiting += children
    return is_below


def _as_said(name: str) -> str:
    return _UNSAID.sub(" ", _without_asides(name))


def _without_asides(name: str) -> str:
    """A blank for each round or square bracket with what it holds, as far as it is closed."""
    last = {"(": name.rfind(")"), "[": name.rfind("]")}
    parts, start = [], 0
    for opening in _OPENING.finditer(name):
        if start <= opening.start() < last[opening[0]]:
            parts.append(name[start : opening.start()])
            start = name.index(")" if opening[0] == "(" else "]", opening.end()) + 1
    return " ".join([*parts, name[start:]])


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 4 and word.endswith("s") and word[-2] not in "sui" else word
