"""Public MSMN checkpoints as models of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from .configuration_msmn import MSMNConfig
from .loading import check_finite
from .modeling_msmn import MSMNForICDCoding

PUBLIC_NAMES = {
    "encoder.word_encoder.word_embedding": "word_embedding",
    "encoder.combiner.combine_lstm": "lstm",
    "encoder.combiner.reduce_linear": "reduce",
    "decoder.W": "attention",
    "decoder.u_reduce": "query",
    "decoder.w_linear.layers.0": "code_weight",
    "decoder.b_linear.layers.0": "code_bias",
}
"""Modules of the public model → those of [`MSMNForICDCoding`]."""

PUBLIC_UNUSED = ("decoder.U.", "decoder.final.")
"""Modules of the public model that its MSMN makes and never reads."""


def convert_msmn_state_dict(state_dict: Mapping[str, torch.Tensor]) -> tuple[MSMNConfig, dict[str, torch.Tensor]]:
    """A public MSMN model as configuration and parameters of [`MSMNForICDCoding`].

    Sizes are read from the shapes. What no shape tells is as in the published commands (dropout, R-Drop), and the
    number of codes is that of the terms given to `set_label_terms`. `pad_token_id` is the last but one id, where the
    public code puts it (words, `**UNK**`, `**PAD**`, `**MASK**`); it is read only where no `attention_mask` is given.
    `pool_term_padding` is on, as in the public code.

    Args:
        state_dict: of the public `IcdModel`, `est_cls` 1, combiner "lstm", decoder "MultiLabelMultiHeadLAATV2"; names
            may begin with `module.`, as DataParallel saves them.

    Returns:
        The configuration, and the parameters for `load_state_dict`.

    Raises:
        ValueError: entries that are missing, unknown, of a shape that does not fit the others, or with NaN or infinity;
            the message names them.

    Examples:
        ```python
        config, parameters = convert_msmn_state_dict(torch.load("msmn_state_dict.pt"))
        model = MSMNForICDCoding(config)
        model.load_state_dict(parameters)
        model.set_label_terms(**terms)
        ```
    """
    parameters, unknown = {}, []
    for name, tensor in state_dict.items():
        module, _, parameter = name.removeprefix("module.").rpartition(".")
        if module in PUBLIC_NAMES:
            parameters[f"{PUBLIC_NAMES[module]}.{parameter}"] = tensor
        elif not f"{module}.".startswith(PUBLIC_UNUSED):
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"state_dict has {len(unknown)} entries that MSMN does not: {', '.join(unknown[:5])}"
            f"{', …' * (len(unknown) > 5)}. Pass the state dict itself, of a public IcdModel "
            "with combiner lstm, decoder MultiLabelMultiHeadLAATV2, est_cls 1 and head_pooling max."
        )
    for name in ("word_embedding.weight", "lstm.weight_hh_l0", "attention.weight", "query.weight"):
        if name not in parameters or parameters[name].ndim != 2:
            problem = "has no" if name not in parameters else "has no matrix as"
            raise ValueError(f"state_dict {problem} {_public_name(name)}, which tells the size of the model.")
    vocab_size, embedding_size = parameters["word_embedding.weight"].shape
    width, head = parameters["attention.weight"].shape[0], parameters["query.weight"].shape[0]
    config = MSMNConfig(
        vocab_size=vocab_size,
        pad_token_id=max(vocab_size - 2, 0),
        pool_term_padding=True,
        embedding_size=embedding_size,
        lstm_size=2 * parameters["lstm.weight_hh_l0"].shape[1],
        num_lstm_layers=sum(re.fullmatch(r"lstm\.weight_hh_l\d+", name) is not None for name in parameters),
        attention_size=width,
        num_synonyms=max(width // max(head, 1), 1),
    )
    with torch.device("meta"):
        expected = MSMNForICDCoding(config).state_dict()
    if missing := [_public_name(name) for name in expected if name not in parameters]:
        raise ValueError(f"state_dict lacks {', '.join(missing)}.")
    wrong = [
        f"{_public_name(name)} {tuple(tensor.shape)}, not {tuple(expected[name].shape) if name in expected else None}"
        for name, tensor in parameters.items()
        if name not in expected or tensor.shape != expected[name].shape
    ]
    if wrong:
        raise ValueError(f"state_dict has entries whose shapes do not fit the others: {'; '.join(wrong)}.")
    check_finite("state_dict", parameters)
    return config, parameters


def _public_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{next(public for public, own in PUBLIC_NAMES.items() if own == module)}.{parameter}"
