"""Checks of fine-tuning options that do not go together, before anything is read."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from peft import LoraConfig

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
    if arguments.prompt_layout == "isolated":
        # Processes call the layers as often as their notes need, and would wait for each other's shards for ever.
        raise ValueError(
            "prompt_layout='isolated' is not supported with FSDP; pass examples/accelerate/ddp_1node.yaml."
        )
    return True


def check_adapter(arguments: ModelArguments) -> LoraConfig | None:
    """The configuration of the adapter; None without one.

    Raises:
        ValueError: an unknown `peft`, or one beside `trainable`.
    """
    if arguments.peft is None:
        return None
    if arguments.trainable:
        raise ValueError(
            f"peft={arguments.peft!r} and trainable={arguments.trainable!r} exclude each other; pass --peft lora+bias "
            "alone to train an adapter and the biases."
        )
    return adapter_config(arguments.peft, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout)


def check_scorer(arguments: ModelArguments) -> None:
    """Check `scorer` and `similarity_prior`.

    Raises:
        ValueError: an unknown scorer, or one that does not go with the layout or with an adapter.
    """
    if arguments.scorer not in SCORERS:
        raise ValueError(f"scorer={arguments.scorer!r} is unknown; pass one of {', '.join(SCORERS)}.")
    for name, is_used in (("scorer", arguments.scorer == "matching"), ("similarity_prior", arguments.similarity_prior)):
        if is_used and arguments.prompt_layout != "isolated":
            raise ValueError(
                f"{name}={getattr(arguments, name)!r} compares descriptions and notes that are encoded separately; "
                "pass --prompt_layout isolated."
            )
    if arguments.scorer == "matching" and arguments.peft:
        raise ValueError(f"peft={arguments.peft!r} is not supported with scorer='matching'; omit one of them.")
