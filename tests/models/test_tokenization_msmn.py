import numpy as np
import pytest
from transformers import AutoTokenizer

from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer
from kept_hf.models.publication import CREDENTIALED
from kept_hf.models.tokenization_msmn import PAD, UNKNOWN, split_words
from kept_hf.training.word_vectors import write_word_vectors

TEXTS = ["Fever and cough. Fever!", "fever: 101.5F, BP 120/80", "cough and Über_9"]


@pytest.fixture
def tokenizer():
    return MSMNTokenizer.from_texts(TEXTS, min_count=1)


def test_split_words():
    assert split_words("Fever 3 x3 [**2101-1-1**] ½ no-acute\n\nCHF.S/P") == [
        "fever",
        "x3",
        "no",
        "acute",
        "chf",
        "s",
        "p",
    ]
    assert split_words("2101 12/3 ...") == []


def test_vocabulary(tokenizer):
    assert list(tokenizer.get_vocab()) == [PAD, UNKNOWN, "fever", "and", "cough", "5f", "bp", "über_9"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, len(tokenizer), tokenizer.vocab_size) == (0, 1, 8, 8)
    assert list(MSMNTokenizer.from_texts(TEXTS, min_count=3).get_vocab()) == [PAD, UNKNOWN, "fever"]
    assert list(MSMNTokenizer.from_texts(iter(TEXTS), min_count=2).get_vocab())[2:] == ["fever", "and", "cough"]


def test_encode(tokenizer):
    batch = tokenizer(["Fever, sepsis 7", "cough and fever bp"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[2, 1, 0, 0], [4, 3, 2, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert tokenizer("cough and fever", truncation=True, max_length=2).input_ids == [4, 3]
    assert tokenizer.decode([4, 3, 2]) == "cough and fever"


def test_the_model_truncates_at_4000_words(tokenizer):
    assert tokenizer.model_max_length == MSMNConfig().max_words == 4000
    assert len(tokenizer("fever " * 5000, truncation=True).input_ids) == 4000


@pytest.mark.parametrize("text", ["", " \n", "2101-10-3", "***"])
def test_nothing_becomes_an_unknown_word(tokenizer, text):
    assert tokenizer(text).input_ids == [1]
    assert tokenizer([text, "fever"]).input_ids == [[1], [2]]


def test_special_tokens_in_a_text_are_text(tokenizer):
    assert tokenizer("fever **PAD** **UNK**").input_ids == [2, 1, 1]


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (MSMNTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is MSMNTokenizer and loaded.get_vocab() == tokenizer.get_vocab()
        assert loaded.model_max_length == 4000
        assert loaded([*TEXTS, "", "**PAD**"]) == tokenizer([*TEXTS, "", "**PAD**"])
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:3] == [PAD, UNKNOWN, "fever"]
    # Next to a model the Auto class needs no trust either.
    MSMNForICDCoding(MSMNConfig(vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is MSMNTokenizer


def test_public_vocabulary(tmp_path):
    """Words first, then the special ones; a file of word vectors will do."""
    path = tmp_path / "words.txt"
    path.write_text("fever 0.1 0.2\ncough 0.3 0.4\n**UNK**\n**PAD**\n**MASK**\n")
    tokenizer = MSMNTokenizer(path)
    assert (tokenizer.unk_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 3, 5)
    assert tokenizer(["Cough, x", "fever"], padding=True).input_ids == [[1, 2], [0, 3]]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()


def test_word2vec_text_format(tmp_path):
    words = [PAD, UNKNOWN, "fever", "cough"]
    write_word_vectors(dict(zip(words, np.eye(4), strict=True)), tmp_path / "vectors.txt")
    assert MSMNTokenizer(tmp_path / "vectors.txt").get_vocab() == {word: number for number, word in enumerate(words)}
    (tmp_path / "vectors.txt").write_text(f"\ufeff{PAD} 1 0\r\n{UNKNOWN} 0 1\r\nfever 1 1", encoding="utf-8")
    assert MSMNTokenizer(tmp_path / "vectors.txt").get_vocab() == {PAD: 0, UNKNOWN: 1, "fever": 2}


def test_added_words_count(tokenizer):
    before = len(tokenizer)
    tokenizer.add_tokens(["newword"])
    assert len(tokenizer) == before + 1 and tokenizer.get_vocab()["newword"] == before


def test_words_of_credentialed_notes_stay_private(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kept_hf.models.publication.HfApi.repo_info", lambda *a, **k: type("Info", (), {"private": False})()
    )
    MSMNTokenizer.from_texts(TEXTS, data_license=CREDENTIALED).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.data_license == CREDENTIALED
    with pytest.raises(PermissionError, match=r"me/words.*this vocabulary"):
        loaded.push_to_hub("me/words")
    with pytest.raises(PermissionError, match="me/words"):
        loaded.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/words")


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="either vocab_file"):
        MSMNTokenizer()
    with pytest.raises(ValueError, match="'fever' more than once"):
        MSMNTokenizer(vocab=[PAD, UNKNOWN, "fever", "fever"])
    with pytest.raises(ValueError, match=r"pad_token='\*\*PAD\*\*' is not in the vocabulary"):
        MSMNTokenizer(vocab=[UNKNOWN, "fever"])
    for word in ("", "a b"):
        with pytest.raises(ValueError, match=rf"vocab\[2\] is '{word}'; write one word"):
            MSMNTokenizer(vocab=[PAD, UNKNOWN, word])
    (tmp_path / "words.txt").write_text(f"{PAD}\n\n{UNKNOWN}\n")
    with pytest.raises(ValueError, match="Line 2 of the words in vocab_file is ''"):
        MSMNTokenizer(tmp_path / "words.txt")
    with pytest.raises(TypeError, match="pass a list of texts"):
        MSMNTokenizer.from_texts("fever")
    with pytest.raises(ValueError, match="min_count=0"):
        MSMNTokenizer.from_texts(TEXTS, min_count=0)
