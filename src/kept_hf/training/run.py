"""What the pretraining commands share: recipe and command line, the model to start from, the time limit, the record."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    HfArgumentParser,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ..models.modeling_kept_longformer import KeptLongformerForMaskedLM
from .conversion import BERT_LIKE, convert_to_kept_longformer, converted_to
from .hardware import allowed_cores, keep_freed_memory, peak_memory_gb, use_all_cores
from .time_limit import TimeLimit
from .weights import PACKAGED_WEIGHTS, weights_path

TRAINER_SETTINGS = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "seed",
    "bf16",
    "fp16",
)
"""What of the Trainer's arguments makes a run another one."""


@dataclass
class PretrainingArguments(TrainingArguments):
    """The Trainer's own arguments, with the defaults of pretraining."""

    learning_rate: float = field(default=5e-5, metadata={"help": "See transformers."})
    weight_decay: float = field(default=0.01, metadata={"help": "See transformers."})
    adam_epsilon: float = field(default=1e-5, metadata={"help": "See transformers."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept."})
    # The time that a resumed run has left.
    restore_callback_states_from_checkpoint: bool = field(default=True, metadata={"help": "See transformers."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See transformers."})
    logging_steps: float = field(default=50, metadata={"help": "See transformers."})
    report_to: str = field(default="none", metadata={"help": "See transformers."})
    use_cpu: bool = field(default=not torch.cuda.is_available(), metadata={"help": "Train on the CPU."})


@dataclass
class EncoderArguments:
    """The model to start from."""

    model_name_or_path: str = field(
        default=PACKAGED_WEIGHTS,
        metadata={
            "help": "Folder or model id: what another command wrote, a KEPT or Longformer checkpoint, or a BERT or "
            f"RoBERTa, which is converted. {PACKAGED_WEIGHTS} stands for the weights of that Python package."
        },
    )
    model_max_length: int = field(default=1024, metadata={"help": "Positions of a converted model."})
    attention_window: int = field(default=512, metadata={"help": "Local attention of a converted model."})
    position_period: int | None = field(
        default=None, metadata={"help": "Repeat the first n positions of a converted model. By default all."}
    )
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "By default the checkpoint's."})
    attention_probs_dropout_prob: float | None = field(default=None, metadata={"help": "By default the checkpoint's."})


def fit_to_time(parser: HfArgumentParser, max_minutes: float | None, training: TrainingArguments) -> float | None:
    """Let nothing but the time end the training, if there is a limit; the Trainer's options do otherwise.

    Returns:
        The minutes, None for 0.
    """
    if not max_minutes:
        return None
    if 0 < training.warmup_steps < 1:
        parser.error(
            f"warmup_steps={training.warmup_steps} is a share of the steps, whose number max_minutes leaves open; "
            "pass a number of steps."
        )
    training.lr_scheduler_type = "constant_with_warmup"  # TimeLimit lets it fall
    training.num_train_epochs = 100_000
    return max_minutes


def set_up(training: TrainingArguments, document: str) -> None:
    """Messages of the first process only, the machine's cores and memory, the seed.

    Raises:
        SystemExit: the Trainer is to push, which would leave out the card.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO if training.should_log else logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if training.use_cpu:
        use_all_cores()
        keep_freed_memory()
    if training.push_to_hub:
        raise SystemExit(f"push_to_hub=True: publish the finished run, after a look at its card ({document}).")
    set_seed(training.seed)


def run_settings(training: TrainingArguments, *arguments: object) -> dict[str, object]:
    """The fields of the command's own dataclasses, and `TRAINER_SETTINGS`: for `settings.json`."""
    settings = {name: value for one in arguments for name, value in dataclasses.asdict(one).items()}
    settings |= {name: getattr(training, name) for name in TRAINER_SETTINGS}
    settings["lr_scheduler_type"] = str(getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type))
    return settings


def write_settings(training: TrainingArguments, settings: Mapping[str, object]) -> None:
    """Write `settings.json`, which `checkpoint_to_resume` reads. Call this on the first process."""
    folder = Path(training.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_base(
    model_class: type[KeptLongformerForMaskedLM], arguments: EncoderArguments, **options: object
) -> tuple[KeptLongformerForMaskedLM, PreTrainedTokenizerBase]:
    """The model to start from, in float32, and its tokenizer.

    Args:
        model_class: with the parameters of [`KeptLongformerForMaskedLM`].
        arguments: what to load. Without a `model_max_length`, a converted model gets 1,024 positions.
        options: further fields of its configuration, and arguments of the model.
    """
    path = weights_path(arguments.model_name_or_path)
    dropout = {
        name: value
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        if (value := getattr(arguments, name)) is not None
    }
    if AutoConfig.from_pretrained(path).model_type not in BERT_LIKE:
        model = model_class.from_pretrained(path, dtype=torch.float32, **dropout, **options)
        return model, AutoTokenizer.from_pretrained(path)
    converted, tokenizer = convert_to_kept_longformer(
        path, arguments.model_max_length or 1024, arguments.attention_window, arguments.position_period
    )
    return converted_to(model_class, converted, **dropout, **options), tokenizer


def train_and_judge(
    trainer: Trainer, settings: Mapping[str, object], checkpoint: str | None, judged: Callable[[dict], dict]
) -> tuple[dict[str, dict], float]:
    """Write the settings, train, evaluate.

    What the weights that it starts from can do is evaluated within training (`eval_on_start`), since
    `trainer.evaluate()` before `trainer.train()` would leave several processes without each other's gradients, and say
    nothing. It is the first entry of the log, which checkpoints hold too.

    Args:
        trainer: the stock Trainer.
        settings: for `settings.json`.
        checkpoint: where to go on from.
        judged: metric names without prefix → those that count.

    Returns:
        Metrics "before" and "after", and seconds of training, those before it was resumed included where it has a
        `TimeLimit`.
    """
    training = trainer.args
    training.eval_on_start = checkpoint is None
    if training.should_save:
        write_settings(training, settings)
    clock = time.monotonic()
    trainer.train(resume_from_checkpoint=checkpoint)
    limits = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TimeLimit)]
    seconds = limits[0].seconds if limits else time.monotonic() - clock
    after = trainer.evaluate()
    before = next(entry for entry in trainer.state.log_history if "eval_runtime" in entry)
    return {
        name: judged({key.removeprefix("eval_"): value for key, value in metrics.items()})
        for name, metrics in (("before", before), ("after", after))
    }, seconds


def run_record(trainer: Trainer, seconds: float, started: float, packages: Sequence[str]) -> dict[str, object]:
    """How a run was made, for `all_results.json`: steps, time, machine, versions."""
    training = trainer.args
    return {
        "steps": trainer.state.global_step,
        "rows_per_step": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "training_seconds": round(seconds, 1),
        "seconds": round(time.time() - started, 1),
        "world_size": training.world_size,
        "peak_memory_gb": peak_memory_gb(),
        "cores": allowed_cores(),
        "device": str(training.device),
        "versions": {package: version(package) for package in packages},
    }
