import sys

import numpy as np
import pytest
import torch

from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer
from kept_hf.training.word_vectors import fill_word_embedding, read_word_vectors, train_word_vectors, write_word_vectors

TEXTS = ["fever and cough", "cough 12 fever", "fever and sepsis"] * 20


@pytest.fixture
def tokenizer():
    return MSMNTokenizer.from_texts(TEXTS, min_count=1)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return MSMNForICDCoding(MSMNConfig(vocab_size=len(tokenizer), embedding_size=4))


def test_train(tokenizer, model):
    pytest.importorskip("gensim")
    vectors = train_word_vectors(iter(TEXTS), vector_size=4, min_count=20)
    assert set(vectors) == {"fever", "and", "cough", "sepsis"}
    assert all(vector.shape == (4,) for vector in vectors.values())
    again = train_word_vectors(TEXTS, vector_size=4, min_count=20)
    assert all(np.array_equal(vectors[word], again[word]) for word in vectors)
    other = train_word_vectors(TEXTS, vector_size=4, skip_gram=True)
    assert not all(np.array_equal(other[word], vectors[word]) for word in vectors)
    assert fill_word_embedding(model, tokenizer, vectors) == 4
    with pytest.raises(ValueError, match="no word 61 times"):
        train_word_vectors(TEXTS, min_count=61)


def test_without_gensim(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ImportError, match=r"kept-hf\[msmn\]"):
        train_word_vectors(TEXTS)


def test_fill(tokenizer, model):
    before = model.word_embedding.weight.detach().clone()
    vectors = {"fever": [3.0, 0.0, 4.0, 0.0], "cough": np.ones(4), "pneumonia": np.zeros(4)}
    assert fill_word_embedding(model, tokenizer, vectors) == 2
    ids, after = tokenizer.get_vocab(), model.word_embedding.weight
    assert after[ids["fever"]].tolist() == [3, 0, 4, 0] and after[ids["cough"]].tolist() == [1] * 4
    assert after[tokenizer.pad_token_id].tolist() == [0] * 4
    for word in ("and", "sepsis", tokenizer.unk_token):
        assert torch.equal(after[ids[word]], before[ids[word]])
    assert after.requires_grad and after.is_leaf
    fill_word_embedding(model, tokenizer, vectors, normalize=True)
    torch.testing.assert_close(after[ids["fever"]].detach(), torch.tensor([0.6, 0, 0.8, 0]))


def test_fill_from_gensim(tokenizer, model, tmp_path):
    gensim = pytest.importorskip("gensim")
    keyed = gensim.models.KeyedVectors(4)
    keyed.add_vectors(["fever", "cough"], np.arange(8, dtype=np.float32).reshape(2, 4))
    assert fill_word_embedding(model, tokenizer, keyed) == 2
    keyed.save_word2vec_format(tmp_path / "vectors.txt")
    assert read_word_vectors(tmp_path / "vectors.txt")["cough"].tolist() == [4, 5, 6, 7]
    vectors = train_word_vectors(TEXTS, vector_size=3, min_count=20)
    write_word_vectors(vectors, tmp_path / "own.txt")
    loaded = gensim.models.KeyedVectors.load_word2vec_format(tmp_path / "own.txt")
    assert all(np.array_equal(loaded[word], vector) for word, vector in vectors.items())


def test_read(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("fever 1 2.5\ncough -1e-1 0\n")
    vectors = read_word_vectors(path)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {
        "fever": [1, 2.5],
        "cough": [pytest.approx(-0.1), 0],
    }
    write_word_vectors(vectors, path)
    assert path.read_text().startswith("2 2\n")
    assert all(np.array_equal(read_word_vectors(path)[word], vector) for word, vector in vectors.items())
    path.write_text("2 2\nfever 1 2\ncough 1\n")
    with pytest.raises(ValueError, match="line 3: 1 numbers, 2 in lines before"):
        read_word_vectors(path)
    path.write_text("fever 1 two\n")
    with pytest.raises(ValueError, match=r"line 1: .*two"):
        read_word_vectors(path)


def test_errors(tokenizer, model):
    with pytest.raises(ValueError, match=r"shape \[\(3,\)\]; config.embedding_size is 4"):
        fill_word_embedding(model, tokenizer, {"fever": np.ones(3)})
    with pytest.raises(ValueError, match="none of the tokenizer's words"):
        fill_word_embedding(model, tokenizer, {"FEVER": np.ones(4)})
    with pytest.raises(ValueError, match="tokenizer has 2 words, the model 6"):
        fill_word_embedding(model, MSMNTokenizer.from_texts([]), {"fever": np.ones(4)})
