"""The second stage: KEPT scores the candidates of a first stage again, and both stages are fused.

With prompts the candidates of a note are scored in groups, each in a prompt of its own before the note. With late
interaction each note is encoded once for all its candidates, and each code's names once for all notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm.auto import tqdm

from .candidates.candidates import Candidates, in_code_set
from .candidates.fusion import AlignedScores, scale_of
from .candidates.kept import KeptFirstStage
from .candidates.scoring import TruncationCount, check_notes, encoded_codes, evaluation, longest_first
from .metrics import icd_metrics, micro_precision_recall_curve
from .models.caches import CodeCache
from .models.code_systems import Spellings
from .models.processing_kept import KeptProcessor

__all__ = [
    "FUSION_METRICS",
    "GROUP_SIZE",
    "Candidates",
    "Fusion",
    "Proposals",
    "fuse",
    "in_code_set",
    "label_matrix",
    "mixed_order",
    "published_fill",
    "rerank",
    "rerank_all",
    "tune_fusion",
]

# An alias for code that knows the class by this name.
Proposals = Candidates

GROUP_SIZE = 50
"""Candidates of a prompt, as published."""

FUSION_METRICS = ("f1_micro", "map")
"""What `tune_fusion` can maximise: micro-F1 at its best threshold, or the mean average precision."""


def mixed_order(codes: Iterable[str]) -> list[str]:
    """The order of the candidates in the prompts: that of a hash of each code.

    In the joint layout the score of a code depends on the other codes of its prompt. This order depends on the set of
    candidates alone, so that their scores do not depend on the ranks that the first stage gave them. It mixes the codes
    as the shuffled groups in training do. Sorted codes or ranks would put siblings, or all the likely codes, into one
    group.

    Examples:
        >>> mixed_order(["401.9", "038.9", "584.9"]) == mixed_order(["584.9", "401.9", "038.9"])
        True
    """
    return sorted(codes, key=lambda code: hashlib.sha256(code.encode()).digest())


def published_fill(scores: np.ndarray) -> float:
    """The score of a code that is no candidate: the lowest score minus 1, and -26 at most.

    Args:
        scores: all scores of a stage, such as `Candidates.scores`; minus infinity stands for none.

    Source: public code of Yang et al., Findings of EMNLP 2022 (branch rerank300).

    Examples:
        >>> published_fill(np.array([[0.5, -30.0], [2.0, -np.inf]])), published_fill(np.array([[0.5]]))
        (-31.0, -26.0)
    """
    return float(np.min(scores, where=scores > -np.inf, initial=-25)) - 1


def rerank(
    model,
    processor: KeptProcessor,
    notes: Sequence[str],
    proposals: Candidates,
    group_size: int = GROUP_SIZE,
    batch_size: int = 8,
    code_cache: CodeCache | None = None,
    skip_unknown: bool = False,
    progress: bool = False,
) -> Candidates:
    """Score the candidates of each note with a KEPT model.

    Gold codes that are no candidates get no score, so that the result can be evaluated. A note is tokenized once.
    Memory grows with the batch; besides, there are two arrays of the size of the candidates.

    Args:
        model: a `KeptLongformerForICDPrompting` or `KeptLongformerForICDMatching`, on the device where it is to run.
        processor: its processor; its code set has the candidates.
        notes: the texts, in the order of the candidates.
        proposals: the candidates of the first stage; `proposals.top(50)` scores fewer. Their scores do not matter here.
        group_size: candidates of a prompt. [`mixed_order`] decides which of them share one.
        batch_size: prompts at a time; those of one note follow each other. With late interaction notes are scored one
            by one, each with all its candidates.
        code_cache: for late interaction: the encoded names of at least all candidates. By default they are encoded
            here, once.
        skip_unknown: omit candidates that the code set does not have; a warning counts them.
        progress: show a bar.

    Returns:
        The same candidates with the model's scores, best first. Codes are those of the processor's code set.

    Raises:
        ValueError: a processor that does not fit the model, another number of notes than of rows of candidates,
            candidates that the code set does not have, a `group_size` or `batch_size` below 1, a `code_cache` for a
            model of prompts or with other names (`StaleCacheError`).
        TypeError: `notes` is one string.

    Source: Yang et al., Findings of EMNLP 2022, section 3.3 (arXiv 2210.03304): groups of 50.

    Examples:
        >>> reranked = rerank(model, processor, test["text"], candidates.top(300))  # doctest: +SKIP
        >>> matrix = reranked.scores_matrix(published_fill(reranked.scores))  # doctest: +SKIP
    """
    check_notes(notes, group_size=group_size, batch_size=batch_size)
    processor.check_model(model)
    if len(notes) != len(proposals):
        raise ValueError(f"notes has {len(notes)} texts and proposals {len(proposals)} rows; pass the same notes.")
    is_isolated = processor.prompt_layout == "isolated"
    if code_cache is not None and not is_isolated:
        raise ValueError("code_cache with prompt_layout='joint': names are part of the prompt; pass None.")
    code_set = processor.code_set
    candidates = in_code_set(proposals, code_set, skip_unknown)
    scores = np.full(candidates.scores.shape, -np.inf, dtype=np.float32)
    indices = np.full(candidates.indices.shape, -1, dtype=np.int32)

    def codes_by_note() -> Iterator[tuple[int, list[str]]]:
        for note in tqdm(longest_first(notes), "Notes", disable=not progress):
            if codes := mixed_order(candidates.codes_of(note)):
                indices[note, : len(codes)] = [code_set.index(code) for code in codes]
                yield note, codes

    with evaluation(model), TruncationCount(processor.max_length) as truncated:
        if is_isolated:
            wanted = [code_set.codes[index] for index in np.unique(candidates.indices) if index >= 0]
            cache = encoded_codes(model, processor, wanted, code_cache) if wanted else None
            found = _score_isolated(model, processor, notes, codes_by_note(), cache, truncated)
        else:
            found = _score_joint(model, processor, notes, codes_by_note(), group_size, batch_size, truncated)
        for note, start, values in found:
            scores[note, start : start + len(values)] = values
    # Of equal scores the first in the code set wins, as everywhere.
    order = np.lexsort((indices, -scores), axis=1)
    indices, scores = (np.take_along_axis(array, order, axis=1) for array in (indices, scores))
    return Candidates(code_set.codes, indices, scores, candidates.note_ids)


def rerank_all(
    model,
    processor: KeptProcessor,
    notes: Sequence[str],
    top_k: int = 300,
    batch_size: int = 4,
    code_cache: CodeCache | None = None,
    note_ids: Sequence[str] | None = None,
    progress: bool = False,
) -> Candidates:
    """Score all codes for each note by late interaction, without a first stage; keep the best.

    A [`kept_hf.candidates.kept.KeptFirstStage`] as one function.

    Args:
        model, processor, notes, code_cache, progress: as for [`rerank`]; the cache has all codes of the code set.
        top_k: number of codes of a note to keep.
        batch_size: notes at a time.
        note_ids: ids of the notes, in their order.

    Returns:
        The best codes of each note: candidates like those of other first stages.

    Raises:
        ValueError: a model of prompts, a `top_k` or `batch_size` below 1.
        TypeError: `notes` is one string.
    """
    stage = KeptFirstStage(model, processor, batch_size, code_cache, progress)
    return replace(stage.propose(notes, top_k), note_ids=note_ids)


@dataclass(frozen=True)
class Fusion:
    """How the scores of two stages are added: each is standardised, then weighted. [`tune_fusion`] finds it.

    Attributes:
        weight: of the second stage, from 0 to 1; the first has the rest.
        means, scales: of the scores of each stage, by which they are standardised.
    """

    weight: float
    means: tuple[float, float]
    scales: tuple[float, float]


def fuse(first: Candidates, second: Candidates, fusion: Fusion) -> Candidates:
    """Rank candidates by the scores of both stages.

    Args:
        first: of the first stage.
        second: the same candidates with other scores: what [`rerank`] made of the first.
        fusion: the weights.

    Raises:
        ValueError: they have different notes, codes or candidates.

    Examples:
        >>> first = Candidates.from_scores([[3.0, 2.0, 0.0]], ["I10", "R05", "R50.9"], 2)
        >>> second = Candidates.from_scores([[-1.0, 5.0, -np.inf]], ["I10", "R05", "R50.9"], 2)
        >>> fuse(first, second, Fusion(0.25, means=(0.0, 0.0), scales=(1.0, 1.0))).scores.tolist()
        [[2.75, 2.0]]
    """
    aligned = _aligned(first, second).standardised(fusion.means, fusion.scales)
    return aligned.fuse((1 - fusion.weight, fusion.weight))


def tune_fusion(
    first: Candidates,
    second: Candidates,
    gold: Sequence[Iterable[str]],
    metric: str = "f1_micro",
    weights: Sequence[float] = tuple(np.linspace(0, 1, 21)),
) -> Fusion:
    """Find the weight with the best metric, on validation notes. On the notes of the evaluation it would overfit.

    Args:
        first, second: as for [`fuse`].
        gold: for each note its gold codes; those that are no candidates count as missed.
        metric: one of `FUSION_METRICS`.
        weights: of the second stage, to choose from; the first of the best wins.

    Raises:
        ValueError: an unknown metric, other notes in one of the arguments, no gold code, or weights outside 0 … 1.
    """
    if metric not in FUSION_METRICS:
        raise ValueError(f"metric={metric!r} is unknown; pass one of {', '.join(FUSION_METRICS)}.")
    labels = label_matrix(gold, second.codes)
    if len(labels) != len(second) or not labels.any():
        raise ValueError(
            f"gold has {len(labels)} notes with {labels.sum()} codes, and second {len(second)} notes; pass the gold "
            "codes of the same notes."
        )
    if not len(weights) or not all(0 <= weight <= 1 for weight in weights):
        raise ValueError(f"weights={tuple(weights)}; pass numbers from 0 (first alone) to 1 (second alone).")
    aligned = _aligned(first, second)
    is_candidate = aligned.indices >= 0
    scores = [aligned.values[:, :, stage][is_candidate].astype(np.float64) for stage in range(2)]
    means = tuple(float(values.mean()) if values.size else 0.0 for values in scores)
    scales = tuple(float(scale_of(values)) for values in scores)

    def quality(fused: Candidates) -> float:
        matrix = fused.scores_matrix(-np.inf)
        if metric == "map":
            return icd_metrics(matrix, labels, ks=(), threshold=0.0)["map"]
        precision, recall, _ = micro_precision_recall_curve(matrix, labels)
        return float((2 * precision * recall / (precision + recall)).max(initial=0))

    grid = [(1 - float(weight), float(weight)) for weight in weights]
    _, best = aligned.standardised(means, scales).tune(grid, quality)
    return Fusion(best, means, scales)


def label_matrix(gold: Sequence[Iterable[str]], codes: Sequence[str]) -> np.ndarray:
    """`(notes, codes)` int8, 1 where a code is gold. Large: for metrics, not for storage.

    Gold codes in another spelling are found, as by `ICDCodeSet.find`.

    Raises:
        ValueError: a gold code that is not among the codes. Ignoring it would make every metric too high.

    Examples:
        >>> label_matrix([["R05"], []], ["I10", "R05"]).tolist()
        [[0, 1], [0, 0]]
    """
    positions, spellings = {code: index for index, code in enumerate(codes)}, Spellings(codes)
    labels = np.zeros((len(gold), len(positions)), dtype=np.int8)
    for note, gold_codes in enumerate(gold):
        for code in gold_codes:
            if (found := spellings.find(code)) is None:
                raise ValueError(f"gold has {code!r} in note {note}, not one of the {len(positions)} codes.")
            labels[note, positions[found]] = 1
    return labels


def _score_joint(
    model,
    processor: KeptProcessor,
    notes: Sequence[str],
    codes_by_note: Iterable[tuple[int, list[str]]],
    group_size: int,
    batch_size: int,
    truncated: TruncationCount,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Note, position of the group's first code, scores of the group: for each group of each note."""
    grouping = processor.for_codes(processor.code_set, group_size)
    groups, rows = [], []

    def score_batch() -> Iterator[tuple[int, int, np.ndarray]]:
        inputs = {name: values.to(model.device) for name, values in grouping.pad(rows).items()}
        logits = model(**inputs).logits.float().cpu().numpy()
        for (note, start, number), values in zip(groups, logits, strict=True):
            yield note, start, values[:number]
        groups.clear()
        rows.clear()

    for note, codes in codes_by_note:
        features = grouping([notes[note]], codes=[codes], return_cut=True)
        truncated.add(features.pop("cut"))
        for number in range(len(features["input_ids"])):
            start = number * group_size
            groups.append((note, start, min(group_size, len(codes) - start)))
            rows.append({name: values[number] for name, values in features.items()})
            if len(rows) == batch_size:
                yield from score_batch()
    if rows:
        yield from score_batch()


def _score_isolated(
    model,
    processor: KeptProcessor,
    notes: Sequence[str],
    codes_by_note: Iterable[tuple[int, list[str]]],
    cache: CodeCache | None,
    truncated: TruncationCount,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Note, 0, scores of all its codes."""
    for note, codes in codes_by_note:
        features = processor([notes[note]], codes=[codes], return_cut=True)
        truncated.add(features["cut"])
        states = model.encode_note(torch.tensor(features["input_ids"], device=model.device))
        yield note, 0, model.score(states, cache, codes)[0].float().cpu().numpy()


def _aligned(first: Candidates, second: Candidates) -> AlignedScores:
    """The scores of both stages, which must have the same candidates."""
    if first.codes != second.codes or len(first) != len(second):
        raise ValueError(
            f"first has {len(first)} notes and {len(first.codes)} codes, second {len(second)} and "
            f"{len(second.codes)}; pass candidates of the same notes and codes."
        )
    if first.note_ids is not None and second.note_ids is not None and first.note_ids != second.note_ids:
        raise ValueError("first and second have different note_ids; bring them into one order with for_notes.")
    aligned = AlignedScores.of_scores([first, second])
    numbers = (aligned.indices >= 0).sum(axis=1)
    differs = (first.num_candidates != numbers) | (second.num_candidates != numbers)
    if differs.any():
        raise ValueError(
            f"first and second have other candidates, first in note {int(differs.argmax())}; pass the candidates that "
            "were scored again: first.top(k), in_code_set(first, code_set, skip_unknown=True)."
        )
    return aligned
