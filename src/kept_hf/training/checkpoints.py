"""Which checkpoint a run resumes from: the newest that is whole, of a run with the same settings and inputs."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)
SETTINGS_FILE = "settings.json"
INPUTS = "inputs"
"""Key of `settings.json`: what was read → its digest."""

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "pytorch_model_fsdp*")


def checkpoint_to_resume(
    training: TrainingArguments, settings: Mapping[str, object], inputs: Mapping[str, str]
) -> str | None:
    """The newest whole checkpoint of a run's folder, if there is one. To be called on all processes.

    Newer ones, which a kill or a full disk left unfinished, are renamed, with a warning.

    Args:
        training: with `output_dir`.
        settings: of the run, as `run_settings` gives them.
        inputs: what the run reads → its digest.

    Raises:
        ValueError: the folder has checkpoints of a run with other settings or inputs; the message names them.
    """
    folder = Path(training.output_dir)
    with training.main_process_first(desc="looking for checkpoints"):
        found = checkpoints_of(folder)
        if not found:
            return None
        check_same_run(folder, settings, inputs)
        for checkpoint in found:
            problem = problem_of(checkpoint)
            if problem is None:
                logger.info("Resuming from %s.", checkpoint)
                return str(checkpoint)
            aside = _set_aside(checkpoint)
            logger.warning("%s is not whole (%s): it is now %s.", checkpoint, problem, aside.name)
    logger.warning("%s has no whole checkpoint: the run starts from the beginning.", folder)
    return None


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, newest first."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    matches = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    numbered = [(int(match[1]), path) for match, path in matches if match and path.is_dir()]
    return [path for _, path in sorted(numbered, reverse=True)]


def check_same_run(folder: Path, settings: Mapping[str, object], inputs: Mapping[str, str]) -> None:
    """Check that a folder's `settings.json` is that of a run with the same settings and inputs.

    Raises:
        ValueError: it is not; the message names what differs.
    """
    try:
        before = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = {}
    inputs_before = before.get(INPUTS, {})
    changed = [f"{name}: another one" for name in inputs if inputs_before.get(name) != inputs[name]] if before else []
    changed = [
        f"{name}: {repr(before[name]) if name in before else 'not recorded'} before, {settings[name]!r} now"
        for name in settings
        if before.get(name) != settings[name]
    ] + changed
    if changed:
        raise ValueError(
            f"output_dir={folder} holds checkpoints of a run with other settings or inputs ({', '.join(changed[:5])}). "
            "Pass another --output_dir, or delete them."
        )


def problem_of(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be resumed from, in a few words; None if it can."""
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        step = state["global_step"]
    except FileNotFoundError:
        return f"no {TRAINER_STATE_NAME}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{TRAINER_STATE_NAME} is damaged"
    if checkpoint.name != f"{PREFIX_CHECKPOINT_DIR}-{step}":
        return f"{TRAINER_STATE_NAME} is that of step {step}"
    weights = [path for pattern in _WEIGHTS for path in checkpoint.glob(pattern)]
    if not weights:
        return "no weights"
    # That of a sharded model is optimizer.bin, or a folder for each optimizer.
    optimizer = [*checkpoint.glob("optimizer*")] or [checkpoint / OPTIMIZER_NAME]
    parts = {*weights, *optimizer, checkpoint / SCHEDULER_NAME, *_parts_of_index(checkpoint)}
    parts |= {*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")}
    damaged = sorted(path.name for path in parts if not _is_whole(path))
    return f"{', '.join(damaged)} missing or damaged" if damaged else None


def is_finished(checkpoint: str | os.PathLike, max_minutes: float | None = None) -> bool:
    """Whether a run has nothing left to train after this checkpoint.

    Args:
        checkpoint: a whole one.
        max_minutes: the time of a run that has a `TimeLimit`; then it counts, and not the steps.
    """
    state = json.loads(Path(checkpoint, TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    if max_minutes is None:
        return state["global_step"] >= state["max_steps"]
    limit = state.get("stateful_callbacks", {}).get("TimeLimit", {})
    return limit.get("attributes", {}).get("seconds", 0.0) >= 60 * max_minutes


def _parts_of_index(checkpoint: Path) -> set[Path]:
    """The files that indices of weights in parts name."""
    parts: set[Path] = set()
    for index in checkpoint.glob("*.index.json"):
        try:
            parts |= {
                checkpoint / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            parts.add(index)
    return parts


def _is_whole(path: Path) -> bool:
    """Whether a file of tensors can be read."""
    if path.is_dir():
        return any(path.iterdir())
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:  # compares the length with that of the header
                return file.keys() is not None
        with zipfile.ZipFile(path) as file:  # what torch.save writes, with checksums
            return file.testzip() is None
    except (OSError, SafetensorError, zipfile.BadZipFile):
        return False


def _set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that nothing takes it for one."""
    numbers = ("", *(f"-{number}" for number in range(2, 1000)))
    names = (checkpoint.with_name(f"incomplete-{checkpoint.name}{number}") for number in numbers)
    return checkpoint.rename(next(path for path in names if not path.exists()))
