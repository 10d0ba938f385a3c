"""Programs that tests start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

import psutil
import pytest


def run_program(command: Sequence[object], timeout: float = 400, check: bool = True, **options):
    """`subprocess.run` with its texts captured.

    What takes too long fails the test with what each of its processes was doing, and no process stays behind:
    `subprocess.run` ends the program alone, and then waits for those that it had started.
    """
    environment = {**(options.pop("env", None) or os.environ), "PYTHONFAULTHANDLER": "1"}
    command = list(map(str, command))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes, **options)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        # All stand still first, so that none goes on for a moment when another ends; the second signal makes Python
        # write its stacks as soon as the third lets it.
        for number in (signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT):
            send(family, number)
        _, left = psutil.wait_procs(family, timeout=30)
        send(left, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{command[:6]} took more than {timeout} s.\n{out[-2000:]}\n{err[-10000:]}")
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        # The cause stands at the start where a process of several was aborted, at the end of an ordinary error.
        assert done.returncode == 0, "\n".join((done.stdout[-2000:], done.stderr[:4000], done.stderr[-4000:]))
    return done


def send(processes: Sequence[psutil.Process], number: int):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
