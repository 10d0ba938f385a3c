"""How probable a code is before the note is read: a first stage that only counts the codes of training notes.

Scores of texts know nothing of it. Where few of the codes that are asked occur in the training notes, adding the prior
matters more than anything else: a release of ICD-10-CM has dozens of names that are much like a code's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..models.code_set import ICDCodeSet
from .candidates import Candidates
from .definition import NotesStage


def good_turing_log_prior(counts: Sequence[int]) -> np.ndarray:
    """The logarithm of each code's probability to be the next gold code, from counts in training notes.

    Codes that occurred share 1 - p by their counts, the others p evenly. p is the probability that the next code is a
    new one, estimated by the share of codes that occurred once; but no new code is more probable than one of these.

    Args:
        counts: `(codes,)`, training notes of each code.

    Returns:
        `(codes,)` float64.

    Raises:
        ValueError: no code occurred, or a negative count.

    Source: Good, *The population frequencies of species and the estimation of population parameters*, Biometrika 1953.

    Examples:
        >>> np.exp(good_turing_log_prior([6, 1, 1, 0, 0])).round(3).tolist()
        [0.6, 0.1, 0.1, 0.1, 0.1]
        >>> np.exp(good_turing_log_prior([6, 2])).round(3).tolist()  # no code can be new
        [0.75, 0.25]
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or counts.min(initial=0) < 0 or not counts.sum():
        raise ValueError("counts has no code that occurs, or a negative number; pass training notes of each code.")
    is_new, total = counts == 0, counts.sum()
    # Where no code occurred once, half a count stands for them, so that no probability is 0.
    new = min(max((counts == 1).sum(), 0.5) / total, is_new.sum() / (total + is_new.sum()))
    shares = np.where(is_new, new / max(is_new.sum(), 1), counts / total * (1 - new))
    return np.log(shares)


class CodePrior:
    """Proposes the same codes for every note: those that training notes have most often.

    On its own it is the baseline of training frequency. It is made to be joined with stages that compare texts: with
    [`kept_hf.candidates.fusion.tune_weights`], or by adding about 0.9 of it to scores that are log-odds
    (what held-out notes of CodiEsp chose: `benchmarks/results/few_shot/all.json`).

    Args:
        code_set: the codes.

    Examples:
        >>> prior = CodePrior(ICDCodeSet(["I10", "R05", "R50.9"])).fit([["R05"], ["R05", "I10"]])
        >>> prior.propose(["any note"], top_k=2).codes_of(0)
        ['R05', 'I10']
    """

    def __init__(self, code_set: ICDCodeSet):
        self.code_set = code_set
        self.log_prior: np.ndarray | None = None

    def fit(self, codes: Iterable[Iterable[str]]) -> CodePrior:
        """Count the codes of training notes.

        Args:
            codes: of each note.

        Returns:
            This prior; its `log_prior` is `(codes,)` float64.

        Raises:
            KeyError: a code that is not in the code set.
            ValueError: no code at all.
        """
        counts = np.zeros(len(self.code_set))
        for of_note in codes:
            for code in {self.code_set.find(code) or code for code in of_note}:
                counts[self.code_set.index(code)] += 1
        self.log_prior = good_turing_log_prior(counts)
        return self

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` most frequent codes for each note; scores are the logarithms of their probabilities.

        Raises:
            RuntimeError: `fit` was not called.
        """
        if self.log_prior is None:
            raise RuntimeError("CodePrior is not fitted; call fit(codes) first.")

        def score(batch: Sequence[str]) -> np.ndarray:
            return np.tile(self.log_prior.astype(np.float32), (len(batch), 1))

        return Candidates.from_scorer(score, notes, self.code_set.codes, top_k)


STAGE = NotesStage(
    lambda inputs: CodePrior(inputs.code_set).fit(inputs.labels), needs=frozenset({"labels"}), out_of_fold=True
)
