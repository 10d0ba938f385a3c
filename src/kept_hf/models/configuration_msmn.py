"""Configuration of MSMN, which scores all codes of a note at once."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .auto_map_msmn import MSMN_AUTO_MAP
from .loading import check_model_type


@strict
class MSMNConfig(PreTrainedConfig):
    r"""
    Configuration of [`MSMNForICDCoding`]. The defaults are those of the published model for all codes of MIMIC-III;
    that for its 50 codes has `num_lstm_layers=1, lstm_size=512, num_synonyms=8`.

    Args:
        vocab_size (`int`, defaults to 50000):
            Number of words, those for padding and for unknown words included: `len(tokenizer)`.
        pad_token_id (`int`, defaults to 0):
            Id of padding: `tokenizer.pad_token_id`. Read only where no `attention_mask` is given.
        embedding_size (`int`, defaults to 100):
            Width of the word embeddings.
        lstm_size (`int`, defaults to 256):
            Width of the LSTM, both directions together. Where it is not `attention_size`, a linear layer follows.
        num_lstm_layers (`int`, defaults to 2):
            Number of LSTM layers.
        attention_size (`int`, defaults to 512):
            Width of words, synonyms and codes in the attention.
        num_synonyms (`int`, defaults to 4):
            M: how many terms a code has, each with an attention head of its own.
        embedding_dropout (`float`, defaults to 0.2):
            On word embeddings.
        lstm_dropout (`float`, defaults to 0.1):
            Between LSTM layers.
        output_dropout (`float`, defaults to 0.2):
            On what a code read in a note.
        rdrop_alpha (`float`, defaults to 5.0):
            Weight of R-Drop, the divergence of two dropout passes. 0 leaves out the second pass.
        pool_term_padding (`bool`, defaults to `False`):
            Whether the maximum over the words of a term also runs over its padding, up to the longest term of all, as
            in the public code, where the LSTM's states are zero. Converted models have it.
        max_words (`int`, defaults to 4000):
            Words of a note beyond these are not read.
        max_term_words (`int`, defaults to 30):
            Words of a term beyond these are not read.
        term_length (`int`, defaults to 0):
            Words of the longest term. `MSMNForICDCoding.set_label_terms` writes it; 0 before.
        code_chunk_size (`int`, defaults to 256):
            How many codes go through the attention at once. Memory grows with it, the numbers stay the same; while
            training, each chunk is computed again for its gradients. 0: all at once, nothing twice.
        threshold (`float`, defaults to 0.0):
            A code is assigned where its logit is greater. 0 is a probability of one half.
        problem_type (`str`, defaults to `"multi_label_classification"`):
            What transformers' own pipelines go by: with it they take a sigmoid for each code.
        data_license (`str`, *optional*):
            Licence of the notes that the weights were trained on. Weights from credentialed data are not pushed to a
            public repository without an explicit permission.

    The ordered codes are `id2label` and `label2id`. Without them, and without `num_labels`, there are as many codes as
    `set_label_terms` is given.

    Raises:
        ValueError: fields that do not fit each other; the message names the field, its value and what to pass.

    Source: Yuan et al., *Code Synonyms Do Matter*, ACL 2022 (https://aclanthology.org/2022.acl-short.91), and its code
    (https://github.com/GanjinZero/ICD-MSMN).

    Examples:
        >>> config = MSMNConfig(vocab_size=1000, id2label={0: "401.9", 1: "038.9"})
        >>> config.num_labels, config.num_synonyms, config.label2id["038.9"]
        (2, 4, 1)
    """

    model_type = "msmn"
    _auto_class = "AutoConfig"

    vocab_size: int = 50000
    pad_token_id: int | None = 0
    embedding_size: int = 100
    lstm_size: int = 256
    num_lstm_layers: int = 2
    attention_size: int = 512
    num_synonyms: int = 4
    embedding_dropout: float | int = 0.2
    lstm_dropout: float | int = 0.1
    output_dropout: float | int = 0.2
    rdrop_alpha: float | int = 5.0
    pool_term_padding: bool = False
    max_words: int = 4000
    max_term_words: int = 30
    term_length: int = 0
    code_chunk_size: int = 256
    threshold: float | int = 0.0
    problem_type: str | None = "multi_label_classification"
    data_license: str | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers.

        Raises:
            ValueError: the checkpoint is no MSMN.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        check_model_type(pretrained_model_name_or_path, config_dict.get("model_type"), (cls.model_type,))
        return config_dict, kwargs

    def to_dict(self):
        """As in transformers, with the classes of this project for the Auto classes."""
        return {**super().to_dict(), "auto_map": dict(MSMN_AUTO_MAP)}

    def to_diff_dict(self):
        """As in transformers, but two codes without names are written too: they are no default here."""
        return {**super().to_diff_dict(), "id2label": self.id2label, "label2id": self.label2id}

    def __post_init__(self, **kwargs):
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = {}  # transformers would make it two codes
        super().__post_init__(**kwargs)
        if not self.label2id:
            self.label2id = {code: index for index, code in self.id2label.items()}
        self.validate_fields()

    def validate_fields(self):
        """Check the fields against each other.

        Runs when a configuration is made and when a model is made of it (`from_pretrained` overrides fields after the
        configuration is made).

        Raises:
            ValueError: the message names the field, its value and what to pass.
        """
        for name in (
            "vocab_size",
            "embedding_size",
            "lstm_size",
            "num_lstm_layers",
            "attention_size",
            "num_synonyms",
            "max_words",
            "max_term_words",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; pass 1 or more.")
        for name in ("code_chunk_size", "term_length", "rdrop_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}; pass 0 or more.")
        for name in ("embedding_dropout", "lstm_dropout", "output_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; pass a probability below 1.")
        if self.lstm_size % 2:
            raise ValueError(f"lstm_size={self.lstm_size} is odd; each direction of the LSTM has half of it.")
        if self.attention_size % self.num_synonyms:
            raise ValueError(
                f"attention_size={self.attention_size} is not a multiple of num_synonyms={self.num_synonyms}; each "
                "synonym has a head of equal width."
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id={self.pad_token_id} is outside the vocabulary of vocab_size={self.vocab_size}; pass "
                "tokenizer.pad_token_id and len(tokenizer)."
            )
        if self.term_length and not self.id2label:
            raise ValueError(
                f"term_length={self.term_length}, but no codes; leave term_length to MSMNForICDCoding.set_label_terms."
            )
        for index, code in self.id2label.items():
            if self.label2id.get(code) != int(index):
                raise ValueError(
                    f"id2label has {code!r} at {index}, label2id at {self.label2id.get(code)}; pass both in one order "
                    "(ICDCodeSet.id2label and ICDCodeSet.label2id), each code once."
                )
