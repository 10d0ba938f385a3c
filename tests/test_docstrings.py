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
        "code_set",
        "comparison",
        "configuration_kept_longformer",
        "configuration_msmn",
        "fusion",
        "hsap",
        "hsap_loss",
        "knowledge",
        "knowledge.hierarchy",
        "knowledge.icd10cm",
        "knowledge.mentions",
        "knowledge.names",
        "knowledge.term_graph",
        "linking",
        "longformer_attention",
        "masked_blocks",
        "masked_lm",
        "matching_prompts",
        "mask_attention",
        "modeling_kept_longformer",
        "modeling_msmn",
        "pretraining_card",
        "pretraining_text",
        "prompting",
        "proposals",
        "reranking",
        "retrieval",
        "term_families",
        "tokenization_msmn",
        "word_vectors",
    ):
        module = importlib.import_module(f"kept_hf.{name}")
        assert sum(len(test.examples) for test in finder.find(module)) > 0, name
