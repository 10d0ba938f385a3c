"""The released checkpoints themselves, for those who have network: with KEPT_HUB_TESTS=1 in the environment.

Their layout at small size is tested in test_modeling.py.
"""

import os
import warnings

import pytest
import torch
from transformers import AutoTokenizer, LongformerForMaskedLM

from kept_hf import ICDCodeSet, KeptLongformerForICDPrompting, KeptProcessor

pytestmark = pytest.mark.skipif(
    os.environ.get("KEPT_HUB_TESTS") != "1", reason="needs the Hub: set KEPT_HUB_TESTS=1 to download some gigabytes"
)

CHECKPOINTS = {"whaleloops/keptlongformer": 50_265, "whaleloops/KEPTlongformer-PMM3": 50_008}
NOTE = "Chief Complaint:\nFever\n\nBrief Hospital Course:\nTreated for urosepsis; acute kidney injury resolved.\n"


@pytest.mark.parametrize(("name", "words"), CHECKPOINTS.items())
def test_released_checkpoint(name, words):
    titles = {"038.9": "Unspecified septicemia", "584.9": "Acute kidney failure, unspecified"}
    processor = KeptProcessor(AutoTokenizer.from_pretrained(name), ICDCodeSet(list(titles), titles))
    if name == "whaleloops/keptlongformer":
        assert (processor.yes_token_id, processor.no_token_id) == (10932, 2362)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = KeptLongformerForICDPrompting.from_pretrained(
            name, output_loading_info=True, **processor.config_overrides()
        )
    assert not any(info.values()), info
    assert model.config.vocab_size == words
    assert model.config.max_sequence_length >= 8192
    batch = processor(NOTE, return_tensors="pt")
    stock = LongformerForMaskedLM.from_pretrained(name).eval()
    with torch.no_grad():
        logits = stock(**batch).logits[batch["input_ids"] == processor.tokenizer.mask_token_id]
        expected = logits[:, processor.yes_token_id] - logits[:, processor.no_token_id]
        for backend in ("sdpa", "eager"):
            model.config.attention_backend = backend
            torch.testing.assert_close(model.eval()(**batch).logits[0], expected, rtol=1e-4, atol=1e-4)
