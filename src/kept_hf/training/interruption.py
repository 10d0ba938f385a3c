"""A run that is told to end writes a checkpoint and ends, so that it goes on there when it is started again."""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import distributed
from transformers import TrainerCallback

STATUS = 128 + signal.SIGTERM
"""Exit status of a run that was told to end, as shells have it."""


class EndOnSignal(TrainerCallback):
    """Ends the training of the stock Trainer at SIGTERM, after the step it is in, with a checkpoint.

    A scheduler of a cluster sends SIGTERM some time before it kills. `accelerate launch` with one process does not hand
    it on: its process goes on alone. So a run that it launched also ends when its parent does. Several processes end
    after the same step. The checkpoint is written unless `save_strategy` is "no".

    Attributes:
        ended: whether the training was ended so.

    Examples:
        >>> trainer = Trainer(model, arguments, callbacks=[EndOnSignal()], train_dataset=rows)  # doctest: +SKIP
    """

    def __init__(self):
        self.ended = self._told = False
        self._handler = None
        self._parent = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    def on_train_begin(self, args, state, control, **kwargs):
        """Take the signal over, if this is the thread that gets signals."""
        try:
            self._handler = signal.signal(signal.SIGTERM, self._tell)
        except ValueError:  # not the main thread
            self._handler = None

    def on_step_end(self, args, state, control, **kwargs):
        """Look whether to end."""
        told = self._told or (self._parent is not None and os.getppid() != self._parent)
        if distributed.is_available() and distributed.is_initialized():
            flag = torch.tensor(int(told), device=args.device)
            distributed.all_reduce(flag, distributed.ReduceOp.MAX)
            told = bool(flag.item())
        if told:
            self.ended = control.should_training_stop = True
            control.should_save |= args.save_strategy != "no"

    def on_train_end(self, args, state, control, **kwargs):
        """Give the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def _tell(self, *_):
        self._told = True

    def exit(self, output_dir: str | os.PathLike) -> None:
        """End the program, if the training was ended.

        Raises:
            SystemExit: with [`STATUS`].
        """
        if self.ended:
            print(f"Ended by a signal. The same command goes on from the checkpoint in {output_dir}.", file=sys.stderr)
            sys.exit(STATUS)
