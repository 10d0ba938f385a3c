"""A coding task for the Trainer: its model and processor, and its splits as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset
from transformers import AutoTokenizer, EvalPrediction

from ..candidates.candidates import Candidates
from ..models.code_set import ICDCodeSet
from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting, KeptLongformerPreTrainedModel
from ..models.modeling_kept_matching import KeptLongformerForICDMatching
from ..models.processing_kept import KeptProcessor
from .base import load_base
from .conversion import supported_type
from .evaluation import ICDMetrics
from .gold import restrict_gold
from .rows import CandidatePrompts, prompt_rows
from .weights import weights_path

if TYPE_CHECKING:
    from .arguments import ModelArguments

SCORERS = {"prompting": KeptLongformerForICDPrompting, "matching": KeptLongformerForICDMatching}
"""How a model scores codes → its class."""

SPLITS = ("train", "validation", "test")


def load_task(arguments: ModelArguments, code_set: ICDCodeSet) -> tuple[KeptLongformerPreTrainedModel, KeptProcessor]:
    """The model to start from, and the processor of this task.

    Raises:
        ValueError: more tokens than the model has positions; and as [`load_base`] and [`KeptProcessor`].
        OSError: as [`load_base`].
    """
    model_class = SCORERS[arguments.scorer]
    supported_type(weights_path(arguments.model_name_or_path))  # other tokenizers have other faults
    processor = KeptProcessor(
        AutoTokenizer.from_pretrained(weights_path(arguments.model_name_or_path)),
        code_set,
        preset=arguments.preset,
        max_length=arguments.max_length,
        global_attention_stride=arguments.global_attention_stride,
        codes_per_prompt=None if model_class.prompt_layout == "isolated" else arguments.codes_per_prompt,
        prompt_layout=model_class.prompt_layout,
        names_per_code=arguments.names_per_code,
    )
    model, processor.tokenizer = load_base(
        model_class,
        arguments,
        arguments.max_length,
        **processor.config_overrides(),
        prompt_loss=arguments.prompt_loss,
    )
    if arguments.max_length > model.config.max_sequence_length:
        raise ValueError(
            f"max_length={arguments.max_length} is more than the {model.config.max_sequence_length} positions of "
            f"{arguments.model_name_or_path}; pass --max_length {model.config.max_sequence_length}."
        )
    return model, processor


def read_candidates(options: Sequence[str]) -> dict[str, Candidates]:
    """Split → candidates of a first stage.

    Args:
        options: `split=FILE` each, with files of `Candidates.save`.

    Raises:
        ValueError: another split, no file, or candidates without the ids of their notes.
        OSError: a file that does not exist.
    """
    files = dict(option.partition("=")[::2] for option in options)
    wrong = sorted(split for split, file in files.items() if split not in SPLITS or not file)
    if wrong:
        raise ValueError(f"candidates names {', '.join(wrong)}; write train=FILE, validation=FILE or test=FILE.")
    candidates = {split: Candidates.load(file) for split, file in files.items()}
    for split, candidates_of_split in candidates.items():
        if candidates_of_split.note_ids is None:
            raise ValueError(f"candidates of {split} have no note_ids; make them with the ids of the notes.")
    return candidates


class EvaluationPrompts:
    """A split for evaluation with the Trainer: rows sorted by length, whose scores return in the order of the notes.

    Notes of similar length make full batches.

    Args:
        notes: columns `text` and `codes`.
        processor: its code set is the task.
        candidates: of a first stage, if only those of a note are to be scored.

    Attributes:
        rows: for the Trainer.
        candidate_prompts: what made the rows with candidates; None without.

    Raises:
        ValueError: as [`prompt_rows`] and [`CandidatePrompts`].
    """

    def __init__(self, notes: Dataset, processor: KeptProcessor, candidates: Candidates | None = None):
        self.processor = processor
        order = np.argsort([len(text) for text in notes["text"]], kind="stable")
        notes = notes.select(order)
        # With candidates all gold codes count, so that one which the code set lacks is an error.
        if candidates is None and processor.code_set is not None:
            notes = restrict_gold(notes, processor.code_set)
        self.candidate_prompts = None
        if candidates is not None:
            self.candidate_prompts = CandidatePrompts(notes, processor, candidates)
            notes = self.candidate_prompts.notes
        self.rows = prompt_rows(notes, processor)
        self._positions = np.argsort(order)

    def metrics(self, threshold_metric: str) -> ICDMetrics:
        """`compute_metrics` for these rows."""
        return ICDMetrics(self.processor, threshold_metric, self.candidate_prompts)

    def scores_and_labels(self, prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of these rows, `(notes, codes)` each, in the order of the notes."""
        scores, labels = ICDMetrics(self.processor, candidates=self.candidate_prompts).scores_and_labels(prediction)
        return scores[self._positions], labels[self._positions]
