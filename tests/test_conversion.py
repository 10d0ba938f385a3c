import json

import pytest
import torch
from conftest import randomize
from torch.nn.functional import gelu, layer_norm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from kept_hf import KeptLongformerForICDPrompting, KeptLongformerForMaskedLM, KeptProcessor
from kept_hf.conversion import convert_to_kept_longformer

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
