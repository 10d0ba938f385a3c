"""What the Trainer returns for rows of `prompt_rows`."""

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import EvalPrediction

from kept_hf.training.collators import LABEL_NAMES


def prediction_of(rows: Sequence[Mapping], scores: Sequence[Sequence[float]]) -> EvalPrediction:
    """The prediction of some rows, padded to the widest; `scores` are those of each row."""
    label_ids = (padded(row[name] for row in rows) for name in LABEL_NAMES)
    return EvalPrediction(padded(scores).astype(np.float32), tuple(label_ids))


def padded(values) -> np.ndarray:
    values = list(values)
    if np.ndim(values[0]) == 0:
        return np.array(values)
    width = max(map(len, values))
    return np.array([[*row, *[-100] * (width - len(row))] for row in values])
