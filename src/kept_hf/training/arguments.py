"""Options of fine-tuning: the model and its prompts, the notes, the Trainer. For `transformers.HfArgumentParser`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..corpora.arguments import CorpusArguments
from ..models.prompting import PRESETS
from .adapters import PEFT_METHODS
from .base import BaseArguments
from .run import RunArguments


@dataclass
class ModelArguments(BaseArguments):
    """The model and its prompts."""

    preset: str = field(default="kept-50", metadata={"help": f"Prompt preset: {', '.join(PRESETS)}."})
    max_length: int = field(default=8192, metadata={"help": "Tokens of prompt and note together."})
    global_attention_stride: int = field(default=1, metadata={"help": "Global attention on every n-th prompt token."})
    codes_per_prompt: int | None = field(
        default=None, metadata={"help": "With scorer=prompting: codes of a prompt. By default one prompt has all."}
    )
    prompt_loss: str = field(default="full_vocabulary", metadata={"help": "full_vocabulary (published) or two_way."})
    scorer: str = field(
        default="prompting",
        metadata={
            "help": "prompting: masks score the codes (published). matching: late interaction of names and note "
            "(docs/late_interaction.md)."
        },
    )
    names_per_code: int = field(
        default=1,
        metadata={
            "help": "With scorer=matching: a code's description and its synonyms, up to so many; the best counts."
        },
    )
    threshold_metric: str = field(
        default="f1_micro", metadata={"help": "What the threshold maximises on validation: f1_micro or f1_macro."}
    )
    trainable: str | None = field(
        default=None,
        metadata={"help": "Train only parameters whose name contains one of these: bias,lm_head (BitFit). All stages."},
    )
    peft: str | None = field(
        default=None,
        metadata={
            "help": f"Train an adapter on the notes: {', '.join(PEFT_METHODS)} (which also trains all biases). Needs a "
            "higher learning rate than the whole model. Written to output_dir/adapter, merged to output_dir."
        },
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter's matrices."})
    lora_alpha: int = field(default=16, metadata={"help": "Their product is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before them."})


@dataclass
class DataArguments(CorpusArguments):
    """The notes, and the codes of each prompt."""

    sampled_codes: int | None = field(
        default=None,
        metadata={"help": "Train on prompts of this many codes drawn at random, with all gold codes among them."},
    )
    in_batch_negatives: bool = field(
        default=False,
        metadata={"help": "With sampled_codes and scorer=matching: ask each note of a batch about the codes of all."},
    )
    mined_negatives: int = field(
        default=0,
        metadata={
            "help": "With in_batch_negatives: from the second epoch on, also ask about so many of the codes that the "
            "model finds most similar to each note."
        },
    )
    draws: int = field(default=1, metadata={"help": "With sampled_codes: prompts drawn for each training note."})
    candidates: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files of a first stage (kept-hf propose), as split=FILE. train=FILE: with sampled_codes hard "
            "negatives are drawn from its candidates; without, the prompts ask about them in groups of "
            "codes_per_prompt. validation=FILE, test=FILE: only the candidates of a note are scored."
        },
    )
    hard_negatives: float = field(
        default=0.5,
        metadata={"help": "With sampled_codes and candidates: the share of the other codes drawn from the candidates."},
    )
    matching_examples: int = field(
        default=0,
        metadata={"help": "First train on this many synthetic prompts made of ICD-10-CM names."},
    )
    matching_codes: list[int] = field(
        default_factory=lambda: [3, 12], metadata={"help": "Codes of a synthetic prompt, at the start and at the end."}
    )
    matching_sentences: list[int] = field(
        default_factory=lambda: [1, 8], metadata={"help": "Sentences of a synthetic text, at the start and at the end."}
    )
    matching_learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of that stage."})
    matching_batch_size: int = field(default=16, metadata={"help": "Batch size of that stage."})


@dataclass
class KeptTrainingArguments(RunArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/run", metadata={"help": "Where everything is written."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch."})
    metric_for_best_model: str | None = field(default="f1_macro", metadata={"help": "What makes an epoch the best."})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "See transformers."})
    logging_steps: float = field(default=10, metadata={"help": "See transformers."})
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of an optimizer step over all processes: sets gradient_accumulation_steps, and divides "
            "matching_batch_size among the processes (docs/distributed.md)."
        },
    )
