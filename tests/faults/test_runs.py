"""Finished runs, changed inputs, two writers, and runs that are told to end."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from launching import ROOT
from processes import run_program
from safetensors.torch import load_file
from train_runs import results_of, unchanged_process

from kept_hf.training.checkpoints import checkpoints_of, problem_of
from kept_hf.training.output_lock import LOCK_NAME, OutputInUseError, lock_output, unlock_outputs

STEPS = ("--max_steps", "3", "--save_strategy", "steps", "--save_steps", "1", "--eval_strategy", "no")
STEPS += ("--load_best_model_at_end", "False")


@pytest.fixture(scope="module")
def run(train_command):
    """`kept-hf train` within this process, with tiny settings and further options."""
    from kept_hf.commands import train

    def run(*options):
        with unchanged_process():
            train.main([*train_command, *map(str, options)])

    return run


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(*STEPS, "--output_dir", folder)
    return folder


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same_weights(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


def test_a_finished_run_trains_nothing_when_it_is_started_again(finished, run, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    os.unlink(folder / "all_results.json")
    run(*STEPS, "--output_dir", folder)
    assert same_weights(weights_of(folder), weights_of(finished))
    assert results_of(folder)["steps"] == 3 and results_of(folder)["test_map"] == results_of(finished)["test_map"]
    names = [sorted(path.name for path in one.glob("checkpoint-*")) for one in (folder, finished)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_a_finished_run_keeps_its_best_epoch(run, tmp_path):
    options = ["--num_train_epochs", "2", "--load_best_model_at_end", "True", "--output_dir", tmp_path]
    run(*options)
    before = weights_of(tmp_path)
    run(*options)
    assert same_weights(weights_of(tmp_path), before)


# Of three steps and a checkpoint each: they do not end with an epoch, and a fourth would change the weights.
THREE_STEPS = ("--max_steps", "3", "--save_steps", "1", "--lr_scheduler_type", "constant", "--learning_rate", "0.01")
# Of a second and a half: as many steps as that is enough for.
MINUTES = ("--max_steps", "-1", "--max_minutes", "0.025", "--warmup_steps", "0", "--save_steps", "1000000")


@pytest.mark.parametrize(
    ("command", "length"),
    [
        ("pretrain_hsap", THREE_STEPS),
        ("pretrain_hsap", MINUTES),
        ("pretrain_mlm", THREE_STEPS),
        ("train_msmn", THREE_STEPS),
    ],
)
def test_other_finished_runs_train_nothing(commands, tmp_path, command, length):
    main = importlib.import_module(f"kept_hf.commands.{command}").main
    options = [*commands[command], *length, "--output_dir", str(tmp_path)]
    found, steps = [], []
    for _ in range(2):
        with unchanged_process():
            main(options)
        found.append(weights_of(tmp_path))
        steps.append(results_of(tmp_path).get("steps"))
    assert same_weights(*found)
    assert steps[0] == steps[1], "with no time left a step would change no weights"


@pytest.fixture
def tiny_notes(tmp_path):
    """A table of notes of one's own."""
    kinds = (("fever", "R50.9"), ("a cough", "R05"), ("sepsis", "A41.9"))
    rows = [
        {"note_id": str(number), "text": f"Note {number}: {kinds[number % 3][0]}.", "codes": [kinds[number % 3][1]]}
        for number in range(60)
    ]
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows


def refusal(run, capsys, *options):
    with pytest.raises(SystemExit) as stopped:
        run(*options)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("what", ["notes", "codes", "weights"])
def test_other_inputs_behind_the_same_path(train_arguments, tiny_notes, tiny_checkpoint, tmp_path, capsys, what):
    from kept_hf.commands import train

    path, rows = tiny_notes
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    codes = tmp_path / "codes.txt"
    codes.write_text("R50.9\nR05\n")
    values = dict(zip(train_arguments[2::2], map(str, train_arguments[3::2]), strict=True))
    values |= {"--model_name_or_path": str(base), "--codes": str(codes), "--output_dir": str(tmp_path / "run")}
    values |= {"--corpus": "own", "--data_files": str(path), "--sampled_codes": "2", "--codes_per_prompt": "2"}
    options = [part for option in values.items() for part in option] + list(STEPS)

    def run(*more):
        with unchanged_process():
            train.main(["demo_published", *options, *more])

    run()
    if what == "notes":
        rows[0]["text"] += " More."
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif what == "codes":
        codes.write_text("R50.9\nA41.9\n")
    else:
        (base / "config.json").write_text((base / "config.json").read_text() + " ")
    message = refusal(run, capsys)
    assert "holds checkpoints of a run with other settings or inputs" in message and f"{what}: another one" in message
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert set(settings["inputs"]) == {"notes", "codes", "weights", "candidates", "kept-hf"}
    assert "inputs" not in results_of(tmp_path / "run")["settings"]


def test_a_resumed_late_interaction_keeps_its_initial_threshold(run, tmp_path):
    options = [*STEPS, "--scorer", "matching", "--output_dir", tmp_path]
    run(*options)
    threshold = json.loads((tmp_path / "config.json").read_text())["similarity_threshold"]
    assert threshold != 0.5
    run(*options)
    assert json.loads((tmp_path / "config.json").read_text())["similarity_threshold"] == threshold


# Two writers.


@pytest.fixture
def other_process():
    """A process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def lock_of(folder, **owner):
    (folder / LOCK_NAME).write_text(json.dumps(owner))


def started(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_folder_has_one_writer(tmp_path, other_process):
    here = socket.gethostname()
    lock_output(tmp_path / "new")
    lock_output(tmp_path / "new")
    owner = json.loads((tmp_path / "new" / LOCK_NAME).read_text())
    assert (owner["process"], owner["host"]) == (os.getpid(), here)
    unlock_outputs()
    assert not (tmp_path / "new").exists(), "it was made for the lock alone"
    for name, host in (("own", here), ("cluster", "another-host")):
        (tmp_path / name).mkdir()
        lock_of(tmp_path / name, process=other_process.pid, host=host, started=started(other_process.pid), at="noon")
        with pytest.raises(OutputInUseError, match=rf"process {other_process.pid} on {host}, since noon.*--output_dir"):
            lock_output(tmp_path / name)
    unlock_outputs()
    assert (tmp_path / "own" / LOCK_NAME).exists(), "that of another process stays"


@pytest.mark.parametrize("stale", ["ended", "another process has its number", "torn"])
def test_a_stale_lock_is_replaced(tmp_path, other_process, stale):
    number, start = other_process.pid, started(other_process.pid)
    if stale == "ended":
        other_process.kill()
        other_process.wait()
    lock_of(tmp_path, process=number, host=socket.gethostname(), started=start if stale == "ended" else "1", at="noon")
    if stale == "torn":
        (tmp_path / LOCK_NAME).write_text('{"proc')
    lock_output(tmp_path)
    assert json.loads((tmp_path / LOCK_NAME).read_text())["process"] == os.getpid()
    unlock_outputs()
    assert os.listdir(tmp_path) == []


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
    lock_of(tmp_path, process=2**22 + 1, host=socket.gethostname(), started="1", at="noon")
    script = (
        "import sys, time\nfrom kept_hf.training.output_lock import lock_output\n"
        "sys.stdin.readline()\n"
        "try:\n    lock_output(sys.argv[1]); print('mine', flush=True); time.sleep(5)\n"
        "except ValueError:\n    print('refused', flush=True)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", script, tmp_path], **pipes) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.kill()
        process.communicate()
    assert sorted(said) == ["mine", "refused", "refused", "refused"]


def test_training_in_a_folder_that_is_being_written(run, tmp_path, capsys, other_process):
    lock_of(tmp_path, process=other_process.pid, host=socket.gethostname(), started=started(other_process.pid), at="8")
    assert "is being written by process" in refusal(run, capsys, *STEPS, "--output_dir", tmp_path)
    assert os.listdir(tmp_path) == [LOCK_NAME]


def test_a_run_leaves_no_lock(finished):
    assert not (finished / LOCK_NAME).exists()


# A run that is told to end.


def wait_for_steps(process, folder, seconds=120):
    """Until the run has written its first checkpoint."""
    end = time.monotonic() + seconds
    while not any(folder.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


LAUNCHER = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes", "1")
LAUNCHER += ("--mixed_precision", "no", "--dynamo_backend", "no")


@pytest.mark.parametrize("launcher", [(), LAUNCHER], ids=["alone", "launched"])
def test_told_to_end_it_writes_a_checkpoint_and_ends(train_command, tmp_path, launcher):
    options = [*train_command, "--max_steps", "100000", "--save_strategy", "steps", "--save_steps", "5"]
    options += ["--eval_strategy", "no", "--load_best_model_at_end", "False", "--output_dir", str(tmp_path)]
    command = [sys.executable, *launcher, "-m", "kept_hf.commands.train", *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        wait_for_steps(process, tmp_path)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)
        _, left = psutil.wait_procs(children, timeout=90)
        for one in left:
            one.kill()
        message = process.stderr.read().decode()
    assert not left, "no orphan goes on"
    assert launcher or (process.returncode == 143 and "The same command goes on from the checkpoint" in message)
    assert not (tmp_path / "all_results.json").exists() and not (tmp_path / LOCK_NAME).exists()
    newest, *_ = checkpoints_of(tmp_path)
    assert problem_of(newest) is None


def test_help_of_the_fault_program():
    """It refuses a point that it does not know, so that no test waits for a fault that never comes."""
    command = [sys.executable, Path(ROOT, "tests", "faults", "interrupted.py"), "before:nothing", "1", "kill", "train"]
    assert "KeyError: 'nothing'" in run_program(command, check=False).stderr
