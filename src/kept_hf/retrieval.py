"""First stages that need no training, or little: codes are found by their names in windows of the note.

[`SparseRetriever`] compares letters, [`DenseRetriever`] vectors of any encoder; neither sees a coded note, so rare
codes and codes without a note are found as well as others. [`TextClassifierProposer`] learns from coded notes, and
knows no other codes. Each proposes by itself; [`kept_hf.fusion`] joins them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .code_set import ICDCodeSet
from .hsap import POOLINGS
from .proposals import Proposals, Proposer

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW, STEP = 12, 6
"""Words of a window of a note, and from the start of one to that of the next."""


def word_windows(text: str, size: int = WINDOW, step: int = STEP) -> list[str]:
    """Overlapping windows of a text; the last ends with it. One, of all there is, where the text is shorter.

    Args:
        text: a note.
        size: words of a window.
        step: words from the start of one to the start of the next, `size` at most, so that no word is left out.

    Raises:
        ValueError: a `step` that is not between 1 and `size`.

    Examples:
        >>> word_windows("a b c d e f", size=4, step=3)
        ['a b c d', 'c d e f']
    """
    if not 1 <= step <= size:
        raise ValueError(f"step={step!r} and size={size!r}; pass 1 <= step <= size, such as size=12, step=6.")
    words = text.split()
    last = max(0, len(words) - size)
    starts = [*range(0, last, step), last]
    return [" ".join(words[start : start + size]) for start in starts]


def _names_of(code_set: ICDCodeSet) -> tuple[list[str], np.ndarray]:
    """All names of all codes, and where those of each code begin."""
    names = [[code_set.describe(code), *code_set.synonyms.get(code, ())] for code in code_set]
    starts = np.cumsum([0, *map(len, names[:-1])])
    return [name for of_code in names for name in of_code], starts


def _tfidf_vectorizer(**options: object) -> TfidfVectorizer:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise ImportError("Sparse retrieval needs scikit-learn: pip install 'kept-hf[retrieval]'.") from error
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **options)


class SparseRetriever:
    """Proposes codes by the tf-idf cosine of their names and windows of the note; the best pair of the two counts.

    Runs of four letters find inflected words and parts of compounds, in any language with spaces. Windows serve better
    than the whole note, and BM25 with either was no better (`docs/retrieval.md`).

    Args:
        code_set: the codes with their names. `ICDCodeSet.with_synonyms` gives them more.
        texts: notes from which, with the names, the weights of the terms are counted; no codes needed. Without them a
            word that is common in notes, such as "patient", but rare in names weighs too much.
        analyzer, ngram_range: of scikit-learn's `TfidfVectorizer`; ("word", (1, 1)) for words.
        window, step: see `word_windows`.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: `texts` is one string.

    Examples:
        >>> code_set = ICDCodeSet(["I10", "R05"], {"I10": "Essential (primary) hypertension", "R05": "Cough"})
        >>> retriever = SparseRetriever(code_set)
        >>> proposals = retriever.propose(["Seen for coughing.", "Hypertensive, coughs", "well"], top_k=2)
        >>> [proposals.codes_of(note) for note in range(3)]
        [['R05'], ['I10', 'R05'], []]
    """

    def __init__(
        self,
        code_set: ICDCodeSet,
        texts: Iterable[str] = (),
        analyzer: str = "char_wb",
        ngram_range: tuple[int, int] = (4, 4),
        window: int = WINDOW,
        step: int = STEP,
    ):
        if isinstance(texts, str):
            raise TypeError("texts is one string; pass a list of texts.")
        self.code_set, self.window, self.step = code_set, window, step
        names, self._starts = _names_of(code_set)
        self._vectorizer = _tfidf_vectorizer(analyzer=analyzer, ngram_range=ngram_range)
        self._vectorizer.fit([*names, *texts])
        self._names = self._vectorizer.transform(names).T.tocsr()

    def propose(self, notes: Sequence[str], top_k: int) -> Proposals:
        """The best codes of each note; a code that shares no term with it is no candidate.

        Args:
            notes: texts.
            top_k: how many codes.

        Returns:
            Scores from 0 to 1.
        """
        return Proposals.from_scorer(self._score, notes, self.code_set.codes, top_k)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        scores = np.empty((len(notes), len(self.code_set)), dtype=np.float32)
        for row, note in zip(scores, notes, strict=True):
            windows = self._vectorizer.transform(word_windows(note, self.window, self.step))
            row[:] = np.maximum.reduceat((windows @ self._names).max(axis=0).toarray()[0], self._starts)
        scores[scores <= 0] = -np.inf
        return scores


class DenseRetriever:
    """Proposes codes by the cosine of vectors of their names and of windows of the note; the best pair counts.

    Args:
        code_set: the codes with their names. `ICDCodeSet.with_synonyms` gives them more.
        model: any encoder that gives `last_hidden_state`: a sentence encoder, a model that HSAP was trained on. It is
            put into evaluation mode.
        tokenizer: of the model.
        pooling: "mean" of the states of all tokens, or "cls", the state of the first; as the model was trained.
        window, step: see `word_windows`.
        batch_size: names or windows at a time.
        max_length: tokens of a name or window; the rest is cut.
        cache_file: where to keep the vectors of the names. They are read from there if it holds those of the same
            names, weights and settings, else computed and written.

    Raises:
        ValueError: another pooling, or a `batch_size` below 1.
    """

    def __init__(
        self,
        code_set: ICDCodeSet,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        window: int = WINDOW,
        step: int = STEP,
        batch_size: int = 64,
        max_length: int = 64,
        cache_file: str | os.PathLike | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is less than 1; pass 1 or more.")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} is unknown; pass one of {', '.join(POOLINGS)}.")
        self.code_set, self.model, self.tokenizer = code_set, model.eval(), tokenizer
        self.pooling, self.window, self.step = pooling, window, step
        self.batch_size, self.max_length = batch_size, max_length
        names, self._starts = _names_of(code_set)
        self._names = self._vectors_of_names(names, cache_file)

    def propose(self, notes: Sequence[str], top_k: int) -> Proposals:
        """The best codes of each note.

        Args:
            notes: texts.
            top_k: how many codes.

        Returns:
            Scores from -1 to 1.
        """
        return Proposals.from_scorer(self._score, notes, self.code_set.codes, top_k)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors of some texts, `(texts, hidden_size)` float32, on the device of the model."""
        # Texts of like length together, so that little padding is encoded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = torch.empty(len(texts), self.model.config.hidden_size, device=self.model.device)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            inputs = self._tokens([texts[place] for place in places], padding=True, return_tensors="pt")
            inputs = inputs.to(self.model.device)
            states = self.model(**inputs).last_hidden_state.float()
            if self.pooling == "cls":
                pooled = states[:, 0]
            else:
                weights = inputs["attention_mask"][:, :, None].float()
                pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
            vectors[places] = torch.nn.functional.normalize(pooled, dim=1)
        return vectors

    def _tokens(self, texts: Sequence[str], **options: object):
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, **options)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        windows = [word_windows(note, self.window, self.step) for note in notes]
        vectors = self.encode([text for of_note in windows for text in of_note])
        best = [(part @ self._names.T).amax(dim=0) for part in vectors.split([len(of_note) for of_note in windows])]
        return np.maximum.reduceat(torch.stack(best).cpu().numpy(), self._starts, axis=1)

    def _vectors_of_names(self, names: list[str], cache_file: str | os.PathLike | None) -> torch.Tensor:
        if cache_file is None:
            return self.encode(names)
        fingerprint = self._fingerprint(names)
        if os.path.exists(cache_file):
            try:
                with safe_open(cache_file, framework="pt", device=str(self.model.device)) as file:
                    if (file.metadata() or {}).get("fingerprint") == fingerprint:
                        return file.get_tensor("names")
            except SafetensorError as error:
                raise ValueError(
                    f"cache_file={os.fspath(cache_file)!r} is something else, or damaged; delete it, or pass another "
                    "file."
                ) from error
        vectors = self.encode(names)
        save_file({"names": vectors.cpu()}, cache_file, metadata={"fingerprint": fingerprint})
        return vectors

    def _fingerprint(self, names: list[str]) -> str:
        """Of all that the vectors depend on: tokens, pooling, settings and weights of the model."""
        digest = hashlib.sha256(repr((self._tokens(names)["input_ids"], self.pooling)).encode())
        digest.update(self.model.config.to_json_string().encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


class TextClassifierProposer:
    """Proposes codes by a linear classifier on tf-idf of words, the usual strong baseline, fitted to coded notes.

    A ridge regression of all codes at once: one decomposition serves all, seconds where a logistic regression for each
    code takes minutes, and its candidates are better (`docs/retrieval.md`).

    Args:
        code_set: the codes.
        alpha: weight of the ridge penalty.
        max_features: the most frequent words are kept. Weights take 4 bytes × words × codes with notes, labels 4 bytes
            × notes × such codes, the decomposition 4 bytes × the square of the words, or of the notes if fewer.

    Raises:
        ImportError: scikit-learn is not installed.

    Examples:
        >>> proposer = TextClassifierProposer(ICDCodeSet(["I10", "R05", "R50.9"]))
        >>> proposer = proposer.fit(["dry cough", "high blood pressure", "cough"], [["R05"], ["I10"], ["R05"]])
        >>> proposer.propose(["blood pressure raised"], top_k=3).codes_of(0)
        ['I10', 'R05']
    """

    def __init__(self, code_set: ICDCodeSet, alpha: float = 0.3, max_features: int = 20_000):
        self.code_set, self.alpha = code_set, alpha
        self._vectorizer = _tfidf_vectorizer(max_features=max_features)
        self._ridge = None

    def fit(self, notes: Sequence[str], codes: Sequence[Iterable[str]]) -> TextClassifierProposer:
        """Learn from coded notes.

        Args:
            notes: texts.
            codes: the codes of each note.

        Returns:
            This proposer.

        Raises:
            KeyError: a code that is not in the code set.
            ValueError: another number of notes than of lists of codes, or no code at all.
        """
        from sklearn.linear_model import Ridge

        if len(notes) != len(codes):
            raise ValueError(f"notes has {len(notes)} texts and codes {len(codes)} lists; pass one each.")
        pairs = [(note, self.code_set.index(code)) for note, of_note in enumerate(codes) for code in of_note]
        if not pairs:
            raise ValueError("codes is empty for every note; pass notes with codes.")
        rows, columns = np.array(pairs).T
        # Codes without a note are not learnt, and not proposed.
        self._places, columns = np.unique(columns, return_inverse=True)
        labels = np.zeros((len(notes), len(self._places)), dtype=np.float32)
        labels[rows, columns] = 1
        # An intercept is not to be had with sparse features; the mean of the labels stands for it.
        self._means = labels.mean(axis=0)
        labels -= self._means
        # "cholesky" decomposes once; what scikit-learn would choose here solves for each code by itself.
        self._ridge = Ridge(alpha=self.alpha, fit_intercept=False, solver="cholesky")
        self._ridge.fit(self._vectorizer.fit_transform(notes), labels)
        return self

    def propose(self, notes: Sequence[str], top_k: int) -> Proposals:
        """The best codes of each note, of those that some note of the training had.

        Args:
            notes: texts.
            top_k: how many codes.

        Returns:
            Scores around 0 and 1: least squares of these two.

        Raises:
            RuntimeError: not fitted.
        """
        if self._ridge is None:
            raise RuntimeError("TextClassifierProposer has not learnt yet; call fit(notes, codes) first.")
        return Proposals.from_scorer(self._score, notes, self.code_set.codes, top_k)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        scores = np.full((len(notes), len(self.code_set)), -np.inf, dtype=np.float32)
        predictions = self._ridge.predict(self._vectorizer.transform(notes))
        scores[:, self._places] = predictions.reshape(len(notes), -1) + self._means
        return scores


def propose_out_of_fold(
    fit: Callable[[Sequence[str], Sequence[Iterable[str]]], Proposer],
    notes: Sequence[str],
    codes: Sequence[Iterable[str]],
    top_k: int,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
) -> Proposals:
    """Propose for training notes, each by a proposer that did not learn from it.

    A proposer knows its own training notes by heart. What comes after it, a second stage or the weights of a fusion,
    would learn to trust it more than new notes bear out.

    Args:
        fit: notes and their codes → a fitted proposer.
        notes: texts.
        codes: the codes of each note.
        top_k: how many codes.
        groups: of each note, such as its patient: notes of one group are left out together. By default each note is
            one of its own.
        folds: into how many parts the notes are cut; fewer where there are fewer groups.

    Returns:
        Proposals in the order of the notes.

    Raises:
        ValueError: fewer than two folds or groups, or lists of different lengths.

    Source: Wolpert, *Stacked Generalization*, Neural Networks 1992.

    Examples:
        >>> code_set = ICDCodeSet(["I10", "R05"])
        >>> notes, codes = ["cough", "hypertension", "cough"], [["R05"], ["I10"], ["R05"]]
        >>> fit = lambda *known: TextClassifierProposer(code_set).fit(*known)
        >>> proposals = propose_out_of_fold(fit, notes, codes, top_k=2, folds=3)
        >>> proposals.codes_of(1)  # no other note has I10
        ['R05']
    """
    from sklearn.model_selection import GroupKFold

    groups = range(len(notes)) if groups is None else groups
    if not len(notes) == len(codes) == len(groups):
        raise ValueError(f"notes, codes and groups have {len(notes)}, {len(codes)} and {len(groups)}; pass one each.")
    folds = min(folds, len(set(groups)))
    if folds < 2:
        raise ValueError(f"There are {folds} folds; pass folds=2 or more, and notes of at least two groups.")
    split = GroupKFold(folds, shuffle=True, random_state=0).split(notes, groups=list(groups))
    parts, order = [], []
    for known, left_out in split:
        proposer = fit([notes[row] for row in known], [codes[row] for row in known])
        parts.append(proposer.propose([notes[row] for row in left_out], top_k))
        order.extend(left_out)
    return Proposals.concatenate(parts).take(np.argsort(order))
