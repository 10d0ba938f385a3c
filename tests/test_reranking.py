"""The second stage, compared with a loop over single groups."""

import copy
import logging
import random
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from predictions import prediction_of
from tiny import randomize

from kept_hf import ICDCodeSet, KeptLongformerForICDPrompting, KeptProcessor, StaleCacheError
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.kept import KeptFirstStage
from kept_hf.metrics import icd_metrics
from kept_hf.models import processing_kept
from kept_hf.models.prompting import sample_codes
from kept_hf.reranking import (
    Fusion,
    fuse,
    in_code_set,
    label_matrix,
    mixed_order,
    published_fill,
    rerank,
    rerank_all,
    tune_fusion,
)
from kept_hf.training.evaluation import ICDMetrics
from kept_hf.training.rows import CandidatePrompts, prompt_rows

NOTES = [
    "chief complaint: fever and cough. " * 3,
    "the patient was admitted with sepsis and acute kidney failure. " * 5,
    "atrial fibrillation, treated with fluids",
    "discharge diagnosis: pneumonia",
]
CANDIDATES = [[2, 0, 5, 4, 1], [], [3], [5, 1, 0, 2, 3, 4]]
"""Fewer than a group, none, and as many as there are; places in the code set."""


def proposals_of(candidates, code_set, note_ids=None):
    width = max(map(len, candidates))
    indices = [[*row, *[-1] * (width - len(row))] for row in candidates]
    scores = [[*range(len(row), 0, -1), *[-np.inf] * (width - len(row))] for row in candidates]
    return Candidates(code_set.codes, np.array(indices), np.array(scores, dtype=np.float32), note_ids)


@pytest.fixture
def proposals(code_set):
    return proposals_of(CANDIDATES, code_set, ["a", "b", "c", "d"])


@pytest.fixture
def isolated(matching_model, matching_processor):
    return matching_model, matching_processor


def as_dicts(proposals):
    """For each note: code → score."""
    return [
        dict(zip(proposals.codes_of(note), proposals.scores[note].tolist(), strict=False))
        for note in range(len(proposals))
    ]


def one_by_one(model, processor, notes, candidates, code_set, group_size):
    """Code → score of each note, one prompt after the other."""
    expected = []
    for note, places in zip(notes, candidates, strict=True):
        codes = mixed_order(code_set.codes[place] for place in places)
        scores = {}
        for start in range(0, len(codes), group_size):
            group = codes[start : start + group_size]
            inputs = processor(note, codes=group, return_tensors="pt")
            with torch.no_grad():
                logits = model(**inputs).logits[0]
            scores |= dict(zip(group, logits.tolist(), strict=True))
        expected.append(scores)
    return expected


@pytest.mark.parametrize(("group_size", "batch_size"), [(2, 1), (2, 5), (3, 2), (50, 4)])
def test_joint_groups_are_those_of_a_loop(tiny_model, processor, code_set, proposals, group_size, batch_size):
    scored = rerank(tiny_model, processor, NOTES, proposals, group_size, batch_size)
    expected = one_by_one(tiny_model, processor, NOTES, CANDIDATES, code_set, group_size)
    for found, of_loop in zip(as_dicts(scored), expected, strict=True):
        assert found == pytest.approx(of_loop, abs=1e-5)
    assert scored.codes == code_set.codes and scored.note_ids == proposals.note_ids
    assert (scored.num_candidates == [5, 0, 1, 6]).all()
    assert processor.codes_per_prompt is None, "the processor of the caller stays as it is"


@pytest.mark.parametrize("layout", ["joint", "isolated"])
def test_the_order_of_the_candidates_does_not_matter(tiny_model, processor, isolated, code_set, proposals, layout):
    model, processor = (tiny_model, processor) if layout == "joint" else isolated
    expected = rerank(model, processor, NOTES, proposals, group_size=2)
    shuffled = [random.Random(3).sample(places, len(places)) for places in CANDIDATES]
    assert shuffled != CANDIDATES
    found = rerank(model, processor, NOTES, proposals_of(shuffled, code_set), group_size=2)
    assert np.array_equal(found.indices, expected.indices) and np.array_equal(found.scores, expected.scores)
    backwards = rerank(model, processor, NOTES[::-1], proposals.take([3, 2, 1, 0]), group_size=2, batch_size=3)
    assert np.allclose(backwards.scores[::-1], expected.scores, atol=1e-5)


def test_joint_groups_do_depend_on_their_members(tiny_model, processor, proposals):
    small, large = (rerank(tiny_model, processor, NOTES, proposals, size) for size in (2, 50))
    assert not np.allclose(small.scores[0], large.scores[0], atol=1e-3)


def test_isolated_is_the_forward_pass(isolated, code_set, proposals):
    model, processor = isolated
    scored = rerank(model, processor, NOTES, proposals)
    expected = one_by_one(model, processor, NOTES, CANDIDATES, code_set, 50)
    for found, of_loop in zip(as_dicts(scored), expected, strict=True):
        assert found == pytest.approx(of_loop, abs=1e-5)


def test_isolated_reads_each_note_and_each_description_once(isolated, proposals, monkeypatch):
    model, processor = isolated
    calls = {"encode_codes": [], "encode_note": []}
    for name, of_name in calls.items():
        real = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *a, real=real, of_name=of_name, **k: of_name.append(a) or real(*a, **k))
    rerank(model, processor, [NOTES[0], NOTES[2]], proposals.take([0, 2]))
    ((blocks,),) = calls["encode_codes"]
    assert set(blocks) == {*proposals.codes_of(0), *proposals.codes_of(2)}, "of the candidates alone"
    assert len(calls["encode_note"]) == 2


def test_a_cache_is_taken_and_compared(isolated, code_set, proposals, monkeypatch):
    model, processor = isolated
    cache = model.encode_codes(processor.code_blocks())
    expected = rerank(model, processor, NOTES, proposals)
    other = copy.deepcopy(model.encode_codes({**processor.code_blocks(), "401.9": [0, 7, 8]}))
    monkeypatch.setattr(model, "encode_codes", None)
    assert np.allclose(rerank(model, processor, NOTES, proposals, code_cache=cache).scores, expected.scores, atol=1e-6)
    with pytest.raises(StaleCacheError, match="401"):
        rerank(model, processor, NOTES, proposals, code_cache=other)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_all_codes_without_a_first_stage(isolated, code_set, batch_size):
    model, processor = isolated
    notes = [NOTES[note] for note in (3, 0, 1, 2)]
    best = rerank_all(model, processor, notes, top_k=4, batch_size=batch_size, note_ids=["a", "b", "c", "d"])
    everything = proposals_of([list(range(6))] * 4, code_set)
    expected = rerank(model, processor, notes, everything)
    assert np.array_equal(best.indices, expected.indices[:, :4])
    assert np.allclose(best.scores, expected.scores[:, :4], atol=1e-5)
    assert best.note_ids == ("a", "b", "c", "d")
    assert len(rerank_all(model, processor, [], top_k=4)) == 0


def test_a_model_proposes_from_its_codes_or_from_others(isolated, code_set, tmp_path):
    model, processor = isolated
    stage = KeptFirstStage(model, processor, batch_size=3)
    proposals = stage.propose(NOTES, top_k=2)
    expected = rerank_all(model, processor, NOTES, top_k=2)
    assert np.array_equal(proposals.indices, expected.indices) and stage.codes == code_set.codes
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = KeptFirstStage.from_pretrained(tmp_path).propose(NOTES, top_k=2)
    assert np.array_equal(again.indices, expected.indices) and np.allclose(again.scores, expected.scores, atol=1e-5)
    other = ICDCodeSet(["R05", "R50.9"], {"R05": "Cough", "R50.9": "Fever, unspecified"})
    unseen = KeptFirstStage.from_pretrained(tmp_path, code_set=other).propose(NOTES, top_k=5)
    assert unseen.codes == other.codes and (unseen.num_candidates == 2).all()


def test_models_that_cannot_propose(tiny_model, processor, isolated):
    with pytest.raises(ValueError, match="prompt_layout='joint': each group of codes would take a pass"):
        KeptFirstStage(tiny_model, processor).propose(NOTES, 3)
    with pytest.raises(ValueError, match="batch_size=0 is less than 1"):
        KeptFirstStage(*isolated, batch_size=0).propose(NOTES, 3)
    with pytest.raises(TypeError, match="pass a list of notes"):
        KeptFirstStage(*isolated).propose("a note", 3)
    with pytest.raises(ValueError, match="top_k"):
        KeptFirstStage(*isolated).propose(NOTES, 0)


def test_a_note_is_tokenized_once(tiny_model, processor, proposals, monkeypatch):
    seen = []
    real = processing_kept.note_ids_behind_mask
    monkeypatch.setattr(
        processing_kept,
        "note_ids_behind_mask",
        lambda tokenizer, note, preset: seen.append(note) or real(tokenizer, note, preset),
    )
    rerank(tiny_model, processor, NOTES, proposals, group_size=1)
    assert sorted(seen) == sorted([NOTES[0], NOTES[2], NOTES[3]]), "twelve prompts of three notes"


def test_no_more_prompts_at_a_time_than_a_batch(tiny_model, processor, proposals, monkeypatch):
    sizes = []
    real = tiny_model.forward
    monkeypatch.setattr(tiny_model, "forward", lambda *a, **k: sizes.append(len(k["input_ids"])) or real(*a, **k))
    rerank(tiny_model, processor, NOTES, proposals, group_size=1, batch_size=5)
    assert sizes == [5, 5, 2]


def test_the_model_scores_without_dropout_and_stays_in_its_mode(tiny_config, processor, proposals):
    tiny_config.hidden_dropout_prob = 0.5
    model = randomize(KeptLongformerForICDPrompting(tiny_config)).train()
    one, other = (rerank(model, processor, NOTES, proposals, 2) for _ in range(2))
    assert model.training and np.array_equal(one.scores, other.scores)


def test_truncated_notes_are_counted_once(tiny_model, processor, proposals, caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        rerank(tiny_model, processor, ["fever " * 300, *NOTES[1:]], proposals, group_size=3)
    messages = [record.getMessage() for record in caplog.records if "longer than max_length" in record.getMessage()]
    assert len(messages) == 1 and messages[0].startswith("2 of 5 inputs")


def test_candidates_outside_the_code_set(tiny_model, processor, code_set, caplog):
    codes = ("Z99.9", *reversed(code_set.codes), "Z00.0")
    given = Candidates(codes, [[0, 6, 7, 1], [7, 0, -1, -1]], [[4, 3, 2, 1], [2, 1, -np.inf, -np.inf]])
    with pytest.raises(ValueError, match=r"'Z99.9', 'Z00.0' \(2 codes in all\).*skip_unknown=True"):
        rerank(tiny_model, processor, NOTES[:2], given)
    with caplog.at_level(logging.WARNING, logger="kept_hf.reranking"):
        scored = rerank(tiny_model, processor, NOTES[:2], given, skip_unknown=True)
    assert "4 candidates (2 codes) are not in the code set" in caplog.text
    assert [set(scored.codes_of(note)) for note in (0, 1)] == [{"401.9", "E888.9"}, set()]
    known = in_code_set(given, code_set, skip_unknown=True)
    assert known.codes_of(0) == ["401.9", "E888.9"] and known.scores[0].tolist() == [3, 1, -np.inf, -np.inf]


def test_errors(tiny_model, processor, isolated, proposals):
    with pytest.raises(ValueError, match="notes has 3 texts and proposals 4 rows"):
        rerank(tiny_model, processor, NOTES[:3], proposals)
    for name in ("group_size", "batch_size"):
        with pytest.raises(ValueError, match=f"{name}=0 is less than 1"):
            rerank(tiny_model, processor, NOTES, proposals, **{name: 0})
    with pytest.raises(ValueError, match="code_cache with prompt_layout='joint'"):
        rerank(tiny_model, processor, NOTES, proposals, code_cache=SimpleNamespace())
    with pytest.raises(ValueError, match="prompt_layout='joint': each group"):
        rerank_all(tiny_model, processor, NOTES)
    with pytest.raises(ValueError, match="batch_size=0 is less than 1"):
        rerank_all(*isolated, NOTES, batch_size=0)
    for ask in (lambda: rerank(tiny_model, processor, "note", proposals), lambda: rerank_all(*isolated, "note")):
        with pytest.raises(TypeError, match="notes is one string; pass a list of notes"):
            ask()
    one = Candidates.from_scores([[1.0]], ["A"], 1)
    for weights in ((), (0.5, 2.0)):
        with pytest.raises(ValueError, match=r"weights=\(.*pass numbers from 0 .* to 1"):
            tune_fusion(one, one, [["A"]], weights=weights)


def test_published_fill():
    assert published_fill(np.array([[3.0, -2.0], [-np.inf, -1.0]])) == -26
    assert published_fill(np.array([[3.0, -40.5], [-np.inf, -1.0]])) == -41.5
    assert published_fill(np.full((2, 0), 0.0)) == -26


# Fusion.


def stages(seed=0, num_notes=60, num_codes=30, top_k=10, informative=(1.0, 1.0)):
    """Two stages that score the same candidates, each as well as it is told to, and the gold codes."""
    generator = np.random.default_rng(seed)
    labels = generator.random((num_notes, num_codes)) < 0.15
    codes = [f"C{number}" for number in range(num_codes)]
    first = 100 + 5 * (generator.normal(size=labels.shape) + informative[0] * labels)
    second = generator.normal(size=labels.shape) + informative[1] * labels
    proposed = Candidates.from_scores(first, codes, top_k)
    is_proposed = proposed.scores_matrix(-np.inf) > -np.inf
    again = Candidates.from_scores(np.where(is_proposed, second, -np.inf), codes, top_k)
    return proposed, again, [[codes[place] for place in np.flatnonzero(row)] for row in labels]


def test_fusion_is_the_weighted_sum(code_set):
    first, second, _ = stages()
    fusion = Fusion(0.3, means=(100.0, 0.5), scales=(5.0, 2.0))
    fused = fuse(first, second, fusion)
    by_code = [as_dicts(proposals) for proposals in (first, second, fused)]
    for of_first, of_second, found in zip(*by_code, strict=True):
        assert set(found) == set(of_first)
        for code, score in found.items():
            expected = 0.7 * (of_first[code] - 100) / 5 + 0.3 * (of_second[code] - 0.5) / 2
            assert score == pytest.approx(expected, abs=1e-5)


def test_the_ends_of_the_fusion_are_the_stages():
    first, second, _ = stages()
    for weight, stage in ((0.0, first), (1.0, second)):
        assert np.array_equal(fuse(first, second, Fusion(weight, (1.0, 2.0), (3.0, 4.0))).indices, stage.indices)


@pytest.mark.parametrize("metric", ["f1_micro", "map"])
def test_the_weight_is_the_best_of_all(metric):
    first, second, gold = stages(num_notes=20, informative=(2.0, 1.5))
    fusion = tune_fusion(first, second, gold, metric)
    labels = label_matrix(gold, first.codes)

    def value_of(weight):
        fused = fuse(first, second, Fusion(weight, fusion.means, fusion.scales)).scores_matrix(-np.inf)
        if metric == "map":
            return icd_metrics(fused, labels)["map"]
        cuts = np.unique(fused[fused > -np.inf])
        return max(icd_metrics(fused, labels, threshold=np.nextafter(cut, -np.inf))["f1_micro"] for cut in cuts)

    values = {weight: value_of(weight) for weight in (0.0, 0.25, 0.5, 0.75, 1.0, fusion.weight)}
    assert max(values.values()) == pytest.approx(values[fusion.weight], abs=1e-9)
    assert values[fusion.weight] > max(values[0.0], values[1.0]), "both stages know something"


def test_a_stage_that_knows_nothing_gets_no_weight():
    assert tune_fusion(*stages(informative=(0.0, 2.0))).weight >= 0.7
    assert tune_fusion(*stages(informative=(2.0, 0.0))).weight <= 0.3


def test_fusion_of_equal_scores_and_of_nothing():
    first, second, gold = stages()
    flat = Candidates(first.codes, first.indices, np.zeros_like(first.scores))
    assert tune_fusion(flat, second, gold).scales[0] == 1.0
    empty = first.take([0, 1]).indices * 0 - 1
    nothing = Candidates(first.codes, empty, np.full(empty.shape, -np.inf))
    assert fuse(nothing, nothing, Fusion(0.5, (0.0, 0.0), (1.0, 1.0))).num_candidates.tolist() == [0, 0]
    assert tune_fusion(nothing, nothing, gold[:2]).scales == (1.0, 1.0)


def test_fusion_takes_rows_of_other_widths():
    first, second, _ = stages(top_k=4)
    wide = Candidates(
        first.codes,
        np.pad(first.indices, ((0, 0), (0, 3)), constant_values=-1),
        np.pad(first.scores, ((0, 0), (0, 3)), constant_values=-np.inf),
    )
    fusion = Fusion(0.4, (100.0, 0.0), (5.0, 1.0))
    expected = fuse(first, second, fusion)
    for stage in (fuse(wide, second, fusion), fuse(first, second, fusion)):
        assert np.array_equal(stage.indices, expected.indices)


def test_other_notes_are_not_fused():
    first, second = (Candidates.from_scores([[1.0, 2.0]] * 2, ["A", "B"], 2, ids) for ids in (["x", "y"], ["y", "x"]))
    fusion = Fusion(0.5, (0.0, 0.0), (1.0, 1.0))
    for fuse_or_tune in (lambda: fuse(first, second, fusion), lambda: tune_fusion(first, second, [["A"], ["B"]])):
        with pytest.raises(ValueError, match="bring them into one order with for_notes"):
            fuse_or_tune()
    assert fuse(first, replace(second, note_ids=None), fusion).scores.tolist() == [[2.0, 1.0]] * 2


def test_fusion_errors():
    first, second, gold = stages()
    with pytest.raises(ValueError, match="other candidates, first in note 0"):
        fuse(first.top(5), second, Fusion(0.5, (0, 0), (1, 1)))
    with pytest.raises(ValueError, match="first has 60 notes and 30 codes, second 59"):
        fuse(first, second.take(range(59)), Fusion(0.5, (0, 0), (1, 1)))
    with pytest.raises(ValueError, match="metric='f1' is unknown; pass one of f1_micro, map"):
        tune_fusion(first, second, gold, "f1")
    with pytest.raises(ValueError, match="gold has 59 notes"):
        tune_fusion(first, second, gold[:59])
    with pytest.raises(ValueError, match="gold has 'X' in note 0"):
        tune_fusion(first, second, [["X"], *gold[1:]])


# Training and evaluation with the Trainer.


@pytest.fixture
def notes():
    codes = [["401.9", "E888.9"], ["038.9"], [], ["584.9", "not in the set"]]
    return Dataset.from_dict({"note_id": ["a", "b", "c", "d"], "text": NOTES, "codes": codes})


def asked_in(processor, row):
    prompt = processor.tokenizer.decode(row["input_ids"]).split("<s>")[1]
    titles = {processor.code_set.describe(code).lower().split(",")[0]: code for code in processor.code_set}
    return [titles[part.strip(" ,.")] for part in prompt.split("<mask>")[: len(row["labels"])]]


@pytest.mark.parametrize(("share", "hard"), [(1.0, 4), (0.5, 2), (0.0, None)])
def test_hard_negatives(share, hard):
    codes = [f"C{number}" for number in range(100)]
    proposed = codes[10:30]
    for seed in range(20):
        asked = sample_codes(["C10", "C99"], codes, 6, random.Random(seed), proposed, share)
        assert len(set(asked)) == 6 and {"C10", "C99"} <= set(asked)
        if hard is not None:
            assert len(set(asked) & set(proposed[1:])) >= hard
    drawn = {code for seed in range(200) for code in sample_codes([], codes, 6, random.Random(seed), proposed, share)}
    assert drawn == (set(proposed) if share == 1 else set(codes))


def test_hard_negatives_that_run_out():
    codes = [f"C{number}" for number in range(8)]
    asked = sample_codes(["C0"], codes, 6, random.Random(0), ["C0", "C7"], 1.0)
    assert len(set(asked)) == 6 and {"C0", "C7"} <= set(asked)
    with pytest.raises(ValueError, match="hard_negatives=2 is no share"):
        sample_codes(["C0"], codes, 6, random.Random(0), ["C7"], 2)


def test_training_rows_have_hard_negatives(notes, processor, code_set):
    proposals = proposals_of([[3, 2], [1, 0], [0], [5]], code_set, ["d", "c", "b", "a"])  # in another order
    rows = prompt_rows(notes, processor, 3, 4, proposals=proposals, hard_negatives=1.0)
    assert len(rows) == 16
    for number, row in enumerate(rows):
        asked = set(asked_in(processor, row))
        proposed = {"a": {"E888.9"}, "b": {"401.9"}, "c": {"038.9", "401.9"}, "d": {"V45.81", "584.9"}}[
            "abcd"[number // 4]
        ]
        assert proposed <= asked and len(asked) == 3


def test_training_groups(notes, processor, proposals):
    processor.codes_per_prompt = 2
    rows = prompt_rows(notes, processor, draws=2, proposals=proposals)
    groups = [asked_in(processor, row) for row in rows]
    assert [len(group) for group in groups] == [2, 2, 1, 2, 2, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    first, second = ([code for group in groups[start : start + 3] for code in group] for start in (0, 3))
    assert set(first) == set(second) == set(proposals.codes_of(0)) and first != second, "shuffled again"
    assert groups[6:8] == [["038.9"]] * 2, "a gold code that was not proposed is taught"
    assert rows[6]["labels"] == [1]
    published = prompt_rows(notes, processor, proposals=proposals, add_gold=False)
    assert len(published) == 3 + 0 + 1 + 3
    with pytest.raises(ValueError, match="no candidate for any of these notes"):
        prompt_rows(notes.select([1]), processor, proposals=proposals, add_gold=False)


def test_proposals_must_fit_the_notes(notes, processor, proposals):
    with pytest.raises(ValueError, match="1 notes without candidates, the first at position 3"):
        prompt_rows(notes, processor, 3, proposals=proposals.take([0, 1, 2]))
    unnamed = Candidates(proposals.codes, proposals.indices[:3], proposals.scores[:3])
    with pytest.raises(ValueError, match="proposals has 3 rows for 4 notes"):
        prompt_rows(notes, processor, 3, proposals=unnamed)


@pytest.mark.parametrize("layout", ["joint", "isolated"])
def test_evaluation_on_candidates(tiny_model, processor, isolated, notes, proposals, layout):
    model, processor = (tiny_model, processor) if layout == "joint" else isolated
    if layout == "joint":
        processor.codes_per_prompt = 2
    notes = notes.map(lambda row: {"codes": [code for code in row["codes"] if code != "not in the set"]})
    prompts = CandidatePrompts(notes, processor, proposals)
    rows = prompt_rows(prompts.notes, processor)
    logits = []
    for row in rows:
        features = {name: row[name] for name in row if "label" not in name and name != "length"}
        with torch.no_grad():
            logits.append(model(**processor.pad([features])).logits[0].tolist())
    order = np.random.default_rng(0).permutation(len(rows))
    prediction = prediction_of([rows[index] for index in order.tolist()], [logits[index] for index in order])
    reranked = rerank(model, processor, NOTES, proposals, group_size=2)
    expected = reranked.scores_matrix(published_fill(reranked.scores))
    metrics = ICDMetrics(processor, candidates=prompts)
    scores, labels = metrics.scores_and_labels(prediction)
    assert np.allclose(scores, expected, atol=1e-5) and np.array_equal(labels, prompts.labels)
    assert prompts.labels.tolist() == [processor.code_set.multi_hot(codes) for codes in notes["codes"]]
    found = metrics(prediction)
    wanted = icd_metrics(scores, prompts.labels, threshold=found["threshold"])
    assert found["recall_micro"] == wanted["recall_micro"] and found["map"] == wanted["map"]
    of_all = prompt_rows(notes.add_column("asked", [list(processor.code_set)] * len(notes)), processor)
    for some in (rows.select([0]), of_all):
        with pytest.raises(ValueError, match=r"ask about \d+ pairs of note and candidate, .* about 12; evaluate"):
            metrics(prediction_of(list(some), [[0.0] * len(row["labels"]) for row in some]))
    with pytest.raises(ValueError, match="no candidate for any"):
        CandidatePrompts(notes.select([1]), processor, proposals)


class Asked(torch.nn.Module):
    """Scores codes without reading them: by their number."""

    device = torch.device("cpu")

    def encode_codes(self, blocks):
        return list(blocks)

    def encode_note(self, input_ids, attention_mask=None):
        return input_ids

    def score(self, notes, codes, asked):
        return torch.tensor([[float(code[1:]) for code in asked]] * len(notes))


class Asking:
    """A processor of the isolated layout that takes the length of a note for its tokens."""

    prompt_layout, max_length = "isolated", 100
    check_model = KeptProcessor.check_model

    def __init__(self, code_set):
        self.code_set = code_set

    def code_blocks(self, codes):
        return {code: [0, 1] for code in codes}

    def __call__(self, texts, codes, return_tensors=None, return_cut=True):
        rows = [[len(text)] for text in texts]
        if return_tensors is None:
            return {"input_ids": rows, "cut": [0] * len(rows)}
        return {name: torch.tensor(rows) for name in ("input_ids", "attention_mask")} | {
            "cut": torch.zeros(len(rows), dtype=int)
        }


def test_memory_is_that_of_the_proposals():
    """All pairs of 300 notes and 8,700 codes are 10 MB in float32, and a list of their scores 21 MB."""
    code_set = ICDCodeSet([f"C{number}" for number in range(8700)])
    generator = np.random.default_rng(0)
    indices = np.argsort(generator.random((300, 8700)), axis=1)[:, :50]
    scores = -np.sort(generator.random((300, 50)))
    first = Candidates(code_set.codes, indices, scores)
    notes = ["fever"] * 300
    tracemalloc.start()
    second = rerank(Asked(), Asking(code_set), notes, first)
    everything = rerank_all(Asked(), Asking(code_set), notes, top_k=50, batch_size=4)
    fuse(first, second, Fusion(0.5, (0.0, 0.0), (1.0, 1.0)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6, peak
    assert np.array_equal(second.indices, -np.sort(-indices, axis=1)) and everything.indices[7, 0] == 8699


def test_the_earlier_name_of_candidates():
    from kept_hf import reranking

    assert reranking.Proposals is Candidates
