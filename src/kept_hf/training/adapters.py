"""Low-rank adapters (LoRA) for ICD prompting, made with peft, trained by the stock Trainer.

Source of the method: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv 2106.09685); of
training the biases alone: Ben Zaken et al., "BitFit", ACL 2022 (arXiv 2106.10199).
"""

from __future__ import annotations

import os

from huggingface_hub import ModelCard, RepoUrl, metadata_update
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftModelForSequenceClassification,
    TaskType,
    get_peft_model,
)
from transformers.utils import cached_file

from ..models.configuration_kept_longformer import KeptLongformerConfig
from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting
from ..models.publication import check_publication, joint_license, license_metadata, restricted_license

PEFT_METHODS = {"lora": "none", "lora+bias": "all"}
"""Method → the biases that train beside the low-rank matrices, in peft's words."""

TARGET_MODULES = ("query", "key", "value", "query_global", "key_global", "value_global")
"""The projections that get low-rank matrices: all of a Longformer's attention."""


class AdaptedModel(PeftModelForSequenceClassification):
    """peft's model, which writes the licence of its data beside the adapter and does not go public unasked.

    peft's own class, which `AutoPeftModelForSequenceClassification` and `PeftModel` load, asks nobody: see
    [`load_adapter`].
    """

    def push_to_hub(self, repo_id, *, permitted_by=None, **kwargs):
        """As in transformers, for the adapter alone.

        Raises:
            PermissionError: see [`kept_hf.models.publication.check_publication`].
        """
        check_publication(
            "this adapter",
            self.config.data_license,
            repo_id,
            private=kwargs.get("private"),
            token=kwargs.get("token"),
            permitted_by=permitted_by,
        )
        pushed = super().push_to_hub(repo_id, **kwargs)
        if self.config.data_license is not None and not kwargs.get("create_pr"):
            # transformers writes a card of its own over the one that was saved.
            options = {name: kwargs[name] for name in ("token", "revision") if name in kwargs}
            metadata_update(
                RepoUrl(pushed.repo_url).repo_id,
                license_metadata(self.config.data_license),
                overwrite=True,
                **options,
            )
        return pushed

    def create_or_update_model_card(self, output_dir):
        """Called by peft when it saves; the card is where a reader of the Hub looks for the licence."""
        super().create_or_update_model_card(output_dir)
        if self.config.data_license is not None:
            path = os.path.join(output_dir, "README.md")
            card = ModelCard.load(path)
            for name, value in license_metadata(self.config.data_license).items():
                card.data[name] = value
            card.save(path)


def adapter_config(
    method: str = "lora", lora_r: int = 8, lora_alpha: int = 16, lora_dropout: float = 0.0
) -> LoraConfig:
    """The configuration of an adapter.

    Its task is peft's SEQ_CLS, so that `AutoPeftModelForSequenceClassification` loads it. The head stays as it is.

    Args:
        method: "lora", or "lora+bias" with which all biases train too.
        lora_r: rank of the matrices.
        lora_alpha: their product is scaled by `lora_alpha / lora_r`.
        lora_dropout: dropout before them.

    Raises:
        ValueError: another method, or a number out of its range.

    Examples:
        >>> adapter_config("lora+bias", lora_r=4).bias
        'all'
    """
    if method not in PEFT_METHODS:
        raise ValueError(f"peft={method!r} is unknown; pass one of {', '.join(PEFT_METHODS)}.")
    for name, value in (("lora_r", lora_r), ("lora_alpha", lora_alpha)):
        if value < 1:
            raise ValueError(f"{name}={value} is less than 1; pass a positive integer.")
    if not 0 <= lora_dropout < 1:
        raise ValueError(f"lora_dropout={lora_dropout} is not a probability below 1; pass 0.1, say.")
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        bias=PEFT_METHODS[method],
        target_modules=list(TARGET_MODULES),
    )


def add_adapter(
    model: KeptLongformerForICDPrompting, config: LoraConfig, base_model_name_or_path: str | os.PathLike
) -> AdaptedModel:
    """Freeze the model and add an untrained adapter, in place.

    Args:
        model: the base.
        config: of the adapter, see [`adapter_config`].
        base_model_name_or_path: where the base, as it is now, is loaded from; saved with the adapter.

    Returns:
        The model that the Trainer takes. With it `TrainingArguments` want `label_names=[*LABEL_NAMES]` (of
        [`kept_hf.training.collators`]), because peft hides the model's arguments.
    """
    adapted = get_peft_model(model, config)
    adapted.__class__ = AdaptedModel  # peft has no way to name the class
    adapted.peft_config["default"].base_model_name_or_path = str(base_model_name_or_path)
    return adapted


def loads_by_name(model: KeptLongformerForICDPrompting) -> bool:
    """Whether the model came from a checkpoint that the Auto classes load as this model.

    Those of another class are not: their name would load that class, or this one without its head or token ids.
    """
    return bool(model.name_or_path) and model.config.architectures == [KeptLongformerForICDPrompting.__name__]


def load_adapter(adapter: str | os.PathLike, config: KeptLongformerConfig | None = None) -> AdaptedModel:
    """A saved adapter on its base, with the licence of the data of both.

    Args:
        adapter: folder or model id of a saved adapter, which names its base.
        config: of the base, see [`merged_model`].
    """
    base = PeftConfig.from_pretrained(adapter).base_model_name_or_path
    model = KeptLongformerForICDPrompting.from_pretrained(base, config=config)
    card = cached_file(adapter, "README.md", _raise_exceptions_for_missing_entries=False)
    license = card and restricted_license(ModelCard.load(card, ignore_metadata_errors=True).data.to_dict())
    model.config.data_license = joint_license(model.config.data_license, license)
    adapted = PeftModel.from_pretrained(model, adapter)
    adapted.__class__ = AdaptedModel
    return adapted


def merged_model(
    adapter: str | os.PathLike, config: KeptLongformerConfig | None = None
) -> KeptLongformerForICDPrompting:
    """Base and adapter as one model without peft: the same scores up to rounding.

    Args:
        adapter: folder or model id of a saved adapter, which names its base.
        config: of the result. By default the base's, whose codes and threshold may be those of another task: what peft
            saves has neither.
    """
    return load_adapter(adapter, config).merge_and_unload()
