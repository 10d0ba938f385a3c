"""The model card of a finished zero-shot pretraining: which terms and notes it was made of, and how it answers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from huggingface_hub import ModelCard

from .pretraining_card import make_notes_card


def make_zero_shot_card(
    folder: str | os.PathLike,
    repo_id: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
    results: Mapping | None = None,
) -> ModelCard:
    """The card of a model that `kept-hf pretrain zero-shot` made.

    Args:
        folder, repo_id, base_model, base_license, results: see [`kept_hf.hub.masked_lm_card.make_masked_lm_card`].

    Raises:
        FileNotFoundError: no results there.
        ValueError: a `repo_id` or `base_model` that is no id of the Hub.

    Examples:
        >>> make_zero_shot_card("outputs/zero-shot").save("outputs/zero-shot/README.md")  # doctest: +SKIP
    """
    return make_notes_card(
        folder,
        repo_id,
        base_model,
        base_license,
        results,
        template="zero_shot_card.md",
        command="kept-hf pretrain zero-shot",
        tags=["zero-shot", "prompting"],
    )
