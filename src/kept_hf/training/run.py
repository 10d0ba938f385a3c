"""The frame of every training command: set-up, settings, resuming, training with an evaluation, the record."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments, set_seed

from ..models.whole_file import write_text
from .checkpoints import INPUTS, SETTINGS_FILE, is_finished
from .hardware import allowed_cores, keep_freed_memory, peak_memory_gb, use_all_cores
from .interruption import EndOnSignal
from .output_dir import check_output_dir
from .output_lock import lock_output, unlock_outputs
from .time_limit import TimeLimit

logger = logging.getLogger(__name__)
TRAINER_SETTINGS = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "train_sampling_strategy",
    "seed",
    "data_seed",
    "bf16",
    "fp16",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
)
"""What of the Trainer's arguments makes a run another one."""

PACKAGES = ("kept-hf", "torch", "transformers", "datasets")
"""Whose versions the record of a run has."""

NO_RESUME = "a run resumes from its last checkpoint when it is started again with the same --output_dir"
NO_PUSH = "publish the finished run with kept-hf push, which adds a card"
UNUSED_OPTIONS = {
    "do_train": "kept-hf evaluate evaluates a finished run without training",
    "do_eval": "kept-hf evaluate evaluates a finished run, and --eval_strategy says when training is evaluated",
    "do_predict": "kept-hf evaluate writes predictions for a split of a corpus, kept-hf predict for other notes",
    "resume_from_checkpoint": NO_RESUME,
    "push_to_hub": NO_PUSH,
    "hub_model_id": NO_PUSH,
    "hub_strategy": NO_PUSH,
    "hub_token": NO_PUSH,
    "hub_private_repo": NO_PUSH,
    "hub_always_push": NO_PUSH,
    "hub_revision": NO_PUSH,
}
"""Arguments of the Trainer that the commands refuse, since they would have no effect, or leave out a card → what to do
instead."""


@dataclass
class RunArguments(TrainingArguments):
    """The Trainer's own arguments, with defaults of all training commands."""

    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept, beside the best if any."})
    # HfArgumentParser needs this order.
    report_to: None | str | list[str] = field(default="none", metadata={"help": "See transformers."})  # noqa: RUF036
    use_cpu: bool = field(default=not torch.cuda.is_available(), metadata={"help": "Train on the CPU."})


@dataclass
class PretrainingArguments(RunArguments):
    """The Trainer's own arguments, with the defaults of pretraining."""

    learning_rate: float = field(default=5e-5, metadata={"help": "See transformers."})
    weight_decay: float = field(default=0.01, metadata={"help": "See transformers."})
    adam_epsilon: float = field(default=1e-5, metadata={"help": "See transformers."})
    # The time that a resumed run has left.
    restore_callback_states_from_checkpoint: bool = field(default=True, metadata={"help": "See transformers."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See transformers."})
    logging_steps: float = field(default=50, metadata={"help": "See transformers."})


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes:
        folder: with the model and the report.
        split: that was evaluated.
        threshold: at which codes are assigned.
        results: content of `all_results.json`; None on all processes but the first.
    """

    folder: Path
    split: str
    threshold: float
    results: dict[str, object] | None


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Leave the group of the processes in order when the run has ended, as a decorator of a command's `main`.

    And give back the folders that the run wrote to.

    The first process writes the report while the others end. A process whose threads of the group still run when the
    interpreter ends is aborted now and then, and the launcher then stops the first one in the midst of writing.
    An error leaves the group to the launcher, which ends the other processes.
    """
    try:
        yield
    finally:
        unlock_outputs()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def set_up(training: TrainingArguments) -> None:
    """Messages of the first process only, the machine's cores and memory, the seed, the output folder for this run.

    Raises:
        ValueError: the Trainer is to push, which would leave out the card; `output_dir` cannot be written, or another
            process writes to it.
    """
    check_output_dir(training.output_dir)
    if training.push_to_hub:
        raise ValueError(f"push_to_hub=True has no place here: {NO_PUSH}.")
    logging.basicConfig(format="%(message)s", level=logging.INFO if training.should_log else logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if training.use_cpu:
        use_all_cores()
        keep_freed_memory()
    set_seed(training.seed)
    if training.should_save:
        lock_output(training.output_dir)


def run_settings(training: TrainingArguments, *arguments: object) -> dict[str, object]:
    """The fields of the command's own dataclasses, and `TRAINER_SETTINGS`: for `settings.json`."""
    settings = {name: value for fields in arguments for name, value in dataclasses.asdict(fields).items()}
    for name in TRAINER_SETTINGS:
        value = getattr(training, name)
        settings[name] = value.value if isinstance(value, Enum) else value
    return settings


def run_inputs(**digests: str) -> dict[str, str]:
    """What a run reads → its digest, with the version of this package: for `settings.json`."""
    return {**digests, "kept-hf": version("kept-hf")}


def write_settings(training: TrainingArguments, settings: Mapping[str, object], inputs: Mapping[str, str]) -> None:
    """Write `settings.json`, which `checkpoint_to_resume` reads. Call this on the first process."""
    _write_json(Path(training.output_dir, SETTINGS_FILE), {**settings, INPUTS: inputs})


def require_splits(splits: Collection[str], corpus: str, codes: str) -> None:
    """Check that there are notes to train on, and to choose an epoch and a threshold on.

    Args:
        splits: that the corpus has with these codes.
        corpus, codes: for the message.

    Raises:
        ValueError: train or validation is missing.
    """
    missing = [split for split in ("train", "validation") if split not in splits]
    if missing:
        raise ValueError(
            f"corpus={corpus} with codes={codes} has the splits {', '.join(splits)}; training also needs "
            f"{' and '.join(missing)}: add the folder, or choose other codes."
        )


def train_and_evaluate(
    trainer: Trainer,
    settings: Mapping[str, object],
    inputs: Mapping[str, str],
    checkpoint: str | None,
    chosen_metrics: Callable[[dict], dict],
) -> tuple[dict[str, dict], float]:
    """Write the settings, train, and evaluate before and after.

    What the initial weights can do is evaluated within training (`eval_on_start`), since `trainer.evaluate()` before
    `trainer.train()` would leave several processes without each other's gradients, and say nothing. It is the first
    entry of the log, which checkpoints hold too.

    Args:
        trainer: the stock Trainer.
        settings, inputs: for `settings.json`.
        checkpoint: where to resume.
        chosen_metrics: metric names without prefix → those to report.

    Returns:
        Metrics "before" and "after", and seconds of training, those before it was resumed included where it has a
        `TimeLimit`.
    """
    training = trainer.args
    if training.should_save:
        write_settings(training, settings, inputs)
    eval_on_start = training.eval_on_start
    training.eval_on_start = checkpoint is None
    try:
        seconds = timed_training(trainer, checkpoint)
    finally:
        training.eval_on_start = eval_on_start
    after = trainer.evaluate()
    before = next(entry for entry in trainer.state.log_history if "eval_runtime" in entry)
    return {
        name: chosen_metrics({key.removeprefix("eval_"): value for key, value in metrics.items()})
        for name, metrics in (("before", before), ("after", after))
    }, seconds


def timed_training(trainer: Trainer, checkpoint: str | None) -> float:
    """Train, from a checkpoint if there is one; after the last one of a finished run nothing is trained.

    At SIGTERM the program ends, with a checkpoint: see [`EndOnSignal`].

    Returns:
        Seconds of training, those before it was resumed included where it has a `TimeLimit`.
    """
    clock, end = time.monotonic(), EndOnSignal()
    limits = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TimeLimit)]
    finished = checkpoint is not None and is_finished(checkpoint, limits[0].minutes if limits else None)
    trainer.add_callback(end)
    with no_steps(trainer.args) if finished else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint)
    end.exit(trainer.args.output_dir)
    return limits[0].seconds if limits else time.monotonic() - clock


@contextlib.contextmanager
def no_steps(training: TrainingArguments) -> Iterator[None]:
    """Let `trainer.train` load a checkpoint, and the best one if there is one, and train nothing.

    The Trainer would take one more step where its steps end within an epoch.
    """
    before = training.max_steps, training.num_train_epochs
    training.max_steps, training.num_train_epochs = -1, 0
    try:
        yield
    finally:
        training.max_steps, training.num_train_epochs = before


def run_record(trainer: Trainer, seconds: float, started: float, packages: Sequence[str]) -> dict[str, object]:
    """How a run was made, for `all_results.json`: steps, time, machine, versions.

    Args:
        trainer: after training.
        seconds: of training.
        started: `time.time()` when the run began.
        packages: names of packages whose versions are recorded.
    """
    training = trainer.args
    return {
        "steps": trainer.state.global_step,
        "rows_per_step": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "training_seconds": round(seconds, 1),
        **machine_record(training, started, packages),
    }


def machine_record(training: TrainingArguments, started: float, packages: Sequence[str]) -> dict[str, object]:
    """Time since `started`, machine and versions, for `all_results.json`."""
    return {
        "seconds": round(time.time() - started, 1),
        "world_size": training.world_size,
        "peak_memory_gb": peak_memory_gb(),
        "cores": allowed_cores(),
        "device": str(training.device),
        "versions": {package: version(package) for package in packages},
    }


def write_results(folder: str | os.PathLike, results: Mapping[str, object]) -> None:
    """Write `all_results.json` last of all: a folder that has it is complete."""
    _write_json(Path(folder, "all_results.json"), results)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1) + "\n")
