"""kept-hf: automatic ICD coding of clinical notes with KEPT prompts, for the Hugging Face libraries.

Importing the package makes transformers' Auto classes and `pipeline("icd-coding")` know its models, whichever of the
two packages comes first (`kept_hf.models`). What it exports is loaded when it is first used, so that `kept_hf.metrics`
needs no torch.
"""

import lazy_loader

from .models import register_with_transformers
from .version import __version__ as __version__

# The names that are exported, and where they are from: __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "__version__"])

register_with_transformers()
