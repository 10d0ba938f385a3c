import numpy as np
import pytest

from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.fused import FusedFirstStage
from kept_hf.candidates.fusion import fuse_reciprocal_rank, fuse_weighted, tune_weights

CODES = [f"A{number:02d}" for number in range(10)]
NOTES = 25


def random_candidates(seed, top_k=4, gold=None, signal=0.0, note_ids=None):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(NOTES, len(CODES)))
    if gold is not None:
        scores += signal * np.array([[code in codes for code in CODES] for codes in gold])
    scores[generator.random(scores.shape) < 0.2] = -np.inf
    scores[seed] = -np.inf
    return Candidates.from_scores(scores, CODES, top_k, note_ids)


def random_gold(seed=9):
    generator = np.random.default_rng(seed)
    return [list(generator.choice(CODES, size=generator.integers(1, 4), replace=False)) for _ in range(NOTES)]


def naive(parts, note, score_in):
    """The codes by the sum of what `score_in(number, part, row of candidates, code)` gives."""
    rows = [part.codes_of(note) for part in parts]
    found = sorted(set().union(*rows))
    totals = {
        code: sum(score_in(n, p, row, code) for n, (p, row) in enumerate(zip(parts, rows, strict=True)))
        for code in found
    }
    return sorted(found, key=lambda code: (-totals[code], code)), totals


@pytest.mark.parametrize("k", [0, 60])
@pytest.mark.parametrize("top_k", [None, 2, 10])
def test_reciprocal_ranks(k, top_k):
    parts = [random_candidates(0, 4), random_candidates(1, 5), random_candidates(2, 3)]
    fused = fuse_reciprocal_rank(parts, k=k, top_k=top_k)
    for note in range(NOTES):
        best, totals = naive(parts, note, lambda n, p, row, code: 1 / (k + 1 + row.index(code)) if code in row else 0.0)
        found = fused.codes_of(note)
        assert len(found) == len(best[: top_k or 5])
        # Sums of the same numbers in another order may differ in the last place.
        assert [totals[code] for code in found] == pytest.approx(
            [totals[code] for code in best[: len(found)]], abs=1e-6
        )
        kept = fused.scores[note][: len(found)]
        assert kept == pytest.approx([totals[code] for code in found], abs=1e-6)


@pytest.mark.parametrize("top_k", [None, 2, 10])
def test_weighted_scores(top_k):
    parts, weights = [random_candidates(0, 4), random_candidates(1, 5), random_candidates(2, 3)], [0.5, 2.0, 0.25]

    def score(note):
        def score_in(number, part, row, code):
            scores = part.scores[note]
            value = scores[row.index(code)] if code in row else scores[len(row) - 1] if row else 0.0
            return weights[number] * float(value)

        return score_in

    fused = fuse_weighted(parts, weights, top_k)
    for note in range(NOTES):
        best, totals = naive(parts, note, score(note))
        assert fused.codes_of(note) == best[: top_k or 5]
        assert fused.scores[note][: len(best)] == pytest.approx(
            [totals[code] for code in fused.codes_of(note)], abs=1e-5
        )


def test_a_note_without_any_candidate_stays_without():
    one = random_candidates(3)
    for fused in (fuse_reciprocal_rank([one, one]), fuse_weighted([one, one], [1, 1])):
        assert fused.codes_of(3) == [] and fused.num_candidates[4] > 0


def test_weight_zero_leaves_out():
    parts = [random_candidates(0), random_candidates(1)]
    fused = fuse_weighted(parts, [1.0, 0.0])
    assert [fused.codes_of(note) for note in range(NOTES)] == [parts[0].codes_of(note) for note in range(NOTES)]


def test_equal_totals_keep_the_order_of_the_codes():
    scores = np.zeros((1, len(CODES)))
    one, other = Candidates.from_scores(scores, CODES, 10), Candidates.from_scores(scores, CODES, 10)
    assert fuse_weighted([one, other], [1, 1], top_k=3).codes_of(0) == CODES[:3]


def test_tuned_weights_beat_each_alone():
    gold = random_gold()
    parts = [random_candidates(seed, 10, gold, signal) for seed, signal in ((0, 1.0), (1, 1.0), (2, 0.0))]
    weights = tune_weights(parts, gold)
    fused = fuse_weighted(parts, weights, 10).mean_average_precision(gold)
    assert fused > max(part.mean_average_precision(gold) for part in parts) + 0.02
    assert weights[2] < min(weights[:2]) and weights == tune_weights(parts, gold)


def test_tuned_weights_are_the_best_of_the_grid():
    gold = random_gold()
    parts = [random_candidates(seed, 6, gold, 0.7) for seed in (0, 1)]
    spread = [part.scores[part.indices >= 0].std() for part in parts]
    grid = [fuse_weighted(parts, [share / 4 / spread[0], (1 - share / 4) / spread[1]]) for share in range(5)]
    map_of = fuse_weighted(parts, tune_weights(parts, gold, steps=4)).mean_average_precision(gold)
    assert map_of == pytest.approx(max(fused.mean_average_precision(gold) for fused in grid))
    recall = fuse_weighted(parts, tune_weights(parts, gold, k=2, steps=4)).candidate_recall(gold, 2)
    assert recall == pytest.approx(max(fused.candidate_recall(gold, 2) for fused in grid))


def test_the_scale_of_scores_does_not_matter():
    gold = random_gold()
    parts = [random_candidates(seed, 10, gold, 1.0) for seed in (0, 1)]
    large = Candidates(parts[1].codes, parts[1].indices, parts[1].scores * 1024)
    one = fuse_weighted(parts, tune_weights(parts, gold))
    other = fuse_weighted([parts[0], large], tune_weights([parts[0], large], gold))
    assert np.array_equal(one.indices, other.indices)


def test_equal_scores_everywhere_can_be_tuned():
    gold = random_gold()
    flat = Candidates.from_scores(np.zeros((NOTES, len(CODES))), CODES, 10)
    good = random_candidates(0, 10, gold, 3.0)
    assert tune_weights([flat, good], gold)[1] > 0


class Fixed:
    def __init__(self, candidates):
        self.candidates, self.depths = candidates, []

    def propose(self, notes, top_k):
        self.depths.append(top_k)
        return self.candidates.top(top_k)


def test_fused_first_stage():
    parts = [random_candidates(0, 8), random_candidates(1, 8)]
    stages = [Fixed(part) for part in parts]
    notes = ["a note"] * NOTES
    by_rank = FusedFirstStage(stages, depth=6).propose(notes, 3)
    expected = fuse_reciprocal_rank([part.top(6) for part in parts], top_k=3)
    assert np.array_equal(by_rank.indices, expected.indices) and by_rank.top_k == 3
    by_weight = FusedFirstStage(stages, weights=[1.0, 3.0], depth=6).propose(notes, 8)
    expected = fuse_weighted(parts, [1.0, 3.0], 8)
    assert np.array_equal(by_weight.indices, expected.indices)
    assert stages[0].depths == [6, 8]


def test_the_ids_of_notes_go_along():
    ids = [str(number) for number in range(NOTES)]
    named, nameless = random_candidates(0, note_ids=ids), random_candidates(1)
    assert fuse_reciprocal_rank([nameless, named]).note_ids == tuple(ids)
    other = random_candidates(1, note_ids=ids[::-1])
    with pytest.raises(ValueError, match="different note_ids"):
        fuse_weighted([named, other], [1, 1])


def test_what_cannot_be_fused():
    one, gold = random_candidates(0), random_gold()
    with pytest.raises(ValueError, match="parts is empty"):
        fuse_reciprocal_rank([])
    with pytest.raises(ValueError, match="different codes or numbers of notes"):
        fuse_reciprocal_rank([one, one.take([0])])
    with pytest.raises(ValueError, match="different codes or numbers of notes"):
        fuse_reciprocal_rank([one, Candidates(CODES[::-1], one.indices, one.scores)])
    with pytest.raises(ValueError, match="k=-1"):
        fuse_reciprocal_rank([one], k=-1)
    with pytest.raises(ValueError, match="top_k=0"):
        fuse_weighted([one], [1], top_k=0)
    for weights, message in (
        ([1], "1 numbers for 2"),
        ([1, -1], "0 or more"),
        ([0, 0], "not all 0"),
        ([1, np.nan], "0"),
    ):
        with pytest.raises(ValueError, match=message):
            fuse_weighted([one, one], weights)
    with pytest.raises(ValueError, match="gold has no code"):
        tune_weights([one, one], [[]] * NOTES)
    with pytest.raises(ValueError, match="steps=0"):
        tune_weights([one, one], gold, steps=0)
    empty = Candidates.from_scores(np.full((NOTES, len(CODES)), -np.inf), CODES, 3)
    with pytest.raises(ValueError, match="one without candidates"):
        tune_weights([one, empty], gold)
