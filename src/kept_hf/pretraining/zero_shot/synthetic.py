"""Synthetic prompts whose answer the text gives under another name.

A masked language model that was never prompted does not look from the mask to its description and on to the note;
trained on notes and codes alone it stays at chance for long. Short prompts with short texts, in which some of the
codes asked are mentioned by a synonym, teach just that in minutes on a CPU. Texts are made of code names and carrier
sentences only: no note is needed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence

from ...models.code_set import ICDCodeSet
from ...models.prompting import remove_deidentification_tags

CARRIERS = (
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
NEGATIONS = (
    "no evidence of {}.",
    "denies {}.",
    "{} was ruled out.",
    "mother had {}.",
    "negative for {}.",
    "family history of {}.",
)
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
_UNINFORMATIVE = (
    ", unspecified",
    " unspecified",
    "unspecified ",
    ", not elsewhere classified",
    "other specified ",
    "other ",
)


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


def matching_examples(
    code_set: ICDCodeSet,
    num_examples: int,
    num_codes: tuple[int, int] = (4, 12),
    num_sentences: tuple[int, int] = (4, 12),
    seed: int = 0,
    background: Sequence[str] = (),
    other_name: float = 0.7,
) -> Iterator[dict]:
    """Draw prompts and texts.

    Args:
        code_set: concepts with synonyms and parents (`ICDCodeSet.from_icd10cm()`).
        num_examples: how many.
        num_codes: fewest and most codes asked in a prompt; half of them are drawn with their siblings.
        num_sentences: fewest and most sentences of a text.
        seed: of the draws.
        background: sentences of real, unlabelled text to put between the mentions; by default stock phrases.
        other_name: how often a mention uses another name than the one asked: a synonym where there is one, else a
            variant of the title.

    Yields:
        `{"text": str, "codes": [asked], "gold_codes": [those that the text affirms]}`. On average a quarter of the
        codes asked are affirmed, a tenth are mentioned as negated or as a relative's, which does not count; the other
        sentences affirm concepts that are not asked, or are background.

    Raises:
        ValueError: fewer codes than a prompt asks, or ranges that are no ranges.
    """
    for name, (low, high) in (("num_codes", num_codes), ("num_sentences", num_sentences)):
        if not 1 <= low <= high:
            raise ValueError(f"{name}={(low, high)} is no range; pass (fewest, most) with 1 <= fewest <= most.")
    codes = list(code_set)
    if len(codes) < 2 * num_codes[1]:
        raise ValueError(
            f"code_set has {len(codes)} codes; prompts of num_codes={num_codes} need at least {2 * num_codes[1]}."
        )
    named_twice = [code for code in codes if code_set.synonyms.get(code)]
    siblings: dict[str, list[str]] = {}
    for code in codes:
        siblings.setdefault(code_set.parents.get(code, ""), []).append(code)
    generator = random.Random(seed)

    def draw() -> str:
        return generator.choice(named_twice if named_twice and generator.random() < 0.6 else codes)

    def mention(code: str) -> str:
        if generator.random() >= other_name:
            return code_set.describe(code).lower()
        return name_variant(generator.choice(code_set.synonyms.get(code) or [code_set.describe(code)]), generator)

    for _ in range(num_examples):
        size = generator.randint(*num_codes)
        asked: list[str] = []
        while len(asked) < size:
            code = draw()
            family = siblings[code_set.parents[code]] if code in code_set.parents else []
            related = generator.sample(family, min(len(family), 2)) if generator.random() < 0.25 else []
            asked += [c for c in dict.fromkeys([code, *related]) if c not in asked]
        asked = asked[:size]
        generator.shuffle(asked)
        affirmed = generator.sample(asked, generator.randint(0, (size + 1) // 2))
        rest = [code for code in asked if code not in affirmed]
        negated = [code for code in rest if generator.random() < 0.1]
        sentences = [generator.choice(CARRIERS).format(mention(code)) for code in affirmed]
        sentences += [generator.choice(NEGATIONS).format(mention(code)) for code in negated]
        for _ in range(max(0, generator.randint(*num_sentences) - len(sentences))):
            other = draw()
            if generator.random() < 0.5 and other not in asked:
                sentences.append(generator.choice(CARRIERS).format(mention(other)))
            else:
                sentences.append(generator.choice(background or FILLERS))
        generator.shuffle(sentences)
        yield {"text": " ".join(sentences), "codes": asked, "gold_codes": affirmed}


def carrier_sentences(texts: Iterable[str], words: tuple[int, int] = (4, 25)) -> list[str]:
    """Sentences of unlabelled notes, to stand between the mentions of synthetic texts.

    Args:
        texts: notes.
        words: fewest and most words of a sentence.

    Examples:
        >>> carrier_sentences(["She walked with the nurses twice a day. Stable.", "No fever."])
        ['She walked with the nurses twice a day.']
    """
    sentences = []
    for text in texts:
        for paragraph in remove_deidentification_tags(text).split("\n\n"):
            body = " ".join(line for line in paragraph.splitlines() if not line.strip().endswith(":"))
            sentences += re.split(r"(?<=[a-z0-9)][.!?])\s+(?=[A-Z])", " ".join(body.split()))
    return [sentence for sentence in dict.fromkeys(sentences) if words[0] <= len(sentence.split()) <= words[1]]


def matching_curriculum(
    code_set: ICDCodeSet,
    num_examples: int,
    num_codes: tuple[int, int] = (3, 12),
    num_sentences: tuple[int, int] = (1, 8),
    seed: int = 0,
    background: Sequence[str] = (),
) -> list[dict]:
    """Prompts and texts from short to long, to be trained on in this order.

    The first half has the fewest codes and sentences, and mostly the very name that is asked: an unprompted model
    starts to match on those and on no harder ones. The second half grows to the most in three steps, since what is
    learnt on short prompts does not carry to long ones by itself.

    Args:
        code_set, seed, background: see [`matching_examples`].
        num_examples: how many in all.
        num_codes: codes of a prompt, at first and at last.
        num_sentences: sentences of a text, at first and at last.

    Returns:
        The examples of [`matching_examples`], in order.

    Examples:
        >>> examples = matching_curriculum(ICDCodeSet.from_icd10cm(), 60, (3, 12), (1, 8))
        >>> len(examples), len(examples[0]["codes"]) <= 4
        (60, True)
    """
    examples: list[dict] = []
    for stage, share in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        end = round(num_examples * (0.5 + stage / 6))
        # From half of the way to all of it; at first one code and two sentences more than the fewest.
        codes, sentences = (
            (round(first + share / 2 * (last - first)), max(first + slack, round(first + share * (last - first))))
            for (first, last), slack in ((num_codes, 1), (num_sentences, 2))
        )
        examples += matching_examples(
            code_set,
            end - len(examples),
            codes,
            sentences,
            seed=seed + stage,
            background=background,
            other_name=0.7 if stage else 0.2,
        )
    return examples
