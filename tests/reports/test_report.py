import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from kept_hf.metrics import per_code_metrics
from kept_hf.models.code_set import ICDCodeSet
from kept_hf.reports.bands import f1_by_band
from kept_hf.reports.figures import COLORS, new_figure, plot_f1_by_frequency, plot_precision_recall
from kept_hf.reports.files import PER_CODE_COLUMNS, write_per_code, write_predictions
from kept_hf.reports.tables import format_table, markdown_table

CODES = ICDCodeSet(["401.9", "038.9", "N17.9"], {"401.9": "Hypertension, unspecified", "038.9": "Septicémie"})
SCORES = np.array([[1.5, -2.0, 3.0], [-1.0, 0.5, -4.0]], dtype=np.float32)
LABELS = np.array([[1, 0, 0], [0, 0, 1]])


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_predictions(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, ["a", "b"], SCORES, LABELS, CODES, threshold=1.0)
    first, second = read_lines(path)
    assert first["note_id"] == "a" and second["note_id"] == "b"
    assert [entry["code"] for entry in first["codes"]] == ["N17.9", "401.9", "038.9"]
    assert first["codes"][1] == {
        "code": "401.9",
        "description": "Hypertension, unspecified",
        "score": 1.5,
        "probability": round(1 / (1 + math.exp(-1.5)), 6),
        "assigned": True,
        "gold": True,
    }
    assert [entry["assigned"] for entry in second["codes"]] == [False, False, False]
    assert [entry["gold"] for entry in second["codes"]] == [False, False, True]
    assert first["codes"][0]["description"] == "N17.9"
    assert "Septicémie" in path.read_text(encoding="utf-8")


def test_predictions_without_labels_have_no_gold(tmp_path):
    write_predictions(tmp_path / "p", np.array([3, 4]), SCORES, None, CODES, threshold=0.0)
    lines = read_lines(tmp_path / "p")
    assert [line["note_id"] for line in lines] == [3, 4]
    assert all("gold" not in entry for line in lines for entry in line["codes"])


def test_predictions_keep_assigned_and_gold_beyond_the_limit(tmp_path):
    write_predictions(tmp_path / "p", ["a", "b"], SCORES, LABELS, CODES, threshold=1.0, max_codes=1)
    first, second = read_lines(tmp_path / "p")
    assert [entry["code"] for entry in first["codes"]] == ["N17.9", "401.9"]
    assert [entry["code"] for entry in second["codes"]] == ["038.9", "N17.9"]


def test_predictions_with_extreme_scores_are_valid_json(tmp_path):
    scores = np.array([[-np.inf, 800.0, -800.0]])
    write_predictions(tmp_path / "p", ["a"], scores, None, CODES, threshold=0.0)
    text = (tmp_path / "p").read_text(encoding="utf-8")
    entries = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["codes"]
    assert [(entry["score"], entry["probability"]) for entry in entries] == [(800.0, 1.0), (-800.0, 0.0), (None, 0.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"note_ids": ["a"]}, "note_ids has 1 ids and scores 2 rows"),
        ({"scores": SCORES[:, :2]}, r"scores has shape \(2, 2\).*3 codes"),
        ({"scores": SCORES * np.nan}, "scores has NaN"),
        ({"labels": LABELS[:1]}, r"labels has shape \(1, 3\)"),
        ({"max_codes": 0}, "max_codes=0"),
    ],
)
def test_bad_predictions(tmp_path, changes, message):
    arguments = {"note_ids": ["a", "b"], "scores": SCORES, "labels": LABELS, "code_set": CODES} | changes
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "p", **arguments)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("train_counts", [[5, 0, 2], np.array([5, 0, 2]), {"N17.9": 2, "401.9": 5}])
def test_per_code(tmp_path, train_counts):
    write_per_code(tmp_path / "codes.csv", SCORES, LABELS, CODES, train_counts, threshold=0.0)
    with open(tmp_path / "codes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PER_CODE_COLUMNS
    assert [row["code"] for row in rows] == list(CODES.codes)
    assert rows[0]["description"] == "Hypertension, unspecified"
    assert [row["train_notes"] for row in rows] == ["5", "0", "2"]
    expected = per_code_metrics(SCORES, LABELS)
    for name in ("support", "predicted"):
        assert [int(row[name]) for row in rows] == expected[name].tolist()
    for name in ("precision", "recall", "f1"):
        assert [float(row[name]) for row in rows] == pytest.approx(expected[name].tolist(), abs=1e-6)
    assert [row["auc"] for row in rows] == ["1.000000", "", "0.000000"]


def test_bad_train_counts(tmp_path):
    with pytest.raises(ValueError, match="train_counts has 2 numbers; pass one for each of 3 codes"):
        write_per_code(tmp_path / "codes.csv", SCORES, LABELS, CODES, [1, 2])


def check_picture(path):
    from matplotlib.image import imread

    picture = imread(path)
    assert picture.shape[0] > 300 and picture.shape[1] > 300 and picture[..., :3].std() > 0.02
    return picture


def test_precision_recall_picture(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.random((30, 20)) < 0.2
    scores = generator.normal(size=(30, 20)) + 2 * labels
    plot_precision_recall(tmp_path / "a.png", scores, labels, threshold=0.5)
    plot_precision_recall(tmp_path / "b.png", scores, labels, threshold=2.0)
    assert (check_picture(tmp_path / "a.png") != check_picture(tmp_path / "b.png")).any()


def test_precision_recall_text(tmp_path):
    plot_precision_recall(tmp_path / "a.svg", np.array([[2.0, 1.0, -1.0]]), np.array([[1, 0, 0]]), threshold=0.0)
    text = svg_text(tmp_path / "a.svg")
    # One right of two assigned, one gold.
    for part in ("recall (micro)", "precision (micro)", "score > 0: F1 = 0.667", "F1 = 0.4"):
        assert part in text


def test_precision_recall_picture_without_gold(tmp_path):
    plot_precision_recall(tmp_path / "a.png", np.ones((2, 3)), np.zeros((2, 3)))
    check_picture(tmp_path / "a.png")


def test_frequency_picture(tmp_path):
    generator = np.random.default_rng(0)
    f1, counts = generator.random(300), generator.integers(0, 900, size=300)
    plot_f1_by_frequency(tmp_path / "a.png", f1, counts)
    plot_f1_by_frequency(tmp_path / "b.png", f1, counts)
    assert (check_picture(tmp_path / "a.png") == check_picture(tmp_path / "b.png")).all()


def test_frequency_bands(tmp_path):
    f1 = np.array([0.0, 0.5, 0.25, 0.75, np.nan, 1.0])
    plot_f1_by_frequency(tmp_path / "a.svg", f1, np.array([0, 2, 5, 6, 5, 501]))
    text = svg_text(tmp_path / "a.svg")
    for part in ("2–5", "(2 codes)", "6–10", "(1 code)", "over 500", "0.38", "train notes with the code"):
        assert part in text
    assert "11–50" not in text


def svg_text(path):
    """The words of an SVG: matplotlib keeps each as a comment beside its outlines."""
    import html

    return html.unescape(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("f1", "counts", "message"),
    [
        ([0.1, 0.2], [1], r"shape \(2,\) and train_counts \(1,\)"),
        ([0.1], [-1], "train_counts has -1"),
        ([np.nan], [1], "no number"),
    ],
)
def test_bad_frequency(tmp_path, f1, counts, message):
    with pytest.raises(ValueError, match=message):
        plot_f1_by_frequency(tmp_path / "a.png", np.array(f1), np.array(counts))


def test_table():
    rows = [
        {"system": "tf-idf + LR", "f1_micro": 0.34, "notes": 49},
        {"system": "KEPT", "f1_micro": np.float32(0.5), "notes": None, "auc_macro": float("nan")},
    ]
    assert format_table(rows, digits=2).splitlines() == [
        "system       f1_micro  notes  auc_macro",
        "-----------  --------  -----  ---------",
        "tf-idf + LR      0.34     49          -",
        "KEPT             0.50      -          -",
    ]
    with pytest.raises(ValueError, match="rows has no column"):
        format_table([])


def test_markdown_table():
    rows = [
        {"system": "tf-idf | LR", "f1_micro": 0.34, "notes": 49},
        {"system": "KEPT\n joint", "f1_micro": np.float32(0.5), "notes": None, "auc_macro": float("nan")},
    ]
    expected = [
        "| system | f1_micro | notes | auc_macro |",
        "| --- | --- | --- | --- |",
        "| tf-idf \\| LR | 0.34 | 49 | – |",
        "| KEPT joint | 0.50 | – | – |",
    ]
    assert markdown_table(rows, digits=2).splitlines() == expected
    values = [["tf-idf | LR", 0.34, 49, None], ["KEPT joint", "0.50", None, None]]
    columns = ["system", "f1_micro", "notes", "auc_macro"]
    assert markdown_table(values, columns, digits=2).splitlines() == expected
    assert markdown_table([], columns).splitlines() == expected[:2]
    assert markdown_table([[1, 2]], ["@5", "@5"]).splitlines()[0] == "| @5 | @5 |"
    with pytest.raises(ValueError, match="rows has no column"):
        markdown_table([])
    with pytest.raises(ValueError, match=r"rows\[1\] has 1 values for 2 columns"):
        markdown_table([[1, 2], [3]], ["a", "b"])


def test_panels_have_one_style():
    figure, axes = new_figure(6, 3)
    assert axes is figure.axes[0] and len(figure.axes) == 1
    figure, (left, right) = new_figure(6, 3, panels=(3, 1))
    assert figure.axes == [left, right]
    for axes in (left, right):
        assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
    figure.draw_without_rendering()
    assert left.get_position().width > 2 * right.get_position().width
    assert len(set(COLORS)) == len(COLORS)


def test_matplotlib_is_imported_late_and_without_pyplot(tmp_path):
    code = (
        "import sys, numpy as np; from kept_hf.reports.figures import plot_precision_recall; "
        "assert 'matplotlib' not in sys.modules; "
        f"plot_precision_recall({str(tmp_path / 'a.png')!r}, np.eye(3), np.eye(3)); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_f1_by_band():
    train_counts = [0, 0, 1, 5, 6, 50, 51, 500, 501, 9000]
    support = [2, 0, 3, 0, 4, 5, 6, 7, 0, 0]
    f1 = [0.0, 0.0, 0.5, 0.9, 0.2, 0.4, 1.0, 0.0, 0.0, 0.0]
    rows = f1_by_band(train_counts, support, f1)
    assert [row["train_notes"] for row in rows] == ["0", "1–5", "6–50", "51–500", "over 500"]
    assert [row["codes"] for row in rows] == [2, 2, 2, 2, 2]
    assert [row["gold_notes"] for row in rows] == [2, 3, 9, 13, 0]
    assert [row["codes_with_gold"] for row in rows] == [1, 1, 2, 2, 0]
    assert [row["codes_found"] for row in rows] == [0, 1, 2, 1, 0]
    assert [row["f1"] for row in rows[:4]] == pytest.approx([0.0, 0.5, 0.3, 0.5])
    assert math.isnan(rows[4]["f1"])


def test_f1_by_band_leaves_out_empty_bands_and_keeps_the_sums():
    generator = np.random.default_rng(0)
    train_counts, support = generator.integers(1, 6, 40), generator.integers(0, 9, 40)
    (row,) = f1_by_band(train_counts, support, generator.random(40))
    assert row["train_notes"] == "1–5" and row["codes"] == 40 and row["gold_notes"] == support.sum()
    assert f1_by_band([], [], []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1], [0.5]), r"train_counts has shape \(2,\), support \(1,\)"),
        (([-1], [1], [0.5]), "train_counts has -1"),
        (([1], [-2], [0.5]), "support has -2"),
    ],
)
def test_f1_by_band_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        f1_by_band(*arguments)
