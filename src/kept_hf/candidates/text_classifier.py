"""A first stage that learns from coded notes: a linear classifier on words. It knows their codes only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..models.code_set import ICDCodeSet
from .candidates import Candidates
from .definition import NotesStage
from .sparse import tfidf_vectorizer


class TextClassifier:
    """Proposes codes by a linear classifier on tf-idf of words, the usual strong baseline, fitted to coded notes.

    A ridge regression of all codes at once. One decomposition for all codes takes seconds, a logistic regression for
    each code minutes, and the candidates of the ridge regression are better (`docs/retrieval.md`).

    Args:
        code_set: the codes.
        alpha: weight of the ridge penalty.
        max_features: number of words; the most frequent ones are kept. The weights take 4 bytes × words × codes with a
            note, the labels 4 bytes × notes × these codes, the decomposition 4 bytes × the square of the number of
            words, or of notes if these are fewer.

    Raises:
        ImportError: scikit-learn is not installed.

    Examples:
        >>> classifier = TextClassifier(ICDCodeSet(["I10", "R05", "R50.9"]))
        >>> classifier = classifier.fit(["dry cough", "high blood pressure", "cough"], [["R05"], ["I10"], ["R05"]])
        >>> classifier.propose(["blood pressure raised"], top_k=3).codes_of(0)
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
            This classifier.

        Raises:
            KeyError: a code that is not in the code set.
            ValueError: another number of notes than of lists of codes, or no code at all.
        """
        from sklearn.linear_model import Ridge

        if len(notes) != len(codes):
            raise ValueError(f"notes has {len(notes)} texts and codes {len(codes)} lists; pass one each.")
        pairs = [
            (note, self.code_set.index(self.code_set.find(code) or code))
            for note, note_codes in enumerate(codes)
            for code in note_codes
        ]
        if not pairs:
            raise ValueError("codes is empty for every note; pass notes with codes.")
        rows, columns = np.array(pairs).T
        # Codes without a note are not learned, and not proposed.
        self._columns, columns = np.unique(columns, return_inverse=True)
        labels = np.zeros((len(notes), len(self._columns)), dtype=np.float32)
        labels[rows, columns] = 1
        # Sparse features cannot be centred for an intercept; the mean of the labels takes its place.
        self._means = labels.mean(axis=0)
        labels -= self._means
        # "cholesky" decomposes once for all codes; the solver that scikit-learn chooses does it for each code.
        self._ridge = Ridge(alpha=self.alpha, fit_intercept=False, solver="cholesky")
        self._ridge.fit(self._vectorizer.fit_transform(notes), labels)
        return self

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The best codes of each note, among those with a training note.

        Args:
            notes: texts.
            top_k: number of codes.

        Returns:
            Scores near 0 and 1: a least-squares fit to these two values.

        Raises:
            RuntimeError: `fit` was not called.
        """
        if self._ridge is None:
            raise RuntimeError("TextClassifier is not fitted; call fit(notes, codes) first.")
        return Candidates.from_scorer(self._score, notes, self.code_set.codes, top_k)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        scores = np.full((len(notes), len(self.code_set)), -np.inf, dtype=np.float32)
        predictions = self._ridge.predict(self._vectorizer.transform(notes))
        scores[:, self._columns] = predictions.reshape(len(notes), -1) + self._means
        return scores


STAGE = NotesStage(
    lambda inputs: TextClassifier(inputs.code_set).fit(inputs.texts, inputs.labels),
    needs=frozenset({"labels"}),
    out_of_fold=True,
)
