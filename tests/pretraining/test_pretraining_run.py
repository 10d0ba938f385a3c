"""What the end of a pretraining run writes, and in which order."""

import json

import pytest

from kept_hf.commands.main import COMMANDS
from kept_hf.hub.cards import CARDS
from kept_hf.pretraining import STAGES
from kept_hf.pretraining.run import write_run


class Card:
    def __str__(self):
        return "card"


def test_results_are_written_last(tiny_model, roberta_tokenizer, tmp_path):
    present = {}

    def make_card(folder, results):
        present["card"] = {path.name for path in folder.iterdir()}
        assert results["steps"] == 3
        return Card()

    def draw_pictures(folder):
        (folder / "picture.png").write_bytes(b"")

    write_run(tmp_path, tiny_model, roberta_tokenizer, {"steps": 3}, make_card, draw_pictures)
    assert {"model.safetensors", "tokenizer.json", "picture.png"} <= present["card"]
    assert "all_results.json" not in present["card"]
    assert (tmp_path / "README.md").read_text() == "card"
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"steps": 3}


def test_a_run_that_stops_before_its_end_does_not_look_finished(tiny_model, roberta_tokenizer, tmp_path):
    (tmp_path / "all_results.json").write_text("{}")  # of an earlier run

    def make_card(folder, results):
        raise RuntimeError("no card")

    with pytest.raises(RuntimeError, match="no card"):
        write_run(tmp_path, tiny_model, roberta_tokenizer, {"steps": 3}, make_card)
    assert not (tmp_path / "all_results.json").exists()


def test_each_stage_has_a_command_and_a_card():
    assert set(STAGES) == set(CARDS) == {name.split()[1] for name in COMMANDS if name.startswith("pretrain ")}
