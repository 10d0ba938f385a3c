"""Weights of eight bits: of them no rows can be taken, and the scores stay about the same."""

import copy
import warnings

import pytest
import torch
from torch import nn
from transformers import pipeline

from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer


def dynamic(model, kinds=frozenset({nn.Linear})):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends torchao
        return torch.ao.quantization.quantize_dynamic(model, set(kinds), dtype=torch.qint8)


def torchao(model):
    quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


@torch.no_grad()
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("scorer", ["prompting", "matching"])
@pytest.mark.parametrize("quantize", [dynamic, torchao])
def test_quantized_models_score(request, code_set, scorer, backend, quantize):
    names = ("matching_model", "matching_processor") if scorer == "matching" else ("tiny_model", "processor")
    model, processor = map(request.getfixturevalue, names)
    model.config.attention_backend = backend
    batch = processor(["fever and cough", "sepsis"], return_tensors="pt")
    expected = model(**batch).logits
    quantized = quantize(model)
    scores = quantized(**batch).logits
    assert not torch.equal(scores, expected)
    assert (scores - expected).abs().max() < 0.1 * expected.abs().max()
    coder = pipeline("icd-coding", model=quantized, processor=processor, device="cpu")
    found = {row["code"]: row["score"] for row in coder("fever and cough")}
    assert [found[code] for code in code_set] == pytest.approx(scores[0].tolist(), rel=0.05, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("quantize", [dynamic, torchao])
def test_caches_of_quantized_models_know_their_weights(matching_model, quantize):
    """The weights of the encoder that are no parameters count, too."""
    plain = matching_model.weights_fingerprint()
    changed = copy.deepcopy(matching_model)
    changed.longformer.encoder.layer[1].output.dense.weight[3, 2] += 1
    one, again, other = (
        quantize(copy.deepcopy(matching_model)),
        quantize(copy.deepcopy(matching_model)),
        quantize(changed),
    )
    assert one.weights_fingerprint() == again.weights_fingerprint()
    assert len({plain, one.weights_fingerprint(), other.weights_fingerprint()}) == 3


@torch.no_grad()
@pytest.mark.parametrize("kinds", [{nn.Linear}, {nn.Linear, nn.LSTM}])
def test_a_quantized_msmn_scores(kinds):
    tokenizer = MSMNTokenizer.from_texts(["fever and high blood pressure"], min_count=1)
    model = MSMNForICDCoding(MSMNConfig(vocab_size=len(tokenizer), num_synonyms=1, id2label={0: "I10", 1: "R50.9"}))
    model.set_label_terms(**tokenizer(["high blood pressure", "fever"], padding=True, return_tensors="pt"))
    notes = tokenizer(["Fever.", "High blood pressure and fever"], padding=True, return_tensors="pt")
    expected = model.eval()(**notes).logits
    torch.testing.assert_close(dynamic(model, kinds)(**notes).logits, expected, atol=0.02, rtol=0.05)
