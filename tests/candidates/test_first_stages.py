"""The registry of first stages, and their candidates in files."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from kept_hf import ICDCodeSet
from kept_hf.candidates import registry
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.definition import NotesStage
from kept_hf.candidates.first_stages import FirstStageError, FirstStages
from kept_hf.candidates.registry import FIRST_STAGES, TRAINED_STAGES, first_stage, needs_of, trained_stage
from kept_hf.corpora import Corpus

CODES = ["A00", "B00", "C00"]
TRAIN = [["A00", "B00"], ["B00"], ["C00"], ["B00"]]


@pytest.fixture
def corpus():
    def split(name, codes):
        count = len(codes)
        texts = {"note_id": [f"{name}{row}" for row in range(count)], "text": [f"note {row}" for row in range(count)]}
        return Dataset.from_dict({**texts, "codes": codes, "subject_id": ["x", "y", "x", "z"][:count]})

    return Corpus(DatasetDict(train=split("t", TRAIN), validation=split("v", [["A00"]])), ICDCodeSet(CODES), None)


class Frequent:
    """The most frequent codes of some notes."""

    def __init__(self, code_set, labels):
        self.code_set = code_set
        self.counts = [sum(code in codes for codes in labels) for code in code_set]

    def propose(self, notes, top_k):
        return Candidates.from_scores([self.counts] * len(notes), self.code_set.codes, top_k)


@pytest.fixture
def register(monkeypatch):
    """Write a file of the folder `candidates/`, and its line of the registry."""

    def add(name, stage):
        monkeypatch.setitem(sys.modules, f"kept_hf.candidates.{name}_file", SimpleNamespace(STAGE=stage))
        monkeypatch.setitem(registry.FIRST_STAGES, name, f"{name}_file")

    return add


def test_a_file_and_a_line_make_a_first_stage(register, corpus, tmp_path, monkeypatch, capsys):
    from kept_hf.commands import propose, rerank

    register("frequent", NotesStage(lambda i: Frequent(i.code_set, i.labels), frozenset({"labels"})))
    for command in (propose, rerank):
        monkeypatch.setattr(command, "read_corpus", lambda arguments: corpus)
    propose.main(["--stages", "frequent", "--output_dir", str(tmp_path)])
    assert "frequent" in capsys.readouterr().out
    found = Candidates.load(tmp_path / "frequent" / "validation_candidates.npz")
    assert found.codes_of(0) == ["B00", "A00", "C00"] and found.note_ids == ("v0",)
    monkeypatch.setattr(rerank, "train_model", lambda *_: (_ for _ in ()).throw(RuntimeError("training")))
    with pytest.raises(RuntimeError, match="training"):
        rerank.main(["--first_stages", "frequent", "--output_dir", str(tmp_path / "out")])
    assert len(Candidates.load(tmp_path / "out" / "candidates" / "train.npz")) == 4


def test_a_stage_made_out_of_fold_never_sees_the_patient(register, corpus, tmp_path):
    seen = []

    def make(inputs):
        seen.append(list(inputs.texts))
        return Frequent(inputs.code_set, inputs.labels)

    register("frequent", NotesStage(make, frozenset({"labels"}), out_of_fold=True))
    made = FirstStages(corpus, tmp_path, folds=3).make("frequent")
    assert len(seen) == 4 and sorted(map(len, seen)) == [2, 3, 3, 4], "three patients, and all for validation"
    assert ["note 1", "note 3"] in seen, "both notes of patient x are held out together"
    scores = made["train"].scores_matrix(np.nan)
    assert scores[2].tolist() == [0, 2, 0] and made["validation"].scores_matrix(np.nan)[0].tolist() == [1, 3, 1]


def test_a_stage_gets_what_it_needs_and_no_more(register, corpus, tmp_path):
    seen = []

    def make(inputs):
        seen.append((inputs.texts is not None, inputs.labels is not None, inputs.encoder))
        return Frequent(inputs.code_set, [])

    for number, needs in enumerate(([], ["texts"], ["labels"], ["encoder"])):
        register(f"stage{number}", NotesStage(make, frozenset(needs)))
        FirstStages(corpus, tmp_path, encoder="a model").make(f"stage{number}")
    assert seen == [(False, False, None), (True, False, None), (True, True, None), (False, False, "a model")]
    with pytest.raises(ValueError, match="needs has gold; pass some of encoder, labels, texts"):
        NotesStage(make, frozenset({"gold"}))


def test_other_settings_make_a_stage_again(register, corpus, tmp_path):
    made = []

    def stage(alpha):
        def make(inputs):
            made.append(alpha)
            return Frequent(inputs.code_set, TRAIN)

        return NotesStage(make, own_settings=lambda inputs: {"alpha": alpha})

    for alpha in (1, 1, 2):
        register("frequent", stage(alpha))
        FirstStages(corpus, tmp_path).make("frequent")
    assert made == [1, 2]


def test_what_is_missing_is_named(corpus, tmp_path):
    with pytest.raises(FirstStageError, match="dense needs an encoder, but encoder=None"):
        FirstStages(corpus, tmp_path).make("dense")
    with pytest.raises(FirstStageError, match="fused needs an encoder"):
        FirstStages(corpus, tmp_path).make("fused")
    del corpus.dataset["train"]
    with pytest.raises(FirstStageError, match="classifier needs training notes; the splits are validation"):
        FirstStages(corpus, tmp_path).make("classifier")
    with pytest.raises(ValueError, match="name='bm25' is no first stage; pass one of sparse, dense"):
        FirstStages(corpus, tmp_path).make("bm25")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FirstStageError, match="model_type='bert' is no first stage; pass a model of type msmn, kept_"):
        FirstStages(corpus, tmp_path / "out").make("other", str(tmp_path))


def test_all_registered_stages_load():
    assert all(first_stage(name).needs <= needs_of([name]) for name in FIRST_STAGES)
    assert all(callable(trained_stage(model_type).load) for model_type in TRAINED_STAGES)
    assert needs_of(["fused"]) == {"texts", "labels", "encoder"} and needs_of([]) == frozenset()
