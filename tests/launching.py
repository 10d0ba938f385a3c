"""Commands started as users start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from processes import run_program

ROOT = Path(__file__).parents[1]
CODES = ("401.9", "428.0", "038.9", "584.9", "486")
"""Of the demo corpus: so few that a run takes seconds."""


def launch(*arguments: str, processes: int = 1, check: bool = True) -> subprocess.CompletedProcess:
    """`accelerate launch` of a script, or of `-m` and a module, without network."""
    # "--cpu --num_processes 2" would start one process; "--multi_gpu" with use_cpu starts two.
    # A port for each worker of pytest-xdist.
    port = 29500 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    options = [
        "--num_processes",
        str(processes),
        *(("--multi_gpu", "--main_process_port", str(port)) * (processes > 1)),
    ]
    script = ["-m", "accelerate.commands.launch", "--mixed_precision", "no", "--num_machines", "1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *script, "--dynamo_backend", "no", *options, *arguments]
    return run_program(command, check=check, cwd=ROOT, env=environment)


def logged_losses(folder: Path) -> list[float]:
    """The losses of a run of four steps."""
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]
