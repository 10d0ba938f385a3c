"""What the tests of `kept-hf train` and of its results share."""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

REPORT = (
    "all_results.json",
    "code_set.json",
    "config.json",
    "f1_by_frequency.png",
    "model.safetensors",
    "per_code.csv",
    "precision_recall.png",
    "predictions.jsonl",
    "processor_config.json",
    "settings.json",
    "tokenizer.json",
)
TRAINED = ("--matching_examples", "16")
LATE_INTERACTION = ("--scorer", "matching", "--matching_examples", "8")
ADAPTED = ("--peft", "lora+bias", "--learning_rate", "0.01", "--matching_examples", "16")


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """What a command changes in its process is as before afterwards: random states, threads, levels of logging."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads = torch.get_num_threads()
    levels = {name: logging.getLogger(name).level for name in (None, "httpx", "gensim")}
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def results_of(folder: Path) -> dict:
    """Content of `all_results.json`."""
    return json.loads((folder / "all_results.json").read_text(encoding="utf-8"))


def lines_of(path: Path) -> list[dict]:
    """Content of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
