"""`kept-hf predict`, in process: what is printed and what is written."""

import json
import re

import numpy as np
import pytest
from transformers import pipeline

from kept_hf import ICDCodeSet, KeptProcessor
from kept_hf.commands import predict

NOTE = "chief complaint: fever and cough."


@pytest.fixture
def folder(tiny_model, roberta_tokenizer, tmp_path):
    """A saved model with 70 codes."""
    code_set = ICDCodeSet([f"A{number}.{digit}" for number in range(10, 17) for digit in range(10)])
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200, codes_per_prompt=10)
    for name, value in processor.config_overrides().items():
        setattr(tiny_model.config, name, value)
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "note.txt").write_text(NOTE)
    return tmp_path


def run(folder, *options):
    output = folder / "predictions.jsonl"
    output.unlink(missing_ok=True)
    source = ["--model", folder / "model", "--input", folder / "note.txt", "--output", output]
    predict.main([str(argument) for argument in (*source, *options)])
    (line,) = map(json.loads, output.read_text().splitlines())
    assert line["note_id"] == "note"
    return line["codes"]


def test_the_50_best_and_what_is_assigned_are_written(folder, capsys):
    scored = {code["code"]: code["score"] for code in pipeline("icd-coding", model=str(folder / "model"))(NOTE)}
    assert len(scored) == 70
    best = sorted(scored, key=scored.get, reverse=True)
    values = np.array([scored[code] for code in best])

    codes = run(folder, "--threshold", values[3] + 1e-4)
    assert [code["code"] for code in codes] == best[:50] and sum(code["assigned"] for code in codes) == 3
    assert [code["score"] for code in codes] == pytest.approx(values[:50].tolist(), abs=1e-5)
    printed = capsys.readouterr().out
    assert "note: 3 codes assigned" in printed and "the 50 best codes" in printed
    assert [line.split()[1 if "*" in line else 0] for line in printed.splitlines() if "%  " in line] == best[:5]

    assert len(run(folder, "--threshold", (values[59] + values[60]) / 2)) == 60, "all that are assigned"
    assert [code["code"] for code in run(folder, "--threshold", 1e3, "--top_k", "65")] == best[:65]
    assert "the 65 best codes" in capsys.readouterr().out


def test_notes_of_tables_and_folders(tmp_path):
    (tmp_path / "notes.csv").write_text('note_id,text\n007,"Fever,\ncough"\n08,Sepsis\n')
    assert predict.read_input(str(tmp_path / "notes.csv")) == (["007", "08"], ["Fever,\ncough", "Sepsis"])
    (tmp_path / "notes.jsonl").write_text('{"text": "Fever"}\n{"note_id": 7, "text": "Sepsis"}\n')
    assert predict.read_input(str(tmp_path / "notes.jsonl")) == (["line 1", "7"], ["Fever", "Sepsis"])
    (tmp_path / "b.txt").write_text("Sepsis")
    (tmp_path / "a.txt").write_text("Fever")
    assert predict.read_input(str(tmp_path)) == (["a", "b"], ["Fever", "Sepsis"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.json", "[]", r"--input .*notes\.json: pass a table with a note per row"),
        ("notes.csv", "a,b\n1,2\n", r"--input has .*notes\.csv', which has no column text; it has: a, b"),
        ("note.txt", " \n", r"--input .*note\.txt: the note is empty"),
        ("notes.jsonl", '{"text": "secret"}\n{"text": 3}\n', r"--input has .*line 2: expected"),
    ],
)
def test_bad_notes(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit) as stop:
        predict.main(["--model", "nowhere", "--input", str(tmp_path / name)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and re.search(message, error) and "secret" not in error


def test_wrong_options(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        run(folder, "--top_k", "-1")
    assert stop.value.code == 2 and "--top_k -1 is less than 0" in capsys.readouterr().err
