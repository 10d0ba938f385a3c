"""Tiny tokenizers, processors and models, made without a network."""

import json
from pathlib import Path

import pytest
import torch
from launching import CODES as DEMO_CODES
from tiny import CODES, SENTENCES, WORDS, randomize
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import BertTokenizer, RobertaTokenizer
from without_package import NOTE

from kept_hf import (
    ICDCodeSet,
    KeptLongformerConfig,
    KeptLongformerForICDMatching,
    KeptLongformerForICDPrompting,
    KeptLongformerMatchingConfig,
    KeptProcessor,
    MSMNConfig,
    MSMNForICDCoding,
    MSMNTokenizer,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def roberta_tokenizer():
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        [sentence for sentence in SENTENCES for _ in range(20)],
        vocab_size=420,
        min_frequency=2,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    model = json.loads(trained.to_str())["model"]
    tokenizer = RobertaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    assert [len(tokenizer(word, add_special_tokens=False).input_ids) for word in ("yes", "no")] == [1, 1]
    return tokenizer


@pytest.fixture(scope="session")
def bert_tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split())]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:()[]*-_=/<>"
    pieces += [letter for letter in letters if letter not in pieces] + [f"##{letter}" for letter in letters]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})


@pytest.fixture(params=["roberta", "bert"])
def tokenizer(request):
    """Both kinds, one after the other."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.fixture
def code_set():
    return ICDCodeSet(list(CODES), descriptions=CODES, synonyms={"401.9": ["htn", "high blood pressure"]})


@pytest.fixture
def processor(roberta_tokenizer, code_set):
    return KeptProcessor(roberta_tokenizer, code_set, max_length=200)


@pytest.fixture
def tiny_config(processor):
    return KeptLongformerConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=24,
        attention_window=[4, 8],
        max_position_embeddings=202,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        **processor.config_overrides(),
    )


@pytest.fixture
def tiny_model(tiny_config):
    return randomize(KeptLongformerForICDPrompting(tiny_config)).eval()


@pytest.fixture
def matching_model(tiny_config):
    fields = tiny_config.to_dict() | {"model_type": "kept_longformer_matching"}
    return randomize(KeptLongformerForICDMatching(KeptLongformerMatchingConfig.from_dict(fields))).eval()


@pytest.fixture
def matching_processor(roberta_tokenizer, code_set):
    return KeptProcessor(roberta_tokenizer, code_set, max_length=200, prompt_layout="isolated")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A BERT of a few thousand parameters with a tokenizer of the demo's letters."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", ",", ".", ":", "-", "/", "(", ")"]
    words += [*letters, *("##" + letter for letter in letters)]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)  # so that tests see the same model in any order
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def train_arguments(tiny_checkpoint, tmp_path_factory) -> list[str]:
    """Settings of a run that takes seconds."""
    folder = tmp_path_factory.mktemp("settings")
    codes = folder / "codes.txt"
    codes.write_text("\n".join(DEMO_CODES) + "\n")
    values = {
        "model_name_or_path": tiny_checkpoint,
        "codes": codes,
        "cache_dir": folder / "cache",
        "max_length": 512,
        "attention_window": 16,
        "position_period": 32,
        "codes_per_prompt": 3,
        "sampled_codes": 3,
        "draws": 1,
        "matching_examples": 0,
        "max_steps": 4,
        "num_train_epochs": 1,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "save_total_limit": 5,  # steps so short that the newest checkpoint cannot be told by its time
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "bf16": "False",
        "use_cpu": "True",
    }
    return [
        "examples/train.py",
        "demo_published",
        *(part for name, value in values.items() for part in (f"--{name}", str(value))),
    ]


@pytest.fixture
def msmn(tmp_path):
    """A saved MSMN and what it scores for the note."""
    tokenizer = MSMNTokenizer.from_texts([NOTE, "high blood pressure"], min_count=1)
    config = MSMNConfig(vocab_size=len(tokenizer), attention_size=8, num_synonyms=2, id2label={0: "I10", 1: "A41.9"})
    model = MSMNForICDCoding(config).eval()
    terms = ["hypertension", "high blood pressure", "sepsis", "sepsis"]
    model.set_label_terms(**tokenizer(terms, padding=True, return_tensors="pt"))
    model.save_pretrained(tmp_path / "msmn")
    tokenizer.save_pretrained(tmp_path / "msmn")
    with torch.no_grad():
        return tmp_path / "msmn", model(**tokenizer(NOTE, return_tensors="pt")).logits


@pytest.fixture
def train():
    """The command's module."""
    from kept_hf.commands import train

    return train
