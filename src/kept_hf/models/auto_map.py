"""The classes of this project behind transformers' Auto classes, and what makes a saved folder self-contained."""

from __future__ import annotations

AUTO_CLASSES = {
    "kept_longformer": {
        "AutoConfig": "configuration_kept_longformer.KeptLongformerConfig",
        "AutoModel": "modeling_kept_longformer.KeptLongformerModel",
        "AutoModelForMaskedLM": "modeling_kept_longformer.KeptLongformerForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_kept_longformer.KeptLongformerForICDPrompting",
        "AutoProcessor": "processing_kept.KeptProcessor",
    },
    "kept_longformer_matching": {
        "AutoConfig": "configuration_kept_longformer.KeptLongformerMatchingConfig",
        "AutoModel": "modeling_kept_matching.KeptLongformerForICDMatching",
        "AutoModelForSequenceClassification": "modeling_kept_matching.KeptLongformerForICDMatching",
        "AutoProcessor": "processing_kept.KeptProcessor",
    },
}
"""Type of a model → Auto class → file and class."""

PIPELINES = {"icd-coding": "pipeline_icd_coding.ICDCodingPipeline"}
"""Task → file and class."""

PUBLISHED_TOGETHER = """
from .modeling_kept_matching import KeptLongformerForICDMatching
from .pipeline_icd_coding import ICDCodingPipeline
"""
"""Files that no other published one imports. transformers copies into a saved folder, and fetches from the Hub, what
lines of this form name, wherever they stand in a file (`transformers.dynamic_module_utils.get_relative_imports`). Every
published file imports this one, so that whatever is saved brings them all."""


def remote_code(model_type: str) -> dict[str, dict]:
    """The entries `auto_map` and `custom_pipelines` of a published `config.json`.

    Examples:
        >>> remote_code("kept_longformer")["auto_map"]["AutoModel"]
        'modeling_kept_longformer.KeptLongformerModel'
    """
    return {
        "auto_map": dict(AUTO_CLASSES[model_type]),
        "custom_pipelines": {
            task: {"impl": place, "pt": ["AutoModelForSequenceClassification"], "type": "text"}
            for task, place in PIPELINES.items()
        },
    }
