"""Files are whole or not there, whatever happens while they are written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kept_hf.models.whole_file import whole_file, whole_path, write_text


def test_new_content_takes_the_place_of_old(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old\r\n")
    with whole_file(path) as file:
        file.write("new é\n")
        file.flush()
        assert path.read_bytes() == b"old\r\n", "until all is written"
    assert path.read_text(encoding="utf-8") == "new é\n" and os.listdir(tmp_path) == ["a.txt"]
    with whole_file(path, "wb") as file:
        file.write(b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_ending_stays(tmp_path):
    with whole_path(tmp_path / "a.png") as unfinished:
        assert Path(unfinished).suffix == ".png" and Path(unfinished).parent == tmp_path
        Path(unfinished).write_bytes(b"1")
    assert (tmp_path / "a.png").read_bytes() == b"1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_after_an_error_all_is_as_before(tmp_path, error):
    write_text(tmp_path / "a", "before")
    with pytest.raises(error), whole_file(tmp_path / "a") as file:
        file.write("half")
        raise error
    assert (tmp_path / "a").read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_after_a_kill_the_old_content_is_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    script = (
        "import sys, time\nfrom kept_hf.models.whole_file import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n"
        "    file.write('x' * 100_000); file.flush(); print('written', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "before"


def test_a_full_disk(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "before")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_every_output_is_written_so():
    """No module opens an output by itself: a kill in between would leave half of it under its name."""
    package = Path(__file__).parents[2] / "src" / "kept_hf"
    found = []
    for path in package.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            signs = (".write_text(", ".write_bytes(", 'path, "w', "save_file(path", "savefig(path")
            writes = any(sign in line for sign in signs)
            if writes and "whole_file(" not in line and ">>>" not in line and "..." not in line:
                found.append(f"{path.relative_to(package)}:{number}: {line.strip()}")
    assert found == []
