"""Checks of fine-tuning options that do not go together, before anything is read."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from peft import LoraConfig
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..metrics import icd_metrics
from .adapters import adapter_config
from .task import SCORERS

if TYPE_CHECKING:
    from .arguments import DataArguments, KeptTrainingArguments, ModelArguments


def keep_global_batch(
    training: KeptTrainingArguments, data: DataArguments
) -> tuple[KeptTrainingArguments, DataArguments]:
    """Arguments with which `global_batch_size` prompts make a step on any number of processes.

    Returns:
        Both, with another `gradient_accumulation_steps` and `matching_batch_size` where `global_batch_size` is given;
        the ones passed in stay as they are.

    Raises:
        ValueError: a global batch that cannot be divided among the processes.
    """
    if training.global_batch_size is None:
        return training, data
    prompts_at_once = training.train_batch_size * training.world_size
    steps, rest = divmod(training.global_batch_size, prompts_at_once)
    if rest or steps < 1:
        raise ValueError(
            f"global_batch_size={training.global_batch_size} is not a multiple of the {prompts_at_once} prompts that "
            f"are taken at once: per_device_train_batch_size={training.per_device_train_batch_size} on "
            f"{prompts_at_once // training.per_device_train_batch_size} devices. Pass a smaller "
            "--per_device_train_batch_size, use fewer processes, or pass "
            f"--global_batch_size {prompts_at_once}, with a learning rate that fits it."
        )
    if data.matching_examples:
        matching_batch_size, rest = divmod(data.matching_batch_size, training.world_size)
        if rest or matching_batch_size < 1:
            raise ValueError(
                f"matching_batch_size={data.matching_batch_size} cannot be divided among {training.world_size} "
                f"processes; pass --matching_batch_size {training.world_size}, or use fewer processes."
            )
        data = replace(data, matching_batch_size=matching_batch_size)
    return replace(training, gradient_accumulation_steps=steps), data


def check_sharding(training: KeptTrainingArguments, arguments: ModelArguments) -> bool:
    """Whether the model is sharded (FSDP).

    Raises:
        ValueError: accelerate would silently not shard it, or the model cannot be sharded.
    """
    if not training.fsdp and os.environ.get("ACCELERATE_USE_FSDP", "false") != "true":
        return False
    if training.distributed_state.distributed_type == "MULTI_CPU":
        raise ValueError(
            "FSDP was asked for with use_cpu=True, but accelerate shards on GPUs only and would run DDP instead; pass "
            "examples/accelerate/ddp_cpu.yaml."
        )
    if arguments.peft:
        raise ValueError(
            f"peft={arguments.peft!r} is not supported with FSDP; pass examples/accelerate/ddp_1node.yaml."
        )
    if arguments.scorer == "matching":
        # Layers are called without their model's own forward pass, in which shards are gathered.
        raise ValueError("scorer='matching' is not supported with FSDP; pass examples/accelerate/ddp_1node.yaml.")
    return True


def check_adapter(arguments: ModelArguments) -> LoraConfig | None:
    """The configuration of the adapter; None without one.

    Raises:
        ValueError: an unknown `peft`, one beside `trainable`, or the shape of an adapter without one.
    """
    if arguments.peft is None:
        for name in ("lora_r", "lora_alpha", "lora_dropout"):
            value = getattr(arguments, name)
            if value != getattr(type(arguments), name):
                raise ValueError(f"{name}={value} shapes an adapter, and there is none; pass --peft lora, or omit it.")
        return None
    if arguments.trainable:
        raise ValueError(
            f"peft={arguments.peft!r} and trainable={arguments.trainable!r} exclude each other; pass --peft lora+bias "
            "alone to train an adapter and the biases."
        )
    return adapter_config(arguments.peft, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout)


def check_scorer(arguments: ModelArguments) -> None:
    """Check `scorer`.

    Raises:
        ValueError: an unknown scorer, or one that does not go with other options.
    """
    if arguments.scorer not in SCORERS:
        raise ValueError(f"scorer={arguments.scorer!r} is unknown; pass one of {', '.join(SCORERS)}.")
    if arguments.names_per_code > 1 and arguments.scorer != "matching":
        raise ValueError(
            f"names_per_code={arguments.names_per_code} is for late interaction; pass --scorer matching, or omit it."
        )
    if arguments.scorer == "matching" and arguments.peft:
        raise ValueError(f"peft={arguments.peft!r} is not supported with scorer='matching'; omit one of them.")


def check_prompts(data: DataArguments) -> None:
    """Check the numbers of prompts, codes and sentences.

    Raises:
        ValueError: a number that is too small, or an option that would have no effect.
    """
    for name, lowest in (("draws", 1), ("sampled_codes", 1), ("matching_examples", 0), ("matching_batch_size", 1)):
        value = getattr(data, name)
        if value is not None and value < lowest:
            raise ValueError(f"{name}={value} is less than {lowest}; pass --{name} {lowest} or more.")
    for name in ("matching_codes", "matching_sentences"):
        value = getattr(data, name)
        if len(value) != 2 or min(value) < 1:
            raise ValueError(
                f"{name}={value} is not two positive integers; pass the numbers at the start and at the end, such as "
                f"--{name} 3 12."
            )
    if not 0 <= data.hard_negatives <= 1:
        raise ValueError(f"hard_negatives={data.hard_negatives} is no share; pass a number from 0 to 1.")
    has_candidates = any(option.startswith("train=") for option in data.candidates)
    if data.hard_negatives != type(data).hard_negatives and not has_candidates:
        raise ValueError(
            f"hard_negatives={data.hard_negatives} is a share of candidates, and there are none to train on; pass "
            "--candidates train=FILE, or omit it."
        )


def check_negatives(data: DataArguments, scorer: str) -> None:
    """Check `in_batch_negatives` and `mined_negatives`.

    Raises:
        ValueError: without `sampled_codes`, with prompts, or where only candidates are scored; mined negatives without
            those of the batch.
    """
    if data.mined_negatives < 0 or (data.mined_negatives and not data.in_batch_negatives):
        raise ValueError(
            f"mined_negatives={data.mined_negatives} are further codes of a batch; pass 0 or more, with "
            "--in_batch_negatives True."
        )
    if not data.in_batch_negatives:
        return
    if scorer != "matching" or data.sampled_codes is None:
        raise ValueError(
            "in_batch_negatives=True asks each note about the codes drawn for the others of its batch; pass "
            "--scorer matching and --sampled_codes, or omit it."
        )
    scored = [option for option in data.candidates if not option.startswith("train=")]
    if scored:
        raise ValueError(
            f"in_batch_negatives=True would also ask about codes that are no candidates of {scored[0]}; omit one of "
            "them."
        )


def check_loss(training: TrainingArguments) -> None:
    """Check that the Trainer leaves the loss to the model.

    Raises:
        ValueError: `label_smoothing_factor`, with which the Trainer computes the loss of a language model.
    """
    if training.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={training.label_smoothing_factor} would replace the model's own loss by one that "
            "does not fit codes; omit it."
        )


def check_best_metric(training: TrainingArguments, num_codes: int) -> None:
    """Check that `metric_for_best_model` is reported, if anything is evaluated in training.

    Args:
        training: of the run.
        num_codes: of the task. Metrics at k need k codes.

    Raises:
        ValueError: a metric that [`ICDMetrics`] does not report for so many codes; the message lists those it does.
    """
    name = training.metric_for_best_model
    if name is None or training.eval_strategy == IntervalStrategy.NO:
        return
    metrics = icd_metrics(np.zeros((2, num_codes)), np.eye(2, num_codes))
    reported = [*metrics, "threshold", "loss"]
    if name.removeprefix("eval_") not in reported:
        raise ValueError(
            f"metric_for_best_model={name!r} is not reported for {num_codes} codes; pass --metric_for_best_model with "
            f"one of {', '.join(reported)}."
        )
