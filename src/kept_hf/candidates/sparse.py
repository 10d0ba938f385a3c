"""A first stage without labels: codes whose names share sequences of letters with windows of the note."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..models.code_set import ICDCodeSet
from .candidates import Candidates
from .definition import NotesStage
from .windows import STEP, WINDOW, code_names, word_windows

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


def tfidf_vectorizer(**options: object) -> TfidfVectorizer:
    """A `TfidfVectorizer` of scikit-learn with sublinear term frequencies in float32.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise ImportError("Sparse retrieval needs scikit-learn: pip install 'kept-hf[retrieval]'.") from error
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **options)


class SparseRetriever:
    """Proposes codes by the tf-idf cosine of their names and windows of the note; the best pair counts.

    Sequences of four letters find inflected words and parts of compounds, in any language with spaces. Windows find
    more than whole notes, and BM25 was not better with either (`docs/retrieval.md`).

    Args:
        code_set: the codes with their names. `ICDCodeSet.with_synonyms` gives them more.
        texts: notes, which give the document frequencies together with the names. Without notes, a word that is
            common in notes but rare in names, such as "patient", has too much weight.
        analyzer, ngram_range: of scikit-learn's `TfidfVectorizer`; ("word", (1, 1)) for words.
        window, step: see `word_windows`.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: `texts` is one string.

    Examples:
        >>> code_set = ICDCodeSet(["I10", "R05"], {"I10": "Essential (primary) hypertension", "R05": "Cough"})
        >>> retriever = SparseRetriever(code_set)
        >>> candidates = retriever.propose(["Seen for coughing.", "Hypertensive, coughs", "well"], top_k=2)
        >>> [candidates.codes_of(note) for note in range(3)]
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
        names, self._starts = code_names(code_set)
        self._vectorizer = tfidf_vectorizer(analyzer=analyzer, ngram_range=ngram_range)
        self._vectorizer.fit([*names, *texts])
        self._names = self._vectorizer.transform(names).T.tocsr()

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The best codes of each note. A code that shares no term with it is no candidate.

        Args:
            notes: texts.
            top_k: number of codes.

        Returns:
            Scores from 0 to 1.
        """
        return Candidates.from_scorer(self._score, notes, self.code_set.codes, top_k)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        scores = np.empty((len(notes), len(self.code_set)), dtype=np.float32)
        for row, note in zip(scores, notes, strict=True):
            windows = self._vectorizer.transform(word_windows(note, self.window, self.step))
            row[:] = np.maximum.reduceat((windows @ self._names).max(axis=0).toarray()[0], self._starts)
        scores[scores <= 0] = -np.inf
        return scores


STAGE = NotesStage(lambda inputs: SparseRetriever(inputs.code_set, inputs.texts), needs=frozenset({"texts"}))
