"""The command `kept-hf`: it finds its commands, and says what is wrong with what it was given."""

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kept_hf.commands import main as command
from kept_hf.version import __version__


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_command_runs_its_module(name, monkeypatch):
    called = []
    module = f"kept_hf.commands.{name.replace(' ', '_').replace('-', '_')}"
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(main=lambda argv: called.append(argv)))
    command.main([*name.split(), "recipe.yaml", "--seed", "3"])
    assert called == [["recipe.yaml", "--seed", "3"]]


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_module_has_a_main(name):
    module = importlib.import_module(f"kept_hf.commands.{name.replace(' ', '_').replace('-', '_')}")
    assert callable(module.main)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "kept-hf: name a command"),
        (["trian", "codiesp"], "trian is no command; did you mean train?"),
        (["rank"], "rank is no command; "),
        (["zzz"], "zzz is no command; choose one of train, evaluate, predict, pretrain, "),
        (["--seed", "3"], "--seed is no command"),
        (["pretrain"], "name a stage of pretrain: hsap, mlm, zero-shot"),
        (["pretrain", "--seed", "3"], "name a stage of pretrain: hsap, mlm, zero-shot"),
        (["pretrain", "zeroshot"], "zeroshot is no stage of pretrain; did you mean zero-shot?"),
        (["pretrain", "x"], "x is no stage of pretrain; choose one of hsap, mlm, zero-shot"),
    ],
)
def test_wrong_usage(words, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    assert captured.err.startswith("usage: kept-hf ") and expected in captured.err.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_lists_the_commands(words, capsys):
    command.main(words)
    printed = capsys.readouterr().out
    for name, text in command.COMMANDS.items():
        assert f"  {name} " in printed and text in printed


def test_help_of_a_command_with_stages(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["pretrain", "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "pretrain mlm" in printed and "propose" not in printed


def test_version(capsys):
    command.main(["--version"])
    assert capsys.readouterr().out == f"kept-hf {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(words):
    program = (
        "import sys; from kept_hf.commands.main import main; main(sys.argv[1:]); print(); "
        "print(*sorted({'torch', 'transformers', 'datasets', 'evaluate', 'numpy', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
