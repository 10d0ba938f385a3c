"""MSMN beside a plain reading of the public code, one note, one code and one head at a time."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax, softmax
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, Trainer, TrainingArguments

import kept_hf.models.modeling_msmn as modeling
from kept_hf import ICDCodeSet, MSMNConfig, MSMNForICDCoding
from kept_hf.models import lstm_msmn
from kept_hf.models.conversion_msmn import PUBLIC_NAMES, convert_msmn_state_dict
from kept_hf.models.lstm_msmn import in_chunks, read_both_ways
from kept_hf.models.modeling_msmn import rdrop_loss
from kept_hf.models.publication import CREDENTIALED

VOCAB, CODES = 30, 5


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


class PublicMSMN(nn.Module):
    """The parameters of the public `IcdModel` under its names, and its maths in loops, at dropout 0."""

    def __init__(self, num_synonyms=4, layers=2, lstm_size=8, width=16, embedding=6):
        super().__init__()
        self.num_synonyms = num_synonyms
        self.encoder = nn.Module()
        self.encoder.word_encoder = nn.Module()
        self.encoder.word_encoder.word_embedding = nn.Embedding(VOCAB, embedding)
        self.encoder.combiner = nn.Module()
        self.encoder.combiner.combine_lstm = nn.LSTM(
            embedding, lstm_size // 2, layers, batch_first=True, bidirectional=True
        )
        if lstm_size != width:
            self.encoder.combiner.reduce_linear = linear(lstm_size, width)
        self.decoder = nn.Module()
        self.decoder.W = linear(width, width)
        self.decoder.U = linear(width, 3)
        self.decoder.final = linear(width, CODES)
        self.decoder.u_reduce = linear(width, width // num_synonyms)
        for name, outputs in (("w_linear", width), ("b_linear", 1)):
            mlp = nn.Module()
            mlp.layers = nn.ModuleList([linear(width, outputs)])
            setattr(self.decoder, name, mlp)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def read(self, ids, total_length):
        """States of one text: its words are read without padding, behind them the LSTM's states are zero."""
        states, _ = self.encoder.combiner.combine_lstm(self.encoder.word_encoder.word_embedding(ids)[None])
        states = torch.cat([states[0], states.new_zeros(total_length - len(ids), states.shape[-1])])
        if hasattr(self.encoder.combiner, "reduce_linear"):
            states = self.encoder.combiner.reduce_linear(states)
        return states

    def forward(self, notes, terms, pool_padding=True):
        longest = max(map(len, terms))
        features = []
        for ids in terms:
            states = self.read(ids, longest if pool_padding else len(ids))
            features.append(torch.stack([states[:, column].max() for column in range(states.shape[1])]))
        logits = []
        for ids in notes:
            states = self.read(ids, len(ids))
            for code in range(len(terms) // self.num_synonyms):
                synonyms = features[code * self.num_synonyms :][: self.num_synonyms]
                found = []
                for head, synonym in enumerate(synonyms):
                    query = self.decoder.u_reduce(synonym)
                    part = slice(head * len(query), (head + 1) * len(query))
                    scores = torch.stack([torch.tanh(self.decoder.W(state))[part] @ query for state in states])
                    weights = scores.exp() / scores.exp().sum()
                    found.append(sum(weight * state for weight, state in zip(weights, states, strict=True)))
                best = torch.stack(found).max(dim=0).values
                name = torch.stack(synonyms).max(dim=0).values
                logits.append(
                    best @ self.decoder.w_linear.layers[0](name) + self.decoder.b_linear.layers[0](name).squeeze()
                )
        return torch.stack(logits).view(len(notes), -1)


def cross_entropy(logits, labels):
    """Mean over notes and codes."""
    p = logits.sigmoid()
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


def public_rdrop(first, second, labels, alpha):
    """As the public code adds it up."""
    divergence = sum(
        kl_div(log_softmax(p, -1), softmax(q, -1), reduction="none").mean()
        for p, q in ((first, second), (second, first))
    )
    return alpha * divergence / 2 + (cross_entropy(first, labels) + cross_entropy(second, labels)) * 0.5


def padded(texts, extra=2):
    """Ids and mask, two columns wider than the longest."""
    ids, mask = torch.full((2, len(texts), max(map(len, texts)) + extra), 0)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def draw(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCAB, (length,), generator=generator) for length in lengths]


def draw_terms(num_synonyms, codes=CODES):
    """The first code has terms of one word only, the second one term that is repeated."""
    terms = draw([1] * num_synonyms + [3] * num_synonyms + [1 + i % 5 for i in range((codes - 2) * num_synonyms)], 1)
    terms[num_synonyms : 2 * num_synonyms] = [terms[num_synonyms]] * num_synonyms
    return terms


NOTES = draw([7, 1, 12], seed=2)
LABELS = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]])
BATCH = padded(NOTES)


def ours(public, terms, **overrides):
    """The public model, converted, without dropout."""
    config, parameters = convert_msmn_state_dict(public.state_dict())
    for name in ("embedding_dropout", "lstm_dropout", "output_dropout"):
        setattr(config, name, 0.0)
    for name, value in overrides.items():
        setattr(config, name, value)
    model = MSMNForICDCoding(config)
    model.load_state_dict(parameters)
    model.set_label_terms(**padded(terms))
    return model


def tiny(num_synonyms=2, codes=CODES, **overrides):
    torch.manual_seed(0)
    settings = {"vocab_size": VOCAB, "embedding_size": 6, "lstm_size": 8, "attention_size": 16, **overrides}
    model = MSMNForICDCoding(MSMNConfig(num_synonyms=num_synonyms, num_labels=codes, **settings))
    model.set_label_terms(**padded(draw_terms(num_synonyms, codes)))
    return model


def own_name(public_name):
    module, _, parameter = public_name.rpartition(".")
    return f"{PUBLIC_NAMES[module]}.{parameter}"


def assert_same_gradients(model, public):
    own = dict(model.named_parameters())
    used = {own_name(name): p.grad for name, p in public.named_parameters() if p.grad is not None}
    assert set(used) == set(own)
    for name, gradient in used.items():
        torch.testing.assert_close(own[name].grad, gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("num_synonyms", [1, 2, 4])
@pytest.mark.parametrize(("layers", "lstm_size"), [(2, 8), (1, 16)])
@pytest.mark.parametrize("chunk", [0, 1, 2, 256])
@pytest.mark.parametrize("read", ["read_both_ways", "read_packed"])  # on a CPU, on a GPU
def test_equals_the_public_model(num_synonyms, layers, lstm_size, chunk, read, monkeypatch):
    monkeypatch.setattr(modeling, "read_both_ways", getattr(modeling, read))
    torch.manual_seed(num_synonyms)
    public, terms = PublicMSMN(num_synonyms, layers, lstm_size), draw_terms(num_synonyms)
    model = ours(public, terms, code_chunk_size=chunk)
    sizes = (model.config.num_synonyms, model.config.num_lstm_layers, model.config.lstm_size)
    assert sizes == (num_synonyms, layers, lstm_size)
    expected = public(NOTES, terms)
    loss = cross_entropy(expected, LABELS)
    with torch.no_grad():
        output = model.eval()(**BATCH, labels=LABELS)
    torch.testing.assert_close(output.logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    for rdrop_alpha in (0.0, 5.0):  # at dropout 0 the second pass adds nothing
        model.zero_grad()
        model.config.rdrop_alpha = rdrop_alpha
        output = model.train()(**BATCH, labels=LABELS)
        torch.testing.assert_close(output.logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-5)
        output.loss.backward()
        assert_same_gradients(model, public)


@pytest.mark.parametrize("lstm_size", [8, 16])
def test_pool_over_words_only(lstm_size):
    public, terms = PublicMSMN(2, 1, lstm_size), draw_terms(2)
    model = ours(public, terms, pool_term_padding=False, rdrop_alpha=0.0)
    expected = public(NOTES, terms, pool_padding=False)
    assert (expected - public(NOTES, terms)).abs().max() > 1e-3, "the two are told apart"
    output = model(**BATCH, labels=LABELS)
    torch.testing.assert_close(output.logits, expected, rtol=1e-5, atol=1e-5)
    cross_entropy(expected, LABELS).backward()
    output.loss.backward()
    assert_same_gradients(model, public)


def test_a_note_does_not_depend_on_its_batch():
    model = tiny().eval()
    with torch.no_grad():
        together = model(**BATCH).logits
        alone = torch.cat([model(note[None]).logits for note in NOTES])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(BATCH["input_ids"]).logits, together, msg="the mask is made from pad_token_id")


def test_long_texts_are_cut():
    model = tiny(max_words=4)
    short = {name: values[:, :4] for name, values in BATCH.items()}
    model.eval()
    torch.testing.assert_close(model(**BATCH).logits, model(**short).logits)
    model = tiny(max_term_words=2)
    assert model.term_input_ids.shape == (2 * CODES, 2) and model.config.term_length == 2


def test_rdrop_loss():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, CODES, requires_grad=True)
    expected = public_rdrop(first, second, LABELS, 5.0)
    loss = rdrop_loss(first, second, LABELS, 5.0)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(loss, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_rdrop_reads_the_notes_twice_and_the_codes_once(monkeypatch):
    model, seen = tiny(output_dropout=0.0, lstm_dropout=0.0, embedding_dropout=0.5).train(), []

    def spy(first, second, labels, alpha):
        seen.append((first, second, alpha))
        return rdrop_loss(first, second, labels, alpha)

    monkeypatch.setattr(modeling, "rdrop_loss", spy)
    read = count_reads(model)
    output = model(**BATCH, labels=LABELS)
    assert sorted(read) == [2 * len(NOTES), 2 * CODES]
    (first, second, alpha) = seen[0]
    assert alpha == 5.0 and (first - second).abs().max() > 1e-4
    assert torch.equal(output.logits, first)
    assert model(**BATCH).loss is None and len(seen) == 1, "without labels there is no second reading"
    assert model.eval()(**BATCH, labels=LABELS).loss > 0 and len(seen) == 1


def gradients(model, seed=0, **inputs):
    torch.manual_seed(seed)
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    return {"loss": output.loss, "logits": output.logits, **{name: p.grad for name, p in model.named_parameters()}}


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_chunks_change_nothing(chunk):
    # No dropout: in chunks, terms draw other random numbers.
    model = tiny(num_synonyms=4, output_dropout=0.0, embedding_dropout=0.0, lstm_dropout=0.0).train()
    model.config.code_chunk_size = 0
    whole = gradients(model, **BATCH, labels=LABELS)
    model.config.code_chunk_size = chunk
    torch.testing.assert_close(gradients(model, **BATCH, labels=LABELS), whole, rtol=1e-5, atol=1e-6)


def test_recomputed_chunks_have_the_same_dropout(monkeypatch):
    model = tiny(output_dropout=0.5, code_chunk_size=2).train()
    recomputed = gradients(model, **BATCH, labels=LABELS)
    monkeypatch.setattr(lstm_msmn, "checkpoint", lambda function, *args, use_reentrant: function(*args))
    torch.testing.assert_close(gradients(model, **BATCH, labels=LABELS), recomputed)
    assert gradients(model, seed=1, **BATCH, labels=LABELS)["loss"] != recomputed["loss"]


def test_chunks_save_memory():
    """What stays for the backward pass grows with codes × words unchunked, and not chunked."""

    def kept_bytes(chunk, words, codes=600):
        model, kept = tiny(codes=codes, code_chunk_size=chunk).train(), {}
        batch = padded(draw([words, words - 10], 5))

        def pack(tensor):
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(**batch, labels=torch.zeros(2, codes))
        assert output.loss.requires_grad  # so that nothing is freed before it is counted
        return sum(kept.values())

    def growth(chunk, codes=600):
        return kept_bytes(chunk, 200, codes) - kept_bytes(chunk, 100, codes)

    # Readings of notes × more codes × M × words: bytes of 100 more words.
    attention = 4 * (600 - CODES) * 2 * 100 * 4
    of_notes = growth(0, codes=CODES)  # the LSTM's, and next to nothing else
    assert growth(0) - of_notes >= attention
    assert growth(5) - of_notes < attention / 4

    # Of a term only what is needed to read it again, and its feature: of the words that 400 more codes have, nothing.
    features = 400 * 2 * (16 + 8 + 16) * 4  # of synonyms, queries and codes
    assert kept_bytes(5, 20) - kept_bytes(5, 20, codes=200) < 3 * features
    assert kept_bytes(0, 20) - kept_bytes(0, 20, codes=200) > 12 * features


def count_reads(model):
    """Grows by the rows that the LSTM reads."""
    reads = []
    model.word_embedding.register_forward_hook(lambda module, inputs, output: reads.append(len(inputs[0])))
    return reads


def test_codes_are_read_once_an_evaluation():
    model = tiny().eval()
    reads = count_reads(model)

    def read_again():
        reads.clear()
        with torch.no_grad():
            logits = [model(**BATCH).logits for _ in range(3)]
        assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
        return reads.count(2 * CODES), logits[0]

    assert read_again()[0] == 1
    count, before = read_again()
    assert count == 0

    model.train()
    model.eval()
    assert read_again()[0] == 1, "after training"

    for optimizer in (
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.optim.AdamW(model.parameters(), lr=0.5, fused=True),
    ):
        model(**BATCH, labels=LABELS).loss.backward()
        optimizer.step()
        count, after = read_again()
        assert count == 1 and not torch.allclose(before, after), "after a step of the optimizer, in evaluation mode too"

    model.config.pool_term_padding = True
    assert read_again()[0] == 1, "with padding"
    model.config.pool_term_padding = False

    model.load_state_dict(tiny().state_dict())
    count, again = read_again()
    assert count == 1 and torch.equal(again, before), "after load_state_dict"

    model.set_label_terms(**padded(draw([2] * 2 * CODES, 9)))
    count, other = read_again()
    assert count == 1 and not torch.allclose(other, before), "with other terms"

    with torch.no_grad():
        model.double()
    assert read_again()[0] == 1, "in another precision"


def test_codes_have_gradients_in_evaluation_mode():
    model = tiny().eval()
    with torch.no_grad():
        model(**BATCH)
    reads = count_reads(model)
    for _ in range(2):
        model.zero_grad()
        model(**BATCH, labels=LABELS).loss.backward()
        assert model.code_weight.weight.grad.abs().sum() > 0 and model.query.weight.grad.abs().sum() > 0
    assert reads.count(2 * CODES) == 2
    with torch.inference_mode():
        kept = model(**BATCH).logits
    with torch.no_grad():
        assert torch.equal(model(**BATCH).logits, kept)


@pytest.mark.parametrize("codes", [1, 2, 7])
@pytest.mark.parametrize("auto", [MSMNForICDCoding, AutoModel, AutoModelForSequenceClassification])
def test_save_and_load(tmp_path, codes, auto):
    model = tiny(codes=codes) if codes > 2 else ours(PublicMSMN(2), draw([3, 2, 4, 1][: 2 * codes], 3))
    model.eval().save_pretrained(tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is MSMNForICDCoding and type(loaded.config) is MSMNConfig
    assert not any(report.values())
    assert loaded.config.num_labels == codes == model.config.num_labels
    assert torch.equal(loaded.term_input_ids, model.term_input_ids)
    assert torch.equal(loaded.term_attention_mask, model.term_attention_mask)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**BATCH).logits, model(**BATCH).logits, rtol=1e-6, atol=1e-6)


def test_save_and_load_without_terms(tmp_path):
    MSMNForICDCoding(MSMNConfig(vocab_size=VOCAB, num_synonyms=2)).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.num_labels == 0 and AutoConfig.from_pretrained(tmp_path).id2label == {}
    loaded.set_label_terms(**padded(draw_terms(2)))
    assert loaded(**BATCH).logits.shape == (3, CODES)


def test_codes_have_names_and_can_be_replaced(tmp_path):
    code_set = ICDCodeSet(["I10", "R50.9", "A41.9"])
    config = MSMNConfig(vocab_size=VOCAB, num_synonyms=2, id2label=code_set.id2label, label2id=code_set.label2id)
    model = MSMNForICDCoding(config).eval()
    model.set_label_terms(**padded(draw([2] * 6, 1)))
    model.save_pretrained(tmp_path)
    loaded = MSMNForICDCoding.from_pretrained(tmp_path)
    assert list(loaded.config.id2label.values()) == ["I10", "R50.9", "A41.9"]
    loaded.config.id2label, loaded.config.label2id = {0: "R50.9"}, {"R50.9": 0}
    loaded.set_label_terms(model.term_input_ids[2:4], model.term_attention_mask[2:4])
    with torch.no_grad():
        assert torch.allclose(loaded(**BATCH).logits, model(**BATCH).logits[:, 1:2], atol=1e-6)


def test_the_order_of_codes_and_of_notes():
    model = tiny().eval()
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        before = model(**BATCH).logits
        model.set_label_terms(*(b.unflatten(0, (CODES, 2))[order].flatten(0, 1) for b in model.buffers()))
        after = model(**{name: values.flip(0) for name, values in BATCH.items()}).logits
    torch.testing.assert_close(after, before.flip(0)[:, order])


def test_stock_trainer_learns(tmp_path):
    torch.manual_seed(0)
    model = tiny(codes=3, embedding_size=16, lstm_size=32, attention_size=32, code_chunk_size=2)
    said = model.term_input_ids[::2, 0]
    assert len(set(said.tolist())) == 3
    notes = []
    for row in range(24):
        note = torch.ones(4 + row % 4).long()
        note[row % 4] = said[row % 3]
        ids, mask = padded([note], extra=8 - len(note)).values()
        notes.append({"input_ids": ids[0], "attention_mask": mask[0], "labels": torch.eye(3)[row % 3]})
    arguments = TrainingArguments(
        tmp_path,
        num_train_epochs=30,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        logging_steps=6,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=notes, eval_dataset=notes)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.6 * losses[0]
    predicted = trainer.predict(notes)
    assert predicted.predictions.shape == (24, 3)
    assert (predicted.predictions.argmax(1) == predicted.label_ids.argmax(1)).mean() > 0.9


def test_example_of_the_documentation(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gensim")
    text = (Path(__file__).parents[2] / "docs" / "msmn.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert "num_train_epochs=20" in example
    monkeypatch.chdir(tmp_path)
    exec(example.replace("num_train_epochs=20", "num_train_epochs=1, use_cpu=True, report_to=[]"), {})
    assert "tensor([[" in capsys.readouterr().out
    loaded = AutoModelForSequenceClassification.from_pretrained("outputs/msmn")
    assert list(loaded.config.id2label.values()) == ["A41.9", "I10", "N17.9"] and loaded.term_input_ids is not None


def test_bfloat16(tmp_path):
    model = tiny(code_chunk_size=2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**BATCH, labels=LABELS)
    output.loss.backward()
    assert output.logits.dtype == torch.float32 and output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        exact = model(**BATCH).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(**BATCH).logits
        assert torch.equal(model(**BATCH).logits, exact), "features of autocast are not kept for what is exact"
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)
    model.save_pretrained(tmp_path)
    half = MSMNForICDCoding.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        torch.testing.assert_close(half(**BATCH).logits, exact, atol=0.05, rtol=0.05)


def test_published_initialisation():
    model = MSMNForICDCoding(MSMNConfig(vocab_size=400))
    assert model.word_embedding.weight.std().item() == pytest.approx(1, rel=0.05)
    bound = math.sqrt(6 / 1024)  # Xavier
    assert bound > model.attention.weight.abs().max() > 0.99 * bound
    assert model.lstm.weight_hh_l0.abs().max() <= 1 / math.sqrt(128)
    assert sum(p.numel() for n, p in model.named_parameters() if n.startswith("lstm")) == 630_784


def test_conversion_reads_the_sizes():
    public = PublicMSMN(num_synonyms=8, layers=3, lstm_size=10, width=32, embedding=7)
    config, parameters = convert_msmn_state_dict(public.state_dict())
    assert (config.vocab_size, config.embedding_size, config.lstm_size, config.num_lstm_layers) == (VOCAB, 7, 10, 3)
    assert (config.attention_size, config.num_synonyms, config.num_labels) == (32, 8, 0)
    assert config.pad_token_id == VOCAB - 2 and config.pool_term_padding and not MSMNConfig().pool_term_padding
    assert not [name for name in parameters if "final" in name or "U" in name]
    unused = {k: v for k, v in public.state_dict().items() if not k.startswith(("decoder.U.", "decoder.final."))}
    assert set(convert_msmn_state_dict(unused)[1]) == set(parameters)
    wrapped = {f"module.{name}": tensor for name, tensor in public.state_dict().items()}
    wrapped["module.decoder.U.layers.0.weight"] = torch.ones(2, 2)
    assert set(convert_msmn_state_dict(wrapped)[1]) == set(parameters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.u_reduce.bias": None}, r"lacks decoder\.u_reduce\.bias"),
        ({"decoder.W.weight": None}, r"has no decoder\.W\.weight"),
        ({"encoder.combiner.combine_lstm.bias_ih_l1_reverse": None}, r"lacks .*combine_lstm\.bias_ih_l1_reverse"),
        ({"encoder.combiner.reduce_linear.weight": None}, r"lacks encoder\.combiner\.reduce_linear\.weight"),
        ({"label_encoder.mlp.layers.0.weight": torch.ones(2, 2)}, r"label_encoder\.mlp\.layers\.0\.weight"),
        ({"decoder.w_linear.layers.1.bias": torch.ones(2)}, r"decoder\.w_linear\.layers\.1\.bias.*est_cls 1"),
        ({"decoder.w_linear.layers.0.bias": torch.ones(2)}, r"w_linear\.layers\.0\.bias \(2,\), not \(16,\)"),
        ({"decoder.W.gain": torch.ones(2)}, r"decoder\.W\.gain \(2,\), not None"),
    ],
)
def test_conversion_names_what_is_wrong(change, message):
    state = {**PublicMSMN().state_dict(), **change}
    with pytest.raises(ValueError, match=message):
        convert_msmn_state_dict({name: value for name, value in state.items() if value is not None})


def test_errors():
    bare = MSMNForICDCoding(MSMNConfig(vocab_size=VOCAB, num_synonyms=2))
    with pytest.raises(ValueError, match=r"set_label_terms.*num_synonyms=2"):
        bare(**BATCH)
    with pytest.raises(ValueError, match=r"\(3, 2\).*num_synonyms=2"):
        bare.set_label_terms(torch.ones(3, 2))
    model = tiny()
    with pytest.raises(ValueError, match=r"8 terms; 5 codes \(config.num_labels\) of 2 synonyms need 10"):
        model.set_label_terms(torch.ones(8, 2))
    with pytest.raises(ValueError, match="Row 4 of input_ids has no words"):
        model.set_label_terms(torch.ones(10, 1).long(), (torch.arange(10) != 4)[:, None])
    with pytest.raises(ValueError, match=f"Row 0.*vocab_size={VOCAB}"):
        model.set_label_terms(torch.full((10, 1), VOCAB))
    with pytest.raises(ValueError, match="input_ids=None"):
        model(labels=LABELS)
    with pytest.raises(ValueError, match=r"of shape \(0, 4\)"):
        model(torch.ones(0, 4).long())
    for read in (model, model.set_label_terms):
        with pytest.raises(ValueError, match=r"input_ids has the type torch.float32; pass whole numbers"):
            read(torch.ones(10, 4))
    with pytest.raises(ValueError, match=r"labels has values from -100 to 1; pass 1 .* and 0"):
        model(**BATCH, labels=torch.where(LABELS > 0, LABELS, -100))
    with pytest.raises(ValueError, match=r"no terms; call model\.set_label_terms"):
        MSMNForICDCoding(model.config)(**BATCH)  # it has room for them
    with pytest.raises(ValueError, match=r"of shape \(3,\)"):
        model(torch.ones(3).long())
    with pytest.raises(ValueError, match=r"labels has the shape \(3, 4\); pass \(3, 5\)"):
        model(**BATCH, labels=LABELS[:, :4])
    with pytest.raises(ValueError, match="Row 1 of input_ids has no words"):
        model(torch.tensor([[3, 4], [0, 0]]))
    with pytest.raises(ValueError, match=r"Row 0 .*pad on the right"):
        model(torch.tensor([[0, 4], [3, 0]]))
    with pytest.raises(ValueError, match=r"Row 1 .*vocabulary"):
        model(torch.tensor([[3, 4], [VOCAB, 5]]))
    with pytest.raises(ValueError, match=r"attention_mask has the shape \(3, 2\)"):
        model(BATCH["input_ids"], torch.ones(3, 2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lstm_size": 7}, "lstm_size=7 is odd"),
        ({"num_synonyms": 3}, "attention_size=512 is not a multiple of num_synonyms=3"),
        ({"num_synonyms": 0}, "num_synonyms=0; pass 1 or more"),
        ({"rdrop_alpha": -1.0}, "rdrop_alpha=-1.0; pass 0 or more"),
        ({"output_dropout": 1.0}, "output_dropout=1.0; pass a probability"),
        ({"pad_token_id": 50000}, "pad_token_id=50000 is outside the vocabulary of vocab_size=50000"),
        ({"id2label": {0: "a"}, "label2id": {"a": 1}}, "id2label has 'a' at 0, label2id at 1"),
        ({"term_length": 3}, "term_length=3, but no codes"),
    ],
)
def test_configuration_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        MSMNConfig(**fields)


def test_published_defaults():
    config = MSMNConfig()
    assert (config.embedding_size, config.lstm_size, config.num_lstm_layers, config.attention_size) == (
        100,
        256,
        2,
        512,
    )
    assert (config.num_synonyms, config.rdrop_alpha, config.max_words, config.max_term_words) == (4, 5.0, 4000, 30)
    assert (config.embedding_dropout, config.lstm_dropout, config.output_dropout) == (0.2, 0.1, 0.2)


@pytest.mark.parametrize("layers", [1, 2])
def test_without_packing_the_lstm_reads_as_with_it(layers):
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, layers, bidirectional=True, batch_first=True)
    inputs, lengths = torch.randn(4, 6, 3), torch.tensor([4, 6, 1, 3])
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in lstm.named_parameters()}
    lstm.zero_grad()
    found = read_both_ways(lstm, inputs, lengths)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    (found * weights).sum().backward()
    for name, parameter in lstm.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-5, msg=name)


def test_without_packing_dropout_is_between_the_layers():
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 400, 2, bidirectional=True, batch_first=True, dropout=1.0)
    inputs, lengths = torch.randn(2, 5, 3), torch.tensor([5, 2])
    whole = read_both_ways(lstm.eval(), inputs, lengths)
    dropped = read_both_ways(lstm.train(), inputs, lengths)
    # Nothing of the first layer is left, so that all rows begin alike.
    assert torch.equal(dropped[0, 0, :400], dropped[1, 0, :400]) and not torch.equal(whole[0, 0], whole[1, 0])


def test_in_chunks():
    rows, factors = torch.arange(10.0).view(5, 2), torch.arange(5.0)
    for size in range(7):
        result = in_chunks(lambda a, b: a.sum(1) * b, (rows, factors), size, dim=0)
        assert torch.equal(result, rows.sum(1) * factors)


def test_weights_from_credentialed_notes_stay_private(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kept_hf.models.publication.HfApi.repo_info", lambda *a, **k: type("Info", (), {"private": False})()
    )
    model = tiny(data_license=CREDENTIALED)
    with pytest.raises(PermissionError, match="me/msmn"):
        model.push_to_hub("me/msmn")
    with pytest.raises(PermissionError, match="me/msmn"):
        model.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/msmn")


def test_saved_folder_names_its_classes(tmp_path):
    tiny().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["auto_map"]["AutoModelForSequenceClassification"] == "modeling_msmn.MSMNForICDCoding"
