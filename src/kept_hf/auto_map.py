"""The classes of this project behind transformers' Auto classes, and what makes a saved folder self-contained."""

from __future__ import annotations


def auto_classes() -> dict[str, type]:
    """Auto class → class of this project.

    transformers copies into a saved folder, and fetches from the Hub, the modules that it finds named in lines
    `from .module import name`, wherever they stand. Every published module imports this one, so all travel together.
    """
    from .configuration_kept_longformer import KeptLongformerConfig
    from .modeling_kept_longformer import (
        KeptLongformerForICDPrompting,
        KeptLongformerForMaskedLM,
        KeptLongformerModel,
    )
    from .processing_kept import KeptProcessor

    return {
        "AutoConfig": KeptLongformerConfig,
        "AutoModel": KeptLongformerModel,
        "AutoModelForMaskedLM": KeptLongformerForMaskedLM,
        "AutoModelForSequenceClassification": KeptLongformerForICDPrompting,
        "AutoProcessor": KeptProcessor,
    }


def matching_auto_classes() -> dict[str, type]:
    """Auto class → class of this project, for late interaction."""
    from .configuration_kept_longformer import KeptLongformerMatchingConfig
    from .modeling_kept_matching import KeptLongformerForICDMatching
    from .processing_kept import KeptProcessor

    return {
        "AutoConfig": KeptLongformerMatchingConfig,
        "AutoModel": KeptLongformerForICDMatching,
        "AutoModelForSequenceClassification": KeptLongformerForICDMatching,
        "AutoProcessor": KeptProcessor,
    }


def pipeline_classes() -> dict[str, type]:
    """Pipeline task → class of this project."""
    from .pipeline_icd_coding import ICDCodingPipeline

    return {"icd-coding": ICDCodingPipeline}


def remote_code(classes: dict[str, type]) -> dict[str, dict]:
    """The entries `auto_map` and `custom_pipelines` of a published `config.json`, for these Auto classes."""
    return {
        "auto_map": {name: _file_and_class(cls) for name, cls in classes.items()},
        "custom_pipelines": {
            task: {"impl": _file_and_class(cls), "pt": ["AutoModelForSequenceClassification"], "type": "text"}
            for task, cls in pipeline_classes().items()
        },
    }


def _file_and_class(cls: type) -> str:
    return f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}"
