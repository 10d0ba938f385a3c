"""`kept-hf propose`: first stages, and `kept-hf rerank`, which takes them by name."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import DatasetDict

from kept_hf.candidates import sparse, text_classifier
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.fusion import fuse_weighted, tune_weights
from kept_hf.candidates.sparse import SparseRetriever
from kept_hf.candidates.text_classifier import TextClassifier
from kept_hf.corpora import load_corpus

SPLITS = {"train": 30, "validation": 12, "test": 12}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Some notes of the demo."""
    whole = load_corpus("demo", cache_dir=tmp_path_factory.mktemp("corpus"))
    return replace(
        whole, dataset=DatasetDict({split: whole.dataset[split].select(range(n)) for split, n in SPLITS.items()})
    )


@pytest.fixture
def script(monkeypatch, corpus, tiny_checkpoint):
    """The command: `run(options)`, on the small corpus."""
    from kept_hf.commands import propose

    example = SimpleNamespace(module=propose, corpus=corpus)
    monkeypatch.setattr(propose, "read_corpus", lambda arguments: example.corpus)
    example.run = lambda *arguments: propose.main(["--encoder", str(tiny_checkpoint), *map(str, arguments)])
    return example


def candidates_in(folder):
    return {split: Candidates.load(folder / f"{split}_candidates.npz") for split in SPLITS}


def test_each_stage_writes_what_it_finds(script, corpus, tmp_path, capsys):
    script.run("--output_dir", tmp_path, "--folds", 3)
    found = {name: candidates_in(tmp_path / name) for name in ("sparse", "dense", "classifier", "fused")}
    notes = corpus.dataset["test"]
    assert all(stage["test"].note_ids == tuple(notes["note_id"]) for stage in found.values())

    sparse = SparseRetriever(corpus.code_set, corpus.dataset["train"]["text"])
    assert np.array_equal(found["sparse"]["test"].indices, sparse.propose(notes["text"], 300).indices)
    train = corpus.dataset["train"]
    classifier = TextClassifier(corpus.code_set).fit(train["text"], train["codes"])
    assert np.allclose(found["classifier"]["test"].scores, classifier.propose(notes["text"], 300).scores, atol=1e-5)

    single = [found[name] for name in ("sparse", "dense", "classifier")]
    weights = tune_weights([stage["train"] for stage in single], train["codes"])
    assert json.loads((tmp_path / "fused" / "weights.json").read_text())["weights"] == pytest.approx(weights)
    fused = fuse_weighted([stage["test"] for stage in single], weights)
    assert np.array_equal(found["fused"]["test"].indices, fused.indices)
    printed = capsys.readouterr().out
    assert "train, 30 notes" in printed and "test, 12 notes" in printed and "fused" in printed
    recall = f"{fused.mean_average_precision(notes['codes']):.4f}"
    assert recall in printed


def test_candidates_of_a_training_note_are_not_learned_from_it(script, corpus, tmp_path):
    """A code that one training note alone has is known to those that are fitted to it: never for that note."""
    script.run("--output_dir", tmp_path, "--stages", "classifier")
    train = candidates_in(tmp_path / "classifier")["train"]
    counts = Counter(code for codes in corpus.dataset["train"]["codes"] for code in codes)
    alone = [(note, code) for note, codes in enumerate(corpus.dataset["train"]["codes"]) for code in codes]
    alone = [(note, code) for note, code in alone if counts[code] == 1]
    assert alone and all(code not in train.codes_of(note) for note, code in alone)
    assert {code for note in range(len(train)) for code in train.codes_of(note)} >= {code for _, code in alone}


def test_what_is_there_is_not_made_again(script, corpus, tmp_path, monkeypatch):
    stages = ["--output_dir", tmp_path, "--stages", "sparse", "classifier"]
    script.run(*stages)

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(sparse.SparseRetriever, "propose", refuse)
    monkeypatch.setattr(text_classifier.TextClassifier, "propose", refuse)
    script.run(*stages)
    train = corpus.dataset["train"]
    script.corpus = replace(corpus, dataset=DatasetDict({**corpus.dataset, "train": train.select(range(29))}))
    with pytest.raises(AssertionError, match="made again"):
        script.run(*stages)
    script.corpus = corpus
    (tmp_path / "sparse" / "validation_candidates.npz").unlink()
    with pytest.raises(AssertionError, match="made again"):
        script.run(*stages)


def test_rerank_makes_the_stages_that_it_names(script, corpus, tmp_path, monkeypatch):
    """Up to the training, which is told where the candidates are."""
    from kept_hf.commands import rerank

    monkeypatch.setattr(rerank, "read_corpus", lambda arguments: corpus)
    monkeypatch.setattr(rerank.train, "prepare", lambda *_: (_ for _ in ()).throw(RuntimeError("training")))
    script.run("--output_dir", tmp_path / "given", "--stages", "sparse")
    arguments = ["--first_stages", "classifier", f"given={tmp_path / 'given' / 'sparse'}", "--top_k", "7"]
    with pytest.raises(RuntimeError, match="training"):
        rerank.main([*arguments, "--output_dir", str(tmp_path / "out")])
    made = candidates_in(tmp_path / "out" / "first-stages" / "classifier")
    for split, stage in made.items():
        candidates = Candidates.load(tmp_path / "out" / "candidates" / f"{split}.npz")
        assert np.array_equal(candidates.indices, stage.top(7).indices)
    assert not (tmp_path / "out" / "first-stages" / "sparse").exists()
