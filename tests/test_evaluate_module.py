import doctest
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from processes import run_program

evaluate = pytest.importorskip("evaluate")

from kept_hf.metrics import ICD_METRIC_PATH, icd_metrics  # noqa: E402

CARD = Path(ICD_METRIC_PATH) / "README.md"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


@pytest.fixture
def icd_coding():
    return evaluate.load(ICD_METRIC_PATH)


@pytest.fixture
def case():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(40, 30)).astype(np.float32)
    labels = (generator.random((40, 30)) < 0.1).astype(int)
    return scores, labels


def test_compute_agrees_with_the_function(icd_coding, case):
    scores, labels = case
    results = icd_coding.compute(predictions=scores, references=labels)
    assert results == icd_metrics(scores, labels)
    results = icd_coding.compute(predictions=scores.tolist(), references=labels.tolist(), ks=[3], threshold=0.7)
    assert results == icd_metrics(scores, labels, ks=[3], threshold=0.7)
    assert "precision_at_3" in results and "precision_at_5" not in results


def test_double_precision_survives(icd_coding):
    scores, labels = np.array([[1.0, 1.0 + 1e-12], [0.0, 0.0]]), np.array([[0, 1], [0, 0]])
    assert icd_coding.compute(predictions=scores, references=labels)["map"] == 1.0


def test_batches(icd_coding, case):
    scores, labels = case
    for start in range(0, 40, 16):
        icd_coding.add_batch(predictions=scores[start : start + 16], references=labels[start : start + 16])
    assert icd_coding.compute() == icd_metrics(scores, labels)


@pytest.mark.parametrize("dtype", [bool, np.float32, np.int64])
def test_types_of_references(icd_coding, case, dtype):
    scores, labels = case
    assert icd_coding.compute(predictions=scores, references=labels.astype(dtype)) == icd_metrics(scores, labels)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[1.0, 2.0]], [[1, -100]], "labels has -100"),
        ([[1.0, 2.0]], [[1, 0.5]], "labels has 0.5"),
        ([[1.0, float("nan")]], [[1, 0]], "scores has NaN"),
        ([[1.0, 2.0], [1.0]], [[1, 0], [1, 0]], "rows of unequal length"),
        ([[1.0, 2.0]], [[1, 0, 1]], "equal shape"),
    ],
)
def test_bad_input(icd_coding, predictions, references, message):
    with pytest.raises(ValueError, match=rf"{message}(.|\n)*labels are `references`"):
        icd_coding.compute(predictions=predictions, references=references)


def test_probabilities(icd_coding):
    given = {"predictions": [[0.9, 0.2, 0.1], [0.3, 0.8, 0.05]], "references": [[1, 0, 0], [0, 1, 0]]}
    with pytest.warns(UserWarning, match="as probabilities do"):
        assert icd_coding.compute(**given)["f1_micro"] == pytest.approx(0.5)
    assert icd_coding.compute(**given, input="probabilities")["f1_micro"] == pytest.approx(1)
    assert icd_coding.compute(**given, input="probabilities", threshold=0.85)["recall_micro"] == pytest.approx(0.5)
    icd_coding.add_batch(**given)
    assert icd_coding.compute(input="probabilities")["f1_micro"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"input='probabilities', but predictions has values outside \[0, 1\]"):
        icd_coding.compute(predictions=[[2.0, 0.1]], references=[[1, 0]], input="probabilities")
    with pytest.raises(ValueError, match="input='logits' is unknown; pass one of scores, probabilities"):
        icd_coding.compute(**given, input="logits")


def test_description(icd_coding):
    assert "macro-F1" in icd_coding.description and "threshold" in icd_coding.inputs_description
    assert "mullenbach" in icd_coding.citation and "yang-etal-2022" in icd_coding.citation


def test_card_examples_run():
    results = doctest.testfile(str(CARD), module_relative=False)
    assert results.attempted >= 10 and results.failed == 0


def test_docstring_examples_run(icd_coding):
    test = doctest.DocTestParser().get_doctest(icd_coding.inputs_description, {}, "icd_coding", None, 0)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.tries >= 4 and runner.failures == 0


def test_card_header_and_sections():
    header, body = re.match(r"---\n(.*?)\n---\n(.*)", CARD.read_text(encoding="utf-8"), re.DOTALL).groups()
    header = yaml.safe_load(header)
    assert {"title", "emoji", "colorFrom", "colorTo", "sdk", "tags", "description"} <= header.keys()
    assert {"evaluate", "metric"} <= set(header["tags"])
    for section in ("Metric description", "How to use", "Inputs", "Output values", "Limitations and bias", "Citation"):
        assert re.search(rf"^##+ {section}$", body, re.MULTILINE), section


def test_card_names_every_output_value(icd_coding, case):
    scores, labels = case
    card = CARD.read_text(encoding="utf-8")
    for name in icd_coding.compute(predictions=scores, references=labels, ks=[5]):
        assert f"`{name.replace('_5', '_{k}')}`" in card, name


def test_without_the_package_the_message_names_it(tmp_path):
    code = f"""
import sys
sys.modules["kept_hf"] = None
import evaluate
try:
    evaluate.load({ICD_METRIC_PATH!r})
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = run_program(command, env=environment, cwd=tmp_path)
    assert "kept_hf" in done.stdout and "pip install" in done.stdout
