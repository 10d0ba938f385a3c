"""A run that was interrupted while it wrote a checkpoint goes on from the newest whole one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import run_program
from safetensors.torch import load_file

from kept_hf.training.checkpoints import checkpoint_to_resume, checkpoints_of, is_finished, problem_of

INTERRUPTED = Path(__file__).with_name("interrupted.py")
"""The program that runs a command with a fault."""
SETTINGS, INPUTS = {"seed": 42, "learning_rate": 0.1}, {"notes": "a", "codes": "b"}
NEEDED = ("trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt")
HARMLESS = ("training_args.bin", "config.json")


def training_in(folder):
    class Process:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    return SimpleNamespace(output_dir=str(folder), main_process_first=lambda **_: Process())


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Two checkpoints of a tiny model, as the stock Trainer writes them."""
    from datasets import Dataset
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    folder = tmp_path_factory.mktemp("run")
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))
    rows = Dataset.from_dict({"input_ids": [[1, 2]] * 8, "labels": [0, 1] * 4})
    arguments = TrainingArguments(
        str(folder), max_steps=4, save_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows).train()
    (folder / "settings.json").write_text(json.dumps({**SETTINGS, "inputs": INPUTS}))
    return folder


@pytest.fixture
def folder(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


def test_whole_checkpoints(folder):
    found = checkpoints_of(folder)
    assert [path.name for path in found] == ["checkpoint-4", "checkpoint-2"]
    assert [problem_of(path) for path in found] == [None, None]
    assert checkpoint_to_resume(training_in(folder), SETTINGS, INPUTS) == str(folder / "checkpoint-4")
    assert checkpoint_to_resume(training_in(folder / "nothing"), SETTINGS, INPUTS) is None
    assert is_finished(folder / "checkpoint-4") and not is_finished(folder / "checkpoint-2")


def damage(path: Path, how: str):
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, {"empty": 0, "half": path.stat().st_size // 2, "end": path.stat().st_size - 1}[how])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in NEEDED
        for how in ("missing", "empty", "half", "end")
        if (name, how) != ("trainer_state.json", "end")  # a line feed
    ],
)
def test_the_newest_whole_one_is_taken(folder, caplog, name, how):
    damage(folder / "checkpoint-4" / name, how)
    assert problem_of(folder / "checkpoint-4")
    with caplog.at_level(logging.INFO):
        assert checkpoint_to_resume(training_in(folder), SETTINGS, INPUTS) == str(folder / "checkpoint-2")
    assert "checkpoint-4 is not whole (" in caplog.text and "incomplete-checkpoint-4" in caplog.text
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "checkpoint-2",
        "incomplete-checkpoint-4",
    ]
    # What the next run writes there stands beside it.
    shutil.copytree(folder / "incomplete-checkpoint-4", folder / "checkpoint-4")
    assert checkpoint_to_resume(training_in(folder), SETTINGS, INPUTS) == str(folder / "checkpoint-2")
    assert (folder / "incomplete-checkpoint-4-2").is_dir()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_resuming_does_not_read_may_be_missing(folder, name):
    (folder / "checkpoint-4" / name).unlink()
    assert problem_of(folder / "checkpoint-4") is None


def test_without_a_whole_one_the_run_starts_again(folder, caplog):
    for path in checkpoints_of(folder):
        (path / "trainer_state.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume(training_in(folder), SETTINGS, INPUTS) is None
    assert "no whole checkpoint: the run starts from the beginning" in caplog.text


@pytest.mark.parametrize("part", range(4))
def test_flipped_bits_of_tensors(folder, part):
    """torch.save writes checksums; a safetensors file has none, and its length."""
    path = folder / "checkpoint-4" / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[(2 * part + 1) * len(content) // 8] ^= 16
    path.write_bytes(content)
    problem = problem_of(folder / "checkpoint-4")
    if problem is None:  # a byte between the entries
        torch.load(path, weights_only=True)


def test_the_state_of_another_step(folder):
    shutil.copy(folder / "checkpoint-2" / "trainer_state.json", folder / "checkpoint-4")
    assert problem_of(folder / "checkpoint-4") == "trainer_state.json is that of step 2"


def test_weights_in_parts(folder):
    checkpoint = folder / "checkpoint-4"
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert problem_of(checkpoint) == "model-00002-of-00002.safetensors missing or damaged"


@pytest.mark.parametrize("in_folders", [False, True])
def test_checkpoints_of_sharded_models(folder, in_folders):
    """FULL_STATE_DICT writes a file each, SHARDED_STATE_DICT folders."""
    checkpoint = folder / "checkpoint-4"
    (checkpoint / "model.safetensors").unlink()
    for old, new in (("scheduler.pt", "pytorch_model_fsdp"), ("optimizer.pt", "optimizer")):
        target = checkpoint / (f"{new}_0" if in_folders else f"{new}.bin")
        if in_folders:
            target.mkdir()
            target /= "__0_0.distcp"
        shutil.copy(checkpoint / old, target)
    (checkpoint / "optimizer.pt").unlink()
    assert problem_of(checkpoint) is None
    shutil.rmtree(target.parent) if in_folders else damage(target, "half")
    assert problem_of(checkpoint) in ("optimizer.pt missing or damaged", "optimizer.bin missing or damaged")


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({**SETTINGS, "learning_rate": 0.2}, INPUTS, r"learning_rate: 0\.1 before, 0\.2 now"),
        ({**SETTINGS, "new": 1}, INPUTS, "new: not recorded before, 1 now"),
        (SETTINGS, {**INPUTS, "notes": "c"}, r"settings or inputs \(notes: another one\)"),
        (SETTINGS, {**INPUTS, "weights": "c"}, "weights: another one"),
    ],
)
def test_another_run_is_not_resumed(folder, settings, inputs, message):
    (folder / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=message):
        checkpoint_to_resume(training_in(folder), settings, inputs)
    assert (folder / "checkpoint-4").is_dir(), "nothing of another run is touched"


def test_a_torn_settings_file_is_that_of_another_run(folder):
    (folder / "settings.json").write_text('{"seed":')
    with pytest.raises(ValueError, match="seed: not recorded before"):
        checkpoint_to_resume(training_in(folder), SETTINGS, INPUTS)


@pytest.mark.parametrize(
    ("minutes", "seconds", "expected"), [(1, 60.0, True), (1, 61.5, True), (1, 59.9, False), (1, None, False)]
)
def test_a_run_of_some_minutes_is_finished_when_they_are_over(folder, minutes, seconds, expected):
    path = folder / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text())
    if seconds is not None:
        state["stateful_callbacks"]["TimeLimit"] = {"attributes": {"seconds": seconds}}
    path.write_text(json.dumps(state))
    assert is_finished(folder / "checkpoint-4", minutes) is expected


POINTS = (
    ("before:save_model", 2),
    ("after:save_model", 2),
    ("before:_save_optimizer_and_scheduler", 2),
    # torch.save is called for the arguments, optimizer, scheduler and random states of each checkpoint.
    ("torn:save", 5),
    ("torn:save", 6),
    ("torn:save", 7),
    ("before:save", 6),
    ("after:_save_rng_state", 2),
    ("before:save_to_json", 2),
    ("torn:save_to_json", 2),
)
QUICK = ("train", "torn:save", 6, "kill")
CAMPAIGN = [
    (command, point, number, fault)
    for command in ("train", "pretrain_hsap", "pretrain_mlm", "train_msmn")
    for point, number in POINTS
    for fault in ("kill", "full-disk")
]


def run_command(command, options, folder, point="before:save", number=1000, fault="kill", check=True):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    arguments = [sys.executable, INTERRUPTED, point, number, fault, command, *options, "--output_dir", folder]
    return run_program(arguments, check=check, env=environment)


@pytest.fixture(scope="module")
def undisturbed(commands, tmp_path_factory):
    """Command → the folder of a run without a fault, made once."""
    folders: dict[str, Path] = {}

    def folder_of(command):
        if command not in folders:
            folders[command] = tmp_path_factory.mktemp(command)
            run_command(command, commands[command], folders[command])
        return folders[command]

    return folder_of


@pytest.mark.parametrize(
    ("command", "point", "number", "fault"),
    [pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow) for case in CAMPAIGN],
)
def test_a_run_recovers_from_a_fault_while_it_writes(commands, undisturbed, tmp_path, command, point, number, fault):
    """The second of two checkpoints is torn; the run started again has the weights of one that was not disturbed."""
    stopped = run_command(command, commands[command], tmp_path, point, number, fault, check=False)
    assert stopped.returncode, "the fault happened"
    assert not (tmp_path / "all_results.json").exists()
    again = run_command(command, commands[command], tmp_path)
    assert "Resuming from" in again.stderr and "checkpoint-" in again.stderr
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path, undisturbed(command)))
    assert all(torch.equal(one[name], other[name]) for name in other)
