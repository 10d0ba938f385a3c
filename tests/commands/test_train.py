"""`kept-hf train`: its files, its layouts, resuming, licences, several processes."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil

import pytest
import torch
from launching import CODES, launch, logged_losses
from safetensors.torch import load_file
from train_runs import REPORT, TRAINED, lines_of, results_of, unchanged_process

from kept_hf.models.publication import CREDENTIALED
from kept_hf.training.conversion import convert_to_kept_longformer


def test_it_writes_the_model_and_the_report(trained):
    assert [name for name in REPORT if not (trained / name).exists()] == []
    results = results_of(trained)
    assert results["evaluated_on"] == "test" and results["codes"] == len(CODES) and results["world_size"] == 1
    for name in ("f1_macro", "f1_macro_per_code", "f1_micro", "auc_macro", "auc_micro"):
        assert 0 <= results[f"test_{name}"] <= 1
    assert json.loads((trained / "config.json").read_text())["threshold"] == results["threshold"]
    assert results["steps"] == 4 and results["training_seconds"] > 0


def test_the_entry_of_accelerate(train_arguments, trained, tmp_path):
    """`accelerate launch examples/train.py` is the command, and gives the numbers of this process."""
    result = launch(*train_arguments, *TRAINED, "--output_dir", str(tmp_path))
    assert "training frequency" in result.stdout and "this model" in result.stdout
    assert "Stage 1: 16 synthetic prompts" in result.stderr
    assert [name for name in REPORT if not (tmp_path / name).exists()] == []
    results, expected = results_of(tmp_path), results_of(trained)
    assert results["command"].startswith("kept-hf train demo_published --model_name_or_path ")
    assert results["test_auc_micro"] == pytest.approx(expected["test_auc_micro"], abs=1e-6)
    assert logged_losses(tmp_path) == pytest.approx(logged_losses(trained), rel=1e-5)


def test_late_interaction(late_interaction):
    assert [name for name in REPORT if not (late_interaction / name).exists()] == []
    model_type = json.loads((late_interaction / "config.json").read_text())["model_type"]
    layout = json.loads((late_interaction / "processor_config.json").read_text())["prompt_layout"]
    assert (model_type, layout) == ("kept_longformer_matching", "isolated")


def test_mined_negatives(run_train, tmp_path, monkeypatch):
    from kept_hf.training.mined_negatives import MinedNegatives

    searches, search = [], MinedNegatives.search
    monkeypatch.setattr(MinedNegatives, "search", lambda self, model: searches.append(1) or search(self, model))
    options = ["--scorer", "matching", "--sampled_codes", "2", "--in_batch_negatives", "True", "--mined_negatives", "2"]
    options += ["--max_steps", "-1", "--num_train_epochs", "2", "--per_device_train_batch_size", "32"]
    run_train(*options, "--output_dir", tmp_path)
    assert searches == [1], "before the second of two epochs"
    assert results_of(tmp_path)["settings"]["mined_negatives"] == 2


def test_predictions_belong_to_their_notes(trained, demo_notes):
    lines = lines_of(trained / "predictions.jsonl")
    assert lines
    for line in lines:
        gold = set(demo_notes[line["note_id"]]["codes"])
        assert {entry["code"] for entry in line["codes"]} == set(CODES)
        assert {entry["code"] for entry in line["codes"] if entry["gold"]} == gold & set(CODES)
        assert set(line["codes"][0]) == {"code", "description", "score", "probability", "assigned", "gold"}


def test_it_resumes(trained, run_train, tmp_path, caplog):
    folder = shutil.copytree(trained, tmp_path / "run")
    with caplog.at_level(logging.INFO):
        run_train(*TRAINED, "--output_dir", folder)
    assert "Resuming from" in caplog.text and "Stage 1" not in caplog.text
    assert results_of(folder)["test_auc_micro"] == pytest.approx(results_of(trained)["test_auc_micro"], abs=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", "0.5"),
        ("weight_decay", "0.1"),
        ("lr_scheduler_type", "cosine"),
        ("max_grad_norm", "0.5"),
        ("adam_epsilon", "1e-6"),
        ("optim", "adafactor"),
        ("draws", "2"),
        ("train_sampling_strategy", "random"),
        ("data_seed", "7"),
        ("neftune_noise_alpha", "5"),
        ("metric_for_best_model", "map"),
        ("greater_is_better", "False"),
        ("load_best_model_at_end", "True"),
    ],
)
def test_it_does_not_resume_with_other_settings(trained, run_train, capsys, option, value):
    before = (trained / "all_results.json").read_text()
    with pytest.raises(SystemExit) as error:
        run_train(*TRAINED, "--output_dir", trained, f"--{option}", value)
    assert error.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "holds checkpoints of a run with other settings" in message and f"{option}: " in message
    assert (trained / "all_results.json").read_text() == before


@pytest.mark.parametrize(
    ("base_license", "expected"),
    [(None, "apache-2.0"), ("cc-by-4.0", "cc-by-4.0; apache-2.0"), (CREDENTIALED, CREDENTIALED)],
)
def test_licences_of_base_and_notes_are_joined(tiny_checkpoint, run_values, tmp_path, base_license, expected):
    from kept_hf.commands import train

    base, tokenizer = convert_to_kept_longformer(str(tiny_checkpoint), 512, 16, 32)
    base.config.data_license = base_license
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    values = {**run_values, "--model_name_or_path": str(tmp_path / "base"), "--output_dir": str(tmp_path / "run")}
    options = ["demo_published", *(part for option in values.items() for part in option)]
    assert train.prepare(*train.parse_arguments(options)).model.config.data_license == expected


def test_train_is_a_function_that_leaves_its_arguments_alone(run_values, tmp_path, caplog):
    from kept_hf.commands import train

    values = {
        **run_values,
        "--output_dir": str(tmp_path),
        "--peft": "lora",
        "--global_batch_size": "8",
        "--max_steps": "1",
        "--train_sampling_strategy": "group_by_length",
    }
    arguments = train.parse_arguments(["demo_published", *(part for option in values.items() for part in option)])
    before = [dataclasses.replace(one) for one in arguments]
    with unchanged_process():
        result = train.train(*arguments, command="a test")
    assert [dataclasses.asdict(one) for one in arguments[:2]] == [dataclasses.asdict(one) for one in before[:2]]
    changed = [
        field.name
        for field in dataclasses.fields(arguments[2])
        if getattr(arguments[2], field.name) != getattr(before[2], field.name)
    ]
    assert changed == []
    assert result.folder == tmp_path and result.split == "test"
    assert result.results == results_of(tmp_path)
    assert result.results["command"] == "a test" and result.results["threshold"] == result.threshold
    assert result.results["rows_per_step"] == 8


@pytest.mark.parametrize("scorer", [pytest.param("prompting", marks=pytest.mark.slow), "matching"])
def test_two_processes_give_the_loss_of_one(train_arguments, run_train, tmp_path, scorer):
    common = ["--train_sampling_strategy", "sequential", "--load_best_model_at_end", "False", "--scorer", scorer]
    common += ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]
    one, two = tmp_path / "one", tmp_path / "two"
    run_train(*common, "--output_dir", one)
    options = ["--output_dir", str(two), "--per_device_train_batch_size", "2"]
    launch(*train_arguments, *common, *options, processes=2)
    results = [results_of(folder) for folder in (one, two)]
    assert results[1]["world_size"] == 2
    assert logged_losses(two) == pytest.approx(logged_losses(one), rel=1e-4)
    assert results[0]["test_auc_micro"] == pytest.approx(results[1]["test_auc_micro"], abs=1e-4)


def test_trainable_freezes_the_rest(tiny_checkpoint, run_train, tmp_path):
    torch.manual_seed(0)
    run_train("--trainable", "bias,lm_head", "--output_dir", tmp_path)
    base = convert_to_kept_longformer(str(tiny_checkpoint), 512, 16, 32)[0].state_dict()
    weights = load_file(tmp_path / "model.safetensors")
    changed = {name for name, value in weights.items() if not torch.equal(value, base[name])}
    assert changed and all("bias" in name or "lm_head" in name for name in changed)
    assert any(name.startswith("longformer.encoder") for name in changed)


def test_the_synthetic_stage_takes_a_step_per_batch_in_the_given_order(train, tmp_path):
    from kept_hf.pretraining.zero_shot.synthetic_stage import stage_arguments

    options = ["--gradient_accumulation_steps", "4", "--learning_rate", "0.5", "--output_dir", str(tmp_path)]
    options += ["--max_steps", "2", "--matching_batch_size", "6", "--use_cpu", "True"]
    _, data, training = train.parse_arguments(options)
    stage = stage_arguments(data, training)
    assert stage.max_steps == -1 and stage.num_train_epochs == 1 and training.max_steps == 2
    assert stage.gradient_accumulation_steps == 1
    assert stage.per_device_train_batch_size == 6
    assert stage.learning_rate == data.matching_learning_rate == 3e-4
    assert stage.train_sampling_strategy == "sequential"
    assert training.gradient_accumulation_steps == 4


@pytest.mark.parametrize("recipe", ["mimic3", "mimic3_rare50"])
def test_mimic3_recipes_on_files_in_its_layout(train, tiny_checkpoint, tmp_path, recipe):
    from kept_hf.corpora.demo import write_demo_files

    write_demo_files(tmp_path / "raw")
    values = {
        "data_dir": tmp_path / "raw",
        "cache_dir": tmp_path / "cache",
        "output_dir": tmp_path / "out",
        "model_name_or_path": tiny_checkpoint,
        "max_length": 700,
        "codes_per_prompt": 10,
        "sampled_codes": 10,
        "attention_window": 16,
        "max_steps": 2,
        "per_device_eval_batch_size": 16,
        "bf16": "False",
        "use_cpu": "True",
        "eval_strategy": "no",
        "load_best_model_at_end": "False",
    }
    with unchanged_process():
        train.main([recipe, *(part for name, value in values.items() for part in (f"--{name}", str(value)))])
    results = results_of(tmp_path / "out")
    assert results["codes"] == (45 if recipe == "mimic3_rare50" else 50)
    assert results["settings"]["preset"] == "kept-50"
    assert results["settings"]["trainable"] == ("bias,lm_head" if recipe == "mimic3_rare50" else None)
