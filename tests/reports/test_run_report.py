"""`kept_hf.reports.run.write_report`, which the training commands end with."""

import csv
import json
import time

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from transformers import TrainingArguments

from kept_hf import ICDCodeSet
from kept_hf.corpora import Corpus, CorpusCard
from kept_hf.metrics import best_micro_f1_threshold, icd_metrics
from kept_hf.reports import run as report
from kept_hf.reports.run import EvaluatedSplit, write_report

CODES = ["038.9", "401.9", "486"]
GOLD = {
    "train": [["401.9"], ["401.9", "486"], ["401.9"]],
    "validation": [["401.9"], ["486"]],
    "test": [["038.9", "401.9"], ["401.9"], [], ["486"]],
}


@pytest.fixture
def corpus():
    splits = {
        split: Dataset.from_dict(
            {
                "note_id": [f"{split}-{number}" for number in range(len(gold))],
                "text": [f"a secret text {number}" for number in range(len(gold))],
                "codes": gold,
            }
        )
        for split, gold in GOLD.items()
    }
    card = CorpusCard("Toy", "Made up.", "nowhere", "cc0-1.0", "en", {})
    return Corpus(DatasetDict(splits), ICDCodeSet(CODES, {"038.9": "Septicemia"}), card)


@pytest.fixture
def write(corpus, tmp_path):
    """Write the report of some scores; returns what `write_report` does."""

    def run(split="test", seed=0, record=None, **options):
        labels = np.array([[code in gold for code in CODES] for gold in GOLD[split]], dtype=int)
        scores = np.random.default_rng(seed).normal(size=labels.shape).astype(np.float32) + labels
        training = TrainingArguments(tmp_path, use_cpu=True, report_to="none")
        evaluated = EvaluatedSplit(split, scores, labels, 0.5, best_micro_f1_threshold)
        return write_report(training, corpus, evaluated, record or {}, time.time(), **options), scores, labels

    return run


def test_the_files_say_what_the_scores_are(write, tmp_path, capsys):
    results, scores, labels = write(record={"command": "a command", "seed": 7})
    assert json.loads((tmp_path / "all_results.json").read_text()) == results
    for name, value in icd_metrics(scores, labels, threshold=0.5).items():
        assert results[f"test_{name}"] == pytest.approx(value), name
    assert results["command"] == "a command" and results["seed"] == 7
    assert results["notes"] == {"train": 3, "validation": 2, "test": 4} and results["codes"] == 3
    assert results["corpus"]["license"] == "cc0-1.0" and results["threshold"] == 0.5

    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["note_id"] for line in lines] == [f"test-{number}" for number in range(4)]
    with open(tmp_path / "per_code.csv", encoding="utf-8") as file:
        assert [row["code"] for row in csv.DictReader(file)] == CODES
    for picture in ("precision_recall.png", "f1_by_frequency.png"):
        assert (tmp_path / picture).stat().st_size > 5_000
    everything = "".join(p.read_text() for p in tmp_path.iterdir() if p.suffix in (".json", ".jsonl", ".csv"))
    printed = capsys.readouterr().out
    assert "secret" not in everything + printed
    assert "training frequency" in printed and "this model" in printed and "optimistic" not in printed


def test_frequency_alone_is_evaluated_by_a_threshold_of_validation(write):
    """401.9 is in three training notes: whoever assigns it to all validation notes has their best micro-F1."""
    results, _, labels = write()
    guess = np.tile([0.0, 3.0, 1.0], (4, 1))
    validation = np.array([[0, 1, 0], [0, 0, 1]])
    threshold = best_micro_f1_threshold(np.tile([0.0, 3.0, 1.0], (2, 1)), validation)
    for name, value in icd_metrics(guess, labels, threshold=threshold).items():
        assert results[f"frequency_{name}"] == pytest.approx(value), name


def test_validation_in_place_of_test_is_called_optimistic(write, capsys):
    results, _, _ = write("validation", by_frequency=True)
    printed = capsys.readouterr().out
    assert "optimistic" in printed and "F1 by how often a code occurs in training" in printed
    assert results["evaluated_on"] == "validation" and "validation_f1_micro" in results


@pytest.mark.parametrize("step", ["plot_precision_recall", "plot_f1_by_frequency", "write_per_code"])
def test_a_run_that_breaks_off_has_no_results(write, tmp_path, monkeypatch, step):
    def broken(*arguments, **options):
        raise RuntimeError("no space left")

    write()
    assert (tmp_path / "all_results.json").exists()
    monkeypatch.setattr(report, step, broken)
    with pytest.raises(RuntimeError, match="no space left"):
        write()
    assert not (tmp_path / "all_results.json").exists(), "neither of this run nor of the one before"


def test_the_best_50_codes_of_a_note_are_kept_beside_those_that_count(tmp_path):
    codes = [f"A{number:02}.{digit}" for number in range(20) for digit in range(10)]
    gold = [[codes[number], codes[-1]] for number in range(4)]
    notes = Dataset.from_dict({"note_id": list("abcd"), "text": list("efgh"), "codes": gold})
    card = CorpusCard("Toy", "Made up.", "nowhere", "cc0-1.0", "en", {})
    corpus = Corpus(DatasetDict(train=notes, validation=notes), ICDCodeSet(codes), card)
    labels = np.array([corpus.code_set.multi_hot(note_gold) for note_gold in gold])
    scores = np.random.default_rng(0).normal(size=labels.shape) - labels
    scores[0, :60] = 9
    evaluated = EvaluatedSplit("validation", scores, labels, 5.0, best_micro_f1_threshold)
    write_report(TrainingArguments(tmp_path, use_cpu=True, report_to="none"), corpus, evaluated, {}, time.time())
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    for row, (line, note_gold) in enumerate(zip(lines, gold, strict=True)):
        best = np.argsort(-scores[row], kind="stable")[: 60 if row == 0 else 50]
        assert {code["code"] for code in line["codes"]} == {*np.array(codes)[best], *note_gold}
    with open(tmp_path / "per_code.csv", encoding="utf-8") as file:
        assert [row["code"] for row in csv.DictReader(file)] == sorted(codes), "the table per code has all"


def test_few_codes_of_a_note_are_kept_beside_those_that_count(write, tmp_path):
    _, scores, _ = write(max_codes=1)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    for line, note_scores, gold in zip(lines, scores, GOLD["test"], strict=True):
        expected = {CODES[note_scores.argmax()], *gold, *np.array(CODES)[note_scores > 0.5]}
        assert {code["code"] for code in line["codes"]} == expected


def test_the_report_says_which_kinds_of_mention_are_found(corpus, write, capsys):
    assert "assigned_by_mention" not in write()[0] and "mentions them" not in capsys.readouterr().out
    corpus.mentions = {("test-0", "401.9"): "abbreviation", ("test-3", "486"): "synonym", ("test-2", "486"): "negated"}
    results, scores, _ = write()
    assigned = scores > 0.5
    expected = [
        ("abbreviation", True, 1, assigned[0, 1]),
        ("none", True, 2, np.mean([assigned[0, 0], assigned[1, 1]])),
        ("synonym", True, 1, assigned[3, 2]),
        ("negated", False, 1, assigned[2, 2]),
    ]
    rows = [tuple(row.values()) for row in results["assigned_by_mention"]]
    assert rows[:4] == expected and rows[4][:3] == ("none", False, 7)
    assert "abbreviation" in capsys.readouterr().out
