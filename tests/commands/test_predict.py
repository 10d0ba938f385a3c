"""`kept-hf predict`, in process: what is printed and what is written."""

import json
import re

import numpy as np
import pytest
from launching import CODES
from train_runs import lines_of
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


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_all_notes_in_their_order_and_nothing_left_to_resume(folder, monkeypatch, batch_size):
    """Scored by length, written as they come."""
    texts = {f"note {number}": NOTE * (1 + number % 3) for number in range(7)}
    (folder / "notes.jsonl").write_text("\n".join(json.dumps({"note_id": i, "text": t}) for i, t in texts.items()))
    output, part = folder / "out.jsonl", folder / "out.jsonl.part"
    options = ["--model", str(folder / "model"), "--input", str(folder / "notes.jsonl"), "--output", str(output)]
    finish = predict.UnfinishedPredictions.finish
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(predict.UnfinishedPredictions, "finish", lambda _: (_ for _ in ()).throw(ValueError("stopped")))
        predict.main([*options, "--batch_size", batch_size])
    written = part.read_bytes()
    assert predict.UnfinishedPredictions.finish is finish
    predict.main([*options, "--batch_size", batch_size, "--resume"])
    assert output.read_bytes() == written
    lines = lines_of(output)
    assert [line["note_id"] for line in lines] == list(texts)
    alone = pipeline("icd-coding", model=str(folder / "model"))
    for line in lines[:3]:
        scores = {entry["code"]: entry["score"] for entry in alone(texts[line["note_id"]])}
        assert {entry["code"]: entry["score"] for entry in line["codes"]} == pytest.approx(
            {entry["code"]: scores[entry["code"]] for entry in line["codes"]}, abs=1e-4
        )


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
    printed = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and "--top_k -1 is less than 0" in printed[-1]
    assert len(printed) == 2, "the usage is a line"


def predicted(model, source, output) -> list[dict]:
    """What the command writes for a file of notes."""
    predict.main(["--model", str(model), "--input", str(source), "--output", str(output)])
    return lines_of(output)


def test_the_scores_of_training(trained, demo_notes, tmp_path, capsys):
    expected = lines_of(trained / "predictions.jsonl")[:3]
    notes = [{"note_id": line["note_id"], "text": demo_notes[line["note_id"]]["text"]} for line in expected]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)) + "\n")
    found = predicted(trained, tmp_path / "notes.jsonl", tmp_path / "out.jsonl")
    printed = capsys.readouterr().out
    assert all(line["note_id"] in printed for line in expected)
    for one, other in zip(found, expected, strict=True):
        assert one["note_id"] == other["note_id"]
        scores = {entry["code"]: entry["score"] for entry in one["codes"]}
        assert scores == pytest.approx({entry["code"]: entry["score"] for entry in other["codes"]}, abs=1e-4)


def test_late_interaction(late_interaction, tmp_path):
    (tmp_path / "note.txt").write_text("Fever and sepsis.")
    (line,) = predicted(late_interaction, tmp_path / "note.txt", tmp_path / "out.jsonl")
    assert {entry["code"] for entry in line["codes"]} <= set(CODES)


def test_the_merged_model_of_an_adapter(adapted, demo_notes, tmp_path):
    expected = lines_of(adapted / "predictions.jsonl")[0]
    (tmp_path / "note.txt").write_text(demo_notes[expected["note_id"]]["text"])
    (found,) = predicted(adapted, tmp_path / "note.txt", tmp_path / "out.jsonl")
    scores = {entry["code"]: entry["score"] for entry in found["codes"]}
    assert scores == pytest.approx({entry["code"]: entry["score"] for entry in expected["codes"]}, abs=1e-4)
    assert [entry["assigned"] for entry in found["codes"]] == [entry["assigned"] for entry in expected["codes"]]


@pytest.mark.parametrize("content", ['{"text": "a"}\n{"text": 3}\n', "no json\n", ""])
def test_the_bad_line_is_named(tmp_path, capsys, content):
    (tmp_path / "notes.jsonl").write_text(content)
    with pytest.raises(SystemExit) as stop:
        predict.main(["--model", "nowhere", "--input", str(tmp_path / "notes.jsonl")])
    assert stop.value.code == 2
    expected = "holds no notes" if not content else f"line {len(content.splitlines())}"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("notes.csv", "a,b", [], "has no column text"),
        ("note.txt", " \n", [], "the note is empty"),
        ("notes.jsonl", '{"note_id": 7, "text": "a"}\n{"note_id": "7", "text": "b"}\n', [], "line 2: the note_id has"),
        ("note.txt", "Fever", ["--output", "nowhere/out.jsonl"], "there is no such folder"),
        ("note.txt", "Fever", ["--output", __file__], "the file exists; pass another one, or delete it"),
        ("note.txt", "Fever", ["--batch_size", "0"], "--batch_size 0 is less than 1"),
    ],
)
def test_it_refuses_before_it_loads_the_model(tmp_path, capsys, name, content, options, expected):
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit):
        predict.main(["--model", "nowhere", "--input", str(tmp_path / name), *options])
    assert expected in capsys.readouterr().err


def refused_model(model, tmp_path, capsys) -> str:
    """The line that a model is refused with."""
    (tmp_path / "note.txt").write_text("Fever")
    with pytest.raises(SystemExit) as stop:
        predicted(model, tmp_path / "note.txt", tmp_path / "out.jsonl")
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"kept-hf predict: error: --model {model} ") and "that kept-hf train has fine-tuned" in line
    return line


def test_a_model_of_another_kind(msmn, tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "is no folder, and no model of the Hub" in refused_model(tmp_path / "nowhere", tmp_path, capsys)
    assert "is no fine-tuned KEPT model that can be loaded" in refused_model(tmp_path / "empty", tmp_path, capsys)
    assert "has no KeptProcessor" in refused_model(msmn[0], tmp_path, capsys)
    assert "has no KeptProcessor" in refused_model(tiny_checkpoint, tmp_path, capsys)


def test_a_model_without_codes(tiny_model, roberta_tokenizer, tmp_path, capsys):
    tiny_model.save_pretrained(tmp_path / "model")
    KeptProcessor(roberta_tokenizer, max_length=200).save_pretrained(tmp_path / "model")
    assert "has no codes of its own" in refused_model(tmp_path / "model", tmp_path, capsys)
