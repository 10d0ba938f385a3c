"""An output folder that cannot be written is a sentence before any work, in every command that has one."""

import importlib

import pytest
from train_runs import unchanged_process

from kept_hf.training.output_dir import check_output_dir

COMMANDS = {
    "train": ["--corpus", "codiesp", "--data_dir", "nowhere"],
    "train_msmn": ["msmn_codiesp", "--data_dir", "nowhere"],
    "pretrain_hsap": ["--model_name_or_path", "nowhere", "--sources", "icd10cm"],
    "pretrain_mlm": ["--text_files", "nowhere.txt"],
    "pretrain_zero_shot": ["--text_files", "nowhere.txt"],
    "propose": ["--corpus", "codiesp", "--data_dir", "nowhere"],
    "rerank": ["--corpus", "codiesp", "--data_dir", "nowhere", "--first_stages", "sparse"],
    "convert": ["--model", "nowhere", "--max_length", "64"],
    "evaluate": ["nowhere", "--corpus", "codiesp", "--data_dir", "nowhere"],
    "export": ["codiesp", "--data_dir", "nowhere"],
}
"""Command → options whose work fails, so that an error about the folder shows that it was looked at first."""
TRAINERS = ("train", "train_msmn", "pretrain_hsap", "pretrain_mlm", "pretrain_zero_shot")


def refused(command, folder, capsys) -> str:
    """The last line of what the command prints."""
    option = "--out" if command == "export" else "--output_dir"
    on_cpu = ["--use_cpu", "True", "--bf16", "False"] if command in TRAINERS else []
    with pytest.raises(SystemExit) as stop, unchanged_process():
        importlib.import_module(f"kept_hf.commands.{command}").main([*COMMANDS[command], *on_cpu, option, str(folder)])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_below_a_file(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(command, tmp_path / "file" / "run", capsys)
    assert f"file/run: {tmp_path / 'file'} is a file; pass a folder." in message


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_may_not_be_written(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kept_hf.training.output_dir.os.access", lambda *_: False)  # root may write anywhere
    message = refused(command, tmp_path / "run", capsys)
    assert f"/run: {tmp_path} may not be written; pass another folder." in message
    assert not (tmp_path / "run").exists()


def test_names_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"^out=.*: File name too long; pass another folder\.$"):
        check_output_dir(tmp_path / ("x" * 300) / "run", "out")
    with pytest.raises(ValueError, match="null"):
        check_output_dir(f"{tmp_path}/\0")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"link is a link to nothing; pass a folder\.$"):
        check_output_dir(tmp_path / "link" / "run")


def test_folders_that_are_to_be_made(tmp_path):
    check_output_dir(tmp_path)
    check_output_dir(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path)
    check_output_dir(tmp_path / "link" / "run")
