"""`benchmarks/few_shot`: what is chosen is chosen on training notes; the figures are those of the metrics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from kept_hf import ICDCodeSet
from kept_hf.candidates.candidates import Candidates
from kept_hf.metrics import best_micro_f1_threshold, icd_metrics

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.few_shot import protocol, run, systems, tables
from benchmarks.few_shot.bootstrap import compare
from benchmarks.few_shot.sets import BenchmarkSet

CODES = ("I10", "R05", "R50.9", "A41.9")
WORDS = {"I10": "hypertension", "R05": "cough", "R50.9": "fever", "A41.9": "sepsis", "Z99": "nothing"}


def notes(prefix: str, rows: list[list[str]]) -> Dataset:
    texts = [" and ".join(WORDS[code] for code in codes) or "well" for codes in rows]
    return Dataset.from_dict(
        {"note_id": [f"{prefix}{number}" for number in range(len(rows))], "text": texts, "codes": rows}
    )


@pytest.fixture
def data():
    train = notes("t", [["I10"], ["R05"], ["R50.9"], ["I10", "R05"], ["R05", "R50.9"], ["I10"]] * 4)
    dev = notes("d", [["I10"], ["R05", "R50.9"], ["A41.9"], ["Z99", "R05"], []])
    return BenchmarkSet(
        "made up", train, {"dev": dev}, ICDCodeSet(CODES, {code: WORDS[code] for code in CODES}), CODES[:3]
    )


def test_no_note_is_scored_by_a_system_that_learnt_from_it(data):
    learnt = []

    def system(train, code_set, seed, weight):
        known = set(train["note_id"])
        learnt.append(known)

        def score(texts):
            assert weight == 3 and seed == 7
            return Candidates.from_scores(np.full((len(texts), 4), len(learnt)), code_set.codes, 4)

        return score

    scores = protocol.score_with(system, "made up", data, 7, {"weight": 3}, folds=3)
    assert learnt[0] == set(data.train["note_id"]), "the reported notes are scored by one that learnt from all"
    assert scores.reported["dev"].scores[0, 0] == 1 and len(learnt) == 4
    for note, note_id in enumerate(data.train["note_id"]):
        part = protocol.fold_of(note_id, 3)
        assert scores.held_out.scores[note, 0] == 2 + part, "in the order of the notes"
        assert note_id not in learnt[1 + part]


def test_other_seeds_take_what_the_first_chose(data, tmp_path):
    row = run.Row("x", "x", {"": {}}, system="prior")
    with pytest.raises(FileNotFoundError, match="x: run first the seed 0"):
        run.measure(row, "set", data, 1, tmp_path)
    first, second = (run.measure(row, "set", data, seed, tmp_path) for seed in (0, 1))
    assert first["dev"] == second["dev"] and first["held_out"] == second["held_out"]


def test_threshold_is_that_of_the_training_notes_and_missed_codes_count(data):
    generator = np.random.default_rng(0)
    train, dev = (
        generator.normal(size=(len(rows), 4)).astype(np.float32) for rows in (data.train, data.reported["dev"])
    )
    scores = protocol.Scores(*(Candidates.from_scores(train, CODES, 4), {"dev": Candidates.from_scores(dev, CODES, 4)}))
    report = protocol.evaluate(scores, data)["dev"]
    gold_of = [
        [[int(code in codes) for code in CODES] for codes in rows["codes"]]
        for rows in (data.train, data.reported["dev"])
    ]
    tuned, labels = map(np.array, gold_of)
    threshold = best_micro_f1_threshold(train, tuned)
    assert report["codes"]["threshold"] == pytest.approx(float(threshold))
    expected = icd_metrics(dev, labels, ks=(), threshold=threshold)
    hit, assigned = ((dev > threshold) & (labels > 0)).sum(), (dev > threshold).sum()
    found = report["codes"]["metrics"]
    assert found["f1_micro"] == pytest.approx(2 * hit / (assigned + labels.sum() + 1), abs=1e-5), "Z99 is missed"
    assert found["f1_macro"] == pytest.approx(expected["f1_macro"], abs=1e-5)
    precisions = report["codes"]["notes"]["average_precision"]
    alone = [icd_metrics(dev[[note]], labels[[note]], ks=(), threshold=threshold)["map"] for note in range(4)]
    assert precisions[:3] == pytest.approx(alone[:3], abs=1e-5)
    assert precisions[3] == pytest.approx(alone[3] / 2, abs=1e-5) and precisions[4] == 0
    assert found["map"] == pytest.approx(np.mean(precisions[:4]), abs=1e-5), "of the notes with a gold code"
    assert report["codes"]["notes"]["gold"] == [1, 2, 1, 2, 0]
    of_listed = icd_metrics(dev[:, :3], labels[:, :3], ks=(), threshold=report["listed"]["threshold"])
    assert report["listed"]["metrics"]["f1_macro"] == pytest.approx(of_listed["f1_macro"], abs=1e-5)


def test_codes_by_training_notes(data):
    perfect = np.array([[float(code in codes) for code in CODES] for codes in data.reported["dev"]["codes"]])
    train = np.array([[float(code in codes) for code in CODES] for codes in data.train["codes"]])
    scores = protocol.Scores(
        Candidates.from_scores(train, CODES, 4), {"dev": Candidates.from_scores(perfect, CODES, 4)}
    )
    found = protocol.evaluate(scores, data)["dev"]["codes"]["metrics"]
    assert found["f1_of_gold_codes, training notes: 0"] == pytest.approx(1)
    assert found["f1_of_gold_codes, training notes: 1 to 5"] is None
    assert found["f1_of_gold_codes, training notes: 6 or more"] == pytest.approx(1)


def test_rows_are_measured_once_and_fused(data, tmp_path, monkeypatch):
    names = ["prior", "classifier", "sparse_windows", "logistic_regression"]
    path = tmp_path / "results" / "rare50-x.json"
    for _ in range(2):
        for name in names:
            run.run_once(run.read_row(name), "rare50-x", data, 0, tmp_path / "work", path)
    fused = run.Row("fused", "fused", {"": {}}, parts=("classifier", "sparse_windows"))
    run.run_once(fused, "rare50-x", data, 0, tmp_path / "work", path)
    kept = json.loads(path.read_text())
    assert [len(kept["rows"][name]) for name in names] == [1, 1, 1, 1]
    assert set(kept["rows"]["fused"][0]["weights"]) == {"classifier", "sparse_windows"}
    quality = {name: runs[0]["dev"]["codes"]["metrics"]["map"] for name, runs in kept["rows"].items()}
    assert quality["sparse_windows"] > quality["classifier"] > quality["prior"], "only its names tell A41.9"
    assert "data_dir" not in path.read_text() and str(tmp_path) not in path.read_text()
    with pytest.raises(FileNotFoundError, match="run first the rows of"):
        run.measure(fused, "other", data, 0, tmp_path / "work")


def test_every_row_can_be_read_and_named(data):
    for name in run.row_names():
        row = run.read_row(name)
        assert row.title and any(row.options(set_name) is not None for set_name in ("rare50-1", "all"))
        assert all(part in run.row_names() for part in row.parts)
    with pytest.raises(ValueError, match="rows='nothing' is no row; pass some of classifier"):
        run.read_row("nothing")
    with pytest.raises(ValueError, match="give parts, or as system one of prior"):
        run.Row("x", "x", {})


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("codiesp_rare50", {"sampled_codes": 2, "in_batch_negatives": True}),
        (
            "codiesp_published",
            {"codes_per_prompt": 3, "matching_examples": 2, "matching_codes": "2 2", "trainable": "bias"},
        ),
    ],
)
def test_kept_as_users_train_it(data, tiny_checkpoint, recipe, options):
    tiny = {"model_name_or_path": tiny_checkpoint, "max_length": 256, "position_period": 32, "bf16": False}
    scorer = systems.kept(data.train, data.code_set, 0, recipe, {**tiny, **options, "max_steps": 2, "use_cpu": True})
    candidates = scorer(data.reported["dev"]["text"][:])
    assert candidates.codes == CODES and candidates.num_candidates.tolist() == [4] * 5


def test_msmn_as_users_train_it(data):
    options = {"num_train_epochs": 1, "word_epochs": 1, "lstm_size": 8, "attention_size": 8, "embedding_size": 8}
    scorer = systems.msmn(data.train, data.code_set, 0, "msmn_codiesp", {**options, "use_cpu": True})
    candidates = scorer(data.reported["dev"]["text"][:])
    assert candidates.codes == CODES and candidates.num_candidates.tolist() == [3] * 5, "A41.9 has no training note"
    assert all("A41.9" not in candidates.codes_of(note) for note in range(5))


def test_bootstrap():
    good = {"average_precision": [1.0] * 40, "gold": [1] * 40, "assigned": [1] * 40, "hit": [1] * 40}
    bad = {**good, "average_precision": [0.0, 1.0] * 20, "hit": [0, 1] * 20}
    found = compare([good, good], [bad])
    assert found["map"] == {"difference": 0.5, "p": 1e-4} and found["f1_micro"]["difference"] == 0.5
    same = compare([bad], [bad])
    assert same["map"] == {"difference": 0.0, "p": 1.0}
    mixed = {**good, "average_precision": [1.0, 0.0] * 20}
    assert compare([mixed], [bad])["map"]["p"] > 0.5


def test_tables_average_sets_and_seeds():
    def of(seed, value):
        notes = {"average_precision": [value] * 3, "gold": [1] * 3, "assigned": [1] * 3, "hit": [1] * 3}
        metrics = {"map": value, "f1_micro": value, "f1_macro": value, "auc_macro": None}
        codes = {"codes": {"metrics": metrics, "notes": notes}}
        return {"seed": seed, "dev": codes, "seconds": 60, "versions": {"git": "abc"}, "threads": 1}

    results = [
        {"rows": {"late_interaction": [of(0, 0.5 + more), of(1, 0.7 + more)], "classifier": [of(0, 0.1)]}}
        for more in (0.0, 0.2)
    ]
    assert tables.figures(tables.runs_of(results, "late_interaction"), "map") == pytest.approx([60, 80])
    results[0]["rows"]["late_interaction"].append(of(2, 0.0))  # of one set only
    assert tables.figures(tables.runs_of(results, "late_interaction"), "map") == pytest.approx([60, 80])
    table = tables.set_table(results, {"map": "MAP", "auc_macro": "AUC"})
    first, second = table.splitlines()[2:]
    assert first.startswith("| late interaction | 70.0 ± 14.1 | – | +60.0 (p < 0.001), +0.0 (p = 1.000) | 2 | 1.0 |")
    assert second.startswith("| tf-idf, ridge regression | 10.0 | – | – |")
