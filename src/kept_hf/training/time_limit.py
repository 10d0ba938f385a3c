"""Training for so many minutes."""

from __future__ import annotations

import dataclasses
import time
from typing import TypeVar

import torch
from torch import distributed
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def fit_to_time(training: Arguments, max_minutes: float | None) -> Arguments:
    """Arguments with which nothing but the time ends the training, if there is a limit.

    Args:
        training: the Trainer's own arguments, which stay as they are.
        max_minutes: the limit; None or 0 for none.

    Raises:
        ValueError: a warm-up that is a share of the steps, whose number the limit leaves open.
    """
    if not max_minutes:
        return training
    if 0 < training.warmup_steps < 1:
        raise ValueError(
            f"warmup_steps={training.warmup_steps} is a share of the steps, whose number max_minutes leaves open; "
            "pass a number of steps."
        )
    # TimeLimit lets the learning rate fall.
    return dataclasses.replace(training, lr_scheduler_type="constant_with_warmup", num_train_epochs=100_000)


class TimeLimit(TrainerCallback, ExportableState):
    """Stops the stock Trainer after some minutes of training, with the learning rate at nothing by then.

    The Trainer's schedule is multiplied by the share of the time that is left, so that one without an end of its own,
    "constant_with_warmup", becomes a linear decay that ends with the time, however fast the machine is. Evaluation does
    not count; writing checkpoints does. Processes stop at the same step, by the clock of the first.

    With `TrainingArguments(restore_callback_states_from_checkpoint=True)` a run that is resumed has the time that was
    left when its checkpoint was written.

    Args:
        minutes: of training.

    Raises:
        ValueError: no time.

    Examples:
        >>> trainer = Trainer(model, arguments, callbacks=[TimeLimit(10)], train_dataset=rows)  # doctest: +SKIP
    """

    def __init__(self, minutes: float):
        if not minutes > 0:
            raise ValueError(f"minutes={minutes} is no time to train; pass more than 0.")
        self.minutes = minutes
        self.seconds = 0.0
        self._since = 0.0

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {"args": {"minutes": self.minutes}, "attributes": {"seconds": self.seconds}}

    @property
    def left(self) -> float:
        """The share of the time that is left, from 1 to 0."""
        return max(0.0, 1 - self.seconds / (60 * self.minutes))

    def on_train_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        """Start the clock, and take over the learning rate."""
        self._since = time.monotonic()
        if not hasattr(lr_scheduler, "lr_lambdas"):
            raise ValueError(
                f"lr_scheduler_type={str(args.lr_scheduler_type)!r} cannot be fitted to a time limit; pass "
                "constant_with_warmup."
            )
        lr_scheduler.lr_lambdas = [
            lambda step, schedule=schedule: schedule(step) * self.left for schedule in lr_scheduler.lr_lambdas
        ]

    def on_step_end(self, args, state, control, **kwargs):
        """Look at the clock."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        if distributed.is_available() and distributed.is_initialized():
            seconds = torch.tensor(self.seconds, device=args.device)
            distributed.broadcast(seconds, src=0)
            self.seconds = seconds.item()
        if not self.left:
            control.should_training_stop = True
            control.should_save |= args.save_strategy != "no"

    def on_evaluate(self, args, state, control, **kwargs):
        """What has passed since the last step was evaluation."""
        self._since = time.monotonic()
