"""The attention backends by name, and which one a forward pass takes.

To add one: a file with a subclass of `attention.AttentionBackend`, and a line in [`BACKENDS`].
"""

from __future__ import annotations

import torch
from transformers.utils import logging

from .attention import AttentionBackend
from .attention_flex import FlexAttention
from .attention_sdpa import BlockAttention

logger = logging.get_logger(__name__)

BACKENDS: dict[str, AttentionBackend] = {
    "sdpa": BlockAttention(),
    "flex": FlexAttention(),
}
"""Name → what computes attention on packed tokens."""

DEFAULT = "sdpa"
"""What "auto" takes."""

EAGER = "eager"
"""No backend of this package: transformers' own code on padded tokens, which alone returns attentions."""

ATTENTION_BACKENDS = ("auto", *BACKENDS, EAGER)
"""What `config.attention_backend` may be."""


def choose_backend(config, device: torch.device, training: bool, output_attentions: bool) -> AttentionBackend | None:
    """The backend for one forward pass, by `config.attention_backend` and what is asked.

    Args:
        config: a `KeptLongformerConfig`.
        device: of the model.
        training: whether the model is in training mode.
        output_attentions: whether attentions are wanted.

    Returns:
        The backend; None for transformers' own code.

    Raises:
        ValueError: the backend cannot do it; the message says why.
    """
    name = config.attention_backend
    if name == EAGER:
        return None
    if output_attentions:
        logger.warning_once(
            f"output_attentions=True: attention_backend={name!r} gives no attentions, so 'eager' is taken."
        )
        return None
    dropout = config.attention_probs_dropout_prob if training else 0.0
    if name == "auto":
        name = DEFAULT
        logger.info_once(f"attention_backend='auto': {name!r} is taken on {device.type}, attention dropout {dropout}.")
    backend = BACKENDS[name]
    backend.check(device, dropout)
    return backend
