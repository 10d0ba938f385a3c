"""Small runs that are interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import ROOT


@pytest.fixture(scope="session")
def train_command(train_arguments) -> list[str]:
    """`kept-hf train` with tiny settings: recipe and options."""
    return [str(argument) for argument in train_arguments[1:]]


@pytest.fixture
def hooked() -> str:
    """The program that runs a command with a fault (`interrupted.py`)."""
    return str(Path(ROOT, "tests", "faults", "interrupted.py"))
