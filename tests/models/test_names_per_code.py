"""Several names a code in late interaction: encoded apart from each other, and the best one counts."""

import pytest
import torch
from datasets import Dataset

from kept_hf import (
    DataCollatorForICDPrompting,
    ICDCodeSet,
    KeptLongformerForICDMatching,
    KeptLongformerMatchingConfig,
    KeptProcessor,
)
from kept_hf.candidates.kept import KeptFirstStage
from kept_hf.models.caches import CodeCache, StaleCacheError
from kept_hf.models.window_similarity import soft_maximum, soft_maximum_by_row
from kept_hf.training.rows import prompt_rows

CODES = ("401.9", "038.9", "486")
DESCRIPTIONS = {"401.9": "Hypertension, unspecified", "038.9": "Septicemia", "486": "Pneumonia, organism unspecified"}
SYNONYMS = {"401.9": ["High blood pressure", "Hypertension, unspecified", "HTN"], "486": ["Lung infection"]}


@pytest.fixture
def code_set():
    return ICDCodeSet(CODES, DESCRIPTIONS, SYNONYMS)


@pytest.fixture
def model(roberta_tokenizer):
    torch.manual_seed(0)
    config = KeptLongformerMatchingConfig(
        vocab_size=len(roberta_tokenizer),
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=32,
        attention_window=4,
        max_position_embeddings=130,
        pad_token_id=roberta_tokenizer.pad_token_id,
        id2label=dict(enumerate(CODES)),
        similarity_window=4,
        similarity_step=2,
    )
    return KeptLongformerForICDMatching(config).eval()


def processor_of(tokenizer, code_set, names_per_code=3, preset="kept-open"):
    return KeptProcessor(
        tokenizer, code_set, preset, max_length=100, prompt_layout="isolated", names_per_code=names_per_code
    )


def test_blocks_hold_different_names_each_behind_its_own_first_token(roberta_tokenizer, code_set):
    first = [roberta_tokenizer.bos_token_id]

    def ids(text):
        return first + roberta_tokenizer(text, add_special_tokens=False).input_ids

    blocks = processor_of(roberta_tokenizer, code_set).code_blocks()
    assert blocks == {
        "401.9": ids("hypertension, unspecified") + ids("high blood pressure") + ids("htn"),
        "038.9": ids("septicemia"),
        "486": ids("pneumonia, organism unspecified") + ids("lung infection"),
    }
    two = processor_of(roberta_tokenizer, code_set, 2).code_blocks(["401.9"])
    assert two == {"401.9": ids("hypertension, unspecified") + ids("high blood pressure")}
    published = processor_of(roberta_tokenizer, code_set, 2, "kept-50").code_blocks(["486"])
    assert published == {"486": ids("pneumonia") + ids("lung infection")}


def naive_score(model, tokenizer, note, names):
    """Each name alone, compared with the note; then the soft maximum of the names' similarities."""
    similarities = []
    for name in names:
        block = [tokenizer.bos_token_id, *tokenizer(name, add_special_tokens=False).input_ids]
        notes, codes = model.encode_note(note), model.encode_codes({"one": block})
        score = model.score(notes, codes)[0, 0]
        similarities.append(score / model.similarity.scale + model.similarity.threshold)
    best = soft_maximum(torch.stack(similarities), model.config.similarity_temperature)
    return model.similarity.scale * (best - model.similarity.threshold)


def test_scores_are_those_of_names_encoded_alone(model, roberta_tokenizer, code_set):
    processor = processor_of(roberta_tokenizer, code_set)
    note = torch.tensor([processor("Admitted with high blood pressure and a lung infection.")["input_ids"]])
    names = [["hypertension, unspecified", "high blood pressure", "htn"], ["septicemia"]]
    names.append(["pneumonia, organism unspecified", "lung infection"])
    expected = torch.stack([naive_score(model, roberta_tokenizer, note, of_code) for of_code in names]).detach()
    cache = model.encode_codes(processor.code_blocks(), batch_size=2)
    assert cache.counts == [3, 1, 2] and len(cache.vectors) == 6 and len(cache) == 3
    torch.testing.assert_close(model.score(model.encode_note(note), cache)[0], expected, rtol=0, atol=1e-5)
    few = model.score(model.encode_note(note), cache, ["486", "401.9"])
    torch.testing.assert_close(few[0], expected[[2, 0]], rtol=0, atol=1e-5)
    row = dict(processor(["Admitted with high blood pressure and a lung infection."]))
    batch = processor.pad([{name: values[0] for name, values in row.items()}])
    torch.testing.assert_close(model(**batch).logits[0], expected, rtol=0, atol=1e-5)


def test_gradients_are_those_of_a_naive_loss(model, roberta_tokenizer, code_set):
    processor = processor_of(roberta_tokenizer, code_set)
    notes = Dataset.from_dict(
        {"text": ["high blood pressure", "pneumonia, septicemia"], "codes": [["401.9"], CODES[1:]]}
    )
    batch = DataCollatorForICDPrompting(processor)([*prompt_rows(notes, processor)])
    model(**batch).loss.backward()
    got = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    names = [["hypertension, unspecified", "high blood pressure", "htn"], ["septicemia"]]
    names.append(["pneumonia, organism unspecified", "lung infection"])
    loss = 0.0
    for text, labels in (("high blood pressure", [1.0, 0, 0]), ("pneumonia, septicemia", [0, 1.0, 1.0])):
        states = model._note_vectors(torch.tensor([processor(text)["input_ids"]]), None, None)
        scores = []
        for of_code in names:
            best = []
            for name in of_code:
                ids = [roberta_tokenizer.bos_token_id, *roberta_tokenizer(name, add_special_tokens=False).input_ids]
                block = model._block_vectors(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
                cosines = (block.vectors @ states.vectors.T)[0]
                best.append(soft_maximum(cosines, model.config.similarity_temperature))
            of_names = soft_maximum(torch.stack(best), model.config.similarity_temperature)
            scores.append(model.similarity.scale * (of_names - model.similarity.threshold))
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
            torch.stack(scores), torch.tensor(labels), reduction="sum"
        )
    (loss / 6).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_caches_of_names_are_saved_joined_and_compared(model, roberta_tokenizer, code_set, tmp_path):
    processor = processor_of(roberta_tokenizer, code_set)
    whole = model.encode_codes(processor.code_blocks())
    for order in (["486", "038.9", "401.9"], ["038.9", "401.9", "486"]):
        joined = model.encode_codes(processor.code_blocks(order[:1]))
        joined.add(model.encode_codes(processor.code_blocks(order)))
        note = model.encode_note(torch.tensor([processor("High blood pressure.")["input_ids"]]))
        torch.testing.assert_close(model.score(note, joined, CODES), model.score(note, whole, CODES), rtol=0, atol=1e-6)
    path = tmp_path / "codes.safetensors"
    whole.save(path)
    assert CodeCache.load(path).counts == [3, 1, 2]
    one_name = processor_of(roberta_tokenizer, code_set, 1)
    assert model.encode_codes(one_name.code_blocks()).counts == [1, 1, 1]
    with pytest.raises(StaleCacheError, match="another description of '401"):
        whole.rows_of(one_name.code_blocks())


def test_the_processor_keeps_the_number_of_names(roberta_tokenizer, code_set, model, tmp_path):
    processor = processor_of(roberta_tokenizer, code_set)
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    again = KeptProcessor.from_pretrained(tmp_path)
    assert again.names_per_code == 3 and again.code_blocks() == processor.code_blocks()
    assert again.for_codes(code_set.subset(["486"])).code_blocks() == processor.code_blocks(["486"])
    stage = KeptFirstStage.from_pretrained(tmp_path)
    expected = KeptFirstStage(model, processor).propose(["high blood pressure"], 3)
    assert stage.propose(["high blood pressure"], 3).codes_of(0) == expected.codes_of(0)


def test_names_that_do_not_fit(roberta_tokenizer, code_set):
    with pytest.raises(ValueError, match="names_per_code=2 with prompt_layout='joint'"):
        KeptProcessor(roberta_tokenizer, code_set, names_per_code=2)
    with pytest.raises(ValueError, match="names_per_code=0 is less than 1"):
        processor_of(roberta_tokenizer, code_set, 0)


def test_soft_maximum_by_row():
    torch.manual_seed(0)
    values, counts = torch.randn(7, requires_grad=True), torch.tensor([1, 4, 2])
    expected = torch.stack([soft_maximum(part, 5.0) for part in values.split(counts.tolist())])
    (one,) = torch.autograd.grad((expected**2).sum(), values)
    got = soft_maximum_by_row(values, counts, 5.0)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad((got**2).sum(), values)[0], one)
    assert soft_maximum_by_row(values[:0], counts[:0], 5.0).shape == (0,)


def test_a_note_that_is_asked_about_no_code(model, roberta_tokenizer, code_set):
    processor = processor_of(roberta_tokenizer, code_set)
    rows = [{name: values[0] for name, values in processor([text]).items()} for text in ("Fever.", "Sepsis.")]
    rows[1]["code_indices"] = []
    logits = model(**processor.pad(rows)).logits
    assert logits[0].isfinite().all() and (logits[1] == logits[1, 0]).all()
