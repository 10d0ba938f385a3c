import json
import logging
import warnings

import pytest
from transformers import AutoConfig, LongformerConfig
from transformers.utils import logging as transformers_logging

from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting, KeptLongformerModel

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "attention_window": 4,
    "max_position_embeddings": 42,
}
WRONG = [
    ({"num_attention_heads": 3}, "num_attention_heads=3", "hidden_size=16"),
    ({"attention_window": 5}, "attention_window=5", "even"),
    ({"attention_window": 0}, "attention_window=0", "positive"),
    ({"attention_window": -4}, "attention_window=-4", "positive"),
    ({"attention_window": [4]}, r"attention_window=\[4\]", "num_hidden_layers=2"),
    ({"attention_window": [4, 3]}, r"attention_window=\[4, 3\]", "even"),
    ({"global_attention_stride": 0}, "global_attention_stride=0", "less than 1"),
    ({"prompt_loss": "bce"}, "prompt_loss='bce'", "full_vocabulary, two_way"),
    ({"attention_backend": "flash"}, "attention_backend='flash'", "auto, sdpa, flex, eager"),
    ({"yes_token_id": 50}, "yes_token_id=50", "vocab_size=50"),
    ({"no_token_id": -1}, "no_token_id=-1", "vocab_size=50"),
    ({"mask_token_id": 99}, "mask_token_id=99", "vocab_size=50"),
    ({"yes_token_id": 7, "no_token_id": 7}, "yes_token_id=7", "no_token_id=7"),
    ({"yes_token_id": 7, "no_token_id": 8, "mask_token_id": 8}, "no_token_id=8", "mask_token_id=8"),
    ({"id2label": {0: "401.9", 1: "038.9"}, "label2id": {"401.9": 1, "038.9": 0}}, "401.9", "label2id"),
    ({"id2label": {0: "401.9", 1: "401.9"}}, "401.9", "once"),
]
IDS = [",".join(fields) for fields, *_ in WRONG]


@pytest.mark.parametrize("fields,first,second", WRONG, ids=IDS)
def test_fields_that_do_not_fit(fields, first, second):
    with pytest.raises(ValueError, match=first) as error:
        KeptLongformerConfig(**{**SMALL, **fields})
    assert second in str(error.value)


@pytest.mark.parametrize("fields,first,second", WRONG, ids=IDS)
def test_overrides_are_checked_when_the_model_is_made(tmp_path, fields, first, second):
    KeptLongformerModel(KeptLongformerConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=first) as error:
        KeptLongformerForICDPrompting.from_pretrained(tmp_path, **fields)
    assert second in str(error.value)


def test_a_field_set_later_is_checked_when_the_model_is_made():
    config = KeptLongformerConfig(**SMALL)
    config.prompt_loss = "bce"
    with pytest.raises(ValueError, match="prompt_loss='bce'"):
        KeptLongformerForICDPrompting(config)


def test_wrong_type():
    with pytest.raises(Exception, match="yes_token_id"):
        KeptLongformerConfig(**SMALL, yes_token_id="yes")


def test_round_trip(tmp_path):
    config = KeptLongformerConfig(
        **SMALL,
        yes_token_id=5,
        no_token_id=6,
        mask_token_id=4,
        global_attention_stride=3,
        prompt_loss="two_way",
        attention_backend="eager",
        threshold=-1.25,
        id2label={0: "401.9", 1: "038.9"},
    )
    assert config.label2id == {"401.9": 0, "038.9": 1} and config.num_labels == 2
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "kept_longformer"
    for again in (KeptLongformerConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(again) is KeptLongformerConfig
        mine, theirs = config.to_dict(), again.to_dict()
        for name in {*mine, *theirs} - {"transformers_version", "_name_or_path"}:
            assert theirs[name] == mine[name], name
        assert list(again.id2label.items()) == [(0, "401.9"), (1, "038.9")]


def test_defaults_are_longformers():
    mine, stock = KeptLongformerConfig().to_dict(), LongformerConfig().to_dict()
    own = {"model_type": "kept_longformer", "problem_type": "multi_label_classification"}
    assert {name: mine[name] for name in stock} == {**stock, **own}
    assert KeptLongformerConfig().max_sequence_length == 510


def test_longformer_config_loads_without_warning(tmp_path, caplog, capfd):
    old = {
        **LongformerConfig(**SMALL).to_dict(),
        "architectures": ["LongformerForMaskedLM"],
        "gradient_checkpointing": 0,
    }
    assert old["model_type"] == "longformer"
    (tmp_path / "config.json").write_text(json.dumps(old))
    transformers_logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING), warnings.catch_warnings():
            warnings.simplefilter("error")
            config = KeptLongformerConfig.from_pretrained(tmp_path, yes_token_id=7)
    finally:
        transformers_logging.disable_propagation()
    assert not caplog.records and not capfd.readouterr().err
    assert type(config) is KeptLongformerConfig and config.model_type == "kept_longformer"
    assert config.yes_token_id == 7 and config.hidden_size == 16
    config.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "kept_longformer"
