"""`kept-hf evaluate`: the report of training again, on any split."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from launching import CODES
from train_runs import results_of

from kept_hf.candidates.candidates import Candidates
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


def test_codes_of_the_model_in_another_spelling(msmn, tmp_path):
    folder, _ = msmn
    config = folder / "config.json"
    config.write_text(config.read_text().replace("A41.9", "a419"))
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(f'{{"text": "Sepsis {number}.", "codes": "A41.9;R50.9"}}\n' for number in range(3)))
    options = ["--corpus", "own", "--data_files", f"test={notes}", "--cache_dir", str(tmp_path / "cache")]
    evaluate.main([str(folder), *options, "--use_cpu", "True", "--output_dir", str(tmp_path / "report")])
    assert results_of(tmp_path / "report")["unknown_gold_codes"] == {
        "codes": 1,
        "assignments": 3,
        "all_assignments": 6,
    }
    lines = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text().splitlines()]
    assert all([code["gold"] for code in line["codes"] if code["code"] == "a419"] == [True] for line in lines)


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


def refusal(capsys, *argv):
    """The line that a command line is refused with."""
    with pytest.raises(SystemExit) as error:
        evaluate.main([str(argument) for argument in argv])
    assert error.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


SETTINGS = {"model": "run", "corpus": "demo", "split": "test", "codes": "model", "batch_size": 8}


def output_folder(folder, **changes):
    """What is said of a folder for a report."""
    settings = {**SETTINGS, **changes}
    return evaluate.output_folder(evaluate.EvaluationArguments(**settings, output_dir=str(folder)), settings)


def test_a_report_is_replaced_by_that_of_the_same_evaluation_alone(tmp_path):
    assert output_folder(tmp_path / "new") == tmp_path / "new"
    results = tmp_path / "all_results.json"
    results.write_text(json.dumps({"settings": SETTINGS}))
    assert output_folder(tmp_path, batch_size=2) == tmp_path
    for changes in ({"split": "validation"}, {"corpus": "own"}, {"model": "other"}, {"codes": "all"}):
        with pytest.raises(ValueError, match=r"holds the report of another run .*pass another --output_dir, or delete"):
            output_folder(tmp_path, **changes)
    for content in ("{}", "no json", '{"settings": {"seed": 1}}'):
        results.write_text(content)
        with pytest.raises(ValueError, match="holds the report of another run"):
            output_folder(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "settings.json"])
def test_the_folder_of_a_model_takes_no_report(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"holds a model or its run .{name}.; pass another --output_dir"):
        output_folder(tmp_path)


def test_a_second_evaluation(trained, corpus_options, tmp_path, capsys):
    command = [str(trained), *corpus_options, "--output_dir", str(tmp_path / "report")]
    evaluate.main(command)
    evaluate.main([*command, "--batch_size", "4"])
    before = (tmp_path / "report" / "all_results.json").read_text()
    assert "holds the report of another run" in refusal(capsys, *command, "--split", "validation")
    assert (tmp_path / "report" / "all_results.json").read_text() == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "report"):
        with pytest.raises(ValueError, match="file is a file; pass a folder"):
            output_folder(folder)


def test_the_corpus_of_the_training():
    settings = {
        "corpus": "own",
        "corpus_options": ["seed=1"],
        "data_files": ["train=a.csv"],
        "codes_file": "codes.csv",
        "data_license": "mit",
        "data_dir": None,
    }
    given = evaluate.EvaluationArguments(model="run")
    completed = evaluate.complete(given, settings)
    assert {name: getattr(completed, name) for name in settings} == settings
    assert evaluate.complete(replace(given, corpus="own"), settings) == completed
    other_notes = evaluate.complete(replace(given, data_files=["test=b.csv"]), settings)
    assert other_notes == replace(completed, data_files=["test=b.csv"], data_license=None)
    assert evaluate.complete(replace(given, corpus="demo"), settings) == replace(given, corpus="demo")


def test_without_settings_the_corpus_is_to_be_named(capsys, tmp_path):
    message = refusal(capsys, tmp_path, "--output_dir", tmp_path / "report")
    assert "has no settings.json that names the corpus of its training; pass --corpus, one of " in message


def test_the_log_says_which_corpus_is_taken(caplog):
    given = evaluate.EvaluationArguments(model="run")
    with caplog.at_level("INFO"):
        evaluate.log_corpus(given, evaluate.complete(given, {"corpus": "mimic3", "corpus_options": ["config=50"]}))
    assert "Corpus mimic3, split test; from the settings of the model's training: corpus=mimic3" in caplog.text
    assert "config=50" in caplog.text


def test_notes_without_any_of_the_codes(trained, corpus_options, tmp_path, capsys):
    (tmp_path / "notes.jsonl").write_text('{"text": "Zoster.", "codes": ["B02.9"]}\n')
    notes = ["--corpus", "own", "--data_files", f"test={tmp_path / 'notes.jsonl'}", *corpus_options[2:]]
    message = refusal(capsys, trained, *notes, "--output_dir", tmp_path / "report")
    assert "corpus=own: no note of the split test has any of the 5 codes" in message and "--codes all" in message


@pytest.fixture
def with_candidates(trained, demo_notes, tmp_path):
    """A run whose settings have candidates of the test split: two of five codes for each note."""
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*", "evaluation-*"))
    settings = json.loads((trained / "settings.json").read_text())
    settings["candidates"] = [f"test={tmp_path / 'test.npz'}"]
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    scores = np.tile([2.0, 1.0, *[-np.inf] * 3], (len(demo_notes), 1))
    Candidates.from_scores(scores, CODES, 2, list(demo_notes)).save(tmp_path / "test.npz")
    return tmp_path / "run"


def test_candidates_of_the_training_are_scored_alone(with_candidates, trained, corpus_options, tmp_path):
    command = [str(with_candidates), *corpus_options, "--output_dir"]
    evaluate.main([*command, str(tmp_path / "candidates")])
    line = json.loads((tmp_path / "candidates" / "predictions.jsonl").read_text().splitlines()[0])
    scores = {entry["code"]: entry["score"] for entry in line["codes"]}
    assert len({scores[code] for code in CODES[2:] if code in scores}) <= 1, "the fill value"
    assert results_of(tmp_path / "candidates")["settings"]["candidates"] == str(tmp_path / "test.npz")
    evaluate.main([*command, str(tmp_path / "all"), "--candidates", "none"])
    all_codes = metrics_of(results_of(tmp_path / "all"))
    assert all_codes == pytest.approx(metrics_of(results_of(trained)), abs=1e-5)
    assert metrics_of(results_of(tmp_path / "candidates")) != pytest.approx(all_codes, abs=1e-5)


def test_candidates_that_cannot_be_taken(with_candidates, corpus_options, tmp_path, capsys):
    command = [with_candidates, *corpus_options, "--output_dir", tmp_path / "report"]
    (tmp_path / "codes.txt").write_text(f"{CODES[0]}\n")
    message = refusal(capsys, *command, "--codes", tmp_path / "codes.txt")
    assert "not among the 1 codes" in message and "or --candidates none to score all codes" in message
    message = refusal(capsys, *command, "--corpus", "codiesp")
    assert "which are for other notes" in message and "--candidates none" in message
    (tmp_path / "test.npz").unlink()
    message = refusal(capsys, *command)
    assert "test.npz, which is no file now" in message and "--candidates none" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--do_train"], "unrecognized arguments: --do_train"),
        (["extra"], "unrecognized arguments: extra"),
        (["--batch_size", "0"], "batch_size=0 is less than 1; pass 1 or more"),
        (["--codes_per_prompt", "-1"], "codes_per_prompt=-1 is less than 1"),
        (["--codes_per_prompt", "0"], "codes_per_prompt=0 is less than 1"),
    ],
)
def test_options_that_are_no_good(capsys, tmp_path, options, message):
    assert message in refusal(capsys, tmp_path, *options)


def test_an_adapter_alone(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    message = refusal(capsys, tmp_path / "adapter", "--corpus", "demo")
    assert f"holds an adapter alone; pass the folder of its run, {tmp_path}" in message
