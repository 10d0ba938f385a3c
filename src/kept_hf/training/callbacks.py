"""Callbacks for the stock Trainer."""

from __future__ import annotations

from transformers import TrainerCallback


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
