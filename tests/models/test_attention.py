"""Packed attention against transformers' Longformer (values and gradients) and against a token-by-token reference."""

import logging
import math

import pytest
import torch
from tiny import randomize
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LongformerConfig, LongformerModel

from kept_hf import KeptLongformerConfig, KeptLongformerModel
from kept_hf.models import attention_sdpa
from kept_hf.models.attention import AttentionBackend, AttentionPlan
from kept_hf.models.attention_backends import ATTENTION_BACKENDS, BACKENDS
from kept_hf.models.attention_sdpa import attention_at_once, attention_by_block
from kept_hf.models.packed_tokens import PackedTokens

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
    lengths = torch.tensor([length, max(1, length // 2), max(1, length - 3), 1][:batch_size])
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


def without_padding(states, batch):
    """Hidden states with zeros for padding: ours are; transformers' are whatever comes out."""
    mask = batch.get("attention_mask")
    return states if mask is None else states * mask[:, :, None]


def assert_same(ours, stock, batch):
    generator = torch.Generator().manual_seed(1)
    states = []
    for model in (ours, stock):
        model.zero_grad(set_to_none=True)
        states.append(model(**batch).last_hidden_state)
    states[1] = without_padding(states[1], batch)
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


@pytest.mark.parametrize("how", ["at once", "by block"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", GLOBALS)
@pytest.mark.parametrize("window", [4, [4, 8]], ids=str)
def test_same_as_transformers(monkeypatch, window, kind, training, how):
    monkeypatch.setattr(attention_sdpa, "is_faster_at_once", lambda *args: how == "at once")
    ours, stock = (model.train(training) for model in pair(window))
    for length in (1, 7, 10, 40, 63):
        for batch_size in (1, 2, 3, 4):
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
    expected = without_padding(stock(**batch).last_hidden_state, batch).gather(1, index)
    if backend == "eager":
        got = torch.where(batch["attention_mask"].gather(1, positions)[:, :, None] > 0, got, 0.0)
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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["prefix", "none", "scattered"])
def test_bfloat16(kind, training):
    """No further from transformers in float32 than transformers in bfloat16 is."""
    ours, stock = (model.train(training) for model in pair([4, 8]))
    batch = inputs(3, 27, kind)
    expected = stock(**batch).last_hidden_state
    errors = []
    for model in (ours, stock):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors.append(without_padding((model(**batch).last_hidden_state - expected).abs(), batch).mean())
    assert errors[0] < 1.3 * errors[1]
    gradients(stock, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients(ours, batch)
    assert_same_gradients(ours, stock, tolerance=0.1)
    ours.bfloat16().eval()
    with torch.no_grad():
        state = ours(**batch).last_hidden_state
    assert state.dtype == torch.bfloat16
    assert without_padding((state - expected).abs(), batch).mean() < 2 * errors[1]


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


def test_nothing_is_computed_for_padding_nor_for_what_is_not_wanted():
    ours, _ = pair([4, 8])
    batch = inputs(3, 27, "prefix")
    seen = []
    for layer in ours.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, given, result: seen.append(given[0].shape[:2]))
    ours(**batch)
    ours(**batch, output_positions=torch.tensor([[26, 0, 5, 5], [3, 20, 12, 1], [0, 23, 24, 2]]))
    real = int(batch["attention_mask"].sum())
    assert seen == [(1, real), (1, real), (1, real), (1, 9)], "of row 1 the last two positions of four are padding"


def test_layers_do_not_wait_for_the_device(monkeypatch):
    """Fake tensors have no values: whatever asks for one raises. With the functions that an accelerator takes."""
    monkeypatch.setattr(attention_sdpa, "longformer_attention", attention_at_once)
    ours, _ = pair([4, 8])
    batch = inputs(3, 27, "scattered")
    kinds = batch["attention_mask"] * (batch["global_attention_mask"] + 1)
    tokens = PackedTokens(kinds, [2, 4])
    last, _ = tokens.queries_at(torch.tensor([[26, 0], [3, 20], [0, 23]]))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        states = fake.from_tensor(torch.randn(1, tokens.num_tokens, 12))
        for queries in (tokens.all_queries(), last):
            plan = BACKENDS["sdpa"].plan(tokens, queries)
            for layer in ours.encoder.layer:
                assert layer(states, plan=plan)[0].shape == (1, len(queries.slots), 12)


def test_all_parameters_have_gradients_where_only_some_tokens_are_wanted():
    """Processes that train together wait for the gradients of all parameters."""
    ours, _ = pair(4)
    batch = inputs(2, 21, "prefix")
    for position in (0, 9):  # a global one, a local one
        ours.zero_grad(set_to_none=True)
        ours(**batch, output_positions=torch.full((2, 1), position)).last_hidden_state.sum().backward()
        assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
def test_compiled(compiler):
    ours, stock = pair([4, 8])
    compiled = torch.compile(ours, backend=compiler, dynamic=True)
    for length, kind in ((21, "prefix"), (30, "scattered"), (21, "one")):
        batch = inputs(2, length, kind)
        with torch.no_grad():
            state = compiled(**batch).last_hidden_state
        torch.testing.assert_close(
            state, without_padding(stock(**batch).last_hidden_state, batch), rtol=1e-5, atol=1e-5
        )
        got, expected = gradients(compiled, batch), gradients(ours, batch)
        for name, grad in expected.items():
            torch.testing.assert_close(got[f"_orig_mod.{name}"], grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.fixture
def messages(caplog):
    """What is logged of backends."""
    logger = logging.getLogger("kept_hf.models.attention_backends")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    for once in (logging.Logger.warning_once, logging.Logger.info_once):
        once.cache_clear()
    propagate, logger.propagate = logger.propagate, False  # pytest listens at the root, too
    yield caplog
    logger.propagate = propagate
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(caplog.handler)


def test_the_log_says_once_what_is_taken(messages):
    ours, _ = pair(4)
    batch = inputs(1, 9, "prefix")
    ours(**batch)
    assert not messages.records
    ours.config.attention_backend = "auto"
    for _ in range(2):
        ours(**batch)
    assert [record.message for record in messages.records] == [
        "attention_backend='auto': 'sdpa' is taken on cpu, attention dropout 0.0."
    ]
    messages.clear()
    for _ in range(2):
        ours(**batch, output_attentions=True)
    assert [record.message for record in messages.records if "eager" in record.message] == [
        "output_attentions=True: attention_backend='auto' gives no attentions, so 'eager' is taken."
    ]


@torch.no_grad()
@torch.compiler.set_stance("force_eager")
def test_flex_attention_has_the_same_numbers():
    """Not compiled here; `test_flex_attention_compiled` is a longer one."""
    for kind in GLOBALS:
        ours, stock = pair([4, 8])
        ours.config.attention_backend = "flex"
        batch = inputs(3, 40, kind)
        expected = without_padding(stock(**batch).last_hidden_state, batch)
        torch.testing.assert_close(ours(**batch).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
        positions = torch.tensor([[26, 0, 5, 5], [3, 39, 12, 1], [0, 23, 24, 2]])
        got = ours(**batch, output_positions=positions).last_hidden_state
        wanted = expected.gather(1, positions[:, :, None].expand(-1, -1, 12))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_compiled():
    torch.manual_seed(0)
    kinds = torch.ones(2, 300, dtype=torch.long)
    kinds[:, ::7], kinds[1, 200:] = 2, 0
    tokens = PackedTokens(kinds, [32])
    queries = tokens.all_queries()
    flex, blocks = (BACKENDS[name].plan(tokens, queries) for name in ("flex", "sdpa"))
    query, key, value = torch.randn(3, 1, 2, tokens.num_tokens, 16)
    local = query[:, :, tokens.num_global :]
    torch.testing.assert_close(
        flex.attend_local(local, key, value, window=32), blocks.attend_local(local, key, value, window=32)
    )


class DenseAttention(AttentionBackend):
    """All scores, most of them masked: the smallest backend there can be."""

    def plan(self, tokens, queries):
        rows, positions = torch.from_numpy(tokens.rows), torch.from_numpy(tokens.positions)
        is_global = torch.arange(tokens.num_tokens) < tokens.num_global

        def seen(slots, window):
            is_near = (positions[slots][:, None] - positions).abs() <= window
            return (rows[slots][:, None] == rows) & (is_near | is_global)

        global_slots, local_slots = queries.slots.tensor_split([queries.num_global])
        local = {window: seen(local_slots, window) for window in queries.local_blocks}
        return AttentionPlan(self, tokens, queries, seen(global_slots, 10**6), local)

    def attend(self, query, key, value, plan, dropout=0.0):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, plan, dropout)


@pytest.mark.parametrize("kind", GLOBALS)
def test_a_further_backend_is_a_class_and_a_line(monkeypatch, kind):
    monkeypatch.setitem(BACKENDS, "dense", DenseAttention())
    ours, stock = pair([4, 8])
    ours.config.attention_backend = "dense"
    batch = inputs(3, 27, kind)
    assert_same(ours, stock, batch)
    positions = torch.tensor([[26, 0, 5, 5], [3, 20, 12, 1], [0, 23, 24, 2]])
    got = ours(**batch, output_positions=positions).last_hidden_state
    expected = without_padding(stock(**batch).last_hidden_state, batch)
    torch.testing.assert_close(got, expected.gather(1, positions[:, :, None].expand(-1, -1, 12)), rtol=1e-5, atol=1e-5)


def test_the_configuration_knows_the_names_of_all_backends():
    assert set(ATTENTION_BACKENDS) == {"auto", *BACKENDS, "eager"}
    for name in ATTENTION_BACKENDS:
        assert KeptLongformerConfig(attention_backend=name).attention_backend == name
    with pytest.raises(
        ValueError, match=f"attention_backend='slow' is unknown; pass one of {', '.join(ATTENTION_BACKENDS)}"
    ):
        KeptLongformerConfig(attention_backend="slow")


def test_what_flex_attention_cannot_do():
    ours, _ = pair(4)
    ours.config.attention_backend = "flex"
    batch = inputs(1, 9, "prefix")
    with pytest.raises(ValueError, match=r"attention_backend='flex' has no backward pass on cpu; pass .*'sdpa'"):
        ours(**batch)
    ours.train().config.attention_probs_dropout_prob = 0.1
    with pytest.raises(ValueError, match=r"attention_backend='flex' has no dropout.*attention_probs_dropout_prob=0.1"):
        ours(**batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_on_a_gpu(backend):
    fields = {**FIELDS, "hidden_size": 48, "max_position_embeddings": 702}
    stock = LongformerModel(LongformerConfig(**fields, attention_window=64), add_pooling_layer=False)
    randomize(stock, scale=0.2)
    ours = KeptLongformerModel(KeptLongformerConfig(**fields, attention_window=64, attention_backend=backend))
    ours.load_state_dict(stock.state_dict())
    batch = {name: tensor.cuda() for name, tensor in inputs(3, 700, "prefix").items()}
    states = []
    for model in (ours.cuda(), stock.cuda()):
        states.append(without_padding(model(**batch).last_hidden_state, batch))
        states[-1].square().sum().backward()
    torch.testing.assert_close(states[0], states[1], rtol=1e-3, atol=1e-3)
    assert_same_gradients(ours, stock, tolerance=1e-2)


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
    torch.testing.assert_close(without_padding(output.last_hidden_state, batch), plain, rtol=1e-5, atol=1e-5)
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
        torch.testing.assert_close(one, without_padding(other, batch), rtol=1e-5, atol=1e-5)
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
    state = without_padding(model(**batch).last_hidden_state, batch)
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


def test_dropout_only_in_training():
    config = {**FIELDS, "attention_probs_dropout_prob": 0.5}
    model = KeptLongformerModel(KeptLongformerConfig(**config, attention_window=4, attention_backend="sdpa"))
    batch = inputs(1, 21, "prefix")
    model.eval()
    torch.testing.assert_close(model(**batch).last_hidden_state, model(**batch).last_hidden_state, rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(**batch).last_hidden_state, model(**batch).last_hidden_state)


def random_attention(num_global=8, length=40, window=4, dtype=torch.float32):
    """Blocks of a row whose first tokens are global, and query, key and value of all its tokens."""
    torch.manual_seed(0)
    kinds = torch.ones(1, length, dtype=torch.long)
    kinds[:, :num_global] = 2
    queries = PackedTokens(kinds, [window]).all_queries()
    return queries, torch.randn(3, 1, 2, length, 4, dtype=dtype)


def test_how_blocks_are_computed():
    """Many short rows at once, long rows block by block; elsewhere than on a CPU windows at once."""
    short = PackedTokens(torch.ones(20, 25, dtype=torch.long), [256]).all_queries().local_blocks[256]
    long = PackedTokens(torch.ones(1, 3000, dtype=torch.long), [256]).all_queries().local_blocks[256]
    everywhere = PackedTokens(torch.full((2, 600), 2), [256]).all_queries().global_blocks
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    at_once = attention_sdpa.is_faster_at_once
    assert [at_once(blocks, cpu) for blocks in (short, long, everywhere)] == [
        True,
        False,
        False,
    ]
    assert [at_once(blocks, gpu) for blocks in (short, long, everywhere)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("scores_at_a_time", [1, 10**6])
@pytest.mark.parametrize("function", [attention_by_block, attention_at_once])
def test_blocks_against_a_dense_product(monkeypatch, function, scores_at_a_time):
    monkeypatch.setattr(attention_sdpa, "SCORES_AT_A_TIME", scores_at_a_time)
    queries, leaves = random_attention()
    positions = torch.arange(40)
    is_seen = ((positions[:, None] - positions).abs() <= 4) | (positions < 8)
    results = []
    for blocked in (True, False):
        query, key, value = given = [leaf.clone().requires_grad_() for leaf in leaves]
        if blocked:
            result = function(query[:, :, 8:], key, value, queries.local_blocks[4])
        else:
            scores = query[:, :, 8:] @ key.transpose(2, 3) / 2
            result = scores.masked_fill(~is_seen[8:], -torch.inf).softmax(-1) @ value
        (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
        results.append([result, *(leaf.grad for leaf in given)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [attention_by_block, attention_at_once])
def test_dropout_on_the_cpu(function):
    """Means are kept, a share is dropped, and the backward pass drops the same as the forward pass did."""
    queries, leaves = random_attention()

    def local(query, key, value):
        return function(query[:, :, 8:], key, value, queries.local_blocks[4], 0.5)

    def everywhere(query, key, value):
        return function(query[:, :, :8], key, value, queries.global_blocks, 0.5)

    for call in (local, everywhere):
        given = [leaf.clone().requires_grad_() for leaf in leaves]
        torch.manual_seed(7)
        result = call(*given)
        after = torch.get_rng_state()
        result.square().sum().backward()
        assert torch.equal(torch.get_rng_state(), after), "what follows draws as if there had been no backward pass"
        # A small step along the gradient changes the result, of the same dropped probabilities, as the gradient says.
        sums = []
        for sign in (1, -1):
            torch.manual_seed(7)
            with torch.no_grad():
                sums.append(call(*(leaf + sign * leaf.grad / 1e3 for leaf in given)).square().sum())
        predicted = 2 * sum(leaf.grad.square().sum() for leaf in given) / 1e3
        torch.testing.assert_close(sums[0] - sums[1], predicted, rtol=2e-2, atol=1e-4)
    query, key, value = leaves
    ones = torch.ones_like(value)
    many = torch.stack([local(query, key, ones) for _ in range(200)])
    torch.testing.assert_close(many.mean(), torch.tensor(1.0), rtol=0, atol=0.02)
    assert many.std() > 0.1


@torch.no_grad()
def test_layer_against_token_by_token_reference():
    """The semantics as the module says them, one token and one head at a time."""
    torch.manual_seed(0)
    ours, _ = pair(4)
    layer = ours.encoder.layer[0].attention.self
    length, one_sided, size = 9, 2, layer.head_dim
    hidden = torch.randn(2, length, layer.embed_dim)
    kinds = torch.ones(2, length, dtype=torch.long)
    kinds[0, [0, 6]] = 2
    kinds[1, 6:] = 0
    kinds[1, 1] = 2
    tokens = PackedTokens(kinds, [one_sided])
    plan = BACKENDS["sdpa"].plan(tokens, tokens.all_queries())
    got = tokens.unpack(layer.attend_packed(tokens.pack(hidden), plan))
    expected = torch.zeros_like(hidden)
    for row in range(2):
        for position in range(length):
            if kinds[row, position] == 0:
                continue
            suffix = "_global" if kinds[row, position] == 2 else ""
            seen = naively_seen(kinds, row, position, one_sided)
            project = {name: getattr(layer, name + suffix) for name in ("query", "key", "value")}
            for head in range(layer.num_heads):
                part = slice(head * size, (head + 1) * size)
                query = project["query"](hidden[row, position])[part]
                scores = [float(query @ project["key"](hidden[row, k])[part]) / math.sqrt(size) for k in seen]
                total = sum(math.exp(score) for score in scores)
                for k, score in zip(seen, scores, strict=True):
                    expected[row, position, part] += math.exp(score) / total * project["value"](hidden[row, k])[part]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def naively_seen(kinds, row, position, one_sided):
    """Positions that a token sees."""
    return [
        key
        for key in range(kinds.shape[1])
        if kinds[row, key] and (2 in (kinds[row, key], kinds[row, position]) or abs(key - position) <= one_sided)
    ]
