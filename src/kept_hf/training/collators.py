"""Batching for `KeptLongformerForICDPrompting` and `MSMNForICDCoding`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..models.padding import pad_features
from ..models.processing_kept import KeptProcessor
from ..models.tokenization_msmn import MSMNTokenizer

if TYPE_CHECKING:
    from .mined_negatives import MinedNegatives

LABEL_NAMES = ("labels", "label_notes", "label_codes")
"""What the Trainer gathers beside the scores: the labels of a row, its note, and its codes.

It finds the names by itself, except where another class hides the model, as peft's do: then pass
`TrainingArguments(label_names=[*LABEL_NAMES])`.
"""

MODEL_INPUTS = ("input_ids", "attention_mask", "global_attention_mask", "code_indices", *LABEL_NAMES)


@dataclass
class DataCollatorForICDPrompting:
    """Pads each batch to its longest row, never to the model's maximum; labels with -100.

    In the isolated layout the batch also gets the blocks of its codes, each once. Rows with labels that are not of
    [`prompt_rows`] do not say which note and codes they ask about (-1): they can be trained on, not evaluated.

    Args:
        processor: the processor that made the features, or in the joint layout its tokenizer.
        pad_to_multiple_of: round the length up to a multiple, for kernels or compilers that like it. The model computes
            nothing for padding.
        in_batch_negatives: for late interaction: ask each note of a batch about the codes of all its notes. The
            descriptions are encoded anyway, and a further code costs one product. For rows that ask about all gold
            codes of their note, as those of `prompt_rows` with `sampled_codes` do; rows that ask about all codes stay
            as they are.
        mined_negatives: with `in_batch_negatives`: further codes for each note of a batch, of
            [`kept_hf.training.mined_negatives.MinedNegatives`].

    Raises:
        ValueError: rows without `input_ids`, the message says what was there; rows of the isolated layout without
            their processor; or `in_batch_negatives` with rows that cannot be asked about other codes.

    Examples:
        >>> trainer = Trainer(
        ...     model, data_collator=DataCollatorForICDPrompting(processor), train_dataset=rows
        ... )  # doctest: +SKIP
    """

    processor: KeptProcessor
    pad_to_multiple_of: int | None = None
    in_batch_negatives: bool = False
    mined_negatives: MinedNegatives | None = None

    def __call__(self, features: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Rows of lists → tensors of shape `(batch_size, longest)`; columns the model does not take are left out."""
        if not features or "input_ids" not in features[0]:
            found = ", ".join(features[0]) if features else "no rows"
            raise ValueError(f"features need input_ids; got {found}. Map the notes with a KeptProcessor first.")
        rows = [self._written_out({name: row[name] for name in MODEL_INPUTS if name in row}) for row in features]
        if self.in_batch_negatives:
            rows = _ask_the_same(rows, self.mined_negatives)
        for row in rows:
            if "labels" in row and "label_notes" not in row:
                row |= {"label_notes": -1, "label_codes": [-1] * len(row["labels"])}
        if hasattr(self.processor, "tokenizer"):
            return self.processor.pad(rows, self.pad_to_multiple_of)
        if "code_indices" in rows[0]:
            raise ValueError(
                f"features have code_indices, and processor={type(self.processor).__name__} knows no codes; pass the "
                "KeptProcessor that made them."
            )
        return pad_features(rows, self.processor.pad_token_id, self.pad_to_multiple_of)

    def _written_out(self, row: dict) -> dict:
        """A row that lists the codes it asks about, which those of `prompt_rows` leave out where they are all."""
        code_set = getattr(self.processor, "code_set", None)
        is_short = {"code_indices", "label_codes", "labels"} <= row.keys() and not len(row["label_codes"])
        if code_set is None or not is_short:
            return row
        codes = list(range(len(code_set)))
        labels = [0] * len(codes)
        for code in row["labels"]:
            labels[int(code)] = 1
        return {**row, "code_indices": codes, "label_codes": codes, "labels": labels}


def _ask_the_same(rows: Sequence[dict], mined: MinedNegatives | None) -> list[dict]:
    """Rows that all ask about the codes that any of them asks about, and about those that were mined for them.

    Raises:
        ValueError: rows of the joint layout, or that do not say which codes they ask about.
    """
    if any(name not in rows[0] for name in ("code_indices", "labels", "label_codes")):
        raise ValueError(
            "in_batch_negatives=True needs rows of prompt_rows(notes, processor, sampled_codes=...) in the isolated "
            f"layout, with labels; these have {', '.join(rows[0])}."
        )
    codes, labels = ([torch.as_tensor(row[name]).tolist() for row in rows] for name in ("label_codes", "labels"))
    asked = {code for of_row in codes for code in of_row}
    if mined is not None:
        asked.update(code for row in rows for code in mined.draw(int(row["label_notes"])))
    asked = sorted(asked)
    united = []
    for row, row_codes, row_labels in zip(rows, codes, labels, strict=True):
        gold = {code for code, label in zip(row_codes, row_labels, strict=True) if label == 1}
        answers = [int(code in gold) for code in asked]
        united.append({**row, "code_indices": asked, "label_codes": asked, "labels": answers})
    return united


@dataclass
class DataCollatorForMSMN:
    """Pads each batch of notes to its longest, and writes out the labels: rows hold only those of their gold codes.

    Multi-hot rows of a full code set would take gigabytes. Rows without `labels` make batches without, to predict.

    Args:
        tokenizer: of the model.
        num_labels: `config.num_labels`.

    Raises:
        ValueError: a label that is not one of 0 … `num_labels` - 1; one that a row names twice, as multi-hot rows do;
            or `labels` in some rows only.

    Examples:
        >>> from kept_hf import MSMNTokenizer
        >>> tokenizer = MSMNTokenizer.from_texts(["fever and cough"], min_count=1)
        >>> rows = [{**tokenizer("Fever"), "labels": [2]}, {**tokenizer("Cough and fever"), "labels": []}]
        >>> batch = DataCollatorForMSMN(tokenizer, num_labels=3)(rows)
        >>> batch["input_ids"].shape, batch["labels"].tolist()
        (torch.Size([2, 3]), [[0, 0, 1], [0, 0, 0]])
    """

    tokenizer: MSMNTokenizer
    num_labels: int

    def __call__(self, features: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Rows of lists → tensors of shape `(batch_size, longest)` and `(batch_size, num_labels)`."""
        rows = [{name: row[name] for name in self.tokenizer.model_input_names} for row in features]
        batch = dict(self.tokenizer.pad(rows, return_tensors="pt"))
        labelled = sum(row.get("labels") is not None for row in features)
        if not labelled:
            return batch
        if labelled < len(features):
            raise ValueError(f"labels stand in {labelled} of {len(features)} rows; pass them in all rows, or in none.")
        batch["labels"] = torch.zeros(len(features), self.num_labels, dtype=torch.long)
        for row, feature in zip(batch["labels"], features, strict=True):
            places = torch.as_tensor(feature["labels"]).long()
            wrong = places[(places < 0) | (places >= self.num_labels)].tolist()
            if wrong:
                raise ValueError(f"labels has {wrong[0]}; pass places in the code set, 0 to {self.num_labels - 1}.")
            if len(places.unique()) < len(places):
                raise ValueError(
                    f"labels of a row has {len(places)} entries, some of them equal; pass the places of its gold codes "
                    "in the code set, each once, and no 0 or 1 for every code."
                )
            row[places] = 1
        return batch
