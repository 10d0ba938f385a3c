"""Rows of features of different lengths as tensors of one shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch

PADDING_VALUES = {
    "attention_mask": 0,
    "global_attention_mask": 0,
    "code_attention_mask": 0,
    "code_indices": -100,
    "labels": -100,
    "label_codes": -100,
}
PER_CODE = ("labels", "label_codes", "code_indices")


def pad_features(
    rows: Sequence[dict[str, Sequence[int]]], pad_token_id: int, pad_to_multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Pad rows of features to the longest of them and stack them.

    Args:
        rows: feature name → list of integers, or one integer; the same names in each row.
        pad_token_id: what `input_ids` is padded with; masks are padded with 0, labels and code indices with -100.
        pad_to_multiple_of: round the length of the token features (not of labels and indices) up to a multiple.

    Returns:
        Tensors of shape `(rows, longest)`, or `(rows,)`, and type int64.
    """
    batch = {}
    for name, value in rows[0].items():
        if torch.as_tensor(value).ndim == 0:
            batch[name] = torch.tensor([int(row[name]) for row in rows])
            continue
        longest = max(len(row[name]) for row in rows)
        if pad_to_multiple_of and name not in PER_CODE:
            longest += -longest % pad_to_multiple_of
        fill = PADDING_VALUES.get(name, pad_token_id)
        batch[name] = torch.tensor([[*row[name], *[fill] * (longest - len(row[name]))] for row in rows])
    return batch
