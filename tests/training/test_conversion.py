import copy
import json

import pytest
import torch
from tiny import randomize
from torch.nn.functional import gelu, layer_norm
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    LongformerConfig,
    LongformerForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from kept_hf import KeptLongformerForICDPrompting, KeptLongformerForMaskedLM, KeptProcessor
from kept_hf.commands import convert as convert_command
from kept_hf.training.conversion import convert_to_kept_longformer, copy_local_to_global, resize_positions

POSITIONS = 24
SOURCES = {
    "bert": (BertConfig, BertModel),
    "bert-mlm": (BertConfig, BertForMaskedLM),
    "roberta": (RobertaConfig, RobertaModel),
    "roberta-mlm": (RobertaConfig, RobertaForMaskedLM),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    """A checkpoint in a folder, and the model in memory."""
    config_class, model_class = SOURCES[request.param]
    is_bert = config_class is BertConfig
    tokenizer = request.getfixturevalue("bert_tokenizer" if is_bert else "roberta_tokenizer")
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=24,
        max_position_embeddings=POSITIONS if is_bert else POSITIONS + 2,
        type_vocab_size=2 if is_bert else 1,
        pad_token_id=tokenizer.pad_token_id,
        layer_norm_eps=1e-6,
    )
    model = randomize(model_class(config)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path, model, tokenizer, request.param.endswith("mlm")


def batch_of(tokenizer, length):
    generator = torch.Generator().manual_seed(length)
    input_ids = torch.randint(5, len(tokenizer), (3, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, length // 2 :] = 0
    return {
        "input_ids": input_ids.masked_fill(attention_mask == 0, tokenizer.pad_token_id),
        "attention_mask": attention_mask,
    }


def vocabulary_logits(model, hidden):
    """The head made for a source without one: its transform is the identity, its decoder the word embeddings."""
    words = model.longformer.embeddings.word_embeddings.weight
    return layer_norm(gelu(hidden), hidden.shape[-1:], eps=model.config.layer_norm_eps) @ words.T


@torch.no_grad()
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("max_length", [POSITIONS, 50, 12])
def test_computes_what_the_source_computes(source, max_length, backend):
    path, model, tokenizer, has_head = source
    converted, converted_tokenizer = convert_to_kept_longformer(str(path), max_length, 2 * POSITIONS)
    assert type(converted) is KeptLongformerForMaskedLM and not converted.training
    assert type(converted_tokenizer) is type(tokenizer) and converted_tokenizer.model_max_length == max_length
    assert converted_tokenizer.get_vocab() == tokenizer.get_vocab()
    converted.config.attention_backend = backend
    for length in (1, 5, min(max_length, POSITIONS)):
        batch = batch_of(tokenizer, length)
        real = batch["attention_mask"].bool()
        expected = model(**batch, output_hidden_states=True)
        got = converted(**batch, output_hidden_states=True)
        for mine, theirs in zip(got.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(mine[real], theirs[real], rtol=1e-4, atol=1e-5)
        logits = expected.logits if has_head else vocabulary_logits(converted, expected.hidden_states[-1])
        torch.testing.assert_close(got.logits[real], logits[real], rtol=1e-4, atol=1e-4)


def assert_repeated(table, unused, source_table, length):
    assert len(table) == unused + length
    for position in range(length):
        assert torch.equal(table[unused + position], source_table[position % len(source_table)]), position


@pytest.mark.parametrize("period", [None, 1, 7, POSITIONS])
def test_positions_are_repeated(source, period):
    path, model, tokenizer, _ = source
    converted, _ = convert_to_kept_longformer(str(path), 61, 8, position_period=period)
    first = 0 if isinstance(model.base_model, BertModel) else 2
    source_table = model.base_model.embeddings.position_embeddings.weight[first:][:period]
    unused = tokenizer.pad_token_id + 1
    assert converted.config.max_sequence_length == 61
    assert converted.config.max_position_embeddings == 61 + unused
    assert_repeated(converted.longformer.embeddings.position_embeddings.weight, unused, source_table, 61)
    assert converted(torch.full((1, 61), 7)).logits.shape == (1, 61, len(tokenizer))


def test_parts(source):
    path, model, tokenizer, has_head = source
    converted, _ = convert_to_kept_longformer(str(path), 40, [8, 16])
    config = converted.config
    assert config.attention_window == [8, 16] and config.model_type == "kept_longformer"
    assert (config.pad_token_id, config.sep_token_id) == (tokenizer.pad_token_id, tokenizer.sep_token_id)
    assert config.mask_token_id == tokenizer.mask_token_id and config.layer_norm_eps == 1e-6
    assert config.type_vocab_size == model.config.type_vocab_size
    for layer in converted.longformer.encoder.layer:
        attention = layer.attention.self
        for name in ("query", "key", "value"):
            local, other = getattr(attention, name), getattr(attention, f"{name}_global")
            assert torch.equal(local.weight, other.weight) and torch.equal(local.bias, other.bias)
            assert local.weight.data_ptr() != other.weight.data_ptr(), "copied, not shared"
    assert converted.lm_head.decoder.weight is converted.longformer.embeddings.word_embeddings.weight
    assert converted.lm_head.decoder.bias is converted.lm_head.bias
    assert has_head or not converted.lm_head.bias.any()


def test_saves_and_becomes_a_prompting_model(source, code_set, tmp_path):
    path, _, _, _ = source
    converted, tokenizer = convert_to_kept_longformer(str(path), 150, 8)
    processor = KeptProcessor(tokenizer, code_set, max_length=150)
    folder = tmp_path / "converted"
    converted.save_pretrained(folder)
    model, info = KeptLongformerForICDPrompting.from_pretrained(
        folder, output_loading_info=True, **processor.config_overrides()
    )
    assert not any(info.values())
    for name, value in converted.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model(**processor(["fever", "cough " * 300], return_tensors="pt")).logits.shape == (2, 6)


def test_other_types(tmp_path):
    DistilBertModel(DistilBertConfig(vocab_size=20, dim=8, hidden_dim=8, n_layers=1, n_heads=2)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match=r"'distilbert'.*bert, roberta"):
        convert_to_kept_longformer(str(tmp_path))


def test_relative_positions(source):
    path, *_ = source
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "position_embedding_type": "relative_key"}))
    with pytest.raises(ValueError, match="position_embedding_type='relative_key'"):
        convert_to_kept_longformer(str(path))


@pytest.mark.parametrize("period", [0, -1, POSITIONS + 1])
def test_period_outside_the_table(source, period):
    with pytest.raises(ValueError, match=f"position_period={period} .*{POSITIONS}"):
        convert_to_kept_longformer(str(source[0]), 40, 8, position_period=period)


@pytest.mark.parametrize("max_length", [0, -3])
def test_max_length_below_one(source, max_length):
    with pytest.raises(ValueError, match=f"max_length={max_length}"):
        convert_to_kept_longformer(str(source[0]), max_length, 8)


def test_wrong_window(source):
    with pytest.raises(ValueError, match="attention_window=7"):
        convert_to_kept_longformer(str(source[0]), 40, 7)


@pytest.mark.parametrize("max_length", [1, 50, 200, 431])
def test_resized_positions(tiny_model, max_length):
    """The table of the tiny model holds 200 positions and two rows that are none."""
    before = copy.deepcopy(tiny_model)
    resize_positions(tiny_model, max_length)
    table, old = (m.longformer.embeddings.position_embeddings.weight for m in (tiny_model, before))
    assert tiny_model.config.max_sequence_length == max_length
    assert torch.equal(table[:2], old[:2])
    assert_repeated(table, 2, old[2:], max_length)
    assert table.requires_grad and tiny_model.longformer.embeddings.position_embeddings.padding_idx == 1
    input_ids = torch.full((1, max_length), 7)
    input_ids[0, -1] = tiny_model.config.mask_token_id
    scores = tiny_model(input_ids).logits
    if max_length <= 200:
        torch.testing.assert_close(scores, before(input_ids).logits)
    with pytest.raises(ValueError, match=f"has {max_length + 1} tokens"):
        tiny_model(torch.cat([input_ids, input_ids[:, -1:]], dim=1))


def test_resized_positions_are_saved(tiny_model, tmp_path):
    resize_positions(tiny_model, 431, position_period=100)
    tiny_model.save_pretrained(tmp_path)
    loaded = KeptLongformerForICDPrompting.from_pretrained(tmp_path)
    table = loaded.longformer.embeddings.position_embeddings.weight
    assert torch.equal(table, tiny_model.longformer.embeddings.position_embeddings.weight)
    assert torch.equal(table[2:102], table[102:202])


@pytest.mark.parametrize(("arguments", "message"), [((0,), "max_length=0"), ((50, 201), "position_period=201")])
def test_positions_that_cannot_be(tiny_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_positions(tiny_model, *arguments)
    assert tiny_model.config.max_sequence_length == 200


def test_copy_local_to_global(tiny_model):
    attention = tiny_model.longformer.encoder.layer[1].attention.self
    assert not torch.equal(attention.key.weight, attention.key_global.weight)
    copy_local_to_global(tiny_model)
    for name in ("query", "key", "value"):
        local, other = getattr(attention, name), getattr(attention, f"{name}_global")
        assert torch.equal(local.weight, other.weight) and torch.equal(local.bias, other.bias)
        assert local.weight.data_ptr() != other.weight.data_ptr()


def convert(*arguments):
    convert_command.main([str(argument) for argument in arguments])


def test_command_line_with_a_bert(source, tmp_path, capsys):
    path = source[0]
    convert("--model", path, "--output_dir", tmp_path / "new", "--max_length", 61, "--attention_window", 8)
    assert "2 layers, inputs of up to 61 tokens" in capsys.readouterr().out
    converted, tokenizer = convert_to_kept_longformer(str(path), 61, 8)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "new")
    assert type(loaded) is type(converted)
    for name, value in converted.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert AutoTokenizer.from_pretrained(tmp_path / "new").model_max_length == tokenizer.model_max_length == 61


def test_command_line_with_a_longformer(tiny_model, roberta_tokenizer, tmp_path, capsys):
    """A plain Longformer of transformers."""
    fields = {name: getattr(tiny_model.config, name) for name in LongformerConfig().to_dict() if name != "model_type"}
    stock = LongformerForMaskedLM(LongformerConfig(**fields))
    stock.load_state_dict(tiny_model.state_dict())
    stock.save_pretrained(tmp_path / "old")
    roberta_tokenizer.save_pretrained(tmp_path / "old")
    convert("--model", tmp_path / "old", "--output_dir", tmp_path / "new", "--max_length", 300, "--copy_global")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "new")
    assert loaded.config.max_sequence_length == 300
    assert AutoTokenizer.from_pretrained(tmp_path / "new").model_max_length == 300
    copy_local_to_global(tiny_model)
    resize_positions(tiny_model, 300)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_length", 0], "max_length=0 is less than 1"),
        (["--max_length", 300, "--attention_window", 8], "--attention_window is that of the checkpoint"),
        (["--max_length", 300, "--position_period", 900], "position_period=900"),
    ],
)
def test_command_line_mistakes(tiny_model, roberta_tokenizer, tmp_path, capsys, options, message):
    tiny_model.save_pretrained(tmp_path / "old")
    roberta_tokenizer.save_pretrained(tmp_path / "old")
    with pytest.raises(SystemExit):
        convert("--model", tmp_path / "old", "--output_dir", tmp_path / "new", *options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
