"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

import kept_hf

PACKAGE = Path(kept_hf.__file__).parent
MODULES = sorted(
    ".".join(("kept_hf", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_main_modules_have_examples():
    finder = doctest.DocTestFinder()
    for name in (
        "models.code_set",
        "reports.comparison",
        "models.configuration_kept_longformer",
        "models.configuration_msmn",
        "candidates.fusion",
        "pretraining.hsap.model",
        "pretraining.hsap.loss",
        "knowledge",
        "knowledge.hierarchy",
        "knowledge.icd10cm",
        "knowledge.mentions",
        "knowledge.names",
        "knowledge.term_graph",
        "pretraining.hsap.linking",
        "models.attention_sdpa",
        "pretraining.masked_lm.blocks",
        "pretraining.masked_lm.model",
        "pretraining.zero_shot.examples",
        "pretraining.zero_shot.passages",
        "pretraining.zero_shot.sentences",
        "pretraining.zero_shot.synthetic",
        "models.late_interaction",
        "models.modeling_kept_longformer",
        "models.modeling_msmn",
        "hub.licenses",
        "hub.rendering",
        "pretraining.notes",
        "models.prompting",
        "candidates.candidates",
        "reranking",
        "candidates.sparse",
        "pretraining.hsap.families",
        "models.tokenization_msmn",
        "training.word_vectors",
    ):
        module = importlib.import_module(f"kept_hf.{name}")
        assert sum(len(test.examples) for test in finder.find(module)) > 0, name
