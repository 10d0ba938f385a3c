"""The weights that a run starts from."""

import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from kept_hf import KeptLongformerForICDPrompting
from kept_hf.models.modeling_kept_matching import KeptLongformerForICDMatching
from kept_hf.training.base import BaseArguments, load_base

LEGAL = "longformer, kept_longformer, kept_longformer_matching"


@pytest.fixture
def saved(roberta_tokenizer, tmp_path):
    """Save a model; returns arguments that name its folder."""

    def save(model):
        model.save_pretrained(tmp_path)
        roberta_tokenizer.save_pretrained(tmp_path)
        return BaseArguments(str(tmp_path), attention_window=8)

    return save


def small(config_class, tokenizer, **others):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    if config_class is DistilBertConfig:
        sizes = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 16}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    return config_class(vocab_size=len(tokenizer), max_position_embeddings=66, **sizes, **ids, **others)


@pytest.mark.parametrize(
    "config_class,model_class",
    [
        (DistilBertConfig, DistilBertForMaskedLM),
        (ElectraConfig, ElectraForMaskedLM),
        (ModernBertConfig, ModernBertForMaskedLM),
    ],
)
def test_other_encoders_are_refused(saved, roberta_tokenizer, config_class, model_class):
    arguments = saved(model_class(small(config_class, roberta_tokenizer)))
    kind = config_class.model_type
    with pytest.raises(ValueError, match=rf"is of type '{kind}'; pass one of type {LEGAL}, bert, roberta, xlm-roberta"):
        load_base(KeptLongformerForICDPrompting, arguments)
    for wrong_class in (KeptLongformerForICDPrompting, KeptLongformerForICDMatching):
        with pytest.raises(ValueError, match=rf"is of type '{kind}'; this class reads {LEGAL}. kept-hf convert"):
            wrong_class.from_pretrained(arguments.model_name_or_path)


def test_a_longformer_without_head_is_refused_where_masks_are_read(saved, roberta_tokenizer):
    config = small(LongformerConfig, roberta_tokenizer, attention_window=8)
    arguments = saved(LongformerModel(config))
    with pytest.raises(ValueError, match=r"lacks lm_head\.bias, .* random in KeptLongformerForICDPrompting; pass"):
        load_base(KeptLongformerForICDPrompting, arguments, yes_token_id=5, no_token_id=6, mask_token_id=4)
    model, _ = load_base(KeptLongformerForICDMatching, arguments)
    assert model.similarity.scale == model.config.similarity_scale, "new by design"


def test_weights_that_are_no_numbers_are_refused(saved, roberta_tokenizer):
    model = LongformerForMaskedLM(small(LongformerConfig, roberta_tokenizer, attention_window=8))
    with torch.no_grad():
        model.longformer.encoder.layer[0].output.dense.bias[3] = float("nan")
    arguments = saved(model)
    message = (
        r"has weights that are no numbers, in 1 parameters, first in longformer\.encoder\.layer\.0\.output\.dense\.bias"
    )
    with pytest.raises(ValueError, match=message):
        load_base(KeptLongformerForICDMatching, arguments)
