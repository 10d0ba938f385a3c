"""Outputs of stages and the settings they were made with."""

import json
import random

import pytest
from datasets import Dataset

from kept_hf.candidates.stage_files import digest_of_model, digest_of_notes, is_made, keep_settings


def test_what_was_made_with_these_settings_is_there(tmp_path):
    output = tmp_path / "output.npz"
    assert not is_made(output, {"a": 1})
    keep_settings(output, {"a": 1})
    assert not is_made(output, {"a": 1}), "the settings alone are no output"
    output.write_text("x")
    keep_settings(output, {"a": 1})
    assert is_made(output, {"a": 1}) and is_made(output, {"a": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output.npz", "output.npz.settings.json"]


def test_what_is_made_again_and_stopped_does_not_look_complete(tmp_path):
    output = tmp_path / "output.npz"
    output.write_text("of a")
    keep_settings(output, {"a": 1})
    assert not is_made(output, {"a": 2})
    output.write_text("half of b")  # and stopped here
    assert not is_made(output, {"a": 1}), "the first settings must not claim it"


@pytest.mark.parametrize("left", ["", '{"a": ', "[" * 100_000])
def test_a_truncated_record_counts_for_nothing(tmp_path, left):
    output = tmp_path / "output.npz"
    output.write_text("x")
    (tmp_path / "output.npz.settings.json").write_text(left)
    assert not is_made(output, {"a": 1})


def test_a_damaged_record_claims_nothing_else(tmp_path):
    """Each changed byte and each truncation: the output is made again, or the settings are still the same ones."""
    output, record = tmp_path / "output.npz", tmp_path / "output.npz.settings.json"
    settings = {"encoder": "0f", "top_k": 300, "windows": [32, 16], "joins": None}
    output.write_text("x")
    keep_settings(output, settings)
    whole, generator = record.read_bytes(), random.Random(0)
    damaged = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole)):
        damaged += [
            whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
            for bit in generator.sample(range(8), 3)
        ]
    claimed = 0
    for content in damaged:
        record.write_bytes(content)
        if is_made(output, settings):
            claimed += 1
            assert json.loads(record.read_text(encoding="utf-8")) == settings
        else:
            assert not record.exists()
    assert claimed < 0.1 * len(damaged)


def test_notes_are_their_texts_ids_and_codes():
    rows = {"text": ["fever", "cough"], "note_id": ["1", "2"], "codes": [["R50.9"], ["R05", "I10"]]}
    known = digest_of_notes({"train": Dataset.from_dict(rows)})
    assert known == digest_of_notes({"train": Dataset.from_dict(rows)})
    for change in ({"text": ["fever", "coug"]}, {"note_id": ["1", "3"]}, {"codes": [["R50.9"], ["R05", "I11"]]}):
        assert digest_of_notes({"train": Dataset.from_dict({**rows, **change})}) != known


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt"])
def test_a_model_is_its_files(tmp_path, name):
    (tmp_path / name).write_text("a")
    known = digest_of_model(str(tmp_path))
    (tmp_path / name).write_text("b")
    assert digest_of_model(str(tmp_path)) != known
    assert digest_of_model("owner/model") == "owner/model"
