"""Configuration of the KEPT Longformer models."""

from huggingface_hub.dataclasses import strict
from transformers.models.longformer.configuration_longformer import LongformerConfig

from .attention_backends import ATTENTION_BACKENDS
from .auto_map import remote_code
from .loading import check_model_type

PROMPT_LOSSES = ("full_vocabulary", "two_way")
MODEL_TYPES = ("kept_longformer", "kept_longformer_matching", "longformer")
"""Types of the checkpoints that these models load. Each lacks nothing that another has but the masked-LM head."""


@strict
class KeptLongformerConfig(LongformerConfig):
    r"""
    Configuration of [`KeptLongformerModel`], [`KeptLongformerForMaskedLM`] and [`KeptLongformerForICDPrompting`].

    All fields of `LongformerConfig`, and:

    Args:
        yes_token_id (`int`, *optional*):
            Id of the word "yes", without a space before it, in the tokenizer's vocabulary. Never a constant:
            `KeptProcessor.config_overrides()` reads it from the tokenizer.
        no_token_id (`int`, *optional*):
            Id of the word "no", likewise.
        mask_token_id (`int`, *optional*):
            Id of the mask token, whose positions are read out.
        global_attention_stride (`int`, defaults to 1):
            Every how many-th prompt token has global attention. 1 is the most accurate, 3 saves memory.
        prompt_loss (`str`, defaults to `"full_vocabulary"`):
            `"full_vocabulary"`: cross entropy over the whole vocabulary at each mask, as published. `"two_way"`: over
            "yes" and "no" only.
        similarity_window, similarity_step (`int`, default to 12 and 6):
            Tokens of a window of the note, and between the beginnings of two, for late interaction
            ([`KeptLongformerForICDMatching`]).
        similarity_temperature (`float`, defaults to 20):
            Of the softmax that weighs the windows, and the names of a code: the greater, the nearer to the maximum.
        similarity_scale, similarity_threshold (`float`, default to 12 and 0.5):
            Initial values. `kept_hf.training.weights.fit_similarity_threshold` finds a threshold for some notes.
        attention_backend (`str`, defaults to `"auto"`):
            How attention is computed; the numbers are the same. `"sdpa"`: blocks of queries through
            `torch.nn.functional.scaled_dot_product_attention`, nothing for padding. `"flex"`: likewise through
            PyTorch's FlexAttention, on CUDA without attention dropout. `"eager"`: transformers' own sliding chunks, the
            reference, which alone can return attentions. `"auto"`: `"sdpa"`, and `"eager"` where attentions are asked
            for. (`attn_implementation` is not for this: Longformer gives wrong numbers with it.)
        threshold (`float`, defaults to 0.0):
            A code is assigned where its score is greater. 0 is a probability of one half; training writes the value
            tuned on the validation split here.
        problem_type (`str`, defaults to `"multi_label_classification"`):
            What transformers goes by: with it the Trainer does no label smoothing, which is for classes that exclude
            each other.
        data_license (`str`, *optional*):
            Licence of the notes that the weights were trained on. Weights from credentialed data are not pushed to a
            public repository without an explicit permission.

    The ordered codes are `id2label` and `label2id`.

    Raises:
        ValueError: fields that do not fit each other; the message names the field, its value and what to pass.

    Source: Yang et al., Findings of EMNLP 2022, section 3 (arXiv 2210.03304).

    Examples:
        >>> config = KeptLongformerConfig(num_hidden_layers=2, attention_window=32, id2label={0: "401.9", 1: "038.9"})
        >>> config.num_labels, config.model_type
        (2, 'kept_longformer')
    """

    model_type = "kept_longformer"
    _auto_class = "AutoConfig"
    keys_to_ignore_at_inference = ["hidden_states", "attentions", "global_attentions"]  # noqa: RUF012 (transformers' form)

    yes_token_id: int | None = None
    no_token_id: int | None = None
    mask_token_id: int | None = None
    global_attention_stride: int = 1
    prompt_loss: str = "full_vocabulary"
    similarity_window: int = 12
    similarity_step: int = 6
    similarity_temperature: float | int = 20.0
    similarity_scale: float | int = 12.0
    similarity_threshold: float | int = 0.5
    attention_backend: str = "auto"
    threshold: float | int = 0.0
    problem_type: str | None = "multi_label_classification"
    data_license: str | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers; the released KEPT weights, whose type is "longformer", are read as this type.

        Raises:
            ValueError: the checkpoint is none of `MODEL_TYPES`.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        check_model_type(
            pretrained_model_name_or_path,
            config_dict.get("model_type"),
            MODEL_TYPES,
            "A BERT or RoBERTa becomes one with kept-hf convert.",
        )
        if config_dict.get("model_type") == "longformer":
            config_dict = {**config_dict, "model_type": cls.model_type}
        return config_dict, kwargs

    def to_dict(self):
        """As in transformers, with the classes of this project for the Auto classes and pipelines."""
        return {**super().to_dict(), **remote_code(self.model_type)}

    @property
    def max_sequence_length(self) -> int:
        """The most tokens of a sequence: positions are numbered from `pad_token_id + 1`, as in RoBERTa."""
        return self.max_position_embeddings - (self.pad_token_id or 0) - 1

    def __post_init__(self, **kwargs):
        if not __name__.startswith("transformers_modules."):
            # transformers would ask for trust in the folder's code, although this package has the pipeline.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if self.id2label and not self.label2id:
            self.label2id = {code: index for index, code in self.id2label.items()}
        self.validate_fields()

    def validate_fields(self):
        """Check the fields against each other.

        Runs when a configuration is made, when it is saved, and when a model is made of it (`from_pretrained`
        overrides fields after the configuration is made).

        Raises:
            ValueError: the message names the field, its value and what to pass.
        """
        self._check_attention()
        self._check_prompt()
        self._check_similarity()
        self._check_labels()

    def _check_attention(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}."
            )
        if isinstance(self.attention_window, int):
            windows = [self.attention_window]
        else:
            windows = self.attention_window
            if len(windows) != self.num_hidden_layers:
                raise ValueError(
                    f"attention_window={windows} has {len(windows)} values; pass one integer, or one for each of the "
                    f"num_hidden_layers={self.num_hidden_layers} layers."
                )
        for window in windows:
            if window <= 0 or window % 2:
                raise ValueError(
                    f"attention_window={self.attention_window}: {window} is not positive and even; half of the window "
                    "lies on each side of a token."
                )
            if max(windows) % window:
                raise ValueError(
                    f"attention_window={windows}: {window} does not divide the largest window {max(windows)}, to whole "
                    "multiples of which inputs are padded."
                )
        if self.global_attention_stride < 1:
            raise ValueError(
                f"global_attention_stride={self.global_attention_stride} is less than 1; pass 1 for global attention "
                "on every prompt token, 3 for every third."
            )

    def _check_prompt(self):
        for name, legal in (
            ("prompt_loss", PROMPT_LOSSES),
            ("attention_backend", ATTENTION_BACKENDS),
        ):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; pass one of {', '.join(legal)}.")
        for name in ("yes_token_id", "no_token_id", "mask_token_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < self.vocab_size:
                raise ValueError(
                    f"{name}={value} is outside the vocabulary of vocab_size={self.vocab_size}; "
                    "KeptProcessor.config_overrides() reads it from the tokenizer."
                )
        ids = [i for i in (self.yes_token_id, self.no_token_id, self.mask_token_id) if i is not None]
        if len(set(ids)) < len(ids):
            raise ValueError(
                f"yes_token_id={self.yes_token_id}, no_token_id={self.no_token_id} and mask_token_id="
                f"{self.mask_token_id} must differ; KeptProcessor.config_overrides() reads them from the tokenizer."
            )

    def _check_similarity(self):
        for name in ("similarity_window", "similarity_step", "similarity_temperature", "similarity_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive.")
        if self.similarity_step > self.similarity_window:
            raise ValueError(
                f"similarity_step={self.similarity_step} is more than similarity_window={self.similarity_window}, so "
                "that tokens between two windows would be in none."
            )

    def _check_labels(self):
        if not self.id2label or not self.label2id:
            return
        for index, code in self.id2label.items():
            if self.label2id.get(code) != int(index):
                raise ValueError(
                    f"id2label has {code!r} at {index}, label2id at {self.label2id.get(code)}; pass both in one order "
                    "(ICDCodeSet.id2label and ICDCodeSet.label2id), each code once."
                )


@strict
class KeptLongformerMatchingConfig(KeptLongformerConfig):
    r"""
    Configuration of [`KeptLongformerForICDMatching`]: the fields of [`KeptLongformerConfig`].

    Those of prompts mean nothing here.

    Examples:
        >>> KeptLongformerMatchingConfig(similarity_window=16, similarity_step=8).model_type
        'kept_longformer_matching'
    """

    model_type = "kept_longformer_matching"
