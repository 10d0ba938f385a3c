"""Where a measurement comes from: command, versions, machine. And keeping it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def provenance(script: str, arguments: Sequence[str] | None, packages: Sequence[str]) -> dict:
    """Command, versions and machine of a run.

    Args:
        script: the script's path below the project.
        arguments: of its command line; by default those of this process.
        packages: whose versions count.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return {
        "command": shlex.join(["python", script, *arguments]),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "git": git_revision(),
        },
        "cores": {"present": os.cpu_count(), "allowed": len(os.sched_getaffinity(0))},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "cpu": platform.processor() or platform.machine(),
    }


def git_revision() -> str:
    """The commit, with "-dirty" behind it if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def keep(report: dict, path: str | os.PathLike) -> None:
    """Write a report as JSON."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
