"""Runs of the pretraining commands within the test's process."""

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@contextlib.contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """`examples/{name}.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def runner(module: ModuleType, recipe: str) -> Callable[..., str]:
    """A function that runs the script with a recipe and further arguments, and returns what it printed."""

    def run(*arguments) -> str:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [module.__file__, recipe, *map(str, arguments)])
            module.main()
        return printed.getvalue()

    return run


def read(folder: str | Path) -> dict:
    """The results of a run."""
    return json.loads((Path(folder) / "all_results.json").read_text())


def losses(folder: str | Path, step: int) -> list[float]:
    """The training losses up to a checkpoint, as they were logged."""
    state = json.loads((Path(folder) / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
