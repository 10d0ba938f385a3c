"""What a process that cannot import kept_hf reads from a saved folder or the Hub."""

import json
import os
import sys

import torch
from processes import run_program

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


@torch.no_grad()
def expect(model, processor, read, tolerance=1e-6):
    inputs = processor(NOTE, return_tensors="pt")
    torch.testing.assert_close(
        torch.tensor(read["logits"]), model(**inputs).logits.float(), atol=tolerance, rtol=tolerance
    )
    assert {row["code"] for row in read["coded"]} == set(processor.code_set)
