"""`kept-hf pretrain hsap` from start to end, on a tiny encoder and made-up terms."""

import csv
import shutil

import pytest
import torch
import yaml
from launching import launch
from pretraining_runs import losses, read, refusal, runner, script
from safetensors.torch import load_file

from kept_hf import KeptLongformerForICDPrompting
from kept_hf.commands import recipe as recipes
from kept_hf.training.conversion import convert_to_kept_longformer

REPORT = (
    *("README.md", "all_results.json", "config.json", "linking.png", "model.safetensors", "settings.json"),
    *("modeling_kept_longformer.py", "tokenizer.json"),
)


@pytest.fixture(scope="module")
def hsap():
    """The script as a module."""
    with script("pretrain_hsap") as module:
        yield module


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint, tmp_path_factory):
    """Settings of a run that takes a second."""
    folder = tmp_path_factory.mktemp("hsap")
    with open(folder / "terms.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["concept_id", "name", "kind", "parent_id"])
        for number in range(60):
            parent = f"c{(number - 2) // 3}" if number > 1 else ""
            writer.writerow([f"c{number}", f"disease number {number}", "preferred", parent])
            writer.writerow([f"c{number}", f"morbus {number}", "synonym", parent])
            if number % 2:
                writer.writerow([f"c{number}", f"d{number}x", "abbreviation", parent])
    values = {
        "sources": "csv",
        "csv_file": str(folder / "terms.csv"),
        "model_name_or_path": str(tiny_checkpoint),
        "pooling": "mean",
        "model_max_length": 80,
        "attention_window": 16,
        "max_length": 20,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "names_per_family": 4,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 64,
        "max_steps": 4,
        "learning_rate": 0.01,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 5,
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def run(hsap, recipe):
    """Run it in this process; what it printed."""
    return runner(hsap, recipe)


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run("--output_dir", folder)


def test_it_writes_the_encoder_and_the_report(trained):
    folder, printed = trained
    assert [name for name in REPORT if not (folder / name).exists()] == []
    results = read(folder)
    assert results["steps"] == 4 and results["names_per_step"] == 16 and results["world_size"] == 1
    assert results["sources"] == ["csv"] and results["graph"]["concepts"] == 60
    for key in ("held_out_synonym_accuracy_at_1", "trained_abbreviation_accuracy_at_5", "tree_distance_correlation"):
        assert -1 <= results["before"][key] <= 1 and -1 <= results["after"][key] <= 1
    assert results["before"] != results["after"]
    assert "held-out abbreviations, accuracy@1" in printed and "before" in printed and "after" in printed
    card = (folder / "README.md").read_text()
    assert "A table of one's own" in card and "terms.csv" not in card


def test_the_folder_is_an_ordinary_checkpoint(trained, tiny_checkpoint):
    folder, _ = trained
    model, report = KeptLongformerForICDPrompting.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.data_license.startswith("terms of csv") and model.config.max_sequence_length == 80
    before = convert_to_kept_longformer(str(tiny_checkpoint), 80, 16)[0].state_dict()
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert "longformer.encoder.layer.0.attention.self.query.weight" in changed
    assert not [name for name in changed if name.startswith("lm_head") and "decoder.weight" not in name]
    # They were a copy of the local ones, and are again.
    for name in ("query", "key", "value"):
        local = after[f"longformer.encoder.layer.0.attention.self.{name}.weight"]
        assert torch.equal(after[f"longformer.encoder.layer.0.attention.self.{name}_global.weight"], local)


def test_it_resumes_and_refuses_other_settings(trained, run, tmp_path, capsys):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoint-4")
    for name in ("model.safetensors", "all_results.json"):
        (tmp_path / "copy" / name).unlink()
    run("--output_dir", tmp_path / "copy")
    assert losses(tmp_path / "copy", 4) == pytest.approx(losses(folder, 4), rel=1e-5)
    expected, found = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "copy"))
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert read(tmp_path / "copy")["before"] == read(folder)["before"], "of the weights that the first run began with"
    refused = refusal(run, capsys, "--output_dir", folder, "--hierarchy_weight", 0.5)
    assert refused.startswith("kept-hf pretrain hsap: error: ") and "hierarchy_weight: 1.0 before, 0.5 now" in refused


def test_two_processes_learn_what_one_learns(trained, recipe, tmp_path):
    arguments = ["--output_dir", str(tmp_path), "--per_device_train_batch_size", "2"]
    launch("-m", "kept_hf.commands.pretrain_hsap", recipe, *arguments, processes=2)
    assert read(tmp_path)["world_size"] == 2 and read(tmp_path)["names_per_step"] == 16
    assert losses(tmp_path, 4) == pytest.approx(losses(trained[0], 4), rel=1e-4)
    expected, found = (load_file(place / "model.safetensors") for place in (trained[0], tmp_path))
    # In the mean, since Adam moves a parameter without a gradient to speak of by the sign of its rounding errors.
    assert all((found[name] - value).abs().mean() < 1e-4 for name, value in expected.items())
    assert read(tmp_path)["after"] == pytest.approx(read(trained[0])["after"], abs=1e-3)


def test_ablations_from_a_checkpoint_with_global_projections_of_its_own(trained, run, tmp_path):
    base = KeptLongformerForICDPrompting.from_pretrained(trained[0])
    name = "longformer.encoder.layer.0.attention.self.query_global.weight"
    with torch.no_grad():
        base.get_parameter(name).add_(1.0)
    base.config.data_license = "UMLS Metathesaurus License Agreement"
    base.save_pretrained(tmp_path / "base")
    shutil.copy(trained[0] / "tokenizer.json", tmp_path / "base")
    shutil.copy(trained[0] / "tokenizer_config.json", tmp_path / "base")
    options = ["--no_siblings", "--hierarchy_weight", 0, "--pooling", "cls", "--max_minutes", 0.01]
    run("--model_name_or_path", tmp_path / "base", "--output_dir", tmp_path / "out", *options, "--max_steps", 2)
    model = KeptLongformerForICDPrompting.from_pretrained(tmp_path / "out")
    assert torch.equal(model.get_parameter(name), base.get_parameter(name))
    assert model.config.data_license == "UMLS Metathesaurus License Agreement"
    assert "Not to be passed on freely" in (tmp_path / "out" / "README.md").read_text()


def test_the_time_limit_stops_it(run, tmp_path):
    run("--output_dir", tmp_path, "--max_steps", -1, "--max_minutes", 0.01, "--warmup_steps", 1)
    results = read(tmp_path)
    assert results["steps"] >= 1 and 0.6 <= results["training_seconds"] < 60
    assert (tmp_path / f"checkpoint-{results['steps']}").exists()


def test_recipes(hsap, monkeypatch):
    monkeypatch.setattr(recipes, "bf16_helps", lambda: True)
    model, terms, training = hsap.parse_arguments(["--use_cpu", "True"])
    assert terms.max_minutes == 10 and model.pooling == "mean" and training.bf16
    assert training.lr_scheduler_type == "constant_with_warmup" and training.warmup_steps >= 1
    assert terms.synonym_rate + terms.abbreviation_rate + terms.parent_rate == pytest.approx(1)
    umls = "hsap_umls"
    model, terms, training = hsap.parse_arguments([umls, "--use_cpu", "True", "--bf16=False"])
    assert terms.sources == "umls" and terms.max_minutes is None and not training.bf16
    assert training.learning_rate == 5e-5 and training.num_train_epochs == 1
    _, terms, training = hsap.parse_arguments(["--use_cpu", "--max_minutes", "0", "--num_train_epochs", "2"])
    assert terms.max_minutes is None and training.num_train_epochs == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "the recipe nowhere.yaml is no file and none of the packaged ones: codiesp_all, "),
        (["--warmup_steps", "0.1"], "warmup_steps=0.1 is a share of the steps, whose number max_minutes leaves open"),
        (
            ["--push_to_hub"],
            "--push_to_hub/--push-to-hub: it has no effect here; publish the finished run",
        ),
    ],
)
def test_arguments_that_do_not_fit(hsap, capsys, arguments, message):
    with pytest.raises(SystemExit):
        hsap.parse_arguments([*arguments, "--use_cpu", "True"])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sources", "umls"], "umls_folder=None"),
        (["--synonym_rate", "0.9"], "add up to 1.3"),
        (["--pooling", "max"], "pooling='max' is unknown; pass one of cls, mean"),
        (["--max_length", "2"], "max_length=2 leaves no token"),
    ],
)
def test_bad_arguments_cost_no_training(run, tmp_path, capsys, options, message):
    assert message in refusal(run, capsys, "--output_dir", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
