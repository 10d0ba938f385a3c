import numpy as np
import pytest

from kept_hf import ICDCodeSet
from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.fusion import fuse_weighted
from kept_hf.candidates.prior import CodePrior, good_turing_log_prior


@pytest.mark.parametrize("counts", [[6, 1, 1, 0, 0], [1, 1, 0], [3, 2, 0, 0], [5], [1], [0, 1], [2, 0] * 50])
def test_probabilities_add_up_and_follow_the_counts(counts):
    shares = np.exp(good_turing_log_prior(counts))
    assert shares.sum() == pytest.approx(1) and (shares > 0).all()
    for one, share in zip(counts, shares, strict=True):
        assert all(share >= other - 1e-12 for count, other in zip(counts, shares, strict=True) if count <= one)


def test_good_turing_share_of_new_codes():
    counts = [10, 4, 1, 1, 0] + [0] * 99
    assert np.exp(good_turing_log_prior(counts))[4:].sum() == pytest.approx(2 / 16)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [[1]]])
def test_counts_that_are_none(counts):
    with pytest.raises(ValueError, match="counts has no code that occurs, or a negative number"):
        good_turing_log_prior(counts)


def test_a_code_counts_once_a_note_in_any_spelling():
    prior = CodePrior(ICDCodeSet(["A41.9", "R05"])).fit([["A419", "A41.9"], ["R05"], ["R05"]])
    assert np.exp(prior.log_prior).round(3).tolist() == [0.333, 0.667]
    with pytest.raises(KeyError, match="I10"):
        prior.fit([["I10"]])


def test_a_prior_tells_apart_what_texts_do_not():
    code_set = ICDCodeSet(["I10", "I15", "R05"])
    prior = CodePrior(code_set).fit([["I10"], ["I10"], ["R05"]]).propose(["note"], 3)
    texts = Candidates.from_scores([[0.9, 0.95, 0.1]], code_set.codes, 3)
    assert texts.codes_of(0)[0] == "I15" and fuse_weighted([texts, prior], [1.0, 0.1]).codes_of(0)[0] == "I10"


def test_not_fitted():
    with pytest.raises(RuntimeError, match="call fit"):
        CodePrior(ICDCodeSet(["I10"])).propose(["a"], 1)
