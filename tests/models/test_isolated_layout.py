"""The isolated layout against a reference that goes mask by mask, head by head."""

import itertools
import logging
import math

import pytest
import torch
from tiny import randomize
from torch.nn.functional import cross_entropy
from transformers.utils import logging as transformers_logging

from kept_hf import KeptLongformerForICDPrompting
from kept_hf.models.mask_attention import default_chunk_size

MASK, PAD = 4, 1
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


@pytest.fixture
def model(tiny_model):
    tiny_model.config.prompt_layout = "isolated"
    return tiny_model


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


def layer_inputs(model, ids, global_first):
    """What each layer is given, `(tokens, hidden_size)`, from transformers' own attention, one row at a time."""
    if not ids:
        return [torch.zeros(0, model.config.hidden_size)] * model.config.num_hidden_layers
    ids = torch.tensor([ids])
    is_global = torch.zeros_like(ids)
    is_global[0, 0] = global_first
    before, model.config.attention_backend = model.config.attention_backend, "eager"
    states = model.longformer(ids, global_attention_mask=is_global, output_hidden_states=True).hidden_states
    model.config.attention_backend = before
    return [of_layer[0, : ids.shape[1]] for of_layer in states[:-1]]


def reference(model, note, block):
    """State at the mask of one code and note."""
    of_note, of_block = layer_inputs(model, note, 1), layer_inputs(model, block, 0)
    position = torch.tensor([[model.longformer.embeddings.padding_idx + 1 + len(block)]])
    state = model.longformer.embeddings(torch.tensor([[MASK]]), position_ids=position)[0, 0]
    for number, layer in enumerate(model.longformer.encoder.layer):
        attention = layer.attention.self
        seen = [*of_block[number], state, *of_note[number]]
        heads = []
        for head in range(attention.num_heads):
            part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            query = attention.query_global(state)[part] / math.sqrt(attention.head_dim)
            scores = torch.stack([query @ attention.key_global(other)[part] for other in seen])
            weights = (scores - scores.logsumexp(0)).exp()
            values = [attention.value_global(other)[part] for other in seen]
            heads.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
        attended = layer.attention.output(torch.cat(heads)[None, None], state[None, None])
        state = layer.output(layer.intermediate(attended), attended)[0, 0]
    return state


def reference_score(model, note, block):
    logits = model.lm_head(reference(model, note, block))
    return logits[model.config.yes_token_id] - logits[model.config.no_token_id]


@pytest.mark.parametrize("prompt_loss", ["full_vocabulary", "two_way"])
def test_scores_loss_and_gradients_equal_the_reference(model, prompt_loss):
    model.config.prompt_loss = prompt_loss
    other = randomize(KeptLongformerForICDPrompting(model.config)).eval()
    batch = isolated_batch()
    output = model(**batch)
    output.loss.backward()

    yes_no = torch.tensor([model.config.yes_token_id, model.config.no_token_id])
    blocks, losses = list(BLOCKS.values()), []
    for row, slot in itertools.product(range(3), range(4)):
        index, label = int(batch["code_indices"][row, slot]), int(batch["labels"][row, slot])
        if index == -100:
            assert output.logits[row, slot] == -100
            continue
        logits = other.lm_head(reference(other, NOTES[row], blocks[index]))
        torch.testing.assert_close(output.logits[row, slot], logits[yes_no[0]] - logits[yes_no[1]], rtol=0, atol=1e-5)
        if prompt_loss == "two_way":
            losses.append(cross_entropy(logits[yes_no][None], torch.tensor([1 - label])))
        else:
            losses.append(cross_entropy(logits[None], yes_no[1 - label][None]))
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(output.loss, loss)
    loss.backward()
    expected = dict(other.named_parameters())
    not_read = set()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name}: processes that train together need a gradient of each"
        gradient = expected[name].grad
        if gradient is None:
            not_read.add(name)
            gradient = torch.zeros_like(parameter)
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5, msg=name)
    local = (f"{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias"))
    assert not_read == {f"longformer.encoder.layer.1.attention.self.{name}" for name in local}


def test_loss_over_the_items_of_all_accumulation_steps(model):
    batch = isolated_batch()
    mean = model(**batch).loss
    torch.testing.assert_close(model(**batch, num_items_in_batch=18).loss, mean * 9 / 18)


@pytest.fixture
def expected(model):
    """Scores of all codes and notes by the reference, `(notes, codes)`."""
    with torch.no_grad():
        return torch.stack([torch.stack([reference_score(model, n, b) for b in BLOCKS.values()]) for n in NOTES])


def close(given, expected):
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_cached_scores(model, expected, chunk_size, batch_size):
    codes = model.encode_codes(BLOCKS, batch_size=4)
    scores = [
        model.score(model.encode_note(*padded(NOTES[start : start + batch_size])), codes, chunk_size=chunk_size)
        for start in range(0, 3, batch_size)
    ]
    close(torch.cat(scores), expected)


def test_no_more_codes_at_a_time_than_asked(model, monkeypatch):
    sizes, masks = [], model.longformer.masks
    monkeypatch.setattr(model.longformer, "masks", lambda *args: sizes.append(len(args[3])) or masks(*args))
    notes, codes = model.encode_note(*padded(NOTES[:2])), model.encode_codes(BLOCKS)
    model.score(notes, codes, chunk_size=4)
    assert sizes == [4, 2] * 2
    sizes.clear()
    scores_at_a_time = 2 * (13 + 10 + 1) * 3  # heads, note and longest block and mask, codes
    monkeypatch.setattr(
        "kept_hf.models.isolated_layout.default_chunk_size",
        lambda num_heads, num_keys, device: scores_at_a_time // (num_heads * num_keys),
    )
    model.score(notes, codes)
    assert sizes == [3, 3, 4, 2], "a shorter note leaves room for more codes"


def test_default_chunk_size():
    """Fewer codes of a longer note, more on a GPU, and never so few that reading the weights would take the time."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    sizes = [default_chunk_size(12, num_keys, cpu) for num_keys in (0, 10, 1000, 4000, 10**6, 10**9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] > sizes[3] > sizes[4] == sizes[5] > 1
    assert default_chunk_size(12, 4000, gpu) > sizes[3]


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
    global_states = model.longformer.global_states

    def watched(input_ids, *args, **kwargs):
        encoded.append(len(input_ids))
        return global_states(input_ids, *args, **kwargs)

    def encoded_blocks():
        """How often the six blocks were encoded since the last look; beside them three notes a pass."""
        times = encoded.count(6)
        encoded.clear()
        return times

    monkeypatch.setattr(model.longformer, "global_states", watched)
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


def test_descriptions_are_encoded_as_by_the_plain_encoder(model):
    cache = model.encode_codes(BLOCKS)
    ids, mask = padded(list(BLOCKS.values()))
    with torch.no_grad():
        states = model.longformer(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for number, layer in enumerate(model.longformer.encoder.layer):
        keys = layer.attention.self.key_global(states[number][mask > 0]).unflatten(1, (2, 8)).transpose(0, 1)
        close(cache.keys[number], keys)


def test_notes_do_not_change_code_caches_and_codes_not_notes(model):
    codes = model.encode_codes(BLOCKS)
    before = [states.clone() for states in codes.keys]
    model.score(model.encode_note(*padded(NOTES)), codes)
    assert all(map(torch.equal, before, codes.keys))
    together = model.encode_note(*padded(NOTES))
    for row, note in enumerate(NOTES):
        alone = model.encode_note(torch.tensor([note]))
        for number, keys in enumerate(alone.keys):
            close(together.keys[number][:, together.tokens_of(row)], keys)


def test_without_a_note_the_score_depends_on_the_block_alone(model):
    ids, mask = padded(NOTES)
    mask[1] = 0
    scores = model.score(model.encode_note(ids, mask), model.encode_codes(BLOCKS))
    with torch.no_grad():
        close(scores[1], torch.stack([reference_score(model, [], block) for block in BLOCKS.values()]))
    mask[:] = 0
    close(model.score(model.encode_note(ids, mask), model.encode_codes(BLOCKS)), scores[1].expand(3, -1))


@pytest.mark.parametrize("where", ["autocast", "weights"])
def test_bfloat16(model, expected, where):
    batch = {name: value for name, value in isolated_batch().items() if name not in ("labels", "code_indices")}
    if where == "weights":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "autocast"):
        output = model(**batch, labels=torch.ones(3, 6, dtype=torch.long))
        output.loss.backward()
        scores = model.score(model.encode_note(*padded(NOTES)), model.encode_codes(BLOCKS))
    assert output.logits.dtype == scores.dtype == torch.float32
    for given in (output.logits, scores):
        torch.testing.assert_close(given, expected, rtol=0.1, atol=0.3)


def test_smaller_caches(model, expected):
    codes = model.encode_codes(BLOCKS)
    size = codes.num_bytes
    assert codes.to(dtype=torch.bfloat16).num_bytes == size // 2
    notes = model.encode_note(*padded(NOTES)).to(dtype=torch.bfloat16)
    torch.testing.assert_close(model.score(notes, codes), expected, rtol=0.1, atol=0.3)


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


def test_dropout_of_attention_is_the_same_in_the_backward_pass(model):
    for layer in model.longformer.encoder.layer:
        layer.attention.self.dropout = 0.5
    model.train()
    batch, bias = isolated_batch(), model.longformer.encoder.layer[-1].attention.self.value_global.bias

    def loss():
        torch.manual_seed(3)
        return model(**batch).loss.double()

    loss().backward()
    step = 1e-2
    with torch.no_grad():
        bias[0] += step
        above = loss()
        bias[0] -= 2 * step
        below = loss()
    torch.testing.assert_close((above - below) / (2 * step), bias.grad[0].double(), rtol=0.02, atol=1e-4)


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
        ({"position_ids": torch.zeros(3, 13)}, "position_ids: the isolated prompt layout"),
        ({"output_attentions": True}, "output_attentions"),
        ({"input_ids": torch.full((3, 201), 9), "attention_mask": None}, "201 tokens"),
        ({"code_input_ids": torch.full((6, 200), 9), "code_attention_mask": None}, "A block has 200 tokens"),
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
    with pytest.raises(ValueError, match="chunk_size=0"):
        model.score(notes, codes, chunk_size=0)
    model.train()
    for call in (lambda: model.encode_codes(BLOCKS), lambda: model.score(notes, codes)):
        with pytest.raises(ValueError, match=r"model.eval\(\)"):
            call()


@pytest.fixture
def warnings_of_models(caplog):
    logging.Logger.warning_once.cache_clear()
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        yield lambda: [r.getMessage() for r in caplog.records if "prompt_layout" in r.getMessage()]
    transformers_logging.disable_propagation()


@pytest.mark.parametrize("trained", ["joint", "isolated"])
def test_the_other_layout_warns_once(tiny_model, warnings_of_models, trained):
    tiny_model.config.prompt_layout = trained
    joint = {"input_ids": torch.tensor([[0, 20, MASK, 30, 2]])}
    own, other = (joint, isolated_batch()) if trained == "joint" else (isolated_batch(), joint)
    tiny_model(**own)
    assert not warnings_of_models()
    tiny_model(**other)
    tiny_model(**other)
    (message,) = warnings_of_models()
    assert f"trained with prompt_layout='{trained}'" in message


def test_a_checkpoint_says_which_layout(model, tmp_path, warnings_of_models):
    batch = isolated_batch()
    model.save_pretrained(tmp_path)
    again = KeptLongformerForICDPrompting.from_pretrained(tmp_path)
    assert again.config.prompt_layout == "isolated"
    close(again.eval()(**batch).logits, model(**batch).logits)
    KeptLongformerForICDPrompting.from_pretrained(tmp_path, prompt_layout="isolated")
    assert not warnings_of_models()
    for _ in range(2):
        other = KeptLongformerForICDPrompting.from_pretrained(tmp_path, prompt_layout="joint")
    assert other.config.prompt_layout == "joint"
    (message,) = warnings_of_models()
    assert "was trained with prompt_layout='isolated'; with 'joint'" in message
