"""What SECURITY.md promises: files that others made are data, and run no code."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import ROOT
from transformers import AutoModelForSequenceClassification

from kept_hf import CodeCache, ICDCodeSet, KeptProcessor
from kept_hf.candidates.candidates import Candidates
from kept_hf.commands import train


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "ran")


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace"
    assert pickle.loads(pickle.dumps(Payload(path))) and path.read_text() == "ran", "the payload works"
    path.unlink()
    return path


def test_candidates_are_not_unpickled(trace, tmp_path):
    array = np.array([Payload(trace)], dtype=object)
    np.savez(tmp_path / "a.npz", codes=array, indices=array, scores=array)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Payload(trace)))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ValueError):
            Candidates.load(tmp_path / name)
    assert not trace.exists()


def test_caches_and_code_sets_are_not_unpickled(trace, tmp_path):
    (tmp_path / "a").write_bytes(pickle.dumps(Payload(trace)))
    for load in (CodeCache.load, ICDCodeSet.from_json):
        with pytest.raises(ValueError):
            load(tmp_path / "a")
    assert not trace.exists()


def test_weights_are_not_unpickled(tiny_model, trace, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(
        {"longformer.embeddings.word_embeddings.weight": Payload(trace)}, tmp_path / "model" / "pytorch_model.bin"
    )
    with pytest.raises(Exception):  # noqa: B017 (whichever transformers raises)
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert not trace.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch {}']", "!!python/name:os.system"])
def test_a_recipe_runs_nothing(trace, tmp_path, capsys, tag):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tag.format(trace)}\n")
    with pytest.raises(SystemExit) as stopped:
        train.parse_arguments([str(recipe)])
    assert stopped.value.code == 2 and not trace.exists()


def test_code_in_a_model_folder_is_not_run(tiny_model, processor, trace, tmp_path):
    """With this package installed its own classes are taken, whatever the folder's files say."""
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    for name in ("modeling_kept_longformer", "processing_kept", "configuration_kept_longformer", "evil"):
        (tmp_path / "model" / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').write('ran')\n")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    KeptProcessor.from_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["auto_map"]["AutoModelForSequenceClassification"] = "evil.Model"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert not trace.exists()


def test_every_promise_names_tests_that_exist():
    text = Path(ROOT, "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 8
    for path, test in named:
        content = Path(ROOT, path).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in content, f"{path}::{test}"
