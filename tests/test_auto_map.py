"""A saved folder holds all that the Auto classes need in a process without this package."""

import json
import os
import sys

import pytest
import torch
from processes import run_program
from test_imports import PUBLISHED, PUBLISHED_MSMN
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
)

from kept_hf import (
    KeptLongformerForICDMatching,
    KeptLongformerMatchingConfig,
    KeptProcessor,
    MSMNConfig,
    MSMNForICDCoding,
    MSMNTokenizer,
)
from kept_hf.auto_map import auto_classes
from kept_hf.auto_map_msmn import msmn_auto_classes

NOTE = "fever and cough; admitted with sepsis."

NO_PACKAGE = """
import json
import sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kept_hf":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NoPackage())
import torch
"""

WITHOUT_PACKAGE = """
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification
from transformers import AutoProcessor, pipeline

source, note, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = AutoConfig.from_pretrained(source, trust_remote_code=True, **options)
processor = AutoProcessor.from_pretrained(source, trust_remote_code=True, **options)
model = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=True, **options).eval()
encoder = AutoModel.from_pretrained(source, trust_remote_code=True, **options).eval()
masked_lm = AutoModelForMaskedLM.from_pretrained(source, trust_remote_code=True, **options).eval()
inputs = processor(note, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
    states = encoder(**inputs).last_hidden_state
    words = masked_lm(**inputs).logits
coder = pipeline("icd-coding", model=source, trust_remote_code=True, device="cpu", **options)
inferred = pipeline(model=source, trust_remote_code=True, device="cpu", **options)
assert "kept_hf" not in sys.modules
if len(sys.argv) > 4:
    model.save_pretrained(sys.argv[4])
    processor.save_pretrained(sys.argv[4])
print(json.dumps({
    "classes": [type(thing).__name__ for thing in (config, processor, model, encoder, masked_lm, coder, inferred)],
    "dtype": str(model.dtype),
    "logits": logits.float().tolist(),
    "states": states.float().sum().item(),
    "words": words.float().sum().item(),
    "coded": coder(note),
    "inferred": inferred([note], batch_size=2)[0],
}))
"""

MATCHING_WITHOUT_PACKAGE = """
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor, pipeline

source, note = sys.argv[1], sys.argv[2]
config, processor, model, encoder = (
    auto.from_pretrained(source, trust_remote_code=True)
    for auto in (AutoConfig, AutoProcessor, AutoModelForSequenceClassification, AutoModel)
)
with torch.no_grad():
    logits = model.eval()(**processor(note, return_tensors="pt")).logits
coder = pipeline("icd-coding", model=source, trust_remote_code=True, device="cpu")
assert "kept_hf" not in sys.modules
if len(sys.argv) > 4:
    model.save_pretrained(sys.argv[4])
    processor.save_pretrained(sys.argv[4])
print(json.dumps({
    "classes": [type(thing).__name__ for thing in (config, processor, model, encoder, coder)],
    "logits": logits.tolist(),
    "coded": coder(note),
}))
"""

MSMN_WITHOUT_PACKAGE = """
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

source, note = sys.argv[1], sys.argv[2]
config = AutoConfig.from_pretrained(source, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
models = [
    auto.from_pretrained(source, trust_remote_code=True).eval()
    for auto in (AutoModelForSequenceClassification, AutoModel)
]
inputs = tokenizer(note, return_tensors="pt")
with torch.no_grad():
    logits = [model(**inputs).logits.tolist() for model in models]
assert "kept_hf" not in sys.modules
if len(sys.argv) > 4:
    models[0].save_pretrained(sys.argv[4])
    tokenizer.save_pretrained(sys.argv[4])
print(json.dumps({
    "classes": [type(thing).__name__ for thing in (config, tokenizer, *models)],
    "codes": list(models[0].config.id2label.values()),
    "logits": logits,
}))
"""


def load_without_package(source, folder, again=(), environment=None, script=WITHOUT_PACKAGE, **options):
    """What a process that cannot import kept_hf reads from a folder or model id."""
    done = run_program(
        [sys.executable, "-c", NO_PACKAGE + script, source, NOTE, json.dumps(options), *again],
        env={**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", **(environment or {})},
        cwd=folder,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def saved(tiny_model, processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def expect(model, processor, read, tolerance=1e-6):
    inputs = processor(NOTE, return_tensors="pt")
    torch.testing.assert_close(
        torch.tensor(read["logits"]), model(**inputs).logits.float(), atol=tolerance, rtol=tolerance
    )
    assert {row["code"] for row in read["coded"]} == set(processor.code_set)


def test_the_isolated_layout_without_the_package(tiny_model, roberta_tokenizer, code_set, tmp_path):
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")
    tiny_model.config.prompt_layout = "isolated"
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    expect(tiny_model, processor, load_without_package(tmp_path / "model", tmp_path))


def test_late_interaction_without_the_package(tiny_config, roberta_tokenizer, code_set, tmp_path):
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")
    fields = tiny_config.to_dict() | {"model_type": "kept_longformer_matching", "prompt_layout": "isolated"}
    model = KeptLongformerForICDMatching(KeptLongformerMatchingConfig.from_dict(fields)).eval()
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
    assert {name: type(thing) for name, thing in loaded.items()} == auto_classes()


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
        assert set(written["auto_map"]) == set(auto_classes())
        assert list(written["custom_pipelines"]) == ["icd-coding"]


@pytest.fixture
def msmn(tmp_path):
    """A saved MSMN and what it scores for the note."""
    tokenizer = MSMNTokenizer.from_texts([NOTE, "high blood pressure"], min_count=1)
    config = MSMNConfig(vocab_size=len(tokenizer), attention_size=8, num_synonyms=2, id2label={0: "I10", 1: "A41.9"})
    model = MSMNForICDCoding(config).eval()
    terms = ["hypertension", "high blood pressure", "sepsis", "sepsis"]
    model.set_label_terms(**tokenizer(terms, padding=True, return_tensors="pt"))
    model.save_pretrained(tmp_path / "msmn")
    tokenizer.save_pretrained(tmp_path / "msmn")
    with torch.no_grad():
        return tmp_path / "msmn", model(**tokenizer(NOTE, return_tensors="pt")).logits


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
        assert type(auto.from_pretrained(msmn[0])) is msmn_auto_classes()[auto.__name__]


@pytest.mark.parametrize("part", ["config", "model", "tokenizer"])
def test_whatever_is_saved_of_msmn_brings_its_modules(msmn, tmp_path, part):
    things = {"config": AutoConfig, "model": AutoModel, "tokenizer": AutoTokenizer}
    things[part].from_pretrained(msmn[0]).save_pretrained(tmp_path / "part")
    assert sorted(path.stem for path in (tmp_path / "part").glob("*.py")) == sorted(PUBLISHED_MSMN)
    if part != "tokenizer":
        written = json.loads((tmp_path / "part" / "config.json").read_text())
        assert set(written["auto_map"]) == set(msmn_auto_classes()) - {"AutoTokenizer"}
