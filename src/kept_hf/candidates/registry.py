"""The first stages by name, and those that are trained models by the type of the model.

A new one is a file here with a `STAGE` and a line in one of the two tables:

- In `FIRST_STAGES`, if it is made for each corpus; `STAGE` is a [`kept_hf.candidates.definition.StageDefinition`].
  `kept-hf propose --stages NAME` and `kept-hf rerank --first_stages NAME` know it.
- In `TRAINED_STAGES`, if it is the folder of a trained model; `STAGE` is a
  [`kept_hf.candidates.definition.TrainedStage`]. The commands take it as `NAME=FOLDER`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from .definition import StageDefinition, TrainedStage

FIRST_STAGES = {
    "sparse": "sparse",
    "dense": "dense",
    "classifier": "text_classifier",
    "prior": "prior",
    "fused": "fused",
}
"""Name → module of this folder."""

TRAINED_STAGES = {
    "msmn": "msmn",
    "kept_longformer": "kept",
    "kept_longformer_matching": "kept",
}
"""`config.model_type` → module of this folder."""


def first_stage(name: str) -> StageDefinition:
    """The definition of a first stage.

    Raises:
        ValueError: an unknown name.

    Examples:
        >>> first_stage("classifier").out_of_fold
        True
    """
    if name not in FIRST_STAGES:
        raise ValueError(f"name={name!r} is no first stage; pass one of {', '.join(FIRST_STAGES)}.")
    return _stage(FIRST_STAGES[name])


def trained_stage(model_type: str) -> TrainedStage:
    """How the folder of a model becomes a first stage.

    Raises:
        ValueError: models of this type are no first stages.
    """
    if model_type not in TRAINED_STAGES:
        raise ValueError(
            f"model_type={model_type!r} is no first stage; pass a model of type {', '.join(TRAINED_STAGES)}."
        )
    return _stage(TRAINED_STAGES[model_type])


def needs_of(names: Iterable[str]) -> frozenset[str]:
    """All that some first stages, and those that they join, need.

    Examples:
        >>> sorted(needs_of(["sparse"])), sorted(needs_of(["fused"]))
        (['texts'], ['encoder', 'labels', 'texts'])
    """
    stages = [first_stage(name) for name in names]
    return frozenset().union(*(stage.needs | needs_of(stage.joins) for stage in stages))


def _stage(module: str):
    return importlib.import_module(f"{__package__}.{module}").STAGE
