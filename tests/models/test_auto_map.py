"""A saved folder holds all that the Auto classes need in a process without this package."""

import json

import pytest
import torch
from published import PUBLISHED, PUBLISHED_MSMN
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)
from without_package import MATCHING_WITHOUT_PACKAGE, MSMN_WITHOUT_PACKAGE, NOTE, expect, load_without_package

from kept_hf.models.auto_map import AUTO_CLASSES
from kept_hf.models.auto_map_msmn import MSMN_AUTO_CLASSES


@pytest.fixture
def saved(tiny_model, processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_late_interaction_without_the_package(matching_model, matching_processor, tmp_path):
    model, processor = matching_model, matching_processor
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = tmp_path / "again"
    read = load_without_package(tmp_path / "model", tmp_path, again=[again], script=MATCHING_WITHOUT_PACKAGE)
    assert read["classes"] == [
        *("KeptLongformerMatchingConfig", "KeptProcessor", "KeptLongformerForICDMatching"),
        *("KeptLongformerForICDMatching", "ICDCodingPipeline"),
    ]
    expect(model, processor, read)
    assert load_without_package(again, tmp_path, script=MATCHING_WITHOUT_PACKAGE)["logits"] == read["logits"]


def test_without_the_package(saved, tiny_model, processor, tmp_path):
    read = load_without_package(saved, tmp_path, again=[tmp_path / "again"])
    assert read["classes"] == [
        *("KeptLongformerConfig", "KeptProcessor", "KeptLongformerForICDPrompting", "KeptLongformerModel"),
        *("KeptLongformerForMaskedLM", "ICDCodingPipeline", "ICDCodingPipeline"),
    ]
    expect(tiny_model, processor, read)
    inputs = processor(NOTE, return_tensors="pt")
    with torch.no_grad():
        encoder, masked_lm = AutoModel.from_pretrained(saved), AutoModelForMaskedLM.from_pretrained(saved)
        assert read["states"] == pytest.approx(encoder.eval()(**inputs).last_hidden_state.sum().item(), rel=1e-4)
        assert read["words"] == pytest.approx(masked_lm.eval()(**inputs).logits.sum().item(), rel=1e-4)
    assert [row["code"] for row in read["inferred"]] == [row["code"] for row in read["coded"]]
    # What such a process saves is as complete.
    assert load_without_package(tmp_path / "again", tmp_path)["logits"] == read["logits"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-6), (torch.float16, 1e-6)])
def test_half_precision_and_shards(tiny_model, processor, tmp_path, dtype, tolerance):
    tiny_model.to(dtype).save_pretrained(tmp_path / "model", max_shard_size="10KB")
    processor.save_pretrained(tmp_path / "model")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    read = load_without_package(tmp_path / "model", tmp_path)
    assert read["dtype"] == str(dtype)
    expect(tiny_model, processor, read, tolerance)


def test_with_the_package_no_trust_is_needed(saved):
    loaded = {
        "AutoConfig": AutoConfig.from_pretrained(saved),
        "AutoModel": AutoModel.from_pretrained(saved),
        "AutoModelForMaskedLM": AutoModelForMaskedLM.from_pretrained(saved),
        "AutoModelForSequenceClassification": AutoModelForSequenceClassification.from_pretrained(saved),
        "AutoProcessor": AutoProcessor.from_pretrained(saved),
    }
    found = {name: f"{type(thing).__module__}.{type(thing).__name__}" for name, thing in loaded.items()}
    assert found == {name: f"kept_hf.models.{place}" for name, place in AUTO_CLASSES["kept_longformer"].items()}


@pytest.mark.parametrize("part", ["config", "model", "processor", "encoder"])
def test_whatever_is_saved_brings_all_modules(tiny_model, processor, tmp_path, part):
    things = {
        "config": tiny_model.config,
        "model": tiny_model,
        "processor": processor,
        "encoder": tiny_model.longformer,
    }
    things[part].save_pretrained(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.py")) == sorted(PUBLISHED)
    if part != "processor":
        written = json.loads((tmp_path / "config.json").read_text())
        assert set(written["auto_map"]) == set(AUTO_CLASSES["kept_longformer"])
        assert list(written["custom_pipelines"]) == ["icd-coding"]


def test_msmn_without_the_package(msmn, tmp_path):
    saved, logits = msmn
    read = load_without_package(saved, tmp_path, again=[tmp_path / "again"], script=MSMN_WITHOUT_PACKAGE)
    assert read["classes"] == ["MSMNConfig", "MSMNTokenizer", "MSMNForICDCoding", "MSMNForICDCoding"]
    assert read["codes"] == ["I10", "A41.9"]
    for scored in read["logits"]:
        torch.testing.assert_close(torch.tensor(scored), logits)
    assert load_without_package(tmp_path / "again", tmp_path, script=MSMN_WITHOUT_PACKAGE) == read


def test_msmn_with_the_package_no_trust_is_needed(msmn):
    for auto in (AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer):
        found = type(auto.from_pretrained(msmn[0]))
        assert f"{found.__module__}.{found.__name__}" == f"kept_hf.models.{MSMN_AUTO_CLASSES[auto.__name__]}"


@pytest.mark.parametrize("part", ["config", "model", "tokenizer"])
def test_whatever_is_saved_of_msmn_brings_its_modules(msmn, tmp_path, part):
    things = {"config": AutoConfig, "model": AutoModel, "tokenizer": AutoTokenizer}
    things[part].from_pretrained(msmn[0]).save_pretrained(tmp_path / "part")
    assert sorted(path.stem for path in (tmp_path / "part").glob("*.py")) == sorted(PUBLISHED_MSMN)
    if part != "tokenizer":
        written = json.loads((tmp_path / "part" / "config.json").read_text())
        assert set(written["auto_map"]) == set(MSMN_AUTO_CLASSES) - {"AutoTokenizer"}


def test_a_stock_pipeline_scores_each_code_of_msmn_by_itself(msmn):
    """Codes exclude no other: sigmoids, and no softmax over all."""
    saved, logits = msmn
    assert json.loads((saved / "config.json").read_text())["problem_type"] == "multi_label_classification"
    [entries] = pipeline("text-classification", str(saved), top_k=None)([NOTE])
    scores = {entry["label"]: entry["score"] for entry in entries}
    expected = dict(zip(AutoConfig.from_pretrained(saved).id2label.values(), logits[0].sigmoid().tolist(), strict=True))
    assert scores == pytest.approx(expected)
