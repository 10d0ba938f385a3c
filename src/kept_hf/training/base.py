"""The model that a run starts from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .conversion import BERT_LIKE, ModelClass, convert_to_kept_longformer, converted_to, supported_type
from .weights import PACKAGED_WEIGHTS, weights_path

DEFAULT_POSITIONS = 1024
"""Of a converted model that is given no number of positions."""


@dataclass
class BaseArguments:
    """The model to start from, for `transformers.HfArgumentParser`."""

    model_name_or_path: str = field(
        default=PACKAGED_WEIGHTS,
        metadata={
            "help": "Folder or model id: what another command wrote, a KEPT or Longformer checkpoint "
            "(whaleloops/keptlongformer), or a BERT or RoBERTa, which is converted. "
            f"{PACKAGED_WEIGHTS} stands for the weights of that Python package."
        },
    )
    attention_window: int = field(default=512, metadata={"help": "Local attention of a converted model."})
    position_period: int | None = field(
        default=None, metadata={"help": "Repeat the first n positions of a converted model. By default all."}
    )
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "By default the checkpoint's."})
    attention_probs_dropout_prob: float | None = field(default=None, metadata={"help": "By default the checkpoint's."})


@dataclass
class EncoderArguments(BaseArguments):
    """The model that pretraining starts from."""

    model_max_length: int | None = field(default=1024, metadata={"help": "Positions of a converted model."})


def load_base(
    model_class: type[ModelClass], arguments: BaseArguments, model_max_length: int | None = None, **options: object
) -> tuple[ModelClass, PreTrainedTokenizerBase]:
    """The model to start from, in float32, and its tokenizer.

    Args:
        model_class: one of this package's models with an encoder.
        arguments: what to load, and how it is converted if it is a BERT or RoBERTa.
        model_max_length: positions of a converted model, 1,024 by default. Other models keep theirs.
        options: further fields of the configuration, and arguments of the model.

    Returns:
        The model; and the tokenizer, of a converted model with its `model_max_length` raised.

    Raises:
        ValueError: a type that cannot be prompted, weights that are missing, no numbers, or cannot be converted; or the
            packaged weights, which are not installed.
        OSError: no such folder or model id.

    Examples:
        >>> model, tokenizer = load_base(
        ...     KeptLongformerForMaskedLM, BaseArguments(position_period=128), 4096
        ... )  # doctest: +SKIP
    """
    path = weights_path(arguments.model_name_or_path)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if supported_type(path) not in BERT_LIKE:
        model = model_class.from_pretrained(path, dtype=torch.float32, **options)
        return model, AutoTokenizer.from_pretrained(path)
    converted, tokenizer = convert_to_kept_longformer(
        path, model_max_length or DEFAULT_POSITIONS, arguments.attention_window, arguments.position_period
    )
    return converted_to(model_class, converted, **options), tokenizer
