"""`kept-hf evaluate`: the report of training again, on any split."""

from __future__ import annotations

import json

import pytest
from train_runs import results_of

from kept_hf.commands import evaluate


@pytest.fixture
def corpus_options(run_values):
    """The codes and the cache of the runs."""
    return ["--codes", run_values["--codes"], "--cache_dir", run_values["--cache_dir"], "--use_cpu", "True"]


def metrics_of(results, split="test"):
    return {name: value for name, value in results.items() if name.startswith((f"{split}_", "frequency_"))}


@pytest.mark.parametrize("run", ["trained", "late_interaction", "adapted"])
def test_it_repeats_the_report_of_training(run, request, corpus_options, tmp_path, capsys):
    folder = request.getfixturevalue(run)
    evaluate.main([str(folder), *corpus_options, "--output_dir", str(tmp_path / "report")])
    results, expected = results_of(tmp_path / "report"), results_of(folder)
    assert metrics_of(results) == pytest.approx(metrics_of(expected), abs=1e-5)
    assert results["threshold"] == expected["threshold"]
    assert results["evaluated_on"] == "test" and results["unknown_gold_codes"]["codes"] == 0
    files = {path.name for path in (tmp_path / "report").iterdir()}
    pictures = {"f1_by_frequency.png", "precision_recall.png"}
    assert files == {"all_results.json", "per_code.csv", "predictions.jsonl", *pictures}
    assert (tmp_path / "report" / "per_code.csv").read_text() == (folder / "per_code.csv").read_text()
    assert "training frequency" in capsys.readouterr().out


def test_all_notes_and_the_codes_of_the_model(trained, corpus_options, capsys):
    before = (trained / "all_results.json").read_text()
    evaluate.main([str(trained), *corpus_options[2:], "--split", "validation"])
    results = results_of(trained / "evaluation-demo-validation")
    assert (trained / "all_results.json").read_text() == before
    assert results["codes"] == 5 and results["notes"]["validation"] == 120
    unknown = results["unknown_gold_codes"]
    assert unknown["codes"] == 55 and 0 < unknown["assignments"] < unknown["all_assignments"]
    assert f"Not counted: {unknown['assignments']} of {unknown['all_assignments']} gold" in capsys.readouterr().out


def test_codes_that_the_model_was_not_trained_on(trained, corpus_options, tmp_path):
    (tmp_path / "codes.txt").write_text("250.00\n401.9\n")
    options = ["--codes", str(tmp_path / "codes.txt"), *corpus_options[2:], "--output_dir", str(tmp_path / "report")]
    evaluate.main([str(trained), *options])
    assert results_of(tmp_path / "report")["codes"] == 2
    line = json.loads((tmp_path / "report" / "predictions.jsonl").read_text().splitlines()[0])
    assert {entry["code"] for entry in line["codes"]} == {"250.00", "401.9"}


def test_msmn(msmn, tmp_path):
    folder, _ = msmn
    texts = tmp_path / "codiesp" / "test" / "text_files_en"
    texts.mkdir(parents=True)
    (texts / "case-1.txt").write_text("Sepsis, and high blood pressure.")
    for letter in "DPX":
        (texts.parent / f"test{letter}.tsv").write_text("case-1\ti10\ncase-1\tr50.9\n" if letter == "D" else "")
    options = ["--corpus", "codiesp", "--data_dir", str(tmp_path / "codiesp"), "--cache_dir", str(tmp_path / "cache")]
    evaluate.main([str(folder), *options, "--use_cpu", "True", "--output_dir", str(tmp_path / "report")])
    results = results_of(tmp_path / "report")
    assert results["codes"] == 2 and not any(name.startswith("frequency_") for name in results)
    assert results["unknown_gold_codes"] == {"codes": 1, "assignments": 1, "all_assignments": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "dev"], "split='dev' is unknown; pass one of train, validation, test"),
        (["--corpus", "mimic9"], "codiesp"),
        (["--corpus", "mimic3", "--data_dir", "nowhere"], "nowhere"),
        (["--output_dir", "MODEL"], "holds the report of the model's training; pass another --output_dir"),
    ],
)
def test_what_does_not_fit_is_a_line_and_status_2(trained, corpus_options, capsys, options, message):
    options = [str(trained) if option == "MODEL" else option for option in options]
    with pytest.raises(SystemExit) as error:
        evaluate.main([str(trained), *corpus_options, *options])
    assert error.value.code == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("kept-hf evaluate: error: ") and message in printed


@pytest.mark.parametrize("argv", [[], ["--split", "test"]])
def test_the_model_stands_first(argv, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(argv)
    assert "name a model first: kept-hf evaluate MODEL" in capsys.readouterr().err


def test_a_model_that_is_nowhere(corpus_options, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        evaluate.main([str(tmp_path / "none"), *corpus_options, "--output_dir", str(tmp_path / "report")])
    assert error.value.code == 2 and not (tmp_path / "report").exists()
