"""MSMN's classes behind transformers' Auto classes, and what makes a saved MSMN folder self-contained.

Apart from `auto_map`: transformers copies every module that a published one names, and a folder of one model needs
nothing of the other.
"""

from __future__ import annotations


def msmn_auto_classes() -> dict[str, type]:
    """Auto class → class of this project. Every module of MSMN imports this one, so all travel together."""
    from .configuration_msmn import MSMNConfig
    from .modeling_msmn import MSMNForICDCoding
    from .tokenization_msmn import MSMNTokenizer

    return {
        "AutoConfig": MSMNConfig,
        "AutoModel": MSMNForICDCoding,
        "AutoModelForSequenceClassification": MSMNForICDCoding,
        "AutoTokenizer": MSMNTokenizer,
    }


def msmn_auto_map() -> dict[str, str]:
    """The entry `auto_map` of a published `config.json`."""
    return {
        name: f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}"
        for name, cls in msmn_auto_classes().items()
        if name != "AutoTokenizer"  # stands in tokenizer_config.json
    }
