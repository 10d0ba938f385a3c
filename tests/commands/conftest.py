"""Runs of `kept-hf train` within the test's process, which the files of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from train_runs import ADAPTED, LATE_INTERACTION, TRAINED, unchanged_process


@pytest.fixture(scope="session")
def run_train(train_arguments) -> Callable[..., None]:
    """`kept-hf train` with tiny settings and further options."""
    from kept_hf.commands import train

    def run(*options: object) -> None:
        with unchanged_process():
            train.main([*train_arguments[1:], *map(str, options)])

    return run


@pytest.fixture(scope="session")
def run_values(train_arguments) -> dict[str, str]:
    """The tiny settings: option → value."""
    return dict(zip(train_arguments[2::2], train_arguments[3::2], strict=True))


@pytest.fixture(scope="session")
def demo_notes(run_values) -> dict[str, dict]:
    """The demo's test notes by their ids."""
    from kept_hf.corpora import load_corpus

    return {row["note_id"]: row for row in load_corpus("demo", cache_dir=run_values["--cache_dir"]).dataset["test"]}


@pytest.fixture(scope="session")
def trained(run_train, tmp_path_factory) -> Path:
    """The folder of a run with the synthetic stage."""
    folder = tmp_path_factory.mktemp("trained")
    run_train(*TRAINED, "--output_dir", folder)
    return folder


@pytest.fixture(scope="session")
def late_interaction(run_train, tmp_path_factory) -> Path:
    """The folder of a run whose scorer is late interaction."""
    folder = tmp_path_factory.mktemp("late-interaction")
    run_train(*LATE_INTERACTION, "--output_dir", folder)
    return folder


@pytest.fixture(scope="session")
def adapted(run_train, tmp_path_factory) -> Path:
    """The folder of a run that trains an adapter after the synthetic stage."""
    folder = tmp_path_factory.mktemp("adapted")
    run_train(*ADAPTED, "--output_dir", folder)
    return folder
