"""MSMN's classes behind transformers' Auto classes, and what makes a saved MSMN folder self-contained.

Apart from `auto_map`: transformers copies every file that a published one names, and a folder of one model needs
nothing of the other.
"""

from __future__ import annotations

MSMN_AUTO_CLASSES = {
    "AutoConfig": "configuration_msmn.MSMNConfig",
    "AutoModel": "modeling_msmn.MSMNForICDCoding",
    "AutoModelForSequenceClassification": "modeling_msmn.MSMNForICDCoding",
    "AutoTokenizer": "tokenization_msmn.MSMNTokenizer",
}
"""Auto class → file and class."""

PUBLISHED_TOGETHER = """
from .conversion_msmn import convert_msmn_state_dict
from .modeling_msmn import MSMNForICDCoding
from .tokenization_msmn import MSMNTokenizer
"""
"""See `auto_map`."""

MSMN_AUTO_MAP = {name: place for name, place in MSMN_AUTO_CLASSES.items() if name != "AutoTokenizer"}
"""The entry `auto_map` of a published `config.json`; the tokenizer stands in `tokenizer_config.json`."""
