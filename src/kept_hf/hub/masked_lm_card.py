"""The model card of a finished MLM run: which text it was trained on, under which licences, and what it changed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from huggingface_hub import ModelCard

from .pretraining_card import make_notes_card


def make_masked_lm_card(
    folder: str | os.PathLike,
    repo_id: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
    results: Mapping | None = None,
) -> ModelCard:
    """The card of a model that `kept-hf pretrain mlm` made.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.
        base_model: model id on the Hub of the weights that training began with, where
            `kept_hf.hub.licenses.KNOWN_BASES` lacks them.
        base_license: their licence, as the Hub writes it.
        results: what the run wrote, or will write, to `all_results.json`. By default the file is read.

    Raises:
        FileNotFoundError: no results there.
        ValueError: a `repo_id` or `base_model` that is no id of the Hub.

    Examples:
        >>> make_masked_lm_card("outputs/mlm").save("outputs/mlm/README.md")  # doctest: +SKIP
    """
    return make_notes_card(
        folder,
        repo_id,
        base_model,
        base_license,
        results,
        template="masked_lm_card.md",
        command="kept-hf pretrain mlm",
        tags=["masked-lm"],
        pipeline_tag="fill-mask",
    )
