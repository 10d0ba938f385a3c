"""The model card of a finished zero-shot pretraining: which terms and notes it was made of, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard

from .pretraining_card import make_notes_card

TEMPLATE = Path(__file__).parent / "templates" / "zero_shot_card.md"


def make_zero_shot_card(
    folder: str | os.PathLike, repo_id: str | None = None, results: Mapping[str, object] | None = None
) -> ModelCard:
    """The card of a model that `kept-hf pretrain zero-shot` made, from its results.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.
        results: of the run; by default those in the folder.

    Raises:
        FileNotFoundError: no results there.

    Examples:
        >>> make_zero_shot_card("outputs/zero-shot").save("outputs/zero-shot/README.md")  # doctest: +SKIP
    """
    return make_notes_card(
        folder, repo_id, TEMPLATE, "kept-hf pretrain zero-shot", ["zero-shot", "prompting"], results=results
    )
