"""Blocks of tokens for masked language modelling, their masks, and what is measured on held-out ones.

KEPT's weights have been trained so on notes after HSAP: 30% of the tokens masked, blocks of 8,190 tokens (Yang et al.,
Findings of EMNLP 2022, arXiv 2210.03304, and its public code).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import DataCollatorForLanguageModeling, EvalPrediction, PreTrainedTokenizerBase

from ...models.padding import pad_features

GROUPS = {
    "repeated": "rarer words that stand elsewhere in the text",
    "new": "rarer words that stand nowhere else in it",
    "common": "common words",
}
"""Groups of masked tokens whose accuracy is reported apart → what they are."""

METRICS = ("masked_loss", "perplexity", "accuracy", *(f"accuracy_{group}" for group in GROUPS))
"""What `MaskedLMTask.compute_metrics` gives."""


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[np.ndarray]:
    """Ids of each text, `(number of its tokens,)`, without special tokens, although a note may say "<mask>"."""
    special = [token for token in tokenizer.all_special_ids if token != tokenizer.unk_token_id]
    documents = []
    for start in range(0, len(texts), 1000):
        ids = tokenizer(
            list(texts[start : start + 1000]),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # which would say that notes are longer than the model takes
        ).input_ids
        rows = (np.array(row, np.int32) for row in ids)
        documents += [row[~np.isin(row, special)] for row in rows]
    return documents


def pack_blocks(
    documents: Iterable[np.ndarray], block_size: int, tokenizer: PreTrainedTokenizerBase, whole: bool = False
) -> list[np.ndarray]:
    """Long blocks out of documents: side by side with a separator between them, in their order.

    A document that fits into a block is not divided; one that is longer than a block is divided into pieces. So what a
    masked token could be copied from mostly stands in the same block. Pieces without a token to mask are dropped.

    Args:
        documents: ids of each, without special tokens.
        block_size: the most tokens of a block, its special tokens included.
        tokenizer: for the special tokens.
        whole: one document, or one piece of it, a block.

    Returns:
        Ids of each block, `(at most block_size,)`, from the first special token to the last.

    Raises:
        ValueError: a block without room.

    Examples:
        >>> from types import SimpleNamespace
        >>> tokenizer = SimpleNamespace(cls_token_id=0, sep_token_id=2, all_special_ids=[0, 1, 2])
        >>> documents = [np.array([7, 7]), np.array([8, 8]), np.array([9, 9, 9, 9, 9, 9, 9])]
        >>> [block.tolist() for block in pack_blocks(documents, 7, tokenizer)]
        [[0, 7, 7, 2, 8, 8, 2], [0, 9, 9, 9, 9, 9, 2], [0, 9, 9, 2]]
    """
    room = block_size - 2
    if room < 1:
        raise ValueError(f"block_size={block_size} leaves no token between the special ones; pass 3 or more.")
    first, separator = tokenizer.cls_token_id, tokenizer.sep_token_id
    blocks, parts, length = [], [first], 0
    for document in documents:
        for start in range(0, len(document), room):
            piece = document[start : start + room]
            if np.isin(piece, tokenizer.all_special_ids).all():
                continue
            if length and (whole or length + 1 + len(piece) > room):
                blocks.append(np.hstack(parts))
                parts, length = [first], 0
            parts += [piece, separator]
            length += len(piece) + (length > 0)
    return [*blocks, np.hstack(parts)] if length else blocks


def common_tokens(blocks: Iterable[np.ndarray], share: float = 0.5) -> frozenset[int]:
    """The most frequent tokens, which together make up a share of the text: they are guessed without any copying.

    Examples:
        >>> common_tokens([np.array([5, 5, 5, 6, 7])])
        frozenset({5})
    """
    counts = np.bincount(np.concatenate([np.asarray(block, np.int64) for block in blocks]))
    order = np.argsort(-counts, kind="stable")
    number = int(np.searchsorted(np.cumsum(counts[order]), share * counts.sum())) + 1
    return frozenset(order[:number].tolist())


class MaskedBlocks(Dataset):
    """Blocks in an order and with masks that are drawn again in each epoch, for the Trainer.

    An item depends on the seed, the epoch and its number alone, not on which process asks for it and when: a run that
    is resumed, or one on several processes, sees the masks of one that went through. (Masks that a collator draws are
    drawn ahead of the step, so that no checkpoint has their state.) How a token is masked is up to
    `DataCollatorForLanguageModeling`.

    Needs `TrainingArguments(train_sampling_strategy="sequential")`: with the Trainer's own shuffling on several
    processes, accelerate 1.15 does not call `set_epoch` of a dataset, and the masks are the same in all epochs.

    Args:
        blocks: as `pack_blocks` makes them.
        tokenizer: with a mask token.
        mlm_probability: the share of tokens that is masked. Special tokens are not; each block has one masked token
            at least.
        global_masks: give so many of the masked tokens of a block, and its first token, global attention, as the
            masks of a prompt have. With 0, as published, no token has it.
        seed: of the masks.
        always_mask: put the mask token at each of them, for measurements. Otherwise 10% stay and 10% become another
            token, as in BERT.

    Raises:
        ValueError: no blocks; a share that is none; a negative number.

    Examples:
        An item is `{"input_ids": [...], "attention_mask": [...], "labels": [...]}`, lists of equal length, with -100
        as label of what was not masked; with `global_masks` also `"global_attention_mask"`.
    """

    def __init__(
        self,
        blocks: Sequence[np.ndarray],
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.3,
        global_masks: int = 0,
        seed: int = 0,
        always_mask: bool = False,
    ):
        if not len(blocks):
            raise ValueError("blocks is empty; pass texts that have tokens.")
        if not 0 < mlm_probability < 1:
            raise ValueError(f"mlm_probability={mlm_probability} is not between 0 and 1; pass 0.3, as published.")
        if global_masks < 0:
            raise ValueError(f"global_masks={global_masks} is negative; pass 0 for no global attention.")
        self.blocks, self.global_masks, self.seed = blocks, global_masks, seed
        self._special = np.array(sorted(tokenizer.all_special_ids))
        replaced = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0} if always_mask else {}
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=mlm_probability, **replaced)
        self._mask_token_id = tokenizer.mask_token_id
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.blocks)

    def set_epoch(self, epoch: int) -> None:
        """Draw order and masks again. The Trainer calls it before each epoch."""
        self._epoch = epoch
        self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.blocks))

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        seeds = np.random.SeedSequence((self.seed, self._epoch, index)).generate_state(1, np.uint64)
        generator = self._collator.generator = torch.Generator().manual_seed(int(seeds[0] >> np.uint64(1)))
        block = torch.from_numpy(self.blocks[self._order[index]].astype(np.int64))
        is_special = torch.from_numpy(np.isin(block.numpy(), self._special))
        ids, labels = (
            row[0]
            for row in self._collator.torch_mask_tokens(block[None].clone(), special_tokens_mask=is_special[None])
        )
        if not (labels != -100).any():
            candidates = (~is_special).nonzero()[:, 0]
            chosen = candidates[torch.randint(len(candidates), (1,), generator=generator)]
            labels[chosen], ids[chosen] = block[chosen], self._mask_token_id
        item = {"input_ids": ids.tolist(), "attention_mask": [1] * len(ids), "labels": labels.tolist()}
        if self.global_masks:
            masked = (labels != -100).nonzero()[:, 0]
            masked = masked[torch.randperm(len(masked), generator=generator)[: self.global_masks]]
            is_global = torch.zeros_like(ids)
            is_global[0] = 1
            is_global[masked] = 1
            item["global_attention_mask"] = is_global.tolist()
        return item


@dataclass
class DataCollatorForBlocks:
    """Pads the rows of a batch of blocks to its longest; labels with -100.

    Args:
        tokenizer: of the blocks.
    """

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, features: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Rows of lists → tensors of shape `(batch_size, longest)`."""
        return pad_features(features, self.tokenizer.pad_token_id)


class MaskedLMTask:
    """Held-out blocks whose masks stay the same, and the metrics of their predictions.

    Apart from the whole, three groups of masked tokens: those that stand elsewhere in the block, unmasked, so that they
    can be copied ("repeated"), those that do not ("new"), and the most frequent tokens of the language ("common"),
    which are nearly always repeated, but guessed without looking.

    Args:
        blocks: held-out ones, with `always_mask=True`. A note a block, or "elsewhere" means another note.
        common: ids of the tokens that count as common; see [`common_tokens`].
    """

    def __init__(self, blocks: MaskedBlocks, common: Collection[int] = ()):
        self.rows = [blocks[index] for index in range(len(blocks))]
        groups = []
        for row in self.rows:
            visible = set(row["input_ids"])
            for label in row["labels"]:
                if label != -100:
                    groups.append("common" if label in common else "repeated" if label in visible else "new")
        self.groups = np.array(groups)
        self.labels = np.array([label for row in self.rows for label in row["labels"] if label != -100])

    @property
    def counts(self) -> dict[str, int]:
        """Masked tokens of each group."""
        return {group: int((self.groups == group).sum()) for group in GROUPS}

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """For the Trainer.

        Args:
            prediction: its `predictions` are those of [`KeptLongformerForBlocks`] on `rows`, in their
                order: loss and most probable token of each masked one.

        Returns:
            `METRICS`, without the groups that are empty.

        Raises:
            ValueError: rows in another order.
        """
        labels = np.asarray(prediction.label_ids)
        if not np.array_equal(labels[labels != -100], self.labels):
            raise ValueError(
                "The rows were evaluated in another order; pass "
                "TrainingArguments(train_sampling_strategy='sequential')."
            )
        losses, tokens = prediction.predictions
        is_slot = losses >= 0  # the Trainer pads with -100, and no cross entropy is negative
        return self.metrics(losses[is_slot], tokens[is_slot])

    def metrics(self, losses: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
        """The metrics of `(masked tokens,)` losses and predicted ids, in the order of `labels`."""
        is_right = tokens == self.labels
        loss = float(np.mean(losses, dtype=np.float64))
        result = {
            "masked_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": float(is_right.mean()),
        }
        for group in GROUPS:
            among = is_right[self.groups == group]
            if len(among):
                result[f"accuracy_{group}"] = float(among.mean())
        return result


def masked_lm_data(
    notes: Sequence[str],
    held_out: Sequence[str],
    lines: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    mlm_probability: float = 0.3,
    global_masks: int = 0,
    seed: int = 0,
) -> tuple[MaskedBlocks, MaskedLMTask]:
    """What is trained on, and what is measured on held-out notes.

    Args:
        notes: to train on; they are shuffled.
        held_out: notes to measure on, a note (or a block's length of it) a row.
        lines: further text, apart from the notes and in its order, so that relatives stand side by side.
        tokenizer, block_size: see [`pack_blocks`].
        mlm_probability, global_masks, seed: see [`MaskedBlocks`].
    """
    order = np.random.default_rng(seed).permutation(len(notes))
    blocks = pack_blocks(tokenize([notes[i] for i in order], tokenizer), block_size, tokenizer)
    common = common_tokens(blocks)
    blocks += pack_blocks(tokenize(lines, tokenizer), block_size, tokenizer)
    # One a row: what is repeated is repeated in the same note.
    measured = pack_blocks(tokenize(held_out, tokenizer), block_size, tokenizer, whole=True)
    options = (tokenizer, mlm_probability, global_masks, seed)
    return MaskedBlocks(blocks, *options), MaskedLMTask(MaskedBlocks(measured, *options, always_mask=True), common)


def masked_lm_table(counts: Mapping[str, int], results: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Rows for [`kept_hf.reports.tables.format_table`].

    Args:
        counts: of the groups; see `MaskedLMTask.counts`.
        results: name of a column ("before", "after") → what `MaskedLMTask.compute_metrics` gave.
    """
    names = {
        "masked_loss": "loss of a masked token",
        "perplexity": "perplexity",
        "accuracy": "accuracy",
        **{f"accuracy_{group}": f"accuracy, {meaning}" for group, meaning in GROUPS.items()},
    }
    rows = []
    for key, name in names.items():
        if any(key in metrics for metrics in results.values()):
            number = counts.get(key.removeprefix("accuracy_"), sum(counts.values()))
            row = {"": name, "masked tokens": number}
            rows.append(row | {column: metrics.get(key) for column, metrics in results.items()})
    return rows
