import sys
import time

import psutil
import pytest
from processes import run_program

# A program that starts another, and both wait: what a launcher does whose worker hangs.
WAITS = """
import subprocess, sys, time
if sys.argv[1] == "child":
    def hangs(): time.sleep(600)
    hangs()
child = subprocess.Popen([sys.executable, __file__, "child"])
print("child", child.pid, flush=True)
child.wait()
"""


def test_what_takes_too_long_fails_with_its_stacks_and_leaves_no_process(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    with pytest.raises(pytest.fail.Exception, match="took more than 10 s") as failure:
        run_program([sys.executable, script, "parent"], timeout=10)
    text = str(failure.value)
    assert "in hangs" in text and "in wait" in text, text
    pid = int(text.split("child ")[1].split()[0])
    for _ in range(50):  # whoever inherits a dead process takes a moment to reap it
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"process {pid} is still there")


def test_what_fails_fails_the_test_unless_it_may():
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(AssertionError, match="no such thing"):
        run_program(command)
    assert run_program(command, check=False).returncode == 1
