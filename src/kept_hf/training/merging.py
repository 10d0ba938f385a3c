"""What the Trainer predicted for prompts, put together by note and code: in whatever order it took the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from transformers import EvalPrediction

from .collators import LABEL_NAMES


@dataclass(frozen=True)
class AskedPairs:
    """All pairs of a note and a code that some prompts asked about.

    Attributes:
        notes: (pairs,) numbers of notes, as in the rows' `label_notes`.
        codes: (pairs,) positions in the code set, as in their `label_codes`.
        scores: (pairs,) float32.
        labels: (pairs,) of 0 and 1.
    """

    notes: np.ndarray
    codes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def from_prediction(cls, prediction: EvalPrediction) -> AskedPairs:
        """Read a prediction of the Trainer for rows of [`prompt_rows`].

        Args:
            prediction: its `label_ids` are those of `LABEL_NAMES`, in this order. With
                `eval_do_concat_batches=False` everything is a list of batches.

        Raises:
            ValueError: labels without notes and codes, or a pair that was asked about twice.
        """
        parts = [[], [], [], []]
        for scores, label_ids in _batches(prediction):
            if not isinstance(label_ids, tuple) or len(label_ids) != len(LABEL_NAMES):
                raise ValueError(
                    "prediction has labels without the notes and codes that they belong to; pass "
                    f"TrainingArguments(label_names={list(LABEL_NAMES)}) where the Trainer cannot see the model's "
                    "arguments, as with adapters, and rows of prompt_rows."
                )
            labels, notes, codes = map(np.asarray, label_ids)
            is_asked = labels != -100
            if (notes < 0).any() or (codes[is_asked] < 0).any():
                raise ValueError(
                    f"The rows lack {' and '.join(LABEL_NAMES[1:])}, which say what they ask; evaluate rows of "
                    "prompt_rows."
                )
            notes = np.broadcast_to(notes[:, None], labels.shape)
            for part, values in zip(parts, (notes, codes, scores, labels), strict=True):
                part.append(values[is_asked])
        notes, codes, scores, labels = (np.concatenate(part) for part in parts)
        pairs = cls(notes, codes, scores.astype(np.float32), labels.astype(int))
        pairs._check_once()
        return pairs

    def _check_once(self) -> None:
        # A number for each pair: unique rows of two would take ten times as long.
        num_codes = int(self.codes.max(initial=0)) + 1
        pairs, counts = np.unique(self.notes * num_codes + self.codes, return_counts=True)
        repeated = pairs[counts > 1]
        if len(repeated):
            note, code = divmod(int(repeated[0]), num_codes)
            raise ValueError(
                f"The rows ask {len(repeated)} times about a code of a note again, first about code {code} of note "
                f"{note} (counted from 0); evaluate rows of one call of prompt_rows, without draws."
            )

    def of_notes(self, first: int, last: int) -> AskedPairs:
        """The pairs of the notes from number `first` to before `last`."""
        wanted = (self.notes >= first) & (self.notes < last)
        return AskedPairs(self.notes[wanted], self.codes[wanted], self.scores[wanted], self.labels[wanted])

    def matrices(self, num_codes: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels, `(notes, num_codes)` each, in the order of the notes' numbers.

        Raises:
            ValueError: a note that was not asked about all codes, or a code that is none of them.
        """
        if self.codes.max(initial=0) >= num_codes:
            raise ValueError(
                f"The rows ask about code {self.codes.max()} (counted from 0), and there are {num_codes}; pass the "
                "processor that made them."
            )
        numbers, rows = np.unique(self.notes, return_inverse=True)
        asked = np.bincount(rows, minlength=len(numbers))
        if (asked != num_codes).any():
            note = int((asked != num_codes).argmax())
            raise ValueError(
                f"Note {numbers[note]} (counted from 0) was asked about {asked[note]} codes of {num_codes}; evaluate "
                "rows that ask about all codes: all rows of prompt_rows(notes, processor), without sampled_codes."
            )
        scores = np.empty((len(numbers), num_codes), dtype=np.float32)
        labels = np.empty((len(numbers), num_codes), dtype=int)
        scores[rows, self.codes], labels[rows, self.codes] = self.scores, self.labels
        return scores, labels

    def loss(self) -> float:
        """Mean binary cross entropy of the scores, over all pairs.

        The Trainer's own mean is one of batches: it changes with their size where prompts ask about different numbers
        of codes.
        """
        scores = self.scores.astype(np.float64)
        return float((np.logaddexp(0, scores) - self.labels * scores).mean())


def scores_and_labels(prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a model that scores all codes of a note at once: `(notes, codes)` each, as the Trainer took
    the notes."""
    scores, labels = zip(*_batches(prediction), strict=True)
    return np.concatenate(scores), np.concatenate(labels).astype(int)


def _batches(prediction: EvalPrediction) -> Iterator[tuple[np.ndarray, object]]:
    """Scores and label ids, of each batch where the Trainer did not put them together."""
    predictions, label_ids = prediction.predictions, prediction.label_ids
    if not isinstance(predictions, list):
        predictions, label_ids = [predictions], [label_ids]
    for output, labels in zip(predictions, label_ids, strict=True):
        # Behind the scores stand further outputs of the model, such as its hidden states.
        yield np.asarray(output[0] if isinstance(output, tuple) else output), labels
