"""word2vec for MSMN's word embeddings: train it on the notes, or read it, and fill a model with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.tokenization_msmn import MSMNTokenizer, split_words
from ..models.whole_file import whole_file

if TYPE_CHECKING:
    from ..models.modeling_msmn import MSMNForICDCoding


def train_word_vectors(
    texts: Iterable[str],
    vector_size: int = 100,
    min_count: int = 3,
    epochs: int = 5,
    window: int = 5,
    skip_gram: bool = False,
    workers: int = 1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Train word2vec.

    The public MSMN takes the vectors of LAAT, `word2vec_sg0_100.model`: 100 wide, continuous bag of words (`sg=0`).

    Args:
        texts: notes of the training split, one pass of `split_words` each.
        vector_size: width; `config.embedding_size` of the model.
        min_count: words that occur less often get no vector.
        epochs: passes over the texts.
        window: words on each side that count as context.
        skip_gram: instead of continuous bag of words.
        workers: threads. The vectors are the same from run to run with one only.
        seed: of the first vectors.

    Returns:
        Word → vector of shape `(vector_size,)`.

    Raises:
        ImportError: gensim is not installed.
        ValueError: no word occurs `min_count` times.

    Source: Mikolov et al., 2013 (arXiv 1301.3781), by gensim.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise ImportError("train_word_vectors needs gensim: pip install 'kept-hf[msmn]'.") from error
    sentences = [split_words(text) for text in texts]
    model = Word2Vec(
        vector_size=vector_size,
        min_count=min_count,
        window=window,
        sg=int(skip_gram),
        workers=workers,
        seed=seed,
    )
    model.build_vocab(sentences)
    if not len(model.wv):
        raise ValueError(f"texts holds no word {min_count} times; pass more texts, or a smaller min_count.")
    model.train(sentences, total_examples=len(sentences), epochs=epochs)
    return {word: model.wv[word].copy() for word in model.wv.index_to_key}


def read_word_vectors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read vectors in word2vec's text format, which GloVe's is too but for the first line.

    Binary files and gensim's own are read by gensim: `KeyedVectors.load_word2vec_format(path, binary=True)`,
    `Word2Vec.load(path).wv`; [`fill_word_embedding`] takes what it returns.

    Args:
        path: a file of lines "word number number …"; a first line "words width" is allowed.

    Returns:
        Word → vector.

    Raises:
        ValueError: a line whose numbers cannot be read or are not as many as in the others; the message has its number.
    """
    vectors, width = {}, None
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            word, *values = line.split()
            if number == 1 and len(values) == 1:
                continue
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, line {number}: {error}") from error
            if width not in (None, len(vector)):
                raise ValueError(f"{os.fspath(path)}, line {number}: {len(vector)} numbers, {width} in lines before.")
            vectors[word], width = vector, len(vector)
    return vectors


def write_word_vectors(vectors: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Write vectors in word2vec's text format, which [`read_word_vectors`] reads."""
    width = len(next(iter(vectors.values()))) if vectors else 0
    with whole_file(path) as file:
        file.write(f"{len(vectors)} {width}\n")
        for word, vector in vectors.items():
            file.write(f"{word} {' '.join(format(value, '.9g') for value in vector)}\n")


@torch.no_grad()
def fill_word_embedding(
    model: MSMNForICDCoding,
    tokenizer: MSMNTokenizer,
    vectors: Mapping[str, np.ndarray],
    normalize: bool = False,
) -> int:
    """Put word vectors into the word embeddings of a model.

    Words without a vector, among them the unknown word, keep what they have; padding becomes zero. The public code does
    likewise (random normal numbers for the unknown word), and trains all of them further.

    Args:
        model: whose embeddings are filled.
        tokenizer: of the model.
        vectors: word → vector: a dict, or gensim's `KeyedVectors`.
        normalize: scale each vector to length 1, as the public code does with text files, and does not with gensim's.

    Returns:
        How many words of the vocabulary had a vector.

    Raises:
        ValueError: the vectors are of another width than `config.embedding_size`, the tokenizer and the model are of
            different sizes, or no word of the vocabulary has a vector.

    Examples:
        >>> from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer
        >>> tokenizer = MSMNTokenizer.from_texts(["fever and cough"], min_count=1)
        >>> model = MSMNForICDCoding(MSMNConfig(vocab_size=len(tokenizer), embedding_size=2))
        >>> fill_word_embedding(model, tokenizer, {"fever": [0.5, 1.0], "sepsis": [1.0, 0.0]})
        1
        >>> model.word_embedding.weight[tokenizer.convert_tokens_to_ids("fever")].tolist()
        [0.5, 1.0]
    """
    weight = model.word_embedding.weight
    if len(tokenizer) != len(weight):
        raise ValueError(f"tokenizer has {len(tokenizer)} words, the model {len(weight)}; pass the model's tokenizer.")
    known = {index: np.asarray(vectors[word]) for word, index in tokenizer.get_vocab().items() if word in vectors}
    if not known:
        raise ValueError("vectors has none of the tokenizer's words; it must be a mapping of lower-cased words.")
    widths = {vector.shape for vector in known.values()}
    if widths != {(weight.shape[1],)}:
        raise ValueError(f"vectors are of shape {sorted(widths)}; config.embedding_size is {weight.shape[1]}.")
    rows = torch.from_numpy(np.stack(list(known.values()))).float()
    if normalize:
        rows /= rows.norm(dim=1, keepdim=True) + 1e-6
    weight[list(known)] = rows.to(weight)
    weight[tokenizer.pad_token_id] = 0
    return len(known)
