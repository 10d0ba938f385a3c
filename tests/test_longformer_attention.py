"""The dense backend against transformers' Longformer (values and gradients) and against a token-by-token reference."""

import math

import pytest
import torch
from conftest import randomize
from transformers import LongformerConfig, LongformerModel

from kept_hf import KeptLongformerConfig, KeptLongformerModel
from kept_hf import modeling_kept_longformer as modeling
from kept_hf.longformer_attention import dense_local_attention, global_attention, local_visibility, token_slots

FIELDS = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 72,
    "type_vocab_size": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
}
GLOBALS = ("none", "absent", "one", "prefix", "every third", "scattered", "all")


def pair(window, **fields):
    """Our encoder and transformers' with the same weights."""
    ours = KeptLongformerModel(
        KeptLongformerConfig(**FIELDS, attention_window=window, attention_backend="sdpa", **fields)
    )
    stock = LongformerModel(LongformerConfig(**FIELDS, attention_window=window), add_pooling_layer=False)
    randomize(ours, scale=0.5)
    stock.load_state_dict(ours.state_dict())
    return ours.eval(), stock.eval()


def inputs(batch_size, length, kind, seed=0):
    """Tokens, padding at the right of all rows but the first, and global tokens."""
    generator = torch.Generator().manual_seed(1000 * batch_size + 10 * length + seed)
    input_ids = torch.randint(3, FIELDS["vocab_size"], (batch_size, length), generator=generator)
    lengths = torch.tensor([length, max(1, length // 2), max(1, length - 3)][:batch_size])
    attention_mask = (torch.arange(length)[None] < lengths[:, None]).long()
    input_ids = input_ids.masked_fill(attention_mask == 0, 1)
    is_global = torch.zeros(batch_size, length, dtype=torch.long)
    if kind == "one":
        is_global[:, 0] = 1
    elif kind == "prefix":
        for row in range(batch_size):
            is_global[row, : 1 + length // (3 + row)] = 1
    elif kind == "every third":
        is_global[:, ::3] = 1
    elif kind == "scattered":
        is_global = (torch.rand(batch_size, length, generator=generator) < 0.3).long()
        is_global[-1] = 0 if batch_size > 1 else is_global[-1]
    elif kind == "all":
        is_global[:] = 1
    is_global = None if kind == "absent" else is_global * attention_mask
    return {"input_ids": input_ids, "attention_mask": attention_mask, "global_attention_mask": is_global}


def relative_error(got, expected):
    """Largest difference over largest value; below 0.05 float32 leaves too few digits to ask for more."""
    got, expected = (torch.zeros(1) if t is None else t for t in (got, expected))
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=0.05)).item()


def assert_same(ours, stock, batch):
    generator = torch.Generator().manual_seed(1)
    states = []
    for model in (ours, stock):
        model.zero_grad(set_to_none=True)
        states.append(model(**batch).last_hidden_state)
    assert states[0].shape == states[1].shape
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)
    weights = torch.randn(states[0].shape, generator=generator)
    for state in states:
        (state * weights).sum().backward()
    assert_same_gradients(ours, stock)


def assert_same_gradients(ours, stock, tolerance=1e-4):
    expected = dict(stock.named_parameters())
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        # The gradient of a key bias is zero but for rounding, as the softmax does not feel it.
        if name.endswith(("key.bias", "key_global.bias")):
            scale = expected[name.replace("bias", "weight")].grad
            scale = 1.0 if scale is None else max(1.0, scale.abs().max().item())
            for grad in (parameter.grad, expected[name].grad):
                assert grad is None or grad.abs().max() < tolerance * scale, name
            continue
        assert relative_error(parameter.grad, expected[name].grad) < tolerance, name


@pytest.mark.parametrize("kind", GLOBALS)
@pytest.mark.parametrize("window", [4, [4, 8]], ids=str)
def test_same_as_transformers(window, kind):
    ours, stock = pair(window)
    for length in (1, 3, 4, 7, 10, 21, 40, 63):
        for batch_size in (1, 2, 3):
            assert_same(ours, stock, inputs(batch_size, length, kind))


def test_same_as_transformers_without_masks():
    ours, stock = pair([8, 4])
    for length in (5, 33):
        input_ids = inputs(1, length, "none")["input_ids"]
        assert_same(ours, stock, {"input_ids": input_ids})
        assert_same(ours, stock, {"inputs_embeds": ours.embeddings.word_embeddings(input_ids).detach()})


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", GLOBALS)
def test_some_output_positions(backend, kind):
    ours, stock = pair(4)
    ours.config.attention_backend = backend
    batch = inputs(3, 27, kind)
    # Local, global and padded tokens, in any order and repeated.
    positions = torch.tensor([[26, 0, 5, 5], [3, 20, 12, 1], [0, 23, 24, 2]])
    got = ours(**batch, output_positions=positions).last_hidden_state
    index = positions[:, :, None].expand(-1, -1, FIELDS["hidden_size"])
    expected = stock(**batch).last_hidden_state.gather(1, index)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    for state in (got, expected):
        (state * weights).sum().backward()
    assert_same_gradients(ours, stock)
    # The next call is about all tokens again.
    assert ours(**batch).last_hidden_state.shape == (3, 27, FIELDS["hidden_size"])


def test_output_positions_with_other_outputs():
    ours, _ = pair(4)
    batch, positions = inputs(3, 27, "prefix"), torch.tensor([[1], [2], [3]])
    expected = ours(**batch, output_positions=positions).last_hidden_state
    assert expected.shape == (3, 1, FIELDS["hidden_size"])
    for other in ("output_hidden_states", "output_attentions"):
        outputs = ours(**batch, output_positions=positions, **{other: True})
        torch.testing.assert_close(outputs.last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    assert outputs.attentions[0].shape[2] == 27
    without_dict = ours(**batch, output_positions=positions, return_dict=False)
    torch.testing.assert_close(without_dict[0], expected)


@pytest.mark.parametrize("kind", ["prefix", "none"])
def test_bfloat16_gradients_on_the_cpu(kind):
    """Attention in float32 under autocast: no further from float32 than a bfloat16 product is."""
    ours, stock = pair(4)
    batch = inputs(3, 27, kind)
    gradients(stock, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients(ours, batch)
    assert_same_gradients(ours, stock, tolerance=0.1)


def test_padding_on_the_left_and_in_the_middle():
    ours, stock = pair(4)
    batch = inputs(2, 21, "scattered")
    attention_mask = torch.ones(2, 21, dtype=torch.long)
    attention_mask[0, :6] = 0
    attention_mask[1, 8:11] = 0
    batch["attention_mask"], batch["global_attention_mask"][:] = attention_mask, 0
    batch["global_attention_mask"][:, 12::4] = 1
    batch["input_ids"] = batch["input_ids"].clamp(min=3).masked_fill(attention_mask == 0, 1)
    assert_same(ours, stock, batch)


def test_all_layers_take_the_dense_product(monkeypatch):
    ours, _ = pair([4, 8])
    calls = []
    monkeypatch.setattr(
        modeling, "dense_local_attention", lambda *args: calls.append(1) or dense_local_attention(*args)
    )
    ours(**inputs(2, 21, "prefix"))
    assert len(calls) == 2
    ours.config.attention_backend = "eager"
    ours(**inputs(2, 21, "prefix"))
    assert len(calls) == 2


def test_auto_takes_the_dense_product_up_to_a_length(monkeypatch):
    ours, stock = pair([4, 8])
    ours.config.attention_backend = "auto"
    monkeypatch.setattr(modeling, "MAX_DENSE_LENGTH", 30)
    for length, eager in ((30, False), (31, True), (12, False)):
        assert_same(ours, stock, inputs(2, length, "prefix"))
        assert modeling.needs_eager_attention(ours.config, length, False) is eager
    monkeypatch.setattr(modeling, "MAX_DENSE_LENGTH", 1)
    for length, eager in ((16, False), (17, True)):
        ours(**inputs(2, length, "prefix"))
        assert modeling.needs_eager_attention(ours.config, length, False) is eager, "two windows of the widest layer"


@pytest.mark.parametrize("kind", ["none", "prefix"])
@pytest.mark.parametrize("how", ["argument", "config"])
def test_output_attentions(kind, how):
    ours, stock = pair([4, 8])
    batch = inputs(2, 21, kind)
    plain = ours(**batch).last_hidden_state
    if how == "config":
        ours.config.output_attentions = True
        output = ours(**batch)
    else:
        output = ours(**batch, output_attentions=True)
    expected = stock(**batch, output_attentions=True)
    torch.testing.assert_close(output.last_hidden_state, plain, rtol=1e-5, atol=1e-5)
    for name in ("attentions", "global_attentions"):
        got, wanted = getattr(output, name), getattr(expected, name)
        assert (got is None) == (wanted is None)
        for one, other in zip(got or (), wanted or (), strict=True):
            torch.testing.assert_close(one, other)


def test_hidden_states_and_tuple():
    ours, stock = pair(4)
    batch = inputs(2, 21, "prefix")
    mine = ours(**batch, output_hidden_states=True).hidden_states
    theirs = stock(**batch, output_hidden_states=True).hidden_states
    assert len(mine) == len(theirs) == 3
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(**batch, return_dict=False)[0], mine[-1])


@pytest.mark.parametrize("backend", ["sdpa", "eager", "auto"])
def test_too_long_input(backend):
    ours, _ = pair(4)
    ours.config.attention_backend = backend
    ours(torch.full((1, 70), 5))
    with pytest.raises(ValueError, match=r"71 tokens.* 70 .*max_position_embeddings=72"):
        ours(torch.full((1, 71), 5))
    with pytest.raises(ValueError, match="71 tokens"):
        ours(inputs_embeds=torch.zeros(1, 71, 12))


def gradients(model, batch):
    model.zero_grad(set_to_none=True)
    state = model(**batch).last_hidden_state
    (state * torch.linspace(-1, 1, state.numel()).view_as(state)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def enable_checkpointing(model):
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_gradient_checkpointing(backend):
    ours, _ = pair(4)
    ours.config.attention_backend = backend
    ours.train()
    batch = inputs(2, 21, "prefix")
    expected = gradients(ours, batch)
    enable_checkpointing(ours)
    assert all(layer.gradient_checkpointing for layer in ours.encoder.layer)
    got = gradients(ours, batch)
    assert got.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad, msg=name)


def test_gradient_checkpointing_with_a_pass_of_the_other_kind_before_backward(monkeypatch):
    ours, _ = pair(4)
    ours.config.attention_backend = "auto"
    monkeypatch.setattr(modeling, "MAX_DENSE_LENGTH", 10)
    ours.train()
    long, short = inputs(1, 21, "prefix"), inputs(1, 9, "prefix")
    expected = gradients(ours, short)
    enable_checkpointing(ours)
    ours.zero_grad(set_to_none=True)
    state = ours(**short).last_hidden_state
    ours(**long)
    (state * torch.linspace(-1, 1, state.numel()).view_as(state)).sum().backward()
    for name, grad in expected.items():
        torch.testing.assert_close(dict(ours.named_parameters())[name].grad, grad, rtol=1e-4, atol=1e-4, msg=name)


def test_dropout_only_in_training():
    config = {**FIELDS, "attention_probs_dropout_prob": 0.5}
    model = KeptLongformerModel(KeptLongformerConfig(**config, attention_window=4, attention_backend="sdpa"))
    batch = inputs(1, 21, "prefix")
    model.eval()
    torch.testing.assert_close(model(**batch).last_hidden_state, model(**batch).last_hidden_state, rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(**batch).last_hidden_state, model(**batch).last_hidden_state)


@torch.no_grad()
def test_layer_against_token_by_token_reference():
    """The semantics as the module says them, one token and one head at a time."""
    torch.manual_seed(0)
    ours, _ = pair(4)
    layer = ours.encoder.layer[0].attention.self
    layer.eager = False
    length, one_sided, size = 9, 2, layer.head_dim
    hidden = torch.randn(2, length, layer.embed_dim)
    is_global = torch.zeros(2, length, dtype=torch.bool)
    is_global[0, [0, 6]] = True
    is_padding = torch.zeros(2, length, dtype=torch.bool)
    is_padding[1, 6:] = True
    is_global[1, 1] = True
    (got,) = layer(
        hidden, is_index_masked=is_padding, is_index_global_attn=is_global, is_global_attn=True, output_attentions=False
    )
    expected = torch.zeros_like(hidden)
    for row in range(2):
        for position in range(length):
            if is_padding[row, position]:
                continue
            suffix = "_global" if is_global[row, position] else ""
            if suffix:
                seen = [k for k in range(length) if not is_padding[row, k]]
            else:
                near = {k for k in range(length) if abs(k - position) <= one_sided}
                seen = sorted(
                    k for k in near | set(is_global[row].nonzero().flatten().tolist()) if not is_padding[row, k]
                )
            project = {name: getattr(layer, name + suffix) for name in ("query", "key", "value")}
            for head in range(layer.num_heads):
                part = slice(head * size, (head + 1) * size)
                query = project["query"](hidden[row, position])[part]
                scores = [float(query @ project["key"](hidden[row, k])[part]) / math.sqrt(size) for k in seen]
                total = sum(math.exp(score) for score in scores)
                for k, score in zip(seen, scores, strict=True):
                    expected[row, position, part] += math.exp(score) / total * project["value"](hidden[row, k])[part]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_local_visibility():
    generator = torch.Generator().manual_seed(0)
    is_global = torch.rand(2, 7, generator=generator) < 0.3
    is_padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    seen = local_visibility(is_global, is_padding, 2)
    for row in range(2):
        for q in range(7):
            for k in range(7):
                wanted = (abs(q - k) <= 2 or is_global[row, k]) and not is_padding[row, k]
                assert bool(seen[row, q, k]) == bool(wanted or is_padding[row, q])


def test_token_slots_and_global_attention():
    is_global = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    positions, used = token_slots(is_global)
    assert positions.shape == used.shape == (3, 3)
    assert [positions[row][used[row]].tolist() for row in range(3)] == [[1, 3, 4], [0], []]
    for row in range(3):
        assert not is_global[row][positions[row][~used[row]]].any(), "slots not used point at local tokens"
        assert len(set(positions[row].tolist())) == 3
    query, key, value = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    got = global_attention(query, key, value, torch.tensor([[False, False, True]]))
    weights = (query[0, 0] @ key[0, 0, :2].T / 2).softmax(-1)
    torch.testing.assert_close(got[0, 0], weights @ value[0, 0, :2])
