"""A first stage that learns from coded notes: a linear classifier on words. It knows no other codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..models.code_set import ICDCodeSet
from .candidates import Candidates
from .sparse import tfidf_vectorizer

if TYPE_CHECKING:
    pass


class TextClassifier:
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
        >>> proposer = TextClassifier(ICDCodeSet(["I10", "R05", "R50.9"]))
        >>> proposer = proposer.fit(["dry cough", "high blood pressure", "cough"], [["R05"], ["I10"], ["R05"]])
        >>> proposer.propose(["blood pressure raised"], top_k=3).codes_of(0)
        ['I10', 'R05']
    """

    def __init__(self, code_set: ICDCodeSet, alpha: float = 0.3, max_features: int = 20_000):
        self.code_set, self.alpha = code_set, alpha
        self._vectorizer = tfidf_vectorizer(max_features=max_features)
        self._ridge = None

    def fit(self, notes: Sequence[str], codes: Sequence[Iterable[str]]) -> TextClassifier:
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

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
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
            raise RuntimeError("TextClassifier has not learnt yet; call fit(notes, codes) first.")
        return Candidates.from_scorer(self._score, notes, self.code_set.codes, top_k)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        scores = np.full((len(notes), len(self.code_set)), -np.inf, dtype=np.float32)
        predictions = self._ridge.predict(self._vectorizer.transform(notes))
        scores[:, self._places] = predictions.reshape(len(notes), -1) + self._means
        return scores
