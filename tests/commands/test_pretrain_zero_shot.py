"""`kept-hf pretrain zero-shot` from start to end, on a tiny encoder and made-up terms and notes."""

import csv
import json
import re
import shutil

import pytest
import torch
import yaml
from launching import launch
from pretraining_runs import losses, read, refusal, runner, script
from safetensors.torch import load_file
from transformers import AutoTokenizer

from kept_hf import ICDCodeSet, KeptLongformerForICDPrompting, KeptProcessor
from kept_hf.hub.zero_shot_card import make_zero_shot_card
from kept_hf.models.publication import UMLS, UNSTATED

REPORT = (
    *("README.md", "all_results.json", "config.json", "model.safetensors", "settings.json"),
    *("modeling_kept_longformer.py", "tokenizer.json"),
)
MARKER = "zanzibar"


@pytest.fixture(scope="module")
def zero_shot():
    """The script as a module."""
    with script("pretrain_zero_shot") as module:
        yield module


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint, tmp_path_factory):
    """Settings of a run that takes seconds."""
    folder = tmp_path_factory.mktemp("zero-shot")
    with open(folder / "terms.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["concept_id", "name", "kind", "parent_id"])
        for number in range(80):
            parent = f"c{(number - 2) // 3}" if number > 1 else ""
            writer.writerow([f"c{number}", f"disease {number}", "preferred", parent])
            writer.writerow([f"c{number}", f"morbus {number}", "synonym", parent])
    notes = folder / f"notes of {MARKER}"
    notes.mkdir()
    for number in range(30):
        text = f"{MARKER.title()} came with morbus {number}. No disease {number + 1}. Went home."
        (notes / f"{MARKER}-{number}.txt").write_text(text)
    values = {
        "sources": "csv",
        "csv_file": str(folder / "terms.csv"),
        "excluded_concepts": ["c25"],
        "held_out_concepts": 12,
        "text_files": [str(notes)],
        "model_name_or_path": str(tiny_checkpoint),
        "model_max_length": 300,
        "attention_window": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_codes": [2, 5],
        "num_sentences": [1, 3],
        "tokens_per_item": 300,
        "max_steps": 5,
        "warmup_steps": 1,
        "learning_rate": 0.01,
        "per_device_eval_batch_size": 8,
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
def run(zero_shot, recipe):
    """Run it in this process; what it printed."""
    return runner(zero_shot, recipe)


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run("--output_dir", folder)


def test_it_writes_the_model_and_the_report(trained):
    folder, printed = trained
    assert [name for name in REPORT if not (folder / name).exists()] == []
    results = read(folder)
    assert results["steps"] == 5 and results["rows_per_step"] == 1 and results["world_size"] == 1
    assert results["notes"] == 27 and results["held_out_concepts"] == 12
    assert 0 < results["concepts_mentioned_in_notes"] < 31
    assert 30 < results["concepts"] <= 80 - 12 - 1
    for key in ("held_out_short_auc", "held_out_long_auc"):
        assert 0 <= results["before"][key] <= 1 and 0 <= results["after"][key] <= 1
    assert results["before"] != results["after"] and losses(folder, 5)[-1] < losses(folder, 5)[0]
    assert "held-out concepts, 5 a prompt: AUC" in printed and "before" in printed and "after" in printed


def test_the_folder_is_an_ordinary_checkpoint(trained):
    folder, _ = trained
    model, report = KeptLongformerForICDPrompting.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.prompt_loss == "two_way" and model.config.max_sequence_length == 300
    code_set = ICDCodeSet(["c1", "c2"], {"c1": "disease 1", "c2": "disease 2"})
    processor = KeptProcessor(AutoTokenizer.from_pretrained(folder), code_set, max_length=300)
    assert processor.yes_token_id == model.config.yes_token_id
    with torch.no_grad():
        assert model(**processor("came with morbus 1", return_tensors="pt")).logits.shape == (1, 2)


def test_no_note_and_no_name_of_a_file_is_printed_or_written(trained, capfd):
    folder, printed = trained
    assert MARKER not in printed.lower()
    for path in folder.rglob("*"):
        assert not path.is_file() or MARKER not in path.read_bytes().decode("latin-1").lower(), path


def test_notes_of_unknown_licence_keep_the_weights_private(trained):
    folder, _ = trained
    assert read(folder)["data_license"] == UNSTATED
    assert KeptLongformerForICDPrompting.from_pretrained(folder).config.data_license == UNSTATED
    assert "Not to be passed on freely" in (folder / "README.md").read_text()


def test_card_of_open_notes_and_of_umls(trained, tmp_path):
    results = read(trained[0])
    for license, restricted in (("cc-by-4.0", False), (UMLS, True)):
        (tmp_path / "all_results.json").write_text(json.dumps({**results, "data_license": license}))
        card = make_zero_shot_card(tmp_path, "me/zero-shot")
        assert ("Not to be passed on freely" in card.text) == restricted
        assert 'from_pretrained("me/zero-shot")' in card.text and "terms.csv" not in card.content
    with pytest.raises(FileNotFoundError, match="kept-hf pretrain zero-shot"):
        make_zero_shot_card(tmp_path / "none")


def test_it_resumes_as_if_it_had_not_stopped(trained, run, tmp_path):
    folder, _ = trained
    for name in ("checkpoint-2", "settings.json"):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)
    run("--output_dir", tmp_path)
    assert losses(tmp_path, 5) == pytest.approx(losses(folder, 5), abs=1e-6)
    one, two = (load_file(place / "model.safetensors") for place in (folder, tmp_path))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert read(tmp_path)["before"] == read(folder)["before"]


def test_two_processes(recipe, tmp_path):
    launch(
        "-m",
        "kept_hf.commands.pretrain_zero_shot",
        recipe,
        "--output_dir",
        str(tmp_path),
        "--max_steps",
        "2",
        processes=2,
    )
    results = read(tmp_path)
    assert results["world_size"] == 2 and results["rows_per_step"] == 2 and results["steps"] == 2


def test_zero_shot_codes_of_a_corpus(run, tmp_path):
    codes = tmp_path / "codes.txt"
    codes.write_text("401.9\n038.9\n")
    printed = run(
        *("--corpus", "demo", "--zero_shot_codes", codes, "--cache_dir", tmp_path / "cache", "--max_steps", 1),
        *("--zero_shot_codes_per_prompt", 1, 2, "--output_dir", tmp_path / "run"),
    )
    results = read(tmp_path / "run")
    assert {"zero_shot_1_auc_macro", "zero_shot_2_map", "held_out_long_auc"} <= set(results["after"])
    assert results["zero_shot_codes"] == 2 and results["zero_shot_notes"] > 10
    assert "notes, 2 codes a prompt: macro AUC" in printed
    assert "2 codes" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--max_steps", 0), "max_steps=0"),
        (("--num_codes", 5), r"num_codes=\[5\]"),
        (("--zero_shot_codes", "rare50"), "zero_shot_codes=rare50"),
        (("--excluded_concepts", "c999"), "'c999'"),
        (("--num_codes", 9, 3), r"num_codes=\(9, 3\)"),
        (("--text_files", "nowhere"), "nowhere"),
        (("--sources", "nothing"), "nothing"),
    ],
)
def test_it_refuses(run, tmp_path, capsys, arguments, message):
    assert re.search(message, refusal(run, capsys, "--output_dir", tmp_path, *arguments))
