import argparse
import inspect
import os
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from datasets import DatasetDict, load_dataset
from processes import run_program
from test_corpora_codiesp import write_codiesp

from kept_hf.commands import export
from kept_hf.commands.export import export_corpus
from kept_hf.corpora import CORPORA, Corpus, corpus_module, load_corpus
from kept_hf.corpora.export import write_parquet_folder
from kept_hf.corpora.selection import select_codes
from kept_hf.hub.dataset_card import make_dataset_card
from kept_hf.models.code_set import ICDCodeSet

SCRIPTS = Path(__file__).resolve().parents[2] / "dataset_scripts"


def run(script, *arguments):
    runpy.run_path(str(SCRIPTS / f"{script}.py"))["main"]([str(argument) for argument in arguments])


def header(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])


def test_demo_round_trip(tmp_path, capsys):
    out, cache = tmp_path / "out", tmp_path / "cache"
    run("demo", "--out", out, "--codes", "all", "rare50", "--cache_dir", cache)
    corpus = load_corpus("demo", cache_dir=cache)
    for config in ("all", "rare50"):
        expected = select_codes(corpus, config)
        loaded = load_dataset(str(out), config, cache_dir=str(tmp_path / "read"))
        assert list(loaded) == ["train", "validation", "test"]
        for split, rows in loaded.items():
            assert list(rows) == list(expected.dataset[split])
            assert rows.features == expected.dataset[split].features
        assert ICDCodeSet.from_json(out / config / "code_set.json") == expected.code_set
    assert len(load_dataset(str(out), cache_dir=str(tmp_path / "read"))["train"]) == 320, "the first is the default"
    assert "all: 60 codes; notes: 320 train, 120 validation, 160 test" in capsys.readouterr().out


def test_codiesp_round_trip(tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    data_dir = write_codiesp(tmp_path / "codiesp")
    codes = tmp_path / "my codes.v1.txt"
    codes.write_text("BW03ZZZ\n")
    arguments = ("--data_dir", data_dir, "--out", out, "--cache_dir", cache, "--kind", "procedure", "--language", "es")
    run("codiesp", *arguments, "--codes", codes, "all")
    loaded = load_dataset(str(out), "my_codes.v1", cache_dir=str(tmp_path / "read"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1}
    row = loaded["train"][0]
    assert row["codes"] == ["BW03ZZZ"]
    assert row["text"].startswith("Paciente")
    assert [row["text"][span["start"] : span["end"]] for span in row["evidence"]] == ["Rx", "tórax"]
    assert header(out)["language"] == ["es"]


def test_card_says_what_it_must_and_no_more(tmp_path):
    out = tmp_path / "out"
    data_dir = write_codiesp(tmp_path / "codiesp")
    run("codiesp", "--data_dir", data_dir, "--out", out, "--cache_dir", tmp_path / "cache")
    metadata = header(out)
    assert metadata["license"] == "cc-by-4.0"
    assert [config["config_name"] for config in metadata["configs"]] == ["all"]
    card = (out / "README.md").read_text(encoding="utf-8")
    for words in ("Not for clinical use", "3837305", "Licence", "`evidence`", "| all | 3 | 2 | 1 |"):
        assert words in card
    assert "caso-" not in card
    assert "Fever" not in card


def test_writing_again_leaves_nothing_stale(tmp_path):
    corpus = load_corpus("demo", cache_dir=tmp_path / "cache")
    write_parquet_folder({"all": corpus}, tmp_path / "out", make_dataset_card({"all": corpus}))
    without_test = Corpus(DatasetDict({"train": corpus.dataset["train"].select([0])}), corpus.code_set, corpus.card)
    write_parquet_folder({"all": without_test}, tmp_path / "out", make_dataset_card({"all": without_test}))
    loaded = load_dataset(str(tmp_path / "out"), "all", cache_dir=str(tmp_path / "read"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1}
    assert sorted(path.name for path in (tmp_path / "out" / "all").iterdir()) == ["code_set.json", "train.parquet"]


def test_bad_configurations(tmp_path):
    corpus = load_corpus("demo", cache_dir=tmp_path / "cache")
    (tmp_path / "all.txt").write_text("401.9\n")
    with pytest.raises(ValueError, match="two configurations named 'all'"):
        export_corpus(corpus, ["all", str(tmp_path / "all.txt")], tmp_path / "out")
    with pytest.raises(ValueError, match=r"configs=\{\} is empty"):
        write_parquet_folder({}, tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def small(corpus, **splits):
    """A corpus of a few notes."""
    rows = {name: corpus.dataset[split].select([0]) for name, split in splits.items()}
    return Corpus(DatasetDict(rows), corpus.code_set, corpus.card)


def files_under(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["...txt", "..txt", ".hidden.txt", "-.txt", "_a.txt", "ä.txt", "a" * 101 + ".txt"])
def test_a_codes_file_whose_name_is_no_name_of_a_folder(tmp_path, name):
    corpus = load_corpus("demo", cache_dir=tmp_path / "cache")
    parent = tmp_path / "mine"
    (parent / "out" / "all").mkdir(parents=True)
    (parent / "notes.parquet").write_bytes(b"mine")
    (parent / name).write_text("401.9\n")
    before = files_under(parent)
    with pytest.raises(ValueError, match=r"codes=.* gives the configuration .*rename it: .* a letter or digit first"):
        export_corpus(corpus, ["all", str(parent / name)], parent / "out")
    assert files_under(parent) == before


@pytest.mark.parametrize("config", ["..", ".", "", "a/b", "/tmp/a", "..\\a", "a\n", "a\x00b", "a:b", "\u202ea"])
def test_configurations_stay_in_their_folder(tmp_path, config):
    corpus = small(load_corpus("demo", cache_dir=tmp_path / "cache"), train="train")
    with pytest.raises(ValueError, match=r"configs has .*can be no name of a folder"):
        write_parquet_folder({"all": corpus, config: corpus}, tmp_path / "out", "card")
    assert not (tmp_path / "out").exists()


def test_splits_stay_in_their_folder(tmp_path):
    corpus = small(load_corpus("demo", cache_dir=tmp_path / "cache"), **{"../train": "train"})
    with pytest.raises(ValueError, match=r"configs\['all'\] has the split '../train', which can be no name"):
        write_parquet_folder({"all": corpus}, tmp_path / "out", "card")
    assert not (tmp_path / "out").exists()


def test_files_of_others_stay(tmp_path):
    """Whether they lie beside those that are written, or have their names."""
    corpus = load_corpus("demo", cache_dir=tmp_path / "cache")
    out = tmp_path / "out"
    write_parquet_folder({"all": small(corpus, train="train", test="test")}, out, "first")
    others = {"notes.parquet": b"1", "all/mine.parquet": b"2", "all/mine.txt": b"3", "other/test.parquet": b"4"}
    for name, content in others.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    write_parquet_folder({"all": small(corpus, train="test")}, out, "second")
    left = files_under(out)
    assert {name: left.pop(name) for name in others} == others
    assert set(left) == {"README.md", "all/code_set.json", "all/train.parquet"} and left["README.md"] == b"second"
    before = files_under(out)
    with pytest.raises(
        ValueError, match=r"out=.* has .*test\.parquet' already, of something else; pass another folder"
    ):
        write_parquet_folder({"all": small(corpus, train="train"), "other": small(corpus, train="train")}, out, "third")
    assert files_under(out) == before
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("My project")
    with pytest.raises(ValueError, match=r"README\.md' already, of something else"):
        write_parquet_folder({"all": small(corpus, train="train")}, tmp_path / "project", "card")
    assert files_under(tmp_path / "project") == {"README.md": b"My project"}


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("demo", ["--codes", "rare5"], "rule='rare5'"),
        ("demo", ["--codes", "rare5"], "one code a line. This is the option --codes."),
        ("demo", ["--data_dir", "nowhere"], "data_dir='nowhere' is no folder"),
        ("codiesp", ["--data_dir", "nowhere"], "data_dir='nowhere' is no folder"),
        ("codiesp", [], "required: --data_dir"),
        ("codiesp", ["--data_dir", ".", "--language", "fr"], "invalid choice: 'fr'"),
    ],
)
def test_bad_arguments_end_with_a_message(tmp_path, capsys, script, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(script, "--out", tmp_path / "out", "--cache_dir", tmp_path / "cache", *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_runs_as_a_command(tmp_path):
    command = [sys.executable, str(SCRIPTS / "demo.py"), "--out", str(tmp_path / "out"), "--seed", "7"]
    command += ["--cache_dir", str(tmp_path / "cache")]
    run_program(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "out" / "all" / "test.parquet").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: CORPUS"),
        (["mimic5"], "invalid choice: mimic5 (choose from codiesp, demo, mimic3, mimic4"),
        (["demo"], "required: --out"),
        (["demo", "--out", "x", "--config", "rare50"], "unrecognized arguments: --config rare50"),
        (["mimic4", "--out", "x", "--data_dir", ".", "--config", "icd11"], "invalid choice: icd11"),
    ],
)
def test_export_refuses(capsys, arguments, message):
    with pytest.raises(SystemExit):
        export.main(arguments)
    assert message in capsys.readouterr().err.replace("'", "")


def test_the_options_of_export_are_those_of_load():
    for name in CORPORA:
        module, parser = corpus_module(name), argparse.ArgumentParser()
        module.add_arguments(parser)
        options = {action.dest for action in parser._actions} - {"help"}
        assert options <= set(inspect.signature(module.load).parameters), name
