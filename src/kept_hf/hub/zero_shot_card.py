"""The model card of a finished match pretraining: which terms and notes it was made of, and what it answers."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import ModelCard

from .pretraining_card import make_notes_card

TEMPLATE = Path(__file__).parent / "templates" / "zero_shot_card.md"


def make_matching_card(folder: str | os.PathLike, repo_id: str | None = None) -> ModelCard:
    """The card of a model that `kept-hf pretrain zero-shot` made, from its folder's `all_results.json`.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.

    Raises:
        FileNotFoundError: no results there.

    Examples:
        >>> make_matching_card("outputs/matching").save("outputs/matching/README.md")  # doctest: +SKIP
    """
    return make_notes_card(folder, repo_id, TEMPLATE, "kept-hf pretrain zero-shot", ["zero-shot", "prompting"])
