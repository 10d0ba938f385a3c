"""The synthetic stage of fine-tuning: short prompts that the text answers, before the notes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, Trainer

from ...models.code_set import ICDCodeSet
from ...models.processing_kept import KeptProcessor
from ...training.arguments import DataArguments, KeptTrainingArguments
from ...training.collators import DataCollatorForICDPrompting
from ...training.rows import prompt_rows
from .sentences import background_sentences
from .synthetic import synthetic_curriculum

logger = logging.getLogger(__name__)


def run_synthetic_stage(
    model: PreTrainedModel,
    processor: KeptProcessor,
    texts: Sequence[str],
    data: DataArguments,
    training: KeptTrainingArguments,
) -> None:
    """Train a model to look from the mask to its description and on to the text, in place.

    Args:
        model: that was never prompted.
        processor: of the task that follows; the synthetic prompts ask about ICD-10-CM codes instead of its own.
        texts: training notes, whose sentences stand between the mentions.
        data: with the number and size of the prompts.
        training: of the task that follows; the stage makes its own arguments of it.
    """
    with training.main_process_first(desc="writing synthetic prompts"):
        processor = processor.for_codes(ICDCodeSet.from_icd10cm())
        rows = synthetic_rows(processor, texts, data, training.seed)
    arguments = stage_arguments(data, training)
    Trainer(model, arguments, data_collator=DataCollatorForICDPrompting(processor), train_dataset=rows).train()


def synthetic_rows(processor: KeptProcessor, texts: Sequence[str], data: DataArguments, seed: int) -> Dataset:
    """Rows of synthetic prompts about the processor's codes, from short to long."""
    examples = synthetic_curriculum(
        processor.code_set,
        data.matching_examples,
        tuple(data.matching_codes),
        tuple(data.matching_sentences),
        seed,
        background_sentences(texts),
    )
    prompts = [{"text": e.text, "codes": e.gold, "asked": e.concepts} for e in examples]
    return prompt_rows(Dataset.from_list(prompts), processor)


def stage_arguments(data: DataArguments, training: KeptTrainingArguments) -> KeptTrainingArguments:
    """The Trainer's arguments for this stage: one pass in the order of the rows, a step per batch."""
    return dataclasses.replace(
        training,
        output_dir=str(Path(training.output_dir, "matching")),
        num_train_epochs=1,
        max_steps=-1,  # it counts steps on the notes
        learning_rate=data.matching_learning_rate,
        per_device_train_batch_size=data.matching_batch_size,
        gradient_accumulation_steps=1,
        train_sampling_strategy="sequential",
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
