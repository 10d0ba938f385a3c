"""Run a command that is killed, or whose disk is full, at one point of writing a checkpoint.

    python interrupted.py POINT NUMBER FAULT COMMAND [option ...]

POINT is a function of the Trainer, before or after which it happens the NUMBER-th time that it is called.
"""

import errno
import importlib
import os
import sys

import torch
from transformers import Trainer
from transformers.trainer_callback import TrainerState


def fail(fault: str) -> None:
    if fault == "kill":
        os._exit(137)
    raise OSError(errno.ENOSPC, "No space left on device")


def hook(owner: object, name: str, when: str, number: int, fault: str) -> None:
    """Let a function fail before or after its `number`-th call, or in the middle of the file that it writes."""
    function, calls = getattr(owner, name), []

    def hooked(*args, **kwargs):
        calls.append(1)
        if len(calls) == number and when == "before":
            fail(fault)
        result = function(*args, **kwargs)
        if len(calls) == number and when == "torn":
            path = next(
                str(value) for value in (*args[::-1], *kwargs.values()) if isinstance(value, (str, os.PathLike))
            )
            os.truncate(path, os.path.getsize(path) // 2)
        if len(calls) == number and when in ("after", "torn"):
            fail(fault)
        return result

    setattr(owner, name, hooked)


OWNERS = {
    "save_model": Trainer,
    "_save_optimizer_and_scheduler": Trainer,
    "_save_rng_state": Trainer,
    "save_to_json": TrainerState,
    "save": torch,
}

if __name__ == "__main__":
    point, number, fault, command, *options = sys.argv[1:]
    when, _, name = point.partition(":")
    hook(OWNERS[name], name, when, int(number), fault)
    importlib.import_module(f"kept_hf.commands.{command}").main(options)
