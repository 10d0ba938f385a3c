"""Late interaction against a reference that goes window by window."""

import math

import numpy as np
import pytest
import torch
from tiny import randomize
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from kept_hf import (
    CodeCache,
    DataCollatorForICDPrompting,
    KeptLongformerForICDMatching,
    KeptLongformerMatchingConfig,
    KeptProcessor,
    NoteCache,
    StaleCacheError,
)
from kept_hf.models import window_similarity
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import fit_similarity_threshold

PAD = 1
NOTES = [[0, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 2], [0, 40, 41, 42, 2], [0, 33, 34, 35, 36, 37, 38, 2]]
BLOCKS = {
    "401.9": [0, 50, 51],
    "038.9": [0, 52, 53, 54, 55, 56, 57, 58, 59, 60],  # longer than the window
    "584.9": [0, 61],
    "V45.81": [0, 62, 63, 64],
    "250.00": [0, 65, 66, 67, 68, 69],
    "E888.9": [0],
}
CODES = list(BLOCKS)
WINDOW, STEP, TEMPERATURE, SCALE, THRESHOLD = 4, 3, 5.0, 7.0, 0.3


def padded(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    return ids, (ids != PAD).long()


def isolated_batch():
    """Three notes asked about different codes, in different orders."""
    input_ids, attention_mask = padded(NOTES)
    code_input_ids, code_attention_mask = padded(list(BLOCKS.values()))
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "code_input_ids": code_input_ids,
        "code_attention_mask": code_attention_mask,
        "code_indices": torch.tensor([[0, 1, 2, 5], [3, 1, -100, -100], [4, 2, 0, -100]]),
        "labels": torch.tensor([[1, 0, 1, 0], [0, 1, -100, -100], [0, 0, 1, -100]]),
    }


def make_model(tiny_config):
    """A model of random weights."""
    fields = tiny_config.to_dict() | {
        "model_type": "kept_longformer_matching",
        "similarity_window": WINDOW,
        "similarity_step": STEP,
        "similarity_temperature": TEMPERATURE,
    }
    model = randomize(KeptLongformerForICDMatching(KeptLongformerMatchingConfig.from_dict(fields))).eval()
    with torch.no_grad():
        model.similarity.scale.fill_(SCALE)
        model.similarity.threshold.fill_(THRESHOLD)
    return model


@pytest.fixture
def model(tiny_config):
    return make_model(tiny_config)


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


def reference_score(model, note, block):
    return model.similarity.scale * (reference_similarity(model, note, block) - model.similarity.threshold)


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=0, atol=2e-5)


def test_scores_loss_and_gradients_equal_the_reference(model, tiny_config):
    other, batch = make_model(tiny_config), isolated_batch()
    other.load_state_dict(model.state_dict())
    output = model(**batch)
    output.loss.backward()
    losses, blocks = [], list(BLOCKS.values())
    for row, slot in np.ndindex(3, 4):
        index, label = int(batch["code_indices"][row, slot]), float(batch["labels"][row, slot])
        if index == -100:
            assert output.logits[row, slot] == -100
            continue
        score = reference_score(other, NOTES[row], blocks[index])
        close(output.logits[row, slot], score)
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
    """Scores of all codes and notes by the reference, `(notes, codes)`."""
    with torch.no_grad():
        return torch.tensor([[reference_score(model, note, block) for block in BLOCKS.values()] for note in NOTES])


@pytest.mark.parametrize("cosines_at_a_time", [None, 1, 7])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cached_scores(model, expected, monkeypatch, cosines_at_a_time, batch_size):
    """However many names are compared, or notes encoded, at a time."""
    if cosines_at_a_time is not None:
        monkeypatch.setattr(window_similarity, "COSINES_AT_A_TIME", cosines_at_a_time)
    codes = model.encode_codes(BLOCKS, batch_size=4)
    batches = [padded(NOTES[start : start + batch_size]) for start in range(0, 3, batch_size)]
    close(torch.cat([model.score(model.encode_note(*batch), codes) for batch in batches]), expected)
    assert torch.equal(
        torch.cat([model.score_notes(codes, *batch) for batch in batches]),
        torch.cat([model.score(model.encode_note(*batch), codes) for batch in batches]),
    )


def test_order_grouping_and_other_codes(model, expected):
    notes = model.encode_note(*padded(NOTES))
    codes = model.encode_codes(BLOCKS)
    order = [5, 2, 0, 3]
    close(model.score(notes, codes, [CODES[i] for i in order]), expected[:, order])
    close(model.score(notes, codes, {CODES[i]: BLOCKS[CODES[i]] for i in order}), expected[:, order])
    for row, code in enumerate(CODES):
        close(model.score(notes, model.encode_codes({code: BLOCKS[code]})), expected[:, row : row + 1])
    repeated = model.score(notes, codes, [CODES[0], CODES[0]])
    close(repeated, expected[:, [0, 0]])


def test_forward_padding_batch_and_gradients_on_or_off(model, expected):
    batch = {name: value for name, value in isolated_batch().items() if name != "labels"}
    wanted = batch["code_indices"].clamp(min=0)
    is_code = batch["code_indices"] != -100
    scores = expected.gather(1, wanted).masked_fill(~is_code, -100)
    close(model(**batch).logits, scores)
    for name in ("input_ids", "code_input_ids"):
        batch[name] = torch.nn.functional.pad(batch[name], (0, 5), value=PAD)
        mask = name.replace("input_ids", "attention_mask")
        batch[mask] = torch.nn.functional.pad(batch[mask], (0, 5))
    with torch.no_grad():
        close(model(**batch).logits, scores)
    batch["code_indices"] = torch.nn.functional.pad(batch["code_indices"], (0, 2), value=-100)
    with torch.no_grad():
        logits = model(**batch).logits
    close(logits[:, :4], scores)
    assert (logits[:, 4:] == -100).all()
    for row in range(3):
        alone = {**batch, **{n: batch[n][row : row + 1] for n in ("input_ids", "attention_mask", "code_indices")}}
        close(model(**alone).logits, logits[row : row + 1])
    del batch["code_indices"]
    close(model(**batch).logits, expected)


@torch.no_grad()
def test_evaluation_encodes_the_same_blocks_once(model, monkeypatch):
    batch, encoded = isolated_batch(), []
    token_states = model.longformer.token_states

    def watched(input_ids, *args, **kwargs):
        encoded.append(len(input_ids))
        return token_states(input_ids, *args, **kwargs)

    def encoded_blocks():
        """How often the six blocks were encoded since the last look; beside them three notes a pass."""
        times = encoded.count(6)
        encoded.clear()
        return times

    monkeypatch.setattr(model.longformer, "token_states", watched)
    first = model(**batch).logits
    assert encoded_blocks() == 1
    assert torch.equal(model(**batch).logits, first) and encoded_blocks() == 0
    # Other blocks, and other weights.
    batch["code_input_ids"][0, 1] = 77
    assert (model(**batch).logits != first).any() and encoded_blocks() == 1
    model.longformer.embeddings.word_embeddings.weight[77] += 1
    model(**batch)
    assert encoded_blocks() == 1
    with torch.enable_grad():
        model(**batch).loss.backward()
    assert encoded_blocks() == 1
    model(**batch)
    assert encoded_blocks() == 1, "a step may have followed"


def test_a_note_without_tokens_is_like_no_name(model):
    ids, mask = padded(NOTES)
    mask[1] = 0
    codes = model.encode_codes(BLOCKS)
    scores = model.score(model.encode_note(ids, mask), codes)
    close(scores[1], torch.full((6,), -SCALE * THRESHOLD))
    close(scores[[0, 2]], model.score(model.encode_note(*padded(NOTES)), codes)[[0, 2]])
    mask[:] = 0
    close(model.score(model.encode_note(ids, mask), codes), scores[1].expand(3, -1))


def test_caches_hold_what_is_compared(model, tmp_path):
    notes, codes = model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS)
    scores = model.score(notes, codes)
    assert codes.vectors.shape == (6, 16) and notes.vectors.shape == (4 + 2 + 3, 16)
    torch.testing.assert_close(notes.vectors.norm(dim=1), torch.ones(9))
    notes.save(tmp_path / "notes")
    codes.save(tmp_path / "codes")
    notes, codes = NoteCache.load(tmp_path / "notes"), CodeCache.load(tmp_path / "codes")
    assert torch.equal(model.score(notes, codes), scores)
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


def test_activation_checkpointing(model):
    batch = isolated_batch()
    model.train()
    model(**batch).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.activation_checkpointing_enable()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_learns(model):
    batch = isolated_batch()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_indices": torch.tensor([[0], [6], [1]])}, "code_indices has 6, code_input_ids 6 blocks"),
        ({"code_indices": torch.tensor([[0], [-1], [1]])}, "code_indices has -1"),
        ({"code_indices": torch.tensor([[0], [1]])}, "2 rows for 3 notes"),
        ({"code_indices": torch.full((3, 2), -100)}, "about no code"),
        ({"labels": torch.ones(3, 4, dtype=torch.long)}, "do not fit code_indices"),
        ({"code_input_ids": None}, "code_input_ids=None"),
        ({"input_ids": torch.full((3, 201), 9), "attention_mask": None}, "201 tokens"),
        ({"code_input_ids": torch.arange(9, 210).expand(6, -1), "code_attention_mask": None}, "A name has 201 tokens"),
    ],
)
def test_errors(model, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**isolated_batch(), **change})


def test_errors_of_caches(model):
    with pytest.raises(ValueError, match="blocks has 0 codes"):
        model.encode_codes({})
    with pytest.raises(ValueError, match=r"1 of them without tokens \(401\.9\)"):
        model.encode_codes({"401.9": [], "038.9": [0]})
    notes, codes = model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS)
    model.train()
    for call in (lambda: model.encode_codes(BLOCKS), lambda: model.score(notes, codes)):
        with pytest.raises(ValueError, match=r"model.eval\(\)"):
            call()


def test_a_checkpoint_without_the_two_numbers_starts_from_those_of_the_configuration(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    matching = KeptLongformerForICDMatching.from_pretrained(tmp_path, similarity_scale=3.0)
    assert (matching.similarity.scale.item(), matching.similarity.threshold.item()) == (3.0, 0.5)
    assert isinstance(matching.config, KeptLongformerMatchingConfig)
    for name, value in matching.longformer.state_dict().items():
        assert torch.equal(value, tiny_model.longformer.state_dict()[name]), name


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
    above = (output.logits > 0).float().mean().item()
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
    assert prediction.predictions.shape == (9, len(processor.code_set))
    coder = pipeline("icd-coding", model=model, processor=processor, device="cpu")
    for text, row in zip(notes["text"], prediction.predictions, strict=True):
        scores = {code["code"]: code["score"] for code in coder(text)}
        np.testing.assert_allclose([scores[code] for code in processor.code_set], row, atol=1e-4)
    other = coder("fever and sepsis", codes={"R50.9": "Fever"})
    assert [code["code"] for code in other] == ["R50.9"]
