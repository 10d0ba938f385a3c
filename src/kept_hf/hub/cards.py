"""The card of a run, whichever command made it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from huggingface_hub import ModelCard

from .hsap_card import make_hsap_card
from .masked_lm_card import make_masked_lm_card
from .model_card import make_model_card
from .run_files import read_results
from .zero_shot_card import make_zero_shot_card

CARDS: dict[str, Callable[..., ModelCard]] = {
    "hsap": make_hsap_card,
    "mlm": make_masked_lm_card,
    "zero-shot": make_zero_shot_card,
}
"""Pretraining stage, `stage` in its `all_results.json` → what makes its card, of the parameters of `make_card`.

A new stage has its card's file, its template and a line here. Runs without a stage were fine-tuned."""

_SETTINGS_OF_STAGES = {"pooling": "hsap", "mlm_probability": "mlm", "tokens_per_item": "zero-shot"}
"""A setting that only runs of a stage have → the stage, for results that do not name it."""


def make_card(
    folder: str | os.PathLike,
    repo_id: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
) -> ModelCard:
    """The card of the model that a run of `kept-hf train`, `train-msmn` or `pretrain` made.

    Args:
        folder: the run's output folder.
        repo_id, base_model, base_license: see [`kept_hf.hub.model_card.make_model_card`].

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: results of an older or another run, a stage that is not in `CARDS`, a `repo_id` or `base_model`
            that is no id of the Hub.

    Examples:
        >>> make_card("outputs/hsap", "me/hsap").save("outputs/hsap/README.md")  # doctest: +SKIP
    """
    stage = stage_of(read_results(folder, "kept-hf train or kept-hf pretrain"))
    make = make_model_card if stage is None else CARDS[stage]
    return make(folder, repo_id, base_model, base_license)


def stage_of(results: Mapping[str, object]) -> str | None:
    """The pretraining stage that wrote these results; None for a fine-tuned model.

    Args:
        results: the content of `all_results.json`.

    Raises:
        ValueError: a stage that is not in `CARDS`.

    Examples:
        >>> stage_of({"stage": "hsap"}), stage_of({"settings": {"mlm_probability": 0.3}}), stage_of({"settings": {}})
        ('hsap', 'mlm', None)
    """
    stage = results.get("stage")
    if stage is None:
        settings = results.get("settings") or {}
        return next((stage for setting, stage in _SETTINGS_OF_STAGES.items() if setting in settings), None)
    if stage not in CARDS:
        raise ValueError(f"all_results.json has stage={stage!r}; cards are known for {', '.join(CARDS)}.")
    return stage
