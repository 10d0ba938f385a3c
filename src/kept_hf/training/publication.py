"""Asks before the stock Trainer uploads: it never calls the model's `push_to_hub`, which would refuse."""

from __future__ import annotations

from pathlib import Path

import datasets
from transformers import TrainerCallback
from transformers.modeling_utils import unwrap_model

from ..models.publication import check_publication


class CheckPublication(TrainerCallback):
    """Refuses uploads of the Trainer to a public repository where model or rows come from restricted data.

    With `TrainingArguments(push_to_hub=True)` it refuses when the Trainer is made and when training starts, and before
    every upload, `trainer.push_to_hub()` too. The licence is `config.data_license` of the model, of an adapter's base
    too, and that which the training rows name in their `info`.

    Args:
        permitted_by: see [`kept_hf.models.publication.check_publication`].

    Raises:
        PermissionError: the repository is public, or will be, because `hub_private_repo` is not True.

    Examples:
        >>> trainer = Trainer(model, arguments, callbacks=[CheckPublication()], train_dataset=rows)  # doctest: +SKIP
    """

    def __init__(self, permitted_by: str | None = None):
        self.permitted_by = permitted_by

    def on_init_end(self, args, state, control, **kwargs):
        """Called by the Trainer when it has been made."""
        if args.push_to_hub:
            self._check(args, **kwargs)

    def on_train_begin(self, args, state, control, **kwargs):
        """Called by the Trainer, which has its training rows now."""
        if args.push_to_hub:
            self._check(args, **kwargs)

    def on_push_begin(self, args, state, control, **kwargs):
        """Called by the Trainer before an upload."""
        self._check(args, **kwargs)

    def _check(self, args, model=None, train_dataloader=None, **kwargs):
        config = getattr(model and unwrap_model(model), "config", None)
        rows = getattr(train_dataloader, "dataset", None)
        licenses = [
            getattr(config, "data_license", None),
            rows.info.license if isinstance(rows, datasets.Dataset) else None,
        ]
        for license in licenses:
            check_publication(
                "what the Trainer uploads",
                license,
                args.hub_model_id or Path(args.output_dir).absolute().name,
                private=args.hub_private_repo,
                token=args.hub_token,
                permitted_by=self.permitted_by,
                remedy="Pass TrainingArguments(hub_private_repo=True) and a hub_model_id that is new or private (the "
                "Trainer may just have made this one, still empty), or CheckPublication(permitted_by=...) with the "
                "licence or permission that allows it.",
            )
