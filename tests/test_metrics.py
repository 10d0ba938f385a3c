import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from kept_hf.metrics import (
    ICD_METRIC_PATH,
    best_macro_f1_threshold,
    best_micro_f1_threshold,
    icd_metrics,
    micro_precision_recall_curve,
    per_code_metrics,
)
from kept_hf.metrics.inputs import MetricInput, check_arrays, count_codes
from kept_hf.metrics.ordering import count_in_all
from kept_hf.metrics.registry import METRICS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def load_reference():
    spec = importlib.util.spec_from_file_location("reference_metrics", BENCHMARKS / "reference_metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()


def random_case(seed, notes=None, codes=None, dtype=np.float32):
    """Scores and labels with the awkward cases: ties, codes and notes without gold, codes gold in every note."""
    generator = np.random.default_rng(seed)
    notes = notes or int(generator.integers(2, 40))
    codes = codes or int(generator.integers(1, 70))
    labels = (generator.random((notes, codes)) < generator.choice([0.02, 0.1, 0.5])).astype(int)
    labels[:, generator.random(codes) < 0.1] = 0
    labels[:, generator.random(codes) < 0.1] = 1
    labels[generator.random(notes) < 0.2] = 0
    scores = generator.normal(size=(notes, codes)) + labels * generator.choice([0, 1, 3])
    decimals = generator.choice([0, 1, 8])
    return np.round(scores, decimals).astype(dtype), labels


def brute_force_threshold(scores, labels):
    """The best F1 that any threshold reaches."""
    best = 0.0
    for threshold in [-np.inf, *np.unique(scores)]:
        assigned = scores > threshold
        hit = (assigned & (labels == 1)).sum()
        best = max(best, 2 * hit / max(assigned.sum() + labels.sum(), 1))
    return best


def f1_at(scores, labels, threshold):
    assigned = scores > threshold
    return 2 * (assigned & (labels == 1)).sum() / max(assigned.sum() + labels.sum(), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_metrics_agree_with_the_definitions(dtype):
    for seed in range(60):
        scores, labels = random_case(seed, dtype=dtype)
        threshold = [0.0, 1.0, -0.5][seed % 3]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = icd_metrics(scores, labels, ks=(1, 3, 5, 8, 15, 50), threshold=threshold)
        theirs = reference.reference_metrics(scores, labels, ks=(1, 3, 5, 8, 15, 50), threshold=threshold)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (seed, name)


def test_metrics_agree_on_many_equal_scores_at_the_boundary():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 3, size=(300, 200)).astype(np.float32)
    labels = generator.random((300, 200)) < 0.1
    ours, theirs = icd_metrics(scores, labels), reference.reference_metrics(scores, labels)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


def test_metrics_agree_over_several_blocks():
    """Copies of the notes leave all metrics as they are; more than a million pairs are sorted in several blocks."""
    scores, labels = random_case(7, notes=60, codes=50)
    labels[:, 20:30] = 1
    many_scores, many_labels = (np.tile(array, (360, 1)) for array in (scores, labels))
    assert many_scores.size > 1 << 20
    expected = reference.reference_metrics(scores, labels)
    ours = icd_metrics(many_scores, many_labels)
    assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-9)
    few, many = per_code_metrics(scores, labels), per_code_metrics(many_scores, many_labels)
    for name in ("precision", "recall", "f1", "auc"):
        np.testing.assert_allclose(many[name], few[name], atol=1e-9)
    assert best_micro_f1_threshold(many_scores, many_labels) == best_micro_f1_threshold(scores, labels)


@pytest.mark.parametrize("kind", ["smooth", "ties", "far", "one value"])
@pytest.mark.parametrize("size", [1000, (1 << 20) + 1000])
def test_many_scores_are_counted_like_few(kind, size):
    for seed in range(20 if size == 1000 else 2):
        generator = np.random.default_rng(seed)
        scores = generator.normal(size=size).astype(np.float32)
        if kind == "ties":
            scores = scores.round(1)
        if kind == "far":
            scores[:: size // 20] = np.resize([-np.inf, np.inf, 3e38, -3e38, -1e4], len(scores[:: size // 20]))
        values = np.unique(generator.choice(scores, 30))
        if kind == "far":
            values = np.unique([*values, *scores[:: size // 20]])
        if kind == "one value":
            values = values[:1]
        below, up_to = count_in_all(scores, values)
        assert below.tolist() == [int((scores < value).sum()) for value in values]
        assert up_to.tolist() == [int((scores <= value).sum()) for value in values]


def test_small_case_by_hand():
    scores = np.array([[3.0, 1.0, -1.0, -2.0], [2.0, -1.0, 1.0, -3.0], [-1.0, -2.0, -3.0, -4.0]])
    labels = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    # Assigned: code 0 twice (both right), code 1 once and code 2 once (wrong), code 3 never. Gold: 2, 0, 1, 0.
    metrics = icd_metrics(scores, labels, ks=(1, 2, 5))
    expected = {
        "accuracy_macro": (1 + 0 + 0 + 0) / 4,
        "precision_macro": 1 / 4,
        "recall_macro": 1 / 4,
        "f1_macro": 1 / 4,
        "f1_macro_per_code": 1 / 4,
        "accuracy_micro": 2 / 5,
        "precision_micro": 2 / 4,
        "recall_micro": 2 / 3,
        "f1_micro": 4 / 7,
        # Code 0: both gold notes above the other one. Code 2: -1 lies above -3 and below 1.
        "auc_macro": (1 + 1 / 2) / 2,
        # 3 and 2 lie above all 9 others; -1 above -2, -3, -2, -3, -4 and level with -1 and -1.
        "auc_micro": (9 + 9 + 6) / 27,
        "precision_at_1": 2 / 3,
        "recall_at_1": (1 / 2 + 1) / 3,
        "precision_at_2": (1 / 2 + 1 / 2) / 3,
        "recall_at_2": (1 / 2 + 1) / 3,
        "map": ((1 + 2 / 3) / 2 + 1) / 2,
    }
    expected["f1_at_1"] = 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)
    expected["f1_at_2"] = 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert all(type(value) is float for value in metrics.values())


def test_macro_f1s_differ_as_documented():
    scores = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]])
    labels = np.array([[1, 1], [1, 0], [1, 0], [1, 0]])
    metrics = icd_metrics(scores, labels)
    assert metrics["f1_macro"] == pytest.approx(0.625)
    assert metrics["f1_macro_per_code"] == pytest.approx(0.4)
    assert metrics["f1_macro_per_code"] == pytest.approx(f1_score(labels, scores > 0, average="macro"))


def test_average_precision_gives_equal_scores_their_last_place():
    assert icd_metrics(np.zeros((1, 4)), [[0, 1, 0, 0]])["map"] == pytest.approx(1 / 4)
    assert icd_metrics(np.zeros((1, 4)), [[0, 1, 1, 0]])["map"] == pytest.approx(2 / 4)
    assert icd_metrics(np.array([[2.0, 1.0, 1.0, 0.0]]), [[1, 1, 0, 1]])["map"] == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3
    )


def test_threshold_is_exclusive():
    assert icd_metrics(np.array([[0.5], [0.6]]), [[1], [1]], threshold=0.5)["recall_micro"] == pytest.approx(0.5)


def test_undefined_values():
    one_note = icd_metrics(np.array([[1.0, -1.0]]), [[1, 0]])
    assert np.isnan(one_note["auc_macro"]) and np.isnan(one_note["auc_micro"])
    assert one_note["map"] == 1.0 and one_note["f1_micro"] == pytest.approx(1.0)
    no_gold = icd_metrics(np.array([[1.0, -1.0], [1.0, 2.0]]), np.zeros((2, 2)), ks=(1,))
    undefined = {name for name, value in no_gold.items() if np.isnan(value)}
    assert undefined == {"auc_macro", "auc_micro", "map"}
    assert no_gold["f1_at_1"] == no_gold["f1_macro"] == 0.0
    all_gold = icd_metrics(np.array([[1.0, -1.0], [1.0, 2.0]]), np.ones((2, 2)))
    assert np.isnan(all_gold["auc_macro"]) and np.isnan(all_gold["auc_micro"]) and all_gold["map"] == 1.0


def test_large_k_is_skipped_and_repeats_are_one():
    metrics = icd_metrics(np.eye(3), np.eye(3), ks=[3, 4, 3])
    assert [name for name in metrics if "_at_" in name] == ["precision_at_3", "recall_at_3", "f1_at_3"]


def test_kinds_of_input_give_the_same():
    scores, labels = random_case(11)
    expected = icd_metrics(scores, labels)
    for other in (labels.astype(bool), labels.astype(np.float32), labels.astype(np.uint8), labels.tolist()):
        assert icd_metrics(scores, other) == pytest.approx(expected, nan_ok=True)
    assert icd_metrics(np.asfortranarray(scores), np.asfortranarray(labels)) == pytest.approx(expected, nan_ok=True)
    doubled = np.repeat(scores, 2, axis=1)
    assert icd_metrics(doubled[:, ::2], labels) == pytest.approx(expected, nan_ok=True)
    integers = (scores * 10).astype(int)
    assert icd_metrics(integers, labels) == pytest.approx(icd_metrics(integers.astype(float), labels), nan_ok=True)


def test_input_is_left_unchanged():
    scores, labels = random_case(5)
    before = scores.copy(), labels.copy()
    icd_metrics(scores, labels)
    best_micro_f1_threshold(scores, labels)
    best_micro_f1_threshold(scores, labels, published=True)
    micro_precision_recall_curve(scores, labels)
    assert (scores == before[0]).all() and (labels == before[1]).all()


def test_infinite_scores():
    scores = np.array([[np.inf, -np.inf, 1.0], [2.0, -np.inf, -np.inf]])
    labels = np.array([[1, 0, 0], [1, 0, 1]])
    metrics = icd_metrics(scores, labels)
    assert metrics["auc_micro"] == pytest.approx(roc_auc_score(labels.ravel(), np.nan_to_num(scores).ravel()))
    assert best_micro_f1_threshold(scores, labels) == 1.0
    # A gold code at -inf is out of reach of any threshold.
    assert best_micro_f1_threshold(np.full((1, 2), -np.inf), [[1, 1]]) == -np.inf


# Threshold


def test_published_threshold_is_the_published_one():
    for seed in range(300):
        scores, labels = random_case(seed, dtype=[np.float32, np.float64][seed % 2])
        expected = reference.reference_threshold(scores, labels)
        assert best_micro_f1_threshold(scores, labels, published=True) == expected, seed


def test_threshold_reaches_the_best_f1():
    for seed in range(300):
        scores, labels = random_case(seed, dtype=[np.float32, np.float64, np.float16][seed % 3])
        threshold = best_micro_f1_threshold(scores, labels)
        assert f1_at(scores, labels, threshold) == brute_force_threshold(scores, labels), seed
        published = best_micro_f1_threshold(scores, labels, published=True)
        assert f1_at(scores, labels, threshold) >= f1_at(scores, labels, published)


def test_threshold_equals_the_published_one_where_that_is_right():
    agreements = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        scores = generator.permutation(400).reshape(20, 20).astype(np.float32)
        labels = ((scores + generator.normal(0, 40, scores.shape)) > 350).astype(int)
        agreements += best_micro_f1_threshold(scores, labels) == reference.reference_threshold(scores, labels)
    assert agreements >= 28


def test_published_threshold_counts_one_too_many():
    scores, labels = np.array([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]), np.array([[1, 0, 0, 0, 1, 0]])
    # F1 of 1 right of 1: 2/(1+2); of 2 right of 5: 4/(5+2). With one too many: 2/4 and 4/8, a draw.
    assert best_micro_f1_threshold(scores, labels) == 4.0
    assert best_micro_f1_threshold(scores, labels, published=True) == 0.0


def test_threshold_is_the_lowest_of_equally_good_ones():
    # 1 right of 1 and 2 right of 4, of 2 gold codes, have the same F1 of 2/3.
    assert best_micro_f1_threshold(np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]), [[1, 0, 0, 1, 0]]) == 1.0


def test_threshold_does_not_cut_between_equal_scores():
    # As published, the best cut lies inside the equal scores, and its threshold assigns none of them.
    scores, labels = np.array([[0.0, 1.0, 1.0, 1.0]]), np.array([[0, 1, 1, 1]])
    assert best_micro_f1_threshold(scores, labels) == 0.0
    generator = np.random.default_rng(0)
    differ = 0
    for _ in range(100):
        scores = generator.integers(0, 3, size=(4, 6)).astype(float)
        labels = generator.integers(0, 2, size=(4, 6))
        published = best_micro_f1_threshold(scores, labels, published=True)
        differ += f1_at(scores, labels, published) < f1_at(scores, labels, best_micro_f1_threshold(scores, labels))
    assert differ > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_threshold_may_assign_everything(dtype):
    scores = np.array([[3, 2], [4, 2]], dtype=dtype)
    threshold = best_micro_f1_threshold(scores, np.ones((2, 2)))
    assert (scores > threshold).all() and threshold > 1.9


def test_threshold_without_gold_assigns_nothing():
    scores, labels = np.array([[1.0, 5.0, 2.0]]), np.zeros((1, 3))
    assert best_micro_f1_threshold(scores, labels) == 5.0
    assert best_micro_f1_threshold(scores, labels, published=True) == 1.0


# Per code, curve


def test_per_code_metrics():
    for seed in range(20):
        scores, labels = random_case(seed)
        codes = per_code_metrics(scores, labels, threshold=0.2)
        assigned = scores > 0.2
        assert codes["support"].tolist() == labels.sum(axis=0).tolist()
        assert codes["predicted"].tolist() == assigned.sum(axis=0).tolist()
        assert codes["true_positives"].tolist() == (assigned & (labels == 1)).sum(axis=0).tolist()
        expected = f1_score(labels, assigned, average=None, zero_division=0) if labels.shape[1] > 1 else None
        if expected is not None:
            np.testing.assert_allclose(codes["f1"], expected, atol=1e-9)
        for code in range(labels.shape[1]):
            area = reference.area(scores[:, code], labels[:, code]) if labels[:, code].any() else np.nan
            assert codes["auc"][code] == pytest.approx(area, abs=1e-12, nan_ok=True)
        metrics = icd_metrics(scores, labels, threshold=0.2)
        assert metrics["precision_macro"] == codes["precision"].mean()
        assert metrics["recall_macro"] == codes["recall"].mean()
        assert metrics["f1_macro_per_code"] == codes["f1"].mean()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_curve_holds_what_its_thresholds_give(dtype):
    for seed in range(30):
        scores, labels = random_case(seed, dtype=dtype)
        precision, recall, thresholds = micro_precision_recall_curve(scores, labels)
        assert len(precision) == len(recall) == len(thresholds) == np.unique(scores[labels == 1]).size
        assert (np.diff(recall) > 0).all() and (np.diff(thresholds) < 0).all()
        for p, r, threshold in zip(precision, recall, thresholds, strict=True):
            assigned = scores > threshold
            hit = (assigned & (labels == 1)).sum()
            assert (p, r) == (hit / assigned.sum(), hit / labels.sum())
        if len(recall):
            assert recall[-1] == 1.0


def test_curve_without_gold_is_empty():
    assert [part.tolist() for part in micro_precision_recall_curve(np.ones((2, 2)), np.zeros((2, 2)))] == [[], [], []]


# Bad input


@pytest.mark.parametrize(
    "function", [icd_metrics, best_micro_f1_threshold, per_code_metrics, micro_precision_recall_curve]
)
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), r"scores has shape \(2, 3\) and labels \(3, 2\)"),
        (np.ones(3), np.ones(3), r"scores has shape \(3,\); pass an array of shape \(notes, codes\)"),
        (np.ones((2, 3)), np.ones(3), r"labels has shape \(3,\)"),
        (np.ones((0, 3)), np.ones((0, 3)), r"scores has shape \(0, 3\) and so no entry"),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), "scores has NaN, first at note 0, code 1"),
        (np.ones((2, 2)), np.array([[0, 1], [1, -100]]), "labels has -100 at note 1, code 1; pass 0 and 1 only"),
        (np.ones((1, 2)), np.array([[0.5, 1.0]]), r"labels has 0\.5 at note 0, code 0"),
        (np.ones((1, 2)), np.array([[np.nan, 1.0]]), "labels has nan at note 0, code 0"),
        ([[1.0, 2.0], [1.0]], np.ones((2, 2)), "scores has rows of unequal length"),
        (np.array([["a", "b"]]), np.ones((1, 2)), "scores is of type <U1; pass numbers"),
    ],
)
def test_bad_arrays(function, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        function(scores, labels)


@pytest.mark.parametrize("ks", [5, (0,), (-1,), (2.0,), (True,), ("5",)])
def test_bad_ks(ks):
    with pytest.raises(ValueError, match="ks"):
        icd_metrics(np.eye(2), np.eye(2), ks=ks)


@pytest.mark.parametrize("threshold", [np.nan, "high", [0.0, 1.0]])
@pytest.mark.parametrize("function", [icd_metrics, per_code_metrics])
def test_bad_threshold(function, threshold):
    with pytest.raises(ValueError, match="threshold"):
        function(np.eye(2), np.eye(2), threshold=threshold)


def test_metric_path_is_the_module_folder():
    assert (Path(ICD_METRIC_PATH) / "icd_coding.py").is_file()


def test_extra_memory_stays_small():
    import tracemalloc

    generator = np.random.default_rng(0)
    scores = generator.normal(size=(1000, 3000)).astype(np.float32)
    labels = np.zeros((1000, 3000), dtype=np.int64)
    labels[np.arange(1000)[:, None], generator.integers(0, 3000, size=(1000, 10))] = 1
    for function in (icd_metrics, best_micro_f1_threshold, per_code_metrics, micro_precision_recall_curve):
        tracemalloc.start()
        function(scores, labels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Blocks and the grid have a fixed size, about 45 MB; the whole is small beside a full-size score matrix.
        assert peak < 60e6, function.__name__


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("levels", [3, 1000])
def test_macro_threshold_is_the_best_of_all(levels, dtype):
    for seed in range(20):
        generator = np.random.default_rng(seed)
        notes, codes = generator.integers(1, 12, size=2)
        scores = (generator.integers(0, levels, size=(notes, codes)) / 7 - 1).astype(dtype)
        if seed % 3 == 0:
            scores[generator.random((notes, codes)) < 0.2] = -np.inf
        labels = (generator.random((notes, codes)) < 0.3).astype(int)
        threshold = best_macro_f1_threshold(scores, labels)
        if not labels.any():
            assert not (scores > threshold).any()
            continue
        best = icd_metrics(scores, labels, threshold=threshold)["f1_macro"]
        finite = np.unique(scores[np.isfinite(scores)]).astype(np.float64)
        for other in [*finite, *(finite - 1e-3), *(finite + 1e-3)]:
            assert icd_metrics(scores, labels, threshold=other)["f1_macro"] <= best + 1e-9, (seed, other)


def test_macro_threshold_in_blocks():
    """Copies of the codes leave the means over codes as they are, and fill several blocks."""
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(40, 30)), generator.integers(0, 2, size=(40, 30))
    copies = (1, 1_100_000 // scores.size)
    assert best_macro_f1_threshold(np.tile(scores, copies), np.tile(labels, copies)) == best_macro_f1_threshold(
        scores, labels
    )


def test_the_parts_of_icd_metrics():
    """Each entry of the registry adds metrics of its own, in this order."""
    scores, labels = random_case(1, notes=12, codes=20)
    names = []
    for metric in METRICS:
        pairs = check_arrays(scores, labels)
        found = metric(MetricInput(pairs, 0.0, count_codes(pairs, 0.0), [1, 5]))
        assert found and not set(found) & set(names)
        names += found
    assert list(icd_metrics(scores, labels, ks=(1, 5, 50))) == names


def test_probabilities_without_a_threshold():
    """At 0, the threshold of logits, every code would be assigned without a word."""
    labels = np.array([[1, 0, 0], [0, 1, 0]])
    probabilities = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.05]])
    for metric in (icd_metrics, per_code_metrics):
        for scores in (probabilities, probabilities.astype(np.float16), np.where(probabilities < 0.1, -np.inf, 0.3)):
            with pytest.warns(
                UserWarning, match=r"as probabilities do.*pass threshold=0\.5, or threshold=0\.0"
            ) as caught:
                metric(scores, labels)
            assert caught[0].filename == __file__
    assert icd_metrics(probabilities, labels, threshold=0.5)["f1_micro"] == pytest.approx(1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], None),  # decisions
        ([[True, False], [False, True]], None),
        ([[0.0, -np.inf], [0.0, 1.0]], None),
        ([[0.9, -0.1], [0.2, 0.3]], None),
        ([[0.9, 1.1], [0.2, 0.3]], None),
        ([[0.9, 0.1], [0.2, 0.3]], 0.0),
        ([[0.9, 0.1], [0.2, 0.3]], 0.5),
    ],
)
def test_nothing_is_said_of_logits_decisions_and_given_thresholds(scores, threshold):
    icd_metrics(np.array(scores), np.eye(2), threshold=threshold)
    per_code_metrics(np.array(scores), np.eye(2), threshold=threshold)
