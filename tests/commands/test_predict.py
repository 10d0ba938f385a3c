"""`kept-hf predict`, in process: what is printed and what is written."""

import json

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


def test_wrong_options(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        run(folder, "--top_k", "-1")
    assert stop.value.code == 2 and "--top_k -1 is less than 0" in capsys.readouterr().err
