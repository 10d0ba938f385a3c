"""Metrics for the stock Trainer, with the threshold tuned on the split that is evaluated."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import PredictionOutput

from ..metrics import best_macro_f1_threshold, best_micro_f1_threshold, icd_metrics
from ..models.processing_kept import KeptProcessor
from .merging import AskedPairs, scores_and_labels
from .rows import CandidatePrompts

THRESHOLD_SEARCHES = {"f1_micro": best_micro_f1_threshold, "f1_macro": best_macro_f1_threshold}
"""Metric → the search for the threshold that maximises it."""


class ICDMetrics:
    """`compute_metrics` for the Trainer: a row of scores per note, threshold tuned on the split that is evaluated.

    For choosing an epoch on the validation split. The test split is evaluated at the threshold of the validation split:
    see `icd_metrics`. The scores of a note's prompts are put together by the notes and codes that the rows of
    [`prompt_rows`] carry, in whatever order the Trainer takes them.

    Args:
        processor: the processor that made the rows, whose code set is asked about. None where the model scores all
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
        """Metrics of [`kept_hf.metrics.icd_metrics`] at the best threshold, and that `threshold`.

        Of prompts also `loss`, which replaces the Trainer's: the mean binary cross entropy over all codes asked,
        whatever the batches.
        """
        if self._scores_whole_notes:
            (scores, labels), loss = scores_and_labels(prediction), {}
        else:
            pairs = AskedPairs.from_prediction(prediction)
            (scores, labels), loss = self._matrices(pairs), {"loss": pairs.loss()}
        threshold = self.find_threshold(scores, labels)
        return {**icd_metrics(scores, labels, threshold=threshold), "threshold": threshold, **loss}

    def scores_and_labels(self, prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of what the Trainer predicted, `(notes, codes)` each, in the order of the notes.

        Without a processor they stand as the Trainer took the notes.

        Raises:
            ValueError: rows that do not say what they ask, a code asked twice of a note, or one not asked.
        """
        if self._scores_whole_notes:
            return scores_and_labels(prediction)
        return self._matrices(AskedPairs.from_prediction(prediction))

    def _matrices(self, pairs: AskedPairs) -> tuple[np.ndarray, np.ndarray]:
        if self.candidates is not None:
            return self.candidates.score_matrix(pairs), self.candidates.labels
        return pairs.matrices(len(self.processor.code_set))

    @property
    def _scores_whole_notes(self) -> bool:
        return self.processor is None and self.candidates is None


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


def predict_without_metrics(trainer: Trainer, rows: Dataset) -> PredictionOutput:
    """`trainer.predict` for rows that its `compute_metrics` was not made for. Call this on all processes."""
    compute_metrics, trainer.compute_metrics = trainer.compute_metrics, None
    try:
        return trainer.predict(rows)
    finally:
        trainer.compute_metrics = compute_metrics


def predict_in_order(trainer: Trainer, rows: Dataset) -> PredictionOutput:
    """`trainer.predict` in the order of the rows, which need not say what they ask. Call this on all processes.

    With `train_sampling_strategy="group_by_length"` the Trainer also evaluates in another order.
    """
    strategy, trainer.args.train_sampling_strategy = trainer.args.train_sampling_strategy, "sequential"
    try:
        return trainer.predict(rows)
    finally:
        trainer.args.train_sampling_strategy = strategy
