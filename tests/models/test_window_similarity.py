"""Late interaction and the prior of the isolated layout, against a reference that goes window by window."""

import math

import numpy as np
import pytest
import torch
from test_isolated_layout import BLOCKS, CODES, NOTES, close, isolated_batch, padded, reference_score
from tiny import randomize
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from kept_hf import (
    CodeCache,
    DataCollatorForICDPrompting,
    KeptLongformerForICDMatching,
    KeptLongformerForICDPrompting,
    KeptLongformerMatchingConfig,
    KeptProcessor,
    NoteCache,
    StaleCacheError,
)
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import fit_similarity_threshold

WINDOW, STEP, TEMPERATURE, SCALE, THRESHOLD = 4, 3, 5.0, 7.0, 0.3


def make(kind, tiny_config):
    """A model of random weights: "matching", or "prompting" with the prior."""
    fields = tiny_config.to_dict() | {
        "prompt_layout": "isolated",
        "similarity_window": WINDOW,
        "similarity_step": STEP,
        "similarity_temperature": TEMPERATURE,
    }
    if kind == "matching":
        fields["model_type"] = "kept_longformer_matching"
        model = KeptLongformerForICDMatching(KeptLongformerMatchingConfig.from_dict(fields))
    else:
        fields |= {"similarity_prior": True, "prompt_loss": "two_way"}
        model = KeptLongformerForICDPrompting(type(tiny_config).from_dict(fields))
    randomize(model).eval()
    with torch.no_grad():
        model.similarity.scale.fill_(SCALE)
        model.similarity.threshold.fill_(THRESHOLD)
    return model


@pytest.fixture(params=["matching", "prompting"])
def model(request, tiny_config):
    return make(request.param, tiny_config)


def last_states(model, ids, global_first):
    """From transformers' own attention, one row at a time."""
    ids = torch.tensor([ids])
    is_global = torch.zeros_like(ids)
    is_global[0, 0] = global_first
    before, model.config.attention_backend = model.config.attention_backend, "eager"
    states = model.longformer(ids, global_attention_mask=is_global).last_hidden_state[0, : ids.shape[1]]
    model.config.attention_backend = before
    return list(states)


def cosine(one, other):
    return (one @ other) / (one.norm() * other.norm())


def reference_similarity(model, note, block):
    states, description = last_states(model, note, 1), last_states(model, block, 0)
    description = sum(description) / len(description)
    cosines, start = [], 0
    while True:
        window = states[start : start + WINDOW]
        cosines.append(cosine(description, sum(window) / len(window)))
        if start + WINDOW >= len(states):
            break
        start += STEP
    weights = [(TEMPERATURE * value).exp() for value in cosines]
    return sum(w * value for w, value in zip(weights, cosines, strict=True)) / sum(weights)


def reference_scores(model, note, block):
    """Score, and the part of it that is the prior."""
    prior = model.similarity.scale * (reference_similarity(model, note, block) - model.similarity.threshold)
    masked = reference_score(model, note, block) if isinstance(model, KeptLongformerForICDPrompting) else 0.0
    return masked + prior, prior


def test_scores_loss_and_gradients_equal_the_reference(model, tiny_config):
    kind = "prompting" if isinstance(model, KeptLongformerForICDPrompting) else "matching"
    other, batch = make(kind, tiny_config), isolated_batch()
    other.load_state_dict(model.state_dict())
    output = model(**batch)
    output.loss.backward()
    losses, blocks = [], list(BLOCKS.values())
    for row, slot in np.ndindex(3, 4):
        index, label = int(batch["code_indices"][row, slot]), float(batch["labels"][row, slot])
        if index == -100:
            assert output.logits[row, slot] == -100
            assert output.prior is None or output.prior[row, slot] == 0
            continue
        score, prior = reference_scores(other, NOTES[row], blocks[index])
        torch.testing.assert_close(output.logits[row, slot], score, rtol=0, atol=2e-5)
        if kind == "prompting":
            torch.testing.assert_close(output.prior[row, slot], prior, rtol=0, atol=1e-5)
        losses.append(binary_cross_entropy_with_logits(score, torch.tensor(label)))
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(output.loss, loss)
    loss.backward()
    expected = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: processes that train together need a gradient of each"
        gradient = expected[name].grad
        gradient = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=2e-5, msg=name)
    assert model.similarity.scale.grad.abs() > 0 and model.similarity.threshold.grad.abs() > 0


@pytest.fixture
def expected(model):
    with torch.no_grad():
        rows = [[reference_scores(model, note, block)[0] for block in BLOCKS.values()] for note in NOTES]
    return torch.tensor(rows)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_order_grouping_caching_and_batches(model, expected, chunk_size):
    notes, codes = model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS, batch_size=2)
    torch.testing.assert_close(model.score(notes, codes, chunk_size=chunk_size), expected, rtol=0, atol=2e-5)
    some = [4, 0, 3]
    close(model.score(notes, codes, [CODES[index] for index in some]), model.score(notes, codes)[:, some])
    alone = torch.cat([model.score(model.encode_note(torch.tensor([note])), codes) for note in NOTES])
    close(alone, model.score(notes, codes))
    input_ids, attention_mask = padded(NOTES)
    code_ids, code_mask = padded(list(BLOCKS.values()))
    with torch.no_grad():
        for order in ([0, 1, 2], [2, 0, 1]):
            batch = model(
                input_ids=input_ids[order],
                attention_mask=attention_mask[order],
                code_input_ids=code_ids.flip(0),
                code_attention_mask=code_mask.flip(0),
            )
            close(batch.logits, model.score(notes, codes)[order].flip(1))


def test_caches_hold_what_is_compared(model, tmp_path):
    notes, codes = model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS)
    scores = model.score(notes, codes)
    assert codes.vectors.shape == (6, 16) and notes.vectors.shape == (4 + 2 + 3, 16)
    torch.testing.assert_close(notes.vectors.norm(dim=1), torch.ones(9))
    notes.save(tmp_path / "notes")
    codes.save(tmp_path / "codes")
    notes, codes = NoteCache.load(tmp_path / "notes"), CodeCache.load(tmp_path / "codes")
    assert torch.equal(model.score(notes, codes), scores)
    in_parts = model.encode_codes(BLOCKS, batch_size=2, path=tmp_path / "parts")
    close(model.score(notes, in_parts), scores)
    few = model.encode_codes({code: BLOCKS[code] for code in CODES[:2]})
    few.add(model.encode_codes({code: BLOCKS[code] for code in CODES[1:]}))
    close(model.score(notes, few), scores)
    size = codes.num_bytes
    if isinstance(model, KeptLongformerForICDMatching):
        assert codes.keys == [] and size == codes.vectors.nbytes
    model.config.similarity_step = 1
    with pytest.raises(StaleCacheError):
        model.score(notes, codes)


def test_scale_and_threshold_have_no_part_in_caches(model):
    notes, codes = model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS)
    before = model.score(notes, codes)
    with torch.no_grad():
        model.similarity.threshold += 0.25
    close(model.score(notes, codes), before - 0.25 * SCALE)


def test_the_trainer_accumulates_the_mean(model):
    batch = isolated_batch()
    torch.testing.assert_close(
        model(**batch, num_items_in_batch=18).loss, model(**batch).loss * 9 / 18, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("where", ["autocast", "weights"])
def test_bfloat16(model, expected, where):
    if where == "weights":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "autocast"):
        batch = isolated_batch()
        output = model(**batch)
        output.loss.backward()
        scores = model.score(model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS))
    assert output.logits.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0.1, atol=0.4)


def test_save_and_load(model, tmp_path):
    batch = isolated_batch()
    model.save_pretrained(tmp_path)
    again, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(model) and not any(report.values())
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, model(**batch).logits)
    assert again.similarity.scale == SCALE


def test_a_checkpoint_without_the_two_numbers_starts_from_those_of_the_configuration(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    options = {"prompt_layout": "isolated", "similarity_prior": True, "similarity_scale": 3.0}
    model = KeptLongformerForICDPrompting.from_pretrained(tmp_path, similarity_threshold=0.25, **options)
    assert (model.similarity.scale.item(), model.similarity.threshold.item()) == (3.0, 0.25)
    matching = KeptLongformerForICDMatching.from_pretrained(tmp_path)
    assert (matching.similarity.scale.item(), matching.similarity.threshold.item()) == (12.0, 0.5)
    assert isinstance(matching.config, KeptLongformerMatchingConfig)
    for name, value in matching.longformer.state_dict().items():
        assert torch.equal(value, tiny_model.longformer.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_input_ids": None}, "code_input_ids=None"),
        ({"code_indices": torch.tensor([[0], [6], [1]]), "labels": None}, "code_indices has 6"),
    ],
)
def test_errors(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**isolated_batch(), **change})


@pytest.fixture
def notes_and_processor(roberta_tokenizer, code_set):
    from datasets import Dataset

    notes = Dataset.from_dict(
        {"text": ["fever and sepsis", "hypertension", "a cough"] * 3, "codes": [["038.9"], ["401.9"], []] * 3}
    )
    return notes, KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")


def test_as_many_similarities_above_the_threshold_as_apply(model, notes_and_processor):
    notes, processor = notes_and_processor
    rows, collator = prompt_rows(notes, processor), DataCollatorForICDPrompting(processor)
    threshold = fit_similarity_threshold(model, rows, collator, batch_size=4)
    assert model.similarity.threshold.item() == pytest.approx(threshold) and not model.training
    with torch.no_grad():
        output = model(**{k: v for k, v in collator(list(rows)).items() if k != "labels"})
    above = ((output.logits if output.prior is None else output.prior) > 0).float().mean().item()
    assert above == pytest.approx(6 / (9 * len(processor.code_set)), abs=2 / 54)


def test_the_stock_trainer_and_the_pipeline(model, notes_and_processor, tmp_path):
    notes, processor = notes_and_processor
    rows = prompt_rows(notes, processor)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=12, learning_rate=0.01, per_device_train_batch_size=3, use_cpu=True, report_to="none",
        logging_steps=1, save_strategy="no", disable_tqdm=True, lr_scheduler_type="constant",
    )  # fmt: skip
    collator = DataCollatorForICDPrompting(processor)
    trainer = Trainer(model, arguments, data_collator=collator, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2 and math.isfinite(losses[-1])
    prediction = trainer.predict(rows)
    assert prediction.predictions.shape == (9, len(processor.code_set)), "one array, without the prior"
    coder = pipeline("icd-coding", model=model, processor=processor, device="cpu")
    for text, row in zip(notes["text"], prediction.predictions, strict=True):
        scores = {code["code"]: code["score"] for code in coder(text)}
        np.testing.assert_allclose([scores[code] for code in processor.code_set], row, atol=1e-4)
    other = coder("fever and sepsis", codes={"R50.9": "Fever"})
    assert [code["code"] for code in other] == ["R50.9"]
