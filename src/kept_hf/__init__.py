"""kept-hf: automatic ICD coding of clinical notes with KEPT prompts, for the Hugging Face libraries.

Importing the package registers its models and its processor with the Auto classes, and the pipeline "icd-coding".
"""

import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from .auto_map import auto_classes, matching_auto_classes, pipeline_classes
from .auto_map_msmn import msmn_auto_classes
from .code_set import ICDCodeSet
from .configuration_kept_longformer import KeptLongformerConfig, KeptLongformerMatchingConfig
from .configuration_msmn import MSMNConfig
from .data_collator import DataCollatorForICDPrompting
from .metrics import ICD_METRIC_PATH
from .modeling_kept_longformer import (
    KeptLongformerForICDPrompting,
    KeptLongformerForMaskedLM,
    KeptLongformerModel,
)
from .modeling_kept_matching import KeptLongformerForICDMatching
from .modeling_msmn import MSMNForICDCoding
from .pipeline_icd_coding import ICDCodingPipeline
from .processing_kept import KeptProcessor
from .prompt_caches import CodeCache, NoteCache, StaleCacheError
from .tokenization_msmn import MSMNTokenizer
from .version import __version__

for _classes in (auto_classes(), matching_auto_classes(), msmn_auto_classes()):
    for _name, _class in _classes.items():
        # The first makes saved folders self-contained, the second lets the Auto classes find these without remote code.
        _class.register_for_auto_class(_name)
        if _name == "AutoConfig":
            AutoConfig.register(_class.model_type, _class, exist_ok=True)
        elif _name == "AutoTokenizer":
            AutoTokenizer.register(_classes["AutoConfig"], _class, exist_ok=True)
        else:
            getattr(transformers, _name).register(_classes["AutoConfig"], _class, exist_ok=True)
for _task, _class in pipeline_classes().items():
    PIPELINE_REGISTRY.register_pipeline(
        _task, pipeline_class=_class, pt_model=(AutoModelForSequenceClassification,), type="text"
    )

__all__ = [
    "ICD_METRIC_PATH",
    "CodeCache",
    "DataCollatorForICDPrompting",
    "ICDCodeSet",
    "ICDCodingPipeline",
    "KeptLongformerConfig",
    "KeptLongformerForICDMatching",
    "KeptLongformerForICDPrompting",
    "KeptLongformerForMaskedLM",
    "KeptLongformerMatchingConfig",
    "KeptLongformerModel",
    "KeptProcessor",
    "MSMNConfig",
    "MSMNForICDCoding",
    "MSMNTokenizer",
    "NoteCache",
    "StaleCacheError",
    "__version__",
]
