import math

import numpy as np
import pytest

from kept_hf.candidates.candidates import Candidates
from kept_hf.metrics import icd_metrics

CODES = [f"A{number:02d}" for number in range(12)]
NONE = -np.inf


def random_scores(notes=30, seed=0, ties=True):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(notes, len(CODES))).round(1 if ties else 6)
    scores[generator.random(scores.shape) < 0.3] = NONE
    scores[3:4] = NONE
    return scores


def random_gold(notes=30, seed=1):
    generator = np.random.default_rng(seed)
    return [list(generator.choice(CODES, size=generator.integers(0, 5), replace=False)) for _ in range(notes)]


def naive_best(row, top_k):
    columns = sorted((column for column in range(len(row)) if row[column] > NONE), key=lambda c: (-row[c], c))
    return [CODES[column] for column in columns[:top_k]]


@pytest.mark.parametrize("top_k", [1, 4, 12, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_codes_in_the_order_of_the_code_set(top_k, dtype, monkeypatch):
    monkeypatch.setattr("kept_hf.candidates.candidates._BLOCK", 5 * len(CODES))
    scores = random_scores().astype(dtype)
    candidates = Candidates.from_scores(scores, CODES, top_k)
    assert candidates.top_k == min(top_k, 12) and candidates.indices.dtype == np.int32
    assert candidates.scores.dtype == np.float32
    for note, row in enumerate(scores):
        assert candidates.codes_of(note) == naive_best(row, top_k)
        assert candidates.num_candidates[note] == len(naive_best(row, top_k))
        kept = candidates.scores[note][candidates.indices[note] >= 0]
        assert np.allclose(kept, [row[CODES.index(code)] for code in candidates.codes_of(note)])
    assert candidates.codes_of(3) == []


def test_integer_scores():
    assert Candidates.from_scores([[0, 2, 1]], CODES[:3], 2).codes_of(0) == ["A01", "A02"]


def test_batches_joined_are_the_whole():
    scores = random_scores()
    ids = [f"note-{number}" for number in range(30)]
    whole = Candidates.from_scores(scores, CODES, 4, ids)
    parts = [Candidates.from_scores(scores[rows], CODES, 4, ids[rows]) for rows in (slice(0, 11), slice(11, 30))]
    joined = Candidates.concatenate(iter(parts))
    assert np.array_equal(joined.indices, whole.indices) and np.array_equal(joined.scores, whole.scores)
    assert joined.note_ids == whole.note_ids == tuple(ids)
    narrow = Candidates.concatenate([parts[0].top(2), parts[1]])
    assert (
        narrow.top_k == 4 and narrow.codes_of(0) == whole.codes_of(0)[:2] and narrow.codes_of(29) == whole.codes_of(29)
    )
    assert Candidates.concatenate([parts[0], Candidates.from_scores(scores[11:], CODES, 4)]).note_ids is None


def test_joining_refuses_other_codes():
    one, other = (Candidates.from_scores([[1.0, 2.0]], codes, 2) for codes in (["A00", "A01"], ["A01", "A00"]))
    with pytest.raises(ValueError, match="one code set"):
        Candidates.concatenate([one, other])
    with pytest.raises(ValueError, match="parts is empty"):
        Candidates.concatenate([])


def test_top_and_take():
    candidates = Candidates.from_scores(random_scores(), CODES, 6, [str(number) for number in range(30)])
    assert candidates.top(2).codes_of(0) == candidates.codes_of(0)[:2] and candidates.top(99).top_k == 6
    taken = candidates.take([7, 2])
    assert taken.note_ids == ("7", "2") and taken.codes_of(0) == candidates.codes_of(7)
    found = candidates.for_notes(["29", "0"])
    assert found.note_ids == ("29", "0") and found.codes_of(1) == candidates.codes_of(0)


def test_ids_are_text(tmp_path):
    candidates = Candidates.from_scores([[1.0], [2.0]], ["A01"], 1, [7, 8])
    candidates.save(tmp_path / "candidates.npz")
    for known in (candidates, Candidates.load(tmp_path / "candidates.npz")):
        assert known.note_ids == ("7", "8") and known.for_notes([8]).scores.tolist() == [[2.0]]


def test_notes_are_found_by_their_ids_only():
    candidates = Candidates.from_scores(random_scores(2), CODES, 6)
    with pytest.raises(ValueError, match="note_ids"):
        candidates.for_notes(["0"])
    with pytest.raises(ValueError, match="one twice"):
        Candidates(CODES, candidates.indices, candidates.scores, ["a", "a"]).for_notes(["a"])
    named = Candidates(CODES, candidates.indices, candidates.scores, ["a", "b"])
    with pytest.raises(ValueError, match="position 1") as caught:
        named.for_notes(["a", "patient-7"])
    assert "patient-7" not in str(caught.value)


def test_scores_matrix():
    scores = random_scores(ties=False)
    matrix = Candidates.from_scores(scores, CODES, 12).scores_matrix(fill=NONE)
    assert matrix.dtype == np.float32 and np.allclose(matrix, scores)
    few = Candidates.from_scores(scores, CODES, 3).scores_matrix(fill=-26.0)
    for note, row in enumerate(scores):
        best = naive_best(row, 3)
        assert np.allclose(few[note], [value if code in best else -26 for code, value in zip(CODES, row, strict=True)])


@pytest.mark.parametrize("k", [None, 1, 3, 6])
def test_recall_and_ceiling_by_hand(k):
    candidates, gold = Candidates.from_scores(random_scores(), CODES, 6), random_gold()
    found = sum(code in candidates.codes_of(note)[:k] for note in range(30) for code in gold[note])
    assert candidates.candidate_recall(gold, k) == pytest.approx(found / sum(map(len, gold)))
    labels = np.array([[code in codes for code in CODES] for codes in gold], dtype=int)
    assigned = np.array([[code in candidates.codes_of(note)[:k] for code in CODES] for note in range(30)], dtype=int)
    expected = icd_metrics(np.where(labels & assigned, 1.0, -1.0), labels)
    ceiling = candidates.oracle(gold, k)
    assert {"f1_micro", "f1_macro", "f1_macro_per_code", "recall_micro"} <= ceiling.keys()
    assert ceiling == pytest.approx({name: expected[name] for name in ceiling})
    assert ceiling["recall_micro"] == pytest.approx(candidates.candidate_recall(gold, k))


def test_a_gold_code_given_twice_counts_once():
    candidates = Candidates.from_scores([[1.0, 0.0]], ["A00", "A01"], 1)
    assert candidates.candidate_recall([["A00", "A00", "A01"]]) == 0.5


def test_filling_is_no_candidate():
    scores = np.array([[1.0, 2.0, NONE], [1.0, NONE, NONE], [NONE, NONE, NONE]])
    candidates = Candidates.from_scores(scores, CODES[:3], 3)
    gold = [["A02"], ["A02"], ["A02"]]
    assert candidates.candidate_recall(gold) == candidates.mean_average_precision(gold) == 0.0


def test_recall_without_gold_codes():
    assert math.isnan(Candidates.from_scores([[1.0]], ["A00"], 1).candidate_recall([[]]))


def test_mean_average_precision():
    gold = random_gold()
    scores = np.random.default_rng(5).normal(size=(30, len(CODES)))
    labels = np.array([[code in codes for code in CODES] for codes in gold], dtype=int)
    everything = Candidates.from_scores(scores, CODES, 12)
    assert everything.mean_average_precision(gold) == pytest.approx(icd_metrics(scores, labels)["map"])
    candidates = Candidates.from_scores(scores, CODES, 2)
    precisions = []
    for note, codes in enumerate(gold):
        found = [position for position, code in enumerate(candidates.codes_of(note), start=1) if code in codes]
        if codes:
            precisions.append(sum(number / position for number, position in enumerate(found, start=1)) / len(codes))
    assert candidates.mean_average_precision(gold) == pytest.approx(np.mean(precisions))
    assert math.isnan(candidates.mean_average_precision([[]] * 30))


def test_metrics_at_k():
    candidates, gold = Candidates.from_scores(random_scores(), CODES, 6), random_gold()
    metrics = candidates.candidate_metrics(gold, ks=(2, 6, 7))
    assert set(metrics) == {
        f"{name}_at_{k}" for name in ("candidate_recall", "oracle_f1_micro", "oracle_f1_macro") for k in (2, 6)
    }
    assert metrics["candidate_recall_at_2"] == candidates.candidate_recall(gold, 2)
    assert metrics["oracle_f1_macro_at_6"] == candidates.oracle(gold)["f1_macro"]


def test_gold_that_cannot_be_evaluated():
    candidates = Candidates.from_scores(random_scores(2), CODES, 6)
    with pytest.raises(ValueError, match=r"'Z99' in note 1, .*remove it from gold"):
        candidates.candidate_recall([[], ["Z99"]])
    with pytest.raises(ValueError, match="gold has 1 notes and the candidates 2"):
        candidates.oracle([[]])
    with pytest.raises(ValueError, match="k=0"):
        candidates.candidate_recall([[], []], k=0)


@pytest.mark.parametrize("ids", [None, ["ä", "7"]])
def test_saved_and_loaded(tmp_path, ids):
    candidates = Candidates.from_scores(random_scores(2), CODES, 6, ids)
    candidates.save(tmp_path / "candidates")
    loaded = Candidates.load(tmp_path / "candidates")
    assert loaded.codes == candidates.codes and loaded.note_ids == candidates.note_ids
    assert np.array_equal(loaded.indices, candidates.indices) and np.array_equal(loaded.scores, candidates.scores)


def write_as_before(path, **changes):
    """A file without a checksum, as earlier versions wrote it."""
    candidates = Candidates.from_scores(random_scores(20), CODES, 6, [f"note {number}" for number in range(20)])
    arrays = {"codes": np.array(candidates.codes), "note_ids": np.array(candidates.note_ids)}
    np.savez_compressed(path, **{**arrays, "indices": candidates.indices, "scores": candidates.scores, **changes})
    return candidates


def save(path):
    candidates = Candidates.from_scores(random_scores(20), CODES, 6, [f"note {number}" for number in range(20)])
    candidates.save(path)
    return candidates


@pytest.mark.parametrize("write", [save, write_as_before])
def test_damaged_files_are_refused(tmp_path, write):
    """Bytes changed in one or several places, and truncated files: an error with the path, or what was saved."""
    path = tmp_path / "candidates.npz"
    candidates = write(path)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:length] for length in generator.integers(0, len(whole), 100)]
    for number in range(1500):
        content = np.frombuffer(whole, np.uint8).copy()
        # Names, sizes and types of the members stand at the end, and before each of them.
        low = (0, len(whole) - 400)[number % 2]
        places = generator.integers(low, len(whole), generator.integers(1, 4))
        content[places] ^= (1 << generator.integers(0, 8, len(places))).astype(np.uint8)
        damaged.append(content.tobytes())
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            again = Candidates.load(path)
        except ValueError as error:
            assert "candidates.npz" in str(error) and "note 1" not in str(error)
            refused += 1
            continue
        assert again.codes == candidates.codes and again.note_ids == candidates.note_ids
        assert np.array_equal(again.indices, candidates.indices) and np.array_equal(again.scores, candidates.scores)
    assert refused > 0.6 * len(damaged)


@pytest.mark.parametrize("part", ["codes", "indices", "scores", "note_ids", None])
def test_parts_of_two_files_do_not_make_one(tmp_path, part):
    path = tmp_path / "candidates.npz"
    save(path)
    with np.load(path) as file:
        arrays = dict(file)
    if part is None:
        del arrays["note_ids"]
    else:
        arrays[part] = arrays[part].copy()
        arrays[part][:2] = arrays[part][1::-1]
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match=r"candidates\.npz' is damaged: its content is not what was saved"):
        Candidates.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"indices": np.zeros((20, 6))}, "holds other arrays than candidates"),
        ({"indices": np.zeros((20, 1), np.int64) + 2**32, "scores": np.zeros((20, 1), np.float32)}, "outside -1"),
        ({"scores": np.zeros((20, 6), np.float32)}, "minus infinity where"),
        ({"codes": np.arange(12)}, "holds other arrays than candidates"),
        ({"note_ids": np.array(["7"])}, "note_ids has 1 ids for 20 notes"),
        ({"note_ids": np.zeros((2, 10), "U3")}, "holds other arrays than candidates"),
        ({"noteids": np.array(["7"])}, "holds no candidates; pass"),
    ],
)
def test_files_of_earlier_versions_are_checked(tmp_path, changes, message):
    path = tmp_path / "candidates.npz"
    candidates = write_as_before(path, **changes)
    if message is None:
        assert np.array_equal(Candidates.load(path).indices, candidates.indices)
        return
    with pytest.raises(ValueError, match=rf"candidates\.npz.*{message}"):
        Candidates.load(path)


def test_what_the_file_cannot_hold_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="note_ids has one that ends with a null character"):
        Candidates.from_scores([[1.0]], ["A01"], 1, ["7\0"]).save(tmp_path / "candidates.npz")
    assert list(tmp_path.iterdir()) == []


def test_loading_something_else(tmp_path):
    (tmp_path / "text").write_text("401.9;038.9\n")
    np.savez(tmp_path / "other.npz", codes=np.array(CODES))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text", "other.npz", "array.npy"):
        with pytest.raises(ValueError, match=r"holds no candidates; pass a file that Candidates\.save wrote"):
            Candidates.load(tmp_path / name)


@pytest.mark.parametrize(
    ("indices", "scores", "message"),
    [
        ([0, 1], [1.0, 0.0], r"\(notes, top_k\) for both"),
        ([[0, 1]], [[1.0]], r"\(notes, top_k\) for both"),
        ([[0, 12]], [[1.0, 0.0]], r"outside -1 … 11"),
        ([[-2, 1]], [[1.0, 0.0]], r"outside -1 … 11"),
        ([[0, 2**32 + 1]], [[1.0, 0.0]], r"outside -1 … 11"),
        ([[0, 1.5]], [[1.0, 0.0]], "indices is of type float64; pass integers"),
        ([[False, True]], [[1.0, 0.0]], "indices is of type bool; pass integers"),
        ([[1, 0, 1]], [[3.0, 2.0, 1.0]], "twice in one row"),
        ([[0, 1]], [[0.0, 1.0]], "rises within a row"),
        ([[0, 1]], [[math.nan, 0.0]], "NaN"),
        ([[0]], [[math.nan]], "NaN"),
        ([[0, -1]], [[1.0, 0.0]], "minus infinity where indices is -1"),
        ([[0, 1]], [[1.0, NONE]], "minus infinity where indices is -1"),
    ],
)
def test_wrong_arrays(indices, scores, message):
    with pytest.raises(ValueError, match=message):
        Candidates(CODES, np.array(indices), np.array(scores))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="codes has 'A01' twice"):
        Candidates.from_scores([[1.0, 2.0]], ["A01", "A01"], 1)
    with pytest.raises(ValueError, match=r"shape \(1, 0\)"):
        Candidates.from_scores(np.zeros((1, 0)), [], 1)
    with pytest.raises(ValueError, match=r"=1\.5; pass a positive integer"):
        Candidates.from_scores([[1.0, 2.0]], ["A01", "A02"], 2).top(1.5)
    with pytest.raises(ValueError, match="with 12 columns"):
        Candidates.from_scores(np.zeros((2, 3)), CODES, 5)
    with pytest.raises(ValueError, match="scores has NaN"):
        Candidates.from_scores(np.full((2, 12), np.nan), CODES, 5)
    with pytest.raises(ValueError, match="top_k=0"):
        Candidates.from_scores(np.zeros((2, 12)), CODES, 0)
    with pytest.raises(ValueError, match="note_ids has 1 ids for 2 notes"):
        Candidates.from_scores(np.zeros((2, 12)), CODES, 5, ["7"])
