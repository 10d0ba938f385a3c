"""Make a KEPT Longformer from a BERT-like checkpoint, or give a Longformer another number of positions.

Source of the method: Beltagy et al., "Longformer: The Long-Document Transformer", section 5 (arXiv 2004.05150):
position embeddings extended by repetition, global projections copied from the local ones. KEPT extends
Clinical-Longformer's 4,096 positions to 16,384 in the same way (Yang et al., arXiv 2210.03304).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.longformer.configuration_longformer import LongformerConfig

from ..models.configuration_kept_longformer import MODEL_TYPES, KeptLongformerConfig
from ..models.loading import check_model_type, check_weights
from ..models.modeling_kept_longformer import KeptLongformerForMaskedLM, KeptLongformerPreTrainedModel

ModelClass = TypeVar("ModelClass", bound=KeptLongformerPreTrainedModel)

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert")
"""Types of the models that are converted."""


def supported_type(model_name_or_path: str) -> str:
    """The `model_type` of a checkpoint that can be prompted, as it is or converted.

    Raises:
        ValueError: another one; the message lists them.
        OSError: no such folder or model id.
    """
    model_type = AutoConfig.from_pretrained(model_name_or_path).model_type
    check_model_type(model_name_or_path, model_type, BERT_LIKE + MODEL_TYPES)
    return model_type


def convert_to_kept_longformer(
    model_name_or_path: str,
    max_length: int = 4096,
    attention_window: int | list[int] = 512,
    position_period: int | None = None,
) -> tuple[KeptLongformerForMaskedLM, PreTrainedTokenizerBase]:
    """Convert a BERT or RoBERTa checkpoint, with or without masked-LM head.

    While a sequence is within the window and has no global attention, the result computes what the source computes.
    A source without masked-LM head (a sentence encoder, say) gets one: identity transform, decoder tied to the word
    embeddings.

    Args:
        model_name_or_path: folder or model id of the source.
        max_length: tokens of the longest input; the position table is extended to them by repetition.
        attention_window: width of the local attention, one value or one per layer. Small windows suit encoders of
            short texts.
        position_period: repeat the first so many positions only, for encoders that were trained on texts no longer
            than that; by default the whole table.

    Returns:
        The model, and the tokenizer with its `model_max_length` raised to `max_length`.

    Raises:
        ValueError: a source of another type, one that lacks weights or has NaN among them, relative positions, a period
            greater than the table, no length.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length} is less than 1; pass the tokens of the longest input.")
    source_config = AutoConfig.from_pretrained(model_name_or_path)
    check_model_type(model_name_or_path, source_config.model_type, BERT_LIKE)
    if getattr(source_config, "position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"model_name_or_path={model_name_or_path!r} has position_embedding_type="
            f"{source_config.position_embedding_type!r}; Longformer needs absolute positions."
        )
    has_head = any(name.endswith("ForMaskedLM") for name in source_config.architectures or ())
    source, loaded = (AutoModelForMaskedLM if has_head else AutoModel).from_pretrained(
        model_name_or_path, dtype=torch.float32, output_loading_info=True
    )
    check_weights(model_name_or_path, source, loaded["missing_keys"], new=[r"\bpooler\."])
    encoder = source.base_model
    tokenizer = AutoTokenizer.from_pretrained(model_name_or_path)

    # RoBERTa numbers positions from pad_token_id + 1, as Longformer does; BERT from 0.
    is_bert = source_config.model_type == "bert"
    first_position = 0 if is_bert else source_config.pad_token_id + 1
    pad_token_id = source_config.pad_token_id
    table = encoder.embeddings.position_embeddings.weight.detach()[first_position:]
    repeated = _repeated(table, max_length, position_period)
    unused_rows = table.new_zeros(pad_token_id + 1, table.shape[1])

    known = set(LongformerConfig().to_dict()) - {"model_type", "architectures", "transformers_version", "dtype"}
    fields = {name: value for name, value in source_config.to_dict().items() if name in known}
    fields |= {
        "attention_window": attention_window,
        "max_position_embeddings": max_length + pad_token_id + 1,
        "pad_token_id": pad_token_id,
        "bos_token_id": tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id,
        "eos_token_id": tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "mask_token_id": tokenizer.mask_token_id,
        "tie_word_embeddings": True,
        "id2label": None,
        "label2id": None,
    }
    model = KeptLongformerForMaskedLM(KeptLongformerConfig(**fields))

    state = {}
    for name, value in encoder.state_dict().items():
        if name.startswith("pooler.") or name.endswith("position_ids") or name.endswith("embeddings.token_type_ids"):
            continue
        state[f"longformer.{name}"] = value
    state["longformer.embeddings.position_embeddings.weight"] = torch.cat([unused_rows, repeated])
    state |= _head_state(source, has_head, is_bert, model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("_global." in name for name in missing), (missing, unexpected)
    copy_local_to_global(model)
    model.tie_weights()
    tokenizer.model_max_length = max_length
    return model.eval(), tokenizer


def resize_positions(model: KeptLongformerPreTrainedModel, max_length: int, position_period: int | None = None) -> None:
    """Give a KEPT Longformer positions for inputs of `max_length` tokens, in place.

    Without `position_period` it computes what it computed before, up to the smaller of both lengths. Further positions
    repeat the table from its beginning.

    Args:
        model: any model of this package with an encoder.
        max_length: tokens of the longest input.
        position_period: repeat the first so many positions only; by default the whole table.

    Raises:
        ValueError: no length, or a period greater than the table.

    Examples:
        >>> from kept_hf import KeptLongformerConfig, KeptLongformerModel
        >>> config = KeptLongformerConfig(
        ...     vocab_size=20, hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8,
        ...     attention_window=4, max_position_embeddings=34,
        ... )
        >>> model = KeptLongformerModel(config)
        >>> resize_positions(model, 100)
        >>> model.config.max_position_embeddings, model.config.max_sequence_length
        (102, 100)
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length} is less than 1; pass the tokens of the longest input.")
    embeddings = model.base_model.embeddings
    old = embeddings.position_embeddings
    # Rows up to that of the padding token are no positions.
    first_position = model.config.pad_token_id + 1
    rows = torch.cat(
        [
            old.weight.detach()[:first_position],
            _repeated(old.weight.detach()[first_position:], max_length, position_period),
        ]
    )
    embeddings.position_embeddings = nn.Embedding.from_pretrained(
        rows, freeze=not old.weight.requires_grad, padding_idx=old.padding_idx
    )
    model.config.max_position_embeddings = len(rows)


def copy_local_to_global(model: KeptLongformerPreTrainedModel) -> None:
    """Start the global projections of each layer from the local ones, in place: what an untrained Longformer needs."""
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            attention = layer.attention.self
            for name in ("query", "key", "value"):
                getattr(attention, f"{name}_global").load_state_dict(getattr(attention, name).state_dict())


def has_own_global_projections(model: KeptLongformerPreTrainedModel) -> bool:
    """Whether the projections of global attention are more than a copy of the local ones."""
    return any(
        not torch.equal(getattr(attention, f"{name}_global").weight, getattr(attention, name).weight)
        for attention in (layer.attention.self for layer in model.base_model.encoder.layer)
        for name in ("query", "key", "value")
    )


def _repeated(table: torch.Tensor, max_length: int, position_period: int | None) -> torch.Tensor:
    """`max_length` rows: the table, or its first rows, over and over."""
    if position_period is not None and not 0 < position_period <= len(table):
        raise ValueError(f"position_period={position_period} is not between 1 and the table's {len(table)} positions.")
    period = table[:position_period]
    return period.repeat(-(-max_length // len(period)), 1)[:max_length]


def _head_state(source, has_head: bool, is_bert: bool, model: KeptLongformerForMaskedLM) -> dict[str, torch.Tensor]:
    """The masked-LM head under Longformer's names."""
    words = source.base_model.embeddings.word_embeddings.weight
    size = words.shape[1]
    if not has_head:
        state = {
            "dense.weight": torch.eye(size),
            "dense.bias": torch.zeros(size),
            "layer_norm.weight": torch.ones(size),
            "layer_norm.bias": torch.zeros(size),
            "bias": torch.zeros(len(words)),
        }
    elif is_bert:
        head = source.cls.predictions
        state = {
            "dense.weight": head.transform.dense.weight,
            "dense.bias": head.transform.dense.bias,
            "layer_norm.weight": head.transform.LayerNorm.weight,
            "layer_norm.bias": head.transform.LayerNorm.bias,
            "bias": head.bias,
        }
    else:
        state = {name: value for name, value in source.lm_head.state_dict().items() if not name.startswith("decoder.")}
    state |= {"decoder.weight": words, "decoder.bias": state["bias"]}
    return {f"lm_head.{name}": value.detach() for name, value in state.items()}


def converted_to(model_class: type[ModelClass], converted: KeptLongformerForMaskedLM, **settings: object) -> ModelClass:
    """Converted weights as another model of this package; what it has beside them is as new.

    Args:
        model_class: for example `KeptLongformerForICDPrompting`.
        converted: what `convert_to_kept_longformer` returned.
        settings: fields of the configuration, and arguments of the model, as `from_pretrained` takes them.

    Examples:
        >>> model = converted_to(KeptLongformerForICDMatching, converted, similarity_window=16)  # doctest: +SKIP
    """
    config_class = model_class.config_class
    fields = converted.config.to_dict() | {"model_type": config_class.model_type}
    config, arguments = config_class.from_dict(fields, return_unused_kwargs=True, **settings)
    model = model_class(config, **arguments)
    own = model.state_dict()
    model.load_state_dict(own | {name: value for name, value in converted.state_dict().items() if name in own})
    return model
