import numpy as np
import pytest

from kept_hf.metrics import best_micro_f1_threshold, icd_metrics
from kept_hf.reports.bands import f1_by_band
from kept_hf.reports.comparison import compare_by_band, evaluate_folds, halves, plot_by_band


def random_split(seed, notes=30, codes=12):
    generator = np.random.default_rng(seed)
    labels = (generator.random((notes, codes)) < 0.2).astype(np.int8)
    return (generator.normal(size=labels.shape) + labels).astype(np.float32), labels


def test_one_fold_is_a_threshold_of_validation():
    tuned, evaluated = random_split(0), random_split(1)
    metrics, per_code = evaluate_folds([(*tuned, *evaluated)])
    expected = icd_metrics(*evaluated, ks=(5, 8, 15), threshold=best_micro_f1_threshold(*tuned))
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert per_code["f1"].shape == (12,)


def test_no_note_is_evaluated_with_its_own_threshold():
    """One half has its scores moved: a common threshold, or one of its own, would give other decisions."""
    one, other = random_split(0), random_split(1)
    moved = other[0] + 10
    metrics, _ = evaluate_folds([(*one, moved, other[1]), (moved, other[1], *one)])
    decisions = np.concatenate(
        [moved > best_micro_f1_threshold(*one), one[0] > best_micro_f1_threshold(moved, other[1])]
    )
    expected = icd_metrics(decisions * 2.0 - 1, np.concatenate([other[1], one[1]]))
    assert metrics["f1_micro"] == pytest.approx(expected["f1_micro"])
    assert "auc_micro" not in metrics and 0 < metrics["map"] < 1


def test_halves():
    first, second = halves(251)
    assert (first.size, second.size) == (126, 125) and sorted([*first, *second]) == list(range(251))
    assert np.array_equal(first, halves(251)[0]) and not np.array_equal(first, halves(251, seed=1)[0])


def test_bands_of_several_systems(tmp_path):
    generator = np.random.default_rng(0)
    counts, support = generator.integers(0, 700, 80), generator.integers(0, 3, 80)
    f1 = {name: generator.random(80) for name in ("first", "second")}
    rows = compare_by_band(f1, counts, support)
    for name, values in f1.items():
        assert [row[name] for row in rows] == [row["f1"] for row in f1_by_band(counts, support, values)]
    assert sum(row["codes"] for row in rows) == 80
    plot_by_band(tmp_path / "bands.png", rows)
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")


def test_band_errors(tmp_path):
    with pytest.raises(ValueError, match="f1_per_code has no system"):
        compare_by_band({}, [1], [1])
    with pytest.raises(ValueError, match="no row with gold notes"):
        plot_by_band(tmp_path / "bands.png", compare_by_band({"a": [0.0]}, [1], [0]))
