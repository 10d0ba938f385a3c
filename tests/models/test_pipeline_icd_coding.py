import itertools

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

from kept_hf import ICDCodeSet, ICDCodingPipeline, KeptProcessor

NOTES = ["fever and cough", "the patient was admitted with sepsis. " * 6, "atrial fibrillation", "", "treated " * 90]


@pytest.fixture
def coder(tiny_model, processor):
    return pipeline("icd-coding", model=tiny_model, processor=processor, device="cpu")


def scores(results, code_set):
    by_code = [{row["code"]: row["score"] for row in result} for result in results]
    return np.array([[row[code] for code in code_set] for row in by_code])


@torch.no_grad()
def expected_scores(model, processor, notes):
    rows = [processor.merge_logits(model(**processor([note], return_tensors="pt")).logits) for note in notes]
    return np.concatenate(rows)


def test_a_note(coder, tiny_model, processor, code_set):
    tiny_model.config.threshold = -3.8
    result = coder("fever and cough")
    assert [row["score"] for row in result] == sorted((row["score"] for row in result), reverse=True)
    expected = expected_scores(tiny_model, processor, ["fever and cough"])
    np.testing.assert_allclose(scores([result], code_set), expected, rtol=1e-6)
    for row in result:
        assert list(row) == ["code", "description", "score", "probability", "assigned"]
        assert row["description"] == code_set.describe(row["code"])
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-row["score"])))
        assert row["assigned"] is (row["score"] > -3.8)
    assert {row["assigned"] for row in result} == {True, False}
    assert coder("fever and cough", top_k=2) == result[:2]
    assert not any(row["assigned"] for row in coder("fever and cough", threshold=100))


def test_a_threshold_that_looks_like_a_probability(coder, caplog):
    coder("fever", threshold=0.625)
    coder("fever", threshold=0.625)
    assert [record.getMessage() for record in caplog.records if "threshold" in record.getMessage()] == [
        "threshold=0.625 is compared with scores, which are logits: it is a probability of 0.65. If you mean the "
        "probability 0.625, pass threshold=0.511."
    ]
    caplog.clear()
    coder("fever", threshold=0.0), coder("fever", threshold=-0.625), coder("fever")
    assert not caplog.records


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("codes_per_prompt", [None, 1, 4])
def test_batches_and_prompts(coder, tiny_model, processor, code_set, batch_size, codes_per_prompt):
    asked = KeptProcessor(processor.tokenizer, code_set, max_length=200, codes_per_prompt=codes_per_prompt)
    expected = expected_scores(tiny_model, asked, NOTES)
    for inputs in (NOTES, tuple(NOTES), [{"text": note} for note in NOTES]):
        results = coder(inputs, batch_size=batch_size, codes_per_prompt=codes_per_prompt)
        assert isinstance(results, list)
        np.testing.assert_allclose(scores(results, code_set), expected, atol=1e-5)


def test_streams(coder, tiny_model, processor, code_set):
    expected = expected_scores(tiny_model, processor, NOTES)
    dataset = datasets.Dataset.from_dict({"note_id": list("abcde"), "text": NOTES})
    taken = []

    def generator():
        for note in NOTES:
            taken.append(note)
            yield note

    for inputs in (dataset, dataset.to_iterable_dataset()):
        np.testing.assert_allclose(scores(list(coder(inputs, batch_size=2)), code_set), expected, atol=1e-5)
    results = coder(generator())
    assert len(taken) <= 1, "a generator is not read before its results are"
    np.testing.assert_allclose(scores(list(results), code_set), expected, atol=1e-5)
    assert coder([]) == []
    assert list(coder(iter(NOTES[:2]))) == coder(NOTES[:2])
    with pytest.raises(ValueError, match=r"inputs has the columns \['note_id'\]; pass one split"):
        coder(dataset.select_columns("note_id"))


def test_more_notes_than_are_sorted_at_once(coder, tiny_model, processor, code_set, monkeypatch):
    monkeypatch.setattr("kept_hf.models.pipeline_icd_coding.SORTED_BATCHES", 1)
    expected = expected_scores(tiny_model, processor, NOTES)
    np.testing.assert_allclose(scores(coder(NOTES, batch_size=2), code_set), expected, atol=1e-5)


def test_other_codes(coder, tiny_model, processor, code_set):
    """The model reads descriptions, so codes can be asked that it was never trained on."""
    asked = {"R05": "cough", "A41.9": "sepsis", "R50.9": "fever"}
    zero_shot = ICDCodeSet(list(asked), descriptions=asked)
    expected = expected_scores(tiny_model, KeptProcessor(processor.tokenizer, zero_shot, max_length=200), NOTES)
    for codes in (asked, zero_shot):
        results = coder(NOTES, codes=codes, batch_size=2)
        np.testing.assert_allclose(scores(results, asked), expected, atol=1e-5)
        assert {row["code"]: row["description"] for row in results[0]} == asked
    part = ["038.9", "E888.9"]
    expected = expected_scores(
        tiny_model, KeptProcessor(processor.tokenizer, code_set.subset(part), max_length=200), NOTES
    )
    np.testing.assert_allclose(scores(coder(NOTES, codes=part), part), expected, atol=1e-5)
    # The next call is about the code set again.
    assert len(coder("fever")) == len(code_set)


def test_more_codes_than_a_prompt_holds(coder, code_set):
    many = {f"X{number:02}": f"fever {number}" for number in range(40)}
    with pytest.raises(ValueError, match=r"leaves no room for a note in max_length=200.*codes_per_prompt="):
        coder("fever", codes=many, codes_per_prompt=40)
    # By default in prompts of as many codes as the code set has.
    assert {row["code"] for row in coder("fever", codes=many)} == set(many)


def test_defaults_of_the_pipeline(tiny_model, processor):
    coder = pipeline("icd-coding", model=tiny_model, processor=processor, device="cpu", top_k=1, codes=["038.9"])
    assert [row["code"] for row in coder("fever")] == ["038.9"]
    assert [row["code"] for row in coder("fever", codes=["401.9"])] == ["401.9"]
    assert [row["code"] for row in coder("fever", codes_per_prompt=2)] == ["038.9"]


def test_defaults_hold_beside_what_a_call_gives(tiny_model, processor, code_set):
    coder = pipeline("icd-coding", model=tiny_model, processor=processor, device="cpu", codes_per_prompt=1)
    asked = KeptProcessor(processor.tokenizer, code_set, max_length=200, codes_per_prompt=1)
    expected = expected_scores(tiny_model, asked, NOTES[:1])
    np.testing.assert_allclose(scores([coder(NOTES[0], codes=list(code_set))], code_set), expected, atol=1e-5)


def test_prompt_order_asks_its_own_codes_only(tiny_model, processor, code_set):
    """Elsewhere the scores would stand beside other codes."""
    order = list(reversed(list(code_set)))
    ordered = KeptProcessor(processor.tokenizer, code_set, max_length=200, prompt_order=order)
    coder = pipeline("icd-coding", model=tiny_model, processor=ordered, device="cpu")
    np.testing.assert_allclose(
        scores([coder("fever")], code_set), expected_scores(tiny_model, ordered, ["fever"]), atol=1e-5
    )
    for codes in (order, code_set, {"I10": "fever"}):
        with pytest.raises(ValueError, match="with a processor that has prompt_order"):
            coder("fever", codes=codes)


def test_cuts_are_said_once(coder, caplog):
    coder([NOTES[0], "treated " * 400, "fever " * 400])
    coder("treated " * 400)
    assert caplog.text.count("max_length=200") == 1
    assert "treated" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": 3}, TypeError, "A note is of type int; pass text"),
        ({"inputs": [None]}, TypeError, "A note is of type NoneType"),
        ({"inputs": "fever", "codes": ["I10"]}, ValueError, r"codes has 'I10' \(1 in all\), not in the processor's"),
        ({"inputs": "fever", "codes": "401.9"}, TypeError, r"pass a list of codes: \['401.9'\]"),
        ({"inputs": "fever", "codes": {}}, ValueError, r"codes=\[\] is empty"),
        ({"inputs": ["fever"], "batch_size": 0}, ValueError, "batch_size=0 is less than 1"),
        ({"inputs": "fever", "top_k": 0}, ValueError, "top_k=0 is less than 1"),
        ({"inputs": "fever", "codes_per_prompt": 0}, ValueError, "codes_per_prompt=0 is less than 1"),
    ],
)
def test_bad_input(coder, arguments, error, message):
    with pytest.raises(error, match=message):
        coder(arguments.pop("inputs"), **arguments)


def test_from_a_folder(coder, tiny_model, tmp_path):
    """No trust is asked for where the package is installed."""
    expected = coder(NOTES)
    coder.save_pretrained(tmp_path)
    loaded = pipeline("icd-coding", model=str(tmp_path), device="cpu")
    assert type(loaded) is ICDCodingPipeline and not loaded.model.training
    assert loaded(NOTES) == expected
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = pipeline("icd-coding", model=model, processor=AutoProcessor.from_pretrained(tmp_path), device="cpu")
    assert again(NOTES) == expected


def test_without_a_processor(tiny_model):
    with pytest.raises(ValueError, match="processor=None"):
        ICDCodingPipeline(tiny_model, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_late_interaction(matching_model, matching_processor, code_set, monkeypatch, batch_size):
    model, processor = matching_model, matching_processor
    expected = expected_scores(model, processor, NOTES)
    coder, calls = pipeline("icd-coding", model=model, processor=processor, device="cpu"), []
    encode = model.encode_codes
    monkeypatch.setattr(model, "encode_codes", lambda blocks: calls.append(len(blocks)) or encode(blocks))
    for _ in range(2):
        np.testing.assert_allclose(scores(coder(NOTES, batch_size=batch_size), code_set), expected, atol=1e-5)
    assert calls == [6], "descriptions are encoded once for all calls"
    some = coder(NOTES, codes=["584.9", "401.9"], batch_size=batch_size)
    np.testing.assert_allclose(scores(some, ["584.9", "401.9"]), expected[:, [2, 0]], atol=1e-5)
    other = coder("fever", codes={"401.9": "Fever"})
    assert other[0]["score"] != coder("fever", codes=["401.9"])[0]["score"]
    with torch.no_grad():
        model.longformer.embeddings.LayerNorm.bias.add_(0.1)
    changed = expected_scores(model, processor, NOTES)
    np.testing.assert_allclose(scores(coder(NOTES), code_set), changed, atol=1e-5)
    assert np.abs(changed - expected).max() > 1e-3


def test_what_does_not_change_is_made_once_a_call(matching_model, matching_processor, monkeypatch):
    model, processor = matching_model, matching_processor
    coder, calls = pipeline("icd-coding", model=model, processor=processor, device="cpu"), []

    def count(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(name) or function(*args, **kwargs))

    coder(NOTES)
    count(KeptProcessor, "code_blocks")
    count(model, "weights_fingerprint")
    count(model, "encode_codes")
    for inputs in (NOTES, iter(NOTES), NOTES[0]):
        list(coder(inputs))
        assert sorted(calls) == ["code_blocks", "weights_fingerprint"], "however many notes"
        calls.clear()
    coder(NOTES, codes=["584.9", "401.9"])
    assert sorted(calls) == ["code_blocks", "encode_codes", "weights_fingerprint"]


def test_changes_between_calls_are_noticed(matching_model, roberta_tokenizer, code_set):
    def fresh():
        processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")
        return pipeline("icd-coding", model=matching_model, processor=processor, device="cpu")

    coder = fresh()
    results = [coder("fever")]
    # Another order of the same codes.
    codes = ["401.9", "584.9"]
    for order in (codes, codes[::-1]):
        scores_of_order = {row["code"]: row["score"] for row in coder("fever", codes=order)}
        assert scores_of_order == pytest.approx(
            {row["code"]: row["score"] for row in results[0] if row["code"] in codes}, abs=1e-5
        )
    # Another description, in the same code set.
    code_set.descriptions["401.9"] = "fever and cough"
    results.append(coder("fever"))
    # Other weights, by training and around the versions that PyTorch counts.
    with torch.no_grad():
        matching_model.longformer.embeddings.LayerNorm.bias.add_(0.1)
    results.append(coder("fever"))
    matching_model.longformer.embeddings.LayerNorm.bias.data.mul_(1.5)
    results.append(coder("fever"))
    assert results[-1] == fresh()("fever")
    by_code = [{row["code"]: row["score"] for row in result} for result in results]
    assert all(one["401.9"] != other["401.9"] for one, other in itertools.pairwise(by_code))
    assert by_code[0]["038.9"] == pytest.approx(by_code[1]["038.9"], abs=1e-5)
