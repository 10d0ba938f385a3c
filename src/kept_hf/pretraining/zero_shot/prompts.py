"""The prompts of zero-shot pretraining as rows for the stock Trainer, from short to long."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from ...models.code_set import ICDCodeSet
from ...models.processing_kept import KeptProcessor
from ...training.collators import MODEL_INPUTS, DataCollatorForICDPrompting
from .examples import PromptExample, check_range, size_between
from .passages import PassageSource


class ZeroShotPrompts(Dataset):
    """Prompts from short to long, for the stock Trainer: each item is a list of rows with about as many tokens.

    Long prompts over long texts are not learnt from the start, and what is learnt on short ones does not carry to long
    ones by itself. So the first `warm_up` of the items has the fewest codes and sentences, and its texts more often use
    the very name of the prompt; then both grow, until `growth` of the items later they are drawn between half and all
    of the most.

    An item depends on the seed and its number alone, so that a run resumes where it stopped and processes draw
    different items. Take them in order (`train_sampling_strategy="sequential"`), one at a time
    (`per_device_train_batch_size=1`), with [`DataCollatorForZeroShot`].

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
        >>> prompts = ZeroShotPrompts(source, processor, num_items=1000)  # doctest: +SKIP
        >>> len(prompts[0]), len(prompts[999])  # doctest: +SKIP
        (29, 3)
    """

    def __init__(
        self,
        source: PassageSource,
        processor: KeptProcessor,
        num_items: int,
        num_codes: tuple[int, int] = (5, 50),
        num_sentences: tuple[int, int] = (2, 20),
        tokens_per_item: int = 4000,
        warm_up: float = 0.2,
        growth: float = 0.6,
        seed: int = 0,
    ):
        check_range("num_codes", num_codes)
        check_range("num_sentences", num_sentences)
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
            codes, sentences = (size_between(sizes, share) for sizes in (self.num_codes, self.num_sentences))
            rows.append(prompt_row(self.source.draw(generator, codes, sentences, other_name), self.processor))
        return rows


def prompt_row(example: PromptExample, processor: KeptProcessor) -> dict[str, list]:
    """The model's inputs, `labels` and `length` in tokens for an example. A text that is too long is truncated."""
    codes = list(map(str, range(len(example.names))))
    code_set = ICDCodeSet(codes, dict(zip(codes, example.names, strict=True)))
    gold = [[code for code, label in zip(codes, example.labels, strict=True) if label]]
    # Where it returns what was truncated, the processor does not warn of each text.
    batch = processor([example.text], codes=code_set, gold_codes=gold, return_cut=True)
    row = {name: batch[name][0] for name in MODEL_INPUTS if name in batch}
    return {**row, "length": len(row["input_ids"])}


@dataclass
class DataCollatorForZeroShot:
    """Puts the rows of one or several items of [`ZeroShotPrompts`] into a batch; single rows pass as they are.

    Args:
        processor: the processor that wrote the rows.
    """

    processor: KeptProcessor

    def __call__(self, features: Sequence[list[dict] | Mapping]) -> dict[str, torch.Tensor]:
        """Tensors of shape `(rows, longest)`."""
        rows = [row for item in features for row in (item if isinstance(item, list) else [item])]
        return DataCollatorForICDPrompting(self.processor)(rows)
