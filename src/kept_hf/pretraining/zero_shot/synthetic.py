"""Synthetic prompts: texts made of the names of a code set and of stock sentences. No note is needed.

They are the first stage of `kept-hf train`: short prompts about short texts, which take minutes on a CPU.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ...models.code_set import ICDCodeSet
from .examples import AFFIRMATIONS, FILLERS, NEGATIONS, PromptExample, check_range, mentioned_name, size_between


def synthetic_examples(
    code_set: ICDCodeSet,
    num_examples: int,
    num_codes: tuple[int, int] = (4, 12),
    num_sentences: tuple[int, int] = (4, 12),
    seed: int = 0,
    background: Sequence[str] = (),
    other_name: float = 0.7,
) -> Iterator[PromptExample[str]]:
    """Draw prompts and texts.

    Args:
        code_set: concepts with synonyms and parents (`ICDCodeSet.from_icd10cm()`).
        num_examples: how many.
        num_codes: fewest and most codes of a prompt; half of them are drawn with their siblings.
        num_sentences: fewest and most sentences of a text.
        seed: of the draws.
        background: sentences of real, unlabelled text to put between the mentions; by default stock phrases.
        other_name: how often a mention uses another name than the prompt: a synonym where there is one, else a variant
            of the title.

    Yields:
        Examples whose concepts are codes. On average the text affirms a quarter of them; a tenth are mentioned as
        negated or as a relative's, which does not count; the other sentences affirm concepts that are not in the
        prompt, or are background.

    Raises:
        ValueError: fewer codes than a prompt needs, or ranges that are no ranges.
    """
    check_range("num_codes", num_codes)
    check_range("num_sentences", num_sentences)
    if len(code_set) < 2 * num_codes[1]:
        raise ValueError(
            f"code_set has {len(code_set)} codes; prompts of num_codes={num_codes} need at least {2 * num_codes[1]}."
        )
    generator = random.Random(seed)
    codes = _Codes(code_set, other_name, generator)
    for _ in range(num_examples):
        prompt = codes.draw_prompt(generator.randint(*num_codes))
        gold = generator.sample(prompt, generator.randint(0, (len(prompt) + 1) // 2))
        rest = [code for code in prompt if code not in gold]
        negated = [code for code in rest if generator.random() < 0.1]
        sentences = [generator.choice(AFFIRMATIONS).format(codes.mention(code)) for code in gold]
        sentences += [generator.choice(NEGATIONS).format(codes.mention(code)) for code in negated]
        for _ in range(max(0, generator.randint(*num_sentences) - len(sentences))):
            other = codes.draw()
            if generator.random() < 0.5 and other not in prompt:
                sentences.append(generator.choice(AFFIRMATIONS).format(codes.mention(other)))
            else:
                sentences.append(generator.choice(background or FILLERS))
        generator.shuffle(sentences)
        names = [code_set.describe(code) for code in prompt]
        yield PromptExample(" ".join(sentences), prompt, names, [int(code in gold) for code in prompt])


class _Codes:
    """The codes of a set, to be drawn and to be mentioned."""

    def __init__(self, code_set: ICDCodeSet, other_name: float, generator: random.Random):
        self.code_set, self.other_name, self.generator = code_set, other_name, generator
        self.codes = list(code_set)
        self.with_synonyms = [code for code in self.codes if code_set.synonyms.get(code)]
        self.siblings: dict[str, list[str]] = {}
        for code in self.codes:
            self.siblings.setdefault(code_set.parents.get(code, ""), []).append(code)

    def draw(self) -> str:
        """A code, mostly one with synonyms."""
        has_synonyms = self.with_synonyms and self.generator.random() < 0.6
        return self.generator.choice(self.with_synonyms if has_synonyms else self.codes)

    def draw_prompt(self, size: int) -> list[str]:
        """So many different codes, some with their siblings, in random order."""
        prompt: list[str] = []
        while len(prompt) < size:
            code = self.draw()
            parents = self.code_set.parents
            family = self.siblings[parents[code]] if code in parents else []
            related = self.generator.sample(family, min(len(family), 2)) if self.generator.random() < 0.25 else []
            prompt += [other for other in dict.fromkeys([code, *related]) if other not in prompt]
        prompt = prompt[:size]
        self.generator.shuffle(prompt)
        return prompt

    def mention(self, code: str) -> str:
        """A name of the code for the text."""
        title = self.code_set.describe(code)
        return mentioned_name(title, self.code_set.synonyms.get(code) or [title], self.other_name, self.generator)


def synthetic_curriculum(
    code_set: ICDCodeSet,
    num_examples: int,
    num_codes: tuple[int, int] = (3, 12),
    num_sentences: tuple[int, int] = (1, 8),
    seed: int = 0,
    background: Sequence[str] = (),
) -> list[PromptExample[str]]:
    """Prompts and texts from short to long, to be trained on in this order.

    The first half has the fewest codes and sentences, and mostly the very name of the prompt: an unprompted model
    begins to find the name in the text on those and on no harder ones. The second half grows to the most in three
    steps, since what is learnt on short prompts does not carry to long ones by itself.

    Args:
        code_set, seed, background: see [`synthetic_examples`].
        num_examples: how many in all.
        num_codes: codes of a prompt, at first and at last.
        num_sentences: sentences of a text, at first and at last.

    Returns:
        The examples of [`synthetic_examples`], in order.

    Examples:
        >>> examples = synthetic_curriculum(ICDCodeSet.from_icd10cm(), 60, (3, 12), (1, 8))
        >>> len(examples), len(examples[0].concepts) <= 4
        (60, True)
    """
    examples: list[PromptExample[str]] = []
    for stage, share in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        end = round(num_examples * (0.5 + stage / 6))
        # From half of the way to all of it; at first one code and two sentences more than the fewest.
        codes, sentences = (
            (size_between(sizes, share / 2), max(sizes[0] + slack, size_between(sizes, share)))
            for sizes, slack in ((num_codes, 1), (num_sentences, 2))
        )
        examples += synthetic_examples(
            code_set,
            end - len(examples),
            codes,
            sentences,
            seed=seed + stage,
            background=background,
            other_name=0.7 if stage else 0.2,
        )
    return examples
