"""Late interaction's own hard negatives: codes that the model takes for those of a note, searched in each epoch."""

from __future__ import annotations

import random

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback

from ..candidates.scoring import evaluation, longest_first
from ..models.modeling_kept_matching import KeptLongformerForICDMatching
from ..models.processing_kept import KeptProcessor

MOST_SIMILAR = 100
"""Codes of a note among which its negatives are drawn."""


class MinedNegatives(TrainerCallback):
    """Finds, from the second epoch on, the codes that are most similar to each training note.

    It is a callback of the stock Trainer and belongs to its collator, too, which asks each batch about some of these
    codes of its notes. Random codes are soon told apart from those of a note; similar ones are not. An epoch's search
    encodes all training notes once, without gradients; on several processes each does it.

    Args:
        processor: of the rows, with the codes to search.
        rows: of [`prompt_rows`], to train on.
        number: codes drawn for each note of a batch.
        seed: of the draws, which depend on epoch and note alone.
        batch_size: notes at a time.

    Raises:
        ValueError: `number` below 1, or rows that do not say which note they are of.

    Examples:
        >>> mined = MinedNegatives(processor, rows, number=12)  # doctest: +SKIP
        >>> collator = DataCollatorForICDPrompting(
        ...     processor, in_batch_negatives=True, mined_negatives=mined
        ... )  # doctest: +SKIP
        >>> trainer = Trainer(model, data_collator=collator, train_dataset=rows, callbacks=[mined])  # doctest: +SKIP
    """

    def __init__(self, processor: KeptProcessor, rows: Dataset, number: int, seed: int = 0, batch_size: int = 8):
        if number < 1:
            raise ValueError(f"number={number} is less than 1; pass how many codes are drawn for a note.")
        missing = [name for name in ("code_indices", "label_notes") if name not in rows.column_names]
        if missing:
            raise ValueError(
                f"rows has the columns {', '.join(rows.column_names)}; pass rows of prompt_rows(notes, processor) with "
                "prompt_layout='isolated'."
            )
        self.processor, self.number, self.seed, self.batch_size = processor, number, seed, batch_size
        first: dict[int, int] = {}
        for row, note in enumerate(rows["label_notes"][:]):
            first.setdefault(note, row)  # all rows of a note have the same text
        self._rows = rows.select(list(first.values())).select_columns(["input_ids"])
        self._numbers = {note: number for number, note in enumerate(first)}
        self._found: np.ndarray | None = None
        self._epoch = 0

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        """Search; not before the first epoch, when the model knows names alone."""
        self._epoch = round(state.epoch or 0)
        if self._epoch:
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                self._found = self.search(model)

    def search(self, model: KeptLongformerForICDMatching) -> np.ndarray:
        """The most similar codes of each note: `(notes, codes)`, positions in the code set."""
        texts = self._rows["input_ids"][:]
        order, found = longest_first(texts), []
        with evaluation(model):
            codes = model.encode_codes(self.processor.code_blocks())
            for start in range(0, len(order), self.batch_size):
                rows = [
                    {"input_ids": texts[row], "attention_mask": [1] * len(texts[row])}
                    for row in order[start : start + self.batch_size]
                ]
                batch = {name: values.to(model.device) for name, values in self.processor.pad(rows).items()}
                scores = model.score_notes(codes, **batch)
                found.append(scores.topk(min(MOST_SIMILAR, len(codes)), dim=1).indices.cpu().numpy())
        return np.concatenate(found)[np.argsort(order)]

    def draw(self, note: int) -> list[int]:
        """Codes to ask a note about: positions in the code set, its own codes perhaps among them; none at first."""
        if self._found is None or note not in self._numbers:
            return []
        similar = self._found[self._numbers[note]].tolist()
        return random.Random(f"{self.seed} {self._epoch} {note}").sample(similar, min(self.number, len(similar)))
