"""Checks of a checkpoint: its type, that it has all weights, and that these are numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

NAMED = 5
"""Weights that an error names."""


def check_model_type(path: object, model_type: str | None, supported: Sequence[str], hint: str = "") -> None:
    """Refuse the checkpoint of another architecture, whose weights would stay random.

    Args:
        path: folder or model id, for the message.
        model_type: of its configuration; None where that names none.
        supported: types that can be loaded.
        hint: a sentence for the message.

    Raises:
        ValueError: another type.
    """
    if model_type is not None and model_type not in supported:
        raise ValueError(
            f"{str(path)!r} is of model_type {model_type!r}; pass a checkpoint of type {', '.join(supported)}."
            f"{' ' * bool(hint)}{hint}"
        )


def check_weights(path: object, model: nn.Module, missing: Iterable[str], new: Sequence[str] = ()) -> None:
    """Refuse a checkpoint that lacks weights, which would be random, or has weights that are no numbers.

    Args:
        path: folder or model id, for the message.
        model: that was loaded from it.
        missing: names of the weights that it lacks: `missing_keys` of `from_pretrained(…, output_loading_info=True)`.
        new: regular expressions of weights that may be new.

    Raises:
        ValueError: others are missing, or some are NaN or infinite.

    Examples:
        >>> check_weights("encoder", nn.Linear(3, 2), ["bias"])
        Traceback (most recent call last):
        ValueError: 'encoder' lacks 1 of the 2 weights of the model, which would be random: bias. Pass a checkpoint that
        has them.
        >>> check_weights("encoder", nn.Linear(3, 2), ["bias"], new=["^bias"])
    """
    missing = sorted(name for name in missing if not any(re.search(pattern, name) for pattern in new))
    if missing:
        raise ValueError(
            f"{str(path)!r} lacks {len(missing)} of the {len(model.state_dict())} weights of the model, which would be "
            f"random: {_some(missing)}. Pass a checkpoint that has them."
        )
    check_finite(path, model.named_parameters())


def check_finite(path: object, weights: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights with NaN or infinity, of which all scores would be NaN.

    Raises:
        ValueError: there are some.
    """
    wrong = [name for name, weight in dict(weights).items() if not _is_finite(weight)]
    if wrong:
        raise ValueError(
            f"{str(path)!r} has NaN or infinity in {len(wrong)} of its weights: {_some(wrong)}. The file is damaged, "
            "or its training diverged; pass another checkpoint."
        )


def _is_finite(weight: torch.Tensor) -> bool:
    # Of quantized weights and those of other processes there is nothing to see.
    is_plain = type(weight.data) is torch.Tensor and weight.device.type != "meta"
    return not (is_plain and weight.is_floating_point() and weight.itemsize > 1) or bool(weight.isfinite().all())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)


class CompleteLoadingMixin:
    """For a model, before transformers' own class: `from_pretrained` refuses what would score at random.

    transformers initialises what a checkpoint lacks, and says so in a table of its log alone.
    """

    new_when_missing: Sequence[str] = ()
    """Regular expressions of weights that may be new."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        """As in transformers.

        Raises:
            ValueError: the checkpoint is of another architecture, lacks weights that are not declared as new, or has
                NaN or infinity in them.
        """
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        check_weights(pretrained_model_name_or_path or cls.__name__, model, info["missing_keys"], cls.new_when_missing)
        return (model, info) if output_loading_info else model
