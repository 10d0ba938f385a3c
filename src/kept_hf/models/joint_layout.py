"""The joint prompt layout as pure functions of tensors: where its masks are, and which of its tokens are global."""

from __future__ import annotations

import torch


def prompt_attention(is_mask: torch.Tensor, stride: int) -> torch.Tensor:
    """Global attention on the prompt: every `stride`-th token from the first to the last mask, and the masks.

    Args:
        is_mask: `(batch_size, sequence_length)`, where a mask token of the prompt is.
        stride: `config.global_attention_stride`.

    Returns:
        `(batch_size, sequence_length)`, 1 for global attention.

    Examples:
        >>> is_mask = torch.tensor([[False, False, False, True, False, True, False, False]])
        >>> prompt_attention(is_mask, stride=2).tolist()
        [[1, 0, 1, 1, 1, 1, 0, 0]]
    """
    positions = torch.arange(is_mask.shape[1], device=is_mask.device)
    last_mask = (is_mask * positions).amax(dim=1, keepdim=True)
    on_stride = (positions <= last_mask) & (positions % stride == 0)
    return (on_stride | is_mask).long()


def mask_slots(is_mask: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the masks of each row are, in slots of the same number for all rows.

    Args:
        is_mask: `(batch_size, sequence_length)`.
        labels: `(batch_size, num_labels)`, -100 in the slots beyond the masks of a row.

    Returns:
        Positions of the masks, `(batch_size, num_labels)`, and which of these slots hold a code.

    Raises:
        ValueError: no mask at all, or a row whose numbers of masks and labels differ.

    Examples:
        >>> positions, is_code = mask_slots(torch.tensor([[False, True, True], [False, False, True]]))
        >>> positions[0].tolist(), int(positions[1, 0]), is_code.tolist()
        ([1, 2], 2, [[True, True], [True, False]])
    """
    counts = is_mask.sum(dim=1)
    if not counts.any():
        raise ValueError(
            "input_ids holds no mask token, so no code is asked; pass prompts of KeptProcessor(..., "
            "prompt_layout='joint')."
        )
    num_slots = int(counts.max()) if labels is None else labels.shape[1]
    is_code = torch.arange(num_slots, device=is_mask.device)[None, :] < counts[:, None]
    if labels is not None and (wrong := (counts > num_slots) | ((labels != -100) != is_code).any(dim=1)).any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"Row {row} of the batch has {int(counts[row])} mask tokens and {int((labels[row] != -100).sum())} "
            "labels; pass one label for each code of the prompt, in its order, and -100 beyond them."
        )
    # A stable sort brings the mask positions to the front, in their order.
    positions = is_mask.int().sort(dim=1, descending=True, stable=True).indices[:, :num_slots]
    return positions, is_code
