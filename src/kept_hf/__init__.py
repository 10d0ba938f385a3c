"""kept-hf: automatic ICD coding of clinical notes with KEPT prompts, for the Hugging Face libraries.

Importing the package registers its models and its processor with the Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .code_set import ICDCodeSet
from .configuration_kept_longformer import KeptLongformerConfig
from .data_collator import DataCollatorForICDPrompting
from .metrics import ICD_METRIC_PATH
from .modeling_kept_longformer import (
    KeptLongformerForICDPrompting,
    KeptLongformerForMaskedLM,
    KeptLongformerModel,
)
from .processing_kept import KeptProcessor
from .version import __version__

AutoConfig.register("kept_longformer", KeptLongformerConfig, exist_ok=True)
AutoModel.register(KeptLongformerConfig, KeptLongformerModel, exist_ok=True)
AutoModelForMaskedLM.register(KeptLongformerConfig, KeptLongformerForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(KeptLongformerConfig, KeptLongformerForICDPrompting, exist_ok=True)
AutoProcessor.register(KeptLongformerConfig, KeptProcessor, exist_ok=True)

__all__ = [
    "ICD_METRIC_PATH",
    "DataCollatorForICDPrompting",
    "ICDCodeSet",
    "KeptLongformerConfig",
    "KeptLongformerForICDPrompting",
    "KeptLongformerForMaskedLM",
    "KeptLongformerModel",
    "KeptProcessor",
    "__version__",
]
