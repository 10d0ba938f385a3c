"""Rows for the stock Trainer: notes as prompts about all codes, or about candidates of their own."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ..candidates.candidates import Candidates
from ..models.processing_kept import TRUNCATION_MESSAGE, KeptProcessor
from ..models.prompting import sample_codes
from ..reranking import in_code_set, label_matrix, mixed_order, published_fill
from .gold import respell_gold, restrict_gold
from .merging import AskedPairs

logger = logging.getLogger(__name__)


def prompt_rows(
    notes: Dataset,
    processor: KeptProcessor,
    sampled_codes: int | None = None,
    draws: int = 1,
    seed: int = 0,
    proposals: Candidates | None = None,
    hard_negatives: float = 0.5,
    add_gold: bool = True,
) -> Dataset:
    """Turn notes into rows for the Trainer.

    Gold codes are found in the spelling of the code set; see [`kept_hf.training.gold.restrict_gold`], which says what
    becomes of others.

    Args:
        notes: columns `text` and `codes`; with a column `asked`, each note is asked about these codes.
        processor: its code set is the task.
        sampled_codes: for training: ask a random part of the codes, this many, all gold codes among them. (Of more gold
            codes than that the joint layout asks a random part, the isolated layout all.) By default every code of the
            code set is asked, in the processor's groups.
        draws: rows per note with `sampled_codes`, sets of groups with `proposals` alone; the codes of each are drawn
            or shuffled again.
        seed: of the draws.
        proposals: for training: candidates of a first stage for these notes, or for more of them, then with `note_ids`
            as in the column `note_id`. With `sampled_codes` hard negatives come from them. Without, the candidates are
            shuffled and asked in groups of `processor.codes_per_prompt`, as published; in the isolated layout all in
            one row. For evaluation see [`CandidatePrompts`].
        hard_negatives: see [`kept_hf.models.prompting.sample_codes`].
        add_gold: without `sampled_codes`: also ask about gold codes that are not among the candidates. The published
            training does not.

    Returns:
        Rows with the model's inputs, `labels` and `length`, in the order of the notes; with `label_notes`, the number
        of the row's note, and `label_codes`, the positions in the code set of the codes that it asks about. How many
        notes were truncated is logged.

        In the isolated layout a row that asks about all codes does not list them: its `label_codes` and `code_indices`
        are empty, and its `labels` are the positions of the gold codes; [`DataCollatorForICDPrompting`] writes them
        out.

    Raises:
        TypeError: `notes` is no dataset of one split.
        ValueError: no notes, notes without texts or codes, codes that are no list of text or most of which are not in
            the code set, or proposals that do not fit the notes.
    """
    _check_notes(notes)
    codes = list(processor.code_set) if processor.code_set is not None else []
    is_isolated = processor.prompt_layout == "isolated"
    if codes:
        notes = restrict_gold(notes, processor.code_set, is_training=True)
    if proposals is not None:
        proposals = in_code_set(_for_notes(proposals, notes), processor.code_set)

    def codes_to_ask(gold: Sequence[str], index: int, draw: int) -> list[str]:
        generator = random.Random(f"{seed} {index} {draw}")
        proposed = () if proposals is None else proposals.codes_of(index)
        if sampled_codes is not None:
            # In the isolated layout a further code costs little, and in-batch negatives rely on all gold codes.
            number = max(sampled_codes, len(set(gold))) if is_isolated else sampled_codes
            return sample_codes(gold, codes, number, generator, proposed, hard_negatives)
        missed = [code for code in gold if code in processor.code_set] if add_gold else []
        group = list(dict.fromkeys([*proposed, *missed]))
        generator.shuffle(group)
        return group

    if proposals is not None and sampled_codes is None:
        # A note without candidates has nothing to teach.
        numbers = proposals.num_candidates
        taught = [note for note, gold in enumerate(notes["codes"]) if numbers[note] or codes_to_ask(gold, note, 0)]
        notes, proposals = notes.select(taught), proposals.take(taught)
        if not taught:
            raise ValueError("proposals has no candidate for any of these notes.")

    def rows(batch: dict, indices: Sequence[int]) -> dict:
        texts, gold, asked = batch["text"], batch["codes"], batch.get("asked")
        if sampled_codes is not None or proposals is not None:
            texts, gold = ([value for value in values for _ in range(draws)] for values in (texts, gold))
            positions = [(index, draw) for index in indices for draw in range(draws)]
            asked = [
                codes_to_ask(gold_codes, index, draw) for gold_codes, (index, draw) in zip(gold, positions, strict=True)
            ]
            indices = [index for index, _ in positions]
        features = processor(texts, codes=asked, gold_codes=gold, return_cut=True)
        groups = [processor.code_groups(codes) for codes in asked or [None] * len(texts)]
        label_codes = [[processor.code_set.index(code) for code in group] for of_note in groups for group in of_note]
        if is_isolated and asked is None:
            features["labels"] = [np.flatnonzero(labels) for labels in features["labels"]]
            features["code_indices"] = label_codes = [[] for _ in texts]
        return {
            **_compact({**features, "label_codes": label_codes}, len(codes), has_positions=is_isolated),
            "label_notes": [index for index, of_note in zip(indices, groups, strict=True) for _ in of_note],
            "length": [len(ids) for ids in features["input_ids"]],
        }

    # Other columns may have the names of those that the rows get, such as `labels`.
    notes = notes.select_columns([name for name in ("text", "codes", "asked") if name in notes.column_names])
    result = notes.map(
        rows, batched=True, batch_size=100, with_indices=True, remove_columns=notes.column_names, desc="Prompts"
    )
    cut = np.bincount(result["cut"], minlength=3)
    if cut[1:].any():
        logger.warning(TRUNCATION_MESSAGE, cut[1:].sum(), cut.sum(), processor.max_length, cut[1], cut[2])
    return result.remove_columns("cut")


def _compact(columns: dict, num_codes: int, has_positions: bool) -> dict:
    """Columns with a value for each code in as few bytes as these need: a row may ask about thousands of codes.

    `has_positions`: labels may be positions of codes.
    """
    positions = np.int16 if num_codes <= np.iinfo(np.int16).max else np.int32
    types = {"labels": positions if has_positions else np.int8, "label_codes": positions, "code_indices": positions}
    return {
        name: [np.array(row, types[name]) for row in rows] if name in types else rows for name, rows in columns.items()
    }


def _check_notes(notes: Dataset) -> None:
    if not isinstance(notes, Dataset):
        hint = f", such as notes[{next(iter(notes))!r}]" if isinstance(notes, dict) and notes else ""
        raise TypeError(f"notes is of type {type(notes).__name__}; pass the Dataset of one split{hint}.")
    missing = [name for name in ("text", "codes") if name not in notes.column_names]
    if missing:
        raise ValueError(f"notes has the columns {', '.join(notes.column_names)}; it needs {' and '.join(missing)}.")
    if not len(notes):
        raise ValueError("notes has no rows; choose codes that its split has, or pass another split.")


class CandidatePrompts:
    """Evaluation with the Trainer where the prompts of each note ask about its own candidates.

    Other codes are not asked about, gold or not: they get the published fill value, and count.

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

    def __init__(self, notes: Dataset, processor: KeptProcessor, proposals: Candidates):
        self.code_set = processor.code_set
        proposals = in_code_set(_for_notes(proposals, notes), self.code_set)
        asked = [mixed_order(proposals.codes_of(note)) for note in range(len(notes))]
        notes = respell_gold(notes, self.code_set)
        self.labels = label_matrix(notes["codes"], self.code_set.codes)
        with_candidates = [note for note, codes in enumerate(asked) if codes]
        if not with_candidates:
            raise ValueError("proposals has no candidate for any of these notes.")
        self._is_asked = label_matrix(asked, self.code_set.codes).astype(bool)
        # The rows count the notes that have candidates.
        self._with_candidates = np.array(with_candidates)
        notes = notes.select(with_candidates)
        self.notes = notes.add_column("asked", [asked[note] for note in with_candidates])

    def score_matrix(self, pairs: AskedPairs) -> np.ndarray:
        """The scores of all notes.

        Args:
            pairs: what the rows of `notes` asked, and the scores.

        Returns:
            `(notes, codes)` float32.

        Raises:
            ValueError: pairs of other rows than those of `notes`.
        """
        in_range = len(pairs.notes) and pairs.notes.max() < len(self._with_candidates)
        is_asked = np.zeros_like(self._is_asked)
        if in_range:
            notes = self._with_candidates[pairs.notes]
            is_asked[notes, pairs.codes] = True
        if not in_range or not np.array_equal(is_asked, self._is_asked):
            raise ValueError(
                f"The rows ask about {len(pairs.notes)} pairs of note and candidate, and these prompts about "
                f"{self._is_asked.sum()}; evaluate prompt_rows(candidates.notes, processor), all of them."
            )
        matrix = np.full(self.labels.shape, published_fill(pairs.scores), dtype=np.float32)
        matrix[notes, pairs.codes] = pairs.scores
        return matrix


def _for_notes(proposals: Candidates, notes: Dataset) -> Candidates:
    """The candidates of these notes: by their ids, or by their position where there are none."""
    if proposals.note_ids is not None and "note_id" in notes.column_names:
        return proposals.for_notes(notes["note_id"])
    if len(proposals) != len(notes):
        raise ValueError(
            f"proposals has {len(proposals)} rows for {len(notes)} notes; pass the same notes, or proposals with "
            "note_ids and notes with a column note_id."
        )
    return proposals
