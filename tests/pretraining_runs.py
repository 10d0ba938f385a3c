"""Runs of the pretraining commands within the test's process."""

import contextlib
import importlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@contextlib.contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """The module of a command."""
    yield importlib.import_module(f"kept_hf.commands.{name}")


def runner(module: ModuleType, recipe: str) -> Callable[..., str]:
    """A function that runs the script with a recipe and further arguments, and returns what it printed."""

    def run(*arguments) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            module.main([recipe, *map(str, arguments)])
        return printed.getvalue()

    return run


def refusal(run: Callable[..., str], capsys: pytest.CaptureFixture, *arguments) -> str:
    """The line with which a command ends that does not take its arguments."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    if isinstance(stopped.value.code, str):  # which Python prints
        return stopped.value.code
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def read(folder: str | Path) -> dict:
    """The results of a run."""
    return json.loads((Path(folder) / "all_results.json").read_text())


def losses(folder: str | Path, step: int) -> list[float]:
    """The training losses up to a checkpoint, as they were logged."""
    state = json.loads((Path(folder) / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
