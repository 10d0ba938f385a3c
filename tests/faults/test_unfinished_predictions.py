"""`kept-hf predict` loses no prediction, whatever happens to it, its terminal or its disk while it works."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kept_hf import ICDCodeSet
from kept_hf.commands import predict
from kept_hf.commands.printing import LenientStream
from kept_hf.reports.unfinished import UnfinishedPredictions

CODE_SET = ICDCodeSet(["I10", "A41.9", "J18.9"], {"I10": "Hypertension", "A41.9": "Sepsis", "J18.9": "Pneumonia ≥ 1"})
NOTES = [("a é", "fever"), ("b", "cough"), ("c", "sepsis"), ("d", "fall"), ("e", "pain"), ("f", "rest")]


class FakeCoder:
    """What `predict` asks of a pipeline: scores that tell the notes apart.

    Args:
        before: called with the number of each note before it is scored.
    """

    def __init__(self, before=lambda number: None, threshold=0.25):
        self.processor = SimpleNamespace(code_set=CODE_SET)
        self.model = SimpleNamespace(config=SimpleNamespace(threshold=threshold))
        self.before, self.scored = before, []

    def __call__(self, texts):
        for number, text in enumerate(texts):
            self.before(number)
            self.scored.append(text)
            yield [
                {"code": code, "score": float((sum(map(ord, text)) * (index + 3)) % 17 - 8)}
                for index, code in enumerate(CODE_SET)
            ]


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"note_id": note_id, "text": text}) for note_id, text in NOTES]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch):
    """The command with a coder; the texts that it scored."""

    def run(*options, coder=None, notes="notes.jsonl", output="out.jsonl"):
        coder = coder or FakeCoder()
        monkeypatch.setattr(predict, "load_coder", lambda *_: coder)
        paths = ["--input", str(folder / notes), "--output", str(folder / output)]
        predict.main(["--model", "owner/model", *paths, *options])
        return coder.scored

    return run


@pytest.fixture
def expected(run, folder) -> bytes:
    """What a run that nothing happens to writes."""
    run(output="expected.jsonl")
    return (folder / "expected.jsonl").read_bytes()


def refused(run, capsys, *options, **more) -> str:
    """The line that the command ends with."""
    with pytest.raises(SystemExit) as stop:
        run(*options, **more)
    assert stop.value.code in (1, 2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kept-hf predict: error: ")
    return line


def fail_at(number):
    """A coder that fails before it scores a note."""

    def before(index):
        if index == number:
            raise ValueError("broken")

    return FakeCoder(before)


def test_each_note_is_written_before_the_next_is_scored(run, folder):
    def before(number):
        part = folder / "out.jsonl.part"
        assert len(part.read_bytes().splitlines()) == number and not (folder / "out.jsonl").exists()

    assert len(run(coder=FakeCoder(before))) == len(NOTES)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["note_id"] for line in lines] == [note_id for note_id, _ in NOTES]
    assert sorted(os.listdir(folder)) == ["notes.jsonl", "out.jsonl"]


def test_a_stopped_command_goes_on(run, folder, expected, capsys):
    line = refused(run, capsys, coder=fail_at(4))
    assert (
        line == f"kept-hf predict: error: broken; 4 of 6 notes are in {folder}/out.jsonl.part, pass --resume to go on"
    )
    assert "was left by a process that was stopped; pass --resume" in refused(run, capsys)
    assert run("--resume") == [text for _, text in NOTES[4:]]
    assert "Going on after 4 of 6 notes" in capsys.readouterr().out
    assert (folder / "out.jsonl").read_bytes() == expected
    assert sorted(os.listdir(folder)) == ["expected.jsonl", "notes.jsonl", "out.jsonl"]


def test_resume_without_anything_to_resume(run, folder, expected):
    assert len(run("--resume")) == len(NOTES)
    assert (folder / "out.jsonl").read_bytes() == expected


@pytest.mark.parametrize(
    "torn", [b'{"note_id": "e", "co', b'{"note_id": "e"}', b"\xff\x00\x00", b"\x00\x00\n", b"x" * 9999]
)
def test_a_torn_last_line_is_written_again(run, folder, expected, capsys, torn):
    refused(run, capsys, coder=fail_at(4))
    with open(folder / "out.jsonl.part", "ab") as file:
        file.write(torn)
    assert run("--resume") == [text for _, text in NOTES[4:]]
    assert (folder / "out.jsonl").read_bytes() == expected


def change_input(folder):
    text = (folder / "notes.jsonl").read_text()
    (folder / "notes.jsonl").write_text(text.replace("fever", "no fever"))


def change_ids(folder):
    text = (folder / "notes.jsonl").read_text()
    (folder / "notes.jsonl").write_text(text.replace('"c"', '"secret"'))


def shorten_input(folder):
    lines = (folder / "notes.jsonl").read_text().splitlines(keepends=True)
    (folder / "notes.jsonl").write_text("".join(lines[:3]))


def damage_part(folder):
    part = folder / "out.jsonl.part"
    part.write_bytes(part.read_bytes().replace(b'"b"', b'b"', 1))


def lose_record(folder):
    (folder / "out.jsonl.part.json").write_text("[")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, ["--threshold", "1"], "made with another threshold (0.25 before, 1.0 now); pass the same"),
        (None, ["--top_k", "60"], "made with another number of written codes (50 before, 60 now)"),
        (None, ["--model", "owner/other"], "made with another model;"),
        (change_input, [], "made with another input;"),
        (change_ids, [], "has another note in line 3 than the input; pass the same --input"),
        (shorten_input, [], "has another note in line 4 than the input"),
        (damage_part, [], "is damaged in line 2; delete it"),
        (lose_record, [], "which says what"),
    ],
)
def test_what_changed_is_named_and_nothing_is_lost(run, folder, capsys, change, options, message):
    refused(run, capsys, coder=fail_at(4))
    if change is not None:
        change(folder)
    before = (folder / "out.jsonl.part").read_bytes()
    line = refused(run, capsys, "--resume", *options)
    assert message in line and line.startswith(f"kept-hf predict: error: --output {folder}/out.jsonl: ")
    assert (folder / "out.jsonl.part").read_bytes() == before
    assert "secret" not in line


def test_other_codes_are_named(run, capsys, monkeypatch):
    refused(run, capsys, coder=fail_at(4))
    coder = FakeCoder()
    coder.processor.code_set = ICDCodeSet(["I10", "A41.9", "J18.9"])
    assert "made with another code set;" in refused(run, capsys, "--resume", coder=coder)


@pytest.mark.parametrize("options", [[], ["--resume"]])
def test_a_second_process_is_refused(run, folder, capsys, options):
    with UnfinishedPredictions(folder / "out.jsonl") as first:
        first.begin({}, ["a"])
        first.write('{"note_id": "a"}')
        assert "another process is writing it" in refused(run, capsys, *options)
        first.finish()
    assert (folder / "out.jsonl").read_text() == '{"note_id": "a"}\n'


def test_where_files_cannot_be_locked(run, folder, expected, capsys, monkeypatch):
    """As on Windows, which also renames no file that is open."""
    rename, part = os.replace, str(folder / "out.jsonl.part")

    def replace(source, target):
        opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        assert Path(source).resolve() not in opened
        rename(source, target)

    monkeypatch.setattr("kept_hf.reports.unfinished.fcntl", None)
    refused(run, capsys, coder=fail_at(0))
    assert sorted(os.listdir(folder)) == ["expected.jsonl", "notes.jsonl"]
    refused(run, capsys, coder=fail_at(4))
    assert os.path.exists(part)
    monkeypatch.setattr(os, "replace", replace)
    assert run("--resume") == [text for _, text in NOTES[4:]]
    assert (folder / "out.jsonl").read_bytes() == expected


def test_an_output_that_appears_meanwhile_stays(run, folder, capsys):
    def before(number):
        (folder / "out.jsonl").write_text("of another program")

    line = refused(run, capsys, coder=FakeCoder(before))
    assert f"another process has made {folder}/out.jsonl; the predictions are in {folder}/out.jsonl.part" in line
    assert (folder / "out.jsonl").read_text() == "of another program"
    assert len((folder / "out.jsonl.part").read_bytes().splitlines()) == len(NOTES)


def test_a_full_disk_loses_nothing(run, folder, expected, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def before(number):
        if number == 4:
            size = os.path.getsize(folder / "out.jsonl.part")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))

    try:
        line = refused(run, capsys, coder=FakeCoder(before))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "out.jsonl.part cannot be written: File too large; 4 of 6 notes are in" in line
    assert run("--resume") == [text for _, text in NOTES[4:]]
    assert (folder / "out.jsonl").read_bytes() == expected


def test_a_failed_start_leaves_nothing(run, folder, capsys):
    (folder / "empty.jsonl").write_text("")
    assert "holds no notes" in refused(run, capsys, notes="empty.jsonl")
    assert "has the threshold nan; pass --threshold" in refused(run, capsys, coder=FakeCoder(threshold=float("nan")))
    refused(run, capsys, coder=fail_at(0))
    assert sorted(os.listdir(folder)) == ["empty.jsonl", "notes.jsonl"]


def test_scores_that_are_no_numbers(run, folder, capsys, monkeypatch):
    coder = FakeCoder()
    monkeypatch.setattr(coder, "processor", SimpleNamespace(code_set=CODE_SET))
    monkeypatch.setattr(
        FakeCoder, "__call__", lambda *_: iter([[{"code": code, "score": float("nan")} for code in CODE_SET]])
    )
    assert "the model gives scores that are no numbers (NaN)" in refused(run, capsys, coder=coder)
    assert not (folder / "out.jsonl").exists()


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_threshold_is_a_number(run, folder, capsys, text):
    with pytest.raises(SystemExit):
        run(f"--threshold={text}")
    assert "is no finite number" in capsys.readouterr().err.splitlines()[-1]
    assert os.listdir(folder) == ["notes.jsonl"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/out.jsonl", "there is no such folder"),
        ("notes.jsonl/out.jsonl", "notes.jsonl is a file; pass a folder"),
        ("notes.jsonl", "the file exists; pass another one, or delete it"),
        ("", "the folder exists"),
        ("x" * 300, "File name too long"),
    ],
)
def test_outputs_that_cannot_be(run, capsys, output, message):
    assert message in refused(run, capsys, notes="no notes are read", output=output)


def test_a_folder_that_may_not_be_written(run, folder, capsys, monkeypatch):
    monkeypatch.setattr("kept_hf.training.output_dir.os.access", lambda *_: False)  # root may write anywhere
    assert f"{folder} may not be written; pass another folder" in refused(run, capsys, notes="no notes are read")


def test_bad_lines(run, folder, capsys):
    lines = (folder / "notes.jsonl").read_bytes().splitlines()
    lines[1:1] = [rb'{"text": "\ud800 private"}', b'{"text": "\xe9 private"}', b'{"text": "' + b"x" * 51 + b'"}']
    (folder / "notes.jsonl").write_bytes(b"\n".join(lines))
    scored = []
    line = refused(run, capsys, "--max_note_chars", "50", coder=FakeCoder(scored.append))
    assert "line 2: the column text has a lone surrogate" in line and "private" not in line and not scored
    assert run("--max_note_chars", "50", "--skip_bad_lines") == [text for _, text in NOTES]
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.endswith(
        "notes.jsonl: 3 lines left out: lone surrogate (2), not UTF-8 (3), longer than 50 characters (4)."
    )
    assert len((folder / "out.jsonl").read_bytes().splitlines()) == len(NOTES)


def test_a_note_is_a_million_characters_at_most(run, folder, capsys):
    (folder / "long.txt").write_text("x" * 1_000_001)
    assert "a note of 1,000,001 characters, and max_note_chars=1,000,000" in refused(run, capsys, notes="long.txt")
    assert len(run("--max_note_chars", "1000001", notes="long.txt")) == 1


class Standard:
    """Standard input of some bytes."""

    def __init__(self, content):
        self.buffer = io.BytesIO(content)


def test_standard_input(monkeypatch):
    def read(content, most=4):
        monkeypatch.setattr(sys, "stdin", Standard(content))
        return predict.read_input("-", most)

    assert read("é\r\n".encode()) == (["stdin"], ["é\n"])
    assert read(b"\xef\xbb\xbf" + "😀😀😀😀".encode()) == (["stdin"], ["😀😀😀😀"])
    for content, message in (
        (b"abcde", "more than max_note_chars=4"),
        (b"a" * 100, "more than"),
        (b"\xe9", "not UTF-8"),
    ):
        with pytest.raises(ValueError, match=message):
            read(content)
    with pytest.raises(ValueError, match="the note is empty"):
        read(b"")


def test_a_huge_standard_input_is_not_read(monkeypatch):
    source = Standard(b"a" * 1000)
    monkeypatch.setattr(sys, "stdin", source)
    with pytest.raises(ValueError, match="more than max_note_chars=4"):
        predict.read_input("-", 4)
    assert len(source.buffer.read()) > 900


def test_a_terminal_that_knows_ascii_only(run, folder, expected, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    run()
    printed = terminal.buffer.getvalue().decode()
    assert "a ?: " in printed and "Pneumonia ? 1" in printed and "Not for clinical use" in printed
    assert (folder / "out.jsonl").read_bytes() == expected


@pytest.mark.parametrize("stdout", ["broken pipe", "full disk", "closed", "none"])
def test_no_reader_of_what_is_printed(run, folder, expected, monkeypatch, capfd, stdout):
    if stdout == "broken pipe":
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    elif stdout == "full disk":
        stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    elif stdout == "closed":
        stream = io.StringIO()
        stream.close()
    else:
        stream = None
    monkeypatch.setattr(sys, "stdout", stream)
    run()
    assert (folder / "out.jsonl").read_bytes() == expected
    if stream is not None:
        stream.close()  # raises what was left to be written to the pipe


def test_a_description_with_half_a_character(run, folder, capsys):
    coder = FakeCoder()
    coder.processor.code_set = ICDCodeSet(list(CODE_SET), {**dict.fromkeys(CODE_SET, "x"), "I10": "a\ud800"})
    run(coder=coder)
    assert r"a\ud800" in capsys.readouterr().out
    codes = json.loads((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])["codes"]
    assert {code["description"] for code in codes} == {"x", "a\ud800"}


def test_a_stream_after_its_first_failure():
    class Pipe(io.StringIO):
        def write(self, text):
            written.append(text)
            raise BrokenPipeError

    written = []
    stream = LenientStream(Pipe())
    for _ in range(3):
        print("a", file=stream, flush=True)
    assert written == ["a"] and not stream.isatty()


SCRIPT = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
from test_unfinished_predictions import FakeCoder, predict
kill = lambda number: number == 4 and os.kill(os.getpid(), signal.SIGKILL)
predict.load_coder = lambda *_: FakeCoder(kill if sys.argv[3] == "kill" else lambda number: None)
predict.main(sys.argv[4:])
"""


def started(folder, kind, **options):
    """The command in a process of its own."""
    tests = os.path.dirname(os.path.abspath(__file__))
    paths = ["--input", folder / "notes.jsonl", "--output", folder / "out.jsonl"]
    command = [sys.executable, "-c", SCRIPT, tests, os.path.dirname(tests), kind, "--model", "owner/model", *paths]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(list(map(str, command)), env=environment, **options)


def test_a_kill_loses_nothing(run, folder, expected):
    with started(folder, "kill", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    assert len((folder / "out.jsonl.part").read_bytes().splitlines()) == 4
    assert run("--resume") == [text for _, text in NOTES[4:]]
    assert (folder / "out.jsonl").read_bytes() == expected


def test_head(folder, expected):
    """`kept-hf predict … 2>&1 | head -1`."""
    reader, writer = os.pipe()
    with started(folder, "whole", stdout=writer, stderr=writer) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            assert file.read(1)
        process.wait(timeout=200)
    assert process.returncode == 0
    assert (folder / "out.jsonl").read_bytes() == expected


def test_head_of_standard_output_alone(folder, expected):
    reader, writer = os.pipe()
    os.close(reader)
    with started(folder, "whole", stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 0 and not re.search("Traceback|BrokenPipe|ignored", errors)
    assert (folder / "out.jsonl").read_bytes() == expected
