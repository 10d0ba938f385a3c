"""The second stage: KEPT scores the candidates of a first stage anew, or all codes without one; and both stages fused.

In the joint layout the candidates of a note are asked in groups, each in a prompt of its own before the note. In the
isolated layout the note is read once for all of them, and every code's description once for all notes.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm.auto import tqdm

from .candidates.candidates import Candidates
from .metrics import icd_metrics, micro_precision_recall_curve
from .models.caches import CodeCache
from .models.code_set import ICDCodeSet
from .models.processing_kept import TRUNCATION_MESSAGE, KeptProcessor

logger = logging.getLogger(__name__)

GROUP_SIZE = 50
"""Candidates of a prompt, as published."""

FUSION_METRICS = ("f1_micro", "map")
"""What `tune_fusion` can maximise: micro-F1 at its best threshold, or the mean average precision."""


def mixed_order(codes: Iterable[str]) -> list[str]:
    """The order in which candidates are asked: that of a hash of each code.

    In the joint layout the score of a code depends on those that share its prompt. This order is a function of the set
    of candidates alone, so that the scores do not depend on the order in which they were proposed. It mixes the codes
    as the shuffled groups of the training do; sorted codes or ranks would put siblings, or all the likely codes, into
    one group.

    Examples:
        >>> mixed_order(["401.9", "038.9", "584.9"]) == mixed_order(["584.9", "401.9", "038.9"])
        True
    """
    return sorted(codes, key=lambda code: hashlib.sha256(code.encode()).digest())


def in_code_set(proposals: Candidates, code_set: ICDCodeSet, skip_unknown: bool = False) -> Candidates:
    """The same candidates, numbered as in another code set.

    Args:
        proposals: of any codes.
        code_set: that of the second stage.
        skip_unknown: leave out candidates that it lacks; a warning counts them.

    Raises:
        ValueError: without `skip_unknown`, candidates that the code set lacks.

    Examples:
        >>> proposals = Candidates.from_scores([[0.5, 2.0, 1.0]], ["I10", "R05", "R50.9"], 2)
        >>> in_code_set(proposals, ICDCodeSet(["R50.9", "R05"])).indices.tolist()
        [[1, 0]]
    """
    if proposals.codes == code_set.codes:
        return proposals
    places = [code_set.index(code) if code in code_set else -1 for code in proposals.codes]
    # What fills rows up, -1, takes the last.
    indices, scores = np.array([*places, -1], dtype=np.int32)[proposals.indices], proposals.scores
    unknown = (indices < 0) & (proposals.indices >= 0)
    if unknown.any():
        names = [proposals.codes[index] for index in np.unique(proposals.indices[unknown])]
        if not skip_unknown:
            raise ValueError(
                f"proposals has {', '.join(map(repr, names[:5]))} ({len(names)} codes in all), not among the "
                f"{len(code_set)} codes of the code set; propose from that code set, or pass skip_unknown=True."
            )
        logger.warning("%d candidates (%d codes) are not in the code set: left out.", unknown.sum(), len(names))
        known_first = np.argsort(indices < 0, axis=1, kind="stable")
        scores = np.take_along_axis(np.where(unknown, -np.inf, scores), known_first, axis=1)
        indices = np.take_along_axis(indices, known_first, axis=1)
    return Candidates(code_set.codes, indices, scores, proposals.note_ids)


def published_fill(scores: np.ndarray) -> float:
    """The score of a code that was never proposed: one below the lowest score, or below -25.

    Args:
        scores: all that were given, such as `Candidates.scores`; minus infinity stands for none.

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

    Gold codes that were not proposed stay unscored, so that what comes out can be evaluated. A note is tokenized once.
    Memory grows with the batch, beside two arrays of the size of the proposals.

    Args:
        model: a `KeptLongformerForICDPrompting`, or another model that is asked as it is, on the device where it is to
            run.
        processor: its processor; its code set has the candidates.
        notes: the texts, in the order of the proposals.
        proposals: of the first stage; `proposals.top(50)` scores fewer. Only which codes they are matters here.
        group_size: joint layout: candidates of a prompt. [`mixed_order`] decides which share one.
        batch_size: joint layout: prompts at a time; those of one note come together. In the isolated layout notes go
            through one by one, each with all its candidates.
        code_cache: isolated layout: the encoded descriptions of at least all candidates. By default they are encoded
            here, once.
        skip_unknown: leave out candidates that the code set lacks; a warning counts them.
        progress: show a bar.

    Returns:
        The same candidates with the model's scores, best first. Codes are those of the processor's code set.

    Raises:
        ValueError: another number of notes than of proposals, candidates that the code set lacks, a `group_size` or
            `batch_size` below 1, a `code_cache` in the joint layout or of other descriptions (`StaleCacheError`).
        TypeError: `notes` is one string.

    Source: Yang et al., Findings of EMNLP 2022, section 3.3 (arXiv 2210.03304): groups of 50.

    Examples:
        >>> reranked = rerank(model, processor, test["text"], proposals.top(300))  # doctest: +SKIP
        >>> matrix = reranked.scores_matrix(published_fill(reranked.scores))  # doctest: +SKIP
    """
    for name, value in (("group_size", group_size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")
    _check_notes(notes)
    if len(notes) != len(proposals):
        raise ValueError(f"notes has {len(notes)} texts and proposals {len(proposals)} rows; pass the same notes.")
    is_isolated = processor.prompt_layout == "isolated"
    if code_cache is not None and not is_isolated:
        raise ValueError("code_cache with prompt_layout='joint': descriptions stand in the prompt there; pass None.")
    code_set = processor.code_set
    proposals = in_code_set(proposals, code_set, skip_unknown)
    scores = np.full(proposals.scores.shape, -np.inf, dtype=np.float32)
    indices = np.full(proposals.indices.shape, -1, dtype=np.int32)

    def asked_of_notes() -> Iterator[tuple[int, list[str]]]:
        """Long notes first, so that one that is too long for the memory is known at once."""
        for note in tqdm(_by_length(notes)[::-1], "Notes", disable=not progress):
            if asked := mixed_order(proposals.codes_of(note)):
                indices[note, : len(asked)] = [code_set.index(code) for code in asked]
                yield note, asked

    with _evaluation(model):
        if is_isolated:
            wanted = [code_set.codes[index] for index in np.unique(proposals.indices) if index >= 0]
            if wanted:
                cache = _cache_of(model, processor, wanted, code_cache)
                _score_isolated(model, processor, notes, asked_of_notes(), cache, scores)
        else:
            _score_joint(model, processor, notes, asked_of_notes(), group_size, batch_size, scores)
    # Of equal scores the first in the code set wins, as everywhere.
    order = np.lexsort((indices, -scores), axis=1)
    indices, scores = (np.take_along_axis(array, order, axis=1) for array in (indices, scores))
    return Candidates(code_set.codes, indices, scores, proposals.note_ids)


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
    """Score all codes for each note, without a first stage, in the isolated layout; keep the best.

    Args:
        model, processor, notes, code_cache, progress: as for [`rerank`]; the cache has all codes of the code set.
        top_k: how many codes of a note to keep.
        batch_size: notes at a time.
        note_ids: of the notes, in their order.

    Returns:
        The best codes of each note: proposals like those of a first stage.

    Raises:
        ValueError: the joint layout, a `top_k` or `batch_size` below 1.
        TypeError: `notes` is one string.
    """
    if processor.prompt_layout != "isolated":
        raise ValueError(
            f"prompt_layout={processor.prompt_layout!r}: each group of codes would take a pass over each note; pass "
            "proposals to rerank(...), or take a model of the isolated layout."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is less than 1; pass 1 or more.")
    _check_notes(notes)
    codes = processor.code_set.codes
    order, parts = _by_length(notes)[::-1], []
    if not order:
        return Candidates.from_scores(np.zeros((0, len(codes))), codes, top_k, note_ids)
    with _evaluation(model), _CutNotes(processor.max_length) as cuts:
        cache = _cache_of(model, processor, codes, code_cache)
        for start in tqdm(range(0, len(order), batch_size), "Notes", disable=not progress):
            # The codes are all of the cache: the rows ask about one only, for their indices are not needed.
            texts = [notes[note] for note in order[start : start + batch_size]]
            batch = processor(texts, codes=[codes[:1]] * len(texts), return_tensors="pt", return_cut=True)
            cuts.add(batch["cut"].tolist())
            inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            scores = model.score(model.encode_note(**inputs), cache, codes)
            parts.append(Candidates.from_scores(scores.float().cpu().numpy(), codes, top_k))
    return replace(Candidates.concatenate(parts).take(np.argsort(order)), note_ids=note_ids)


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
        second: the same candidates, scored anew: what [`rerank`] made of the first.
        fusion: the weights.

    Raises:
        ValueError: other notes, codes or candidates in one of them.

    Examples:
        >>> first = Candidates.from_scores([[3.0, 2.0, 0.0]], ["I10", "R05", "R50.9"], 2)
        >>> second = Candidates.from_scores([[-1.0, 5.0, -np.inf]], ["I10", "R05", "R50.9"], 2)
        >>> fuse(first, second, Fusion(0.25, means=(0.0, 0.0), scales=(1.0, 1.0))).scores.tolist()
        [[2.75, 2.0]]
    """
    indices, scores = _paired(first, second)
    mixed = np.zeros(indices.shape)
    shares = (1 - fusion.weight, fusion.weight)
    for of_stage, share, mean, scale in zip(scores, shares, fusion.means, fusion.scales, strict=True):
        mixed += share * (of_stage - mean) / scale
    mixed = np.where(indices >= 0, mixed, -np.inf).astype(np.float32)
    order = np.lexsort((indices, -mixed), axis=1)
    indices, mixed = (np.take_along_axis(array, order, axis=1) for array in (indices, mixed))
    return Candidates(second.codes, indices, mixed, second.note_ids)


def tune_fusion(
    first: Candidates,
    second: Candidates,
    gold: Sequence[Iterable[str]],
    metric: str = "f1_micro",
    weights: Sequence[float] = tuple(np.linspace(0, 1, 21)),
) -> Fusion:
    """Find the weight with the best metric. On validation notes: on those that are judged it would be too good.

    Args:
        first, second: as for [`fuse`].
        gold: for each note its gold codes; those that were not proposed count as missed.
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
            f"gold has {len(labels)} notes with {labels.sum()} codes for {len(second)} notes of the proposals; pass "
            "the gold codes of the same notes."
        )
    if not len(weights) or not all(0 <= weight <= 1 for weight in weights):
        raise ValueError(f"weights={tuple(weights)}; pass numbers from 0 (first alone) to 1 (second alone).")
    indices, scores = _paired(first, second)
    known = [of_stage[indices >= 0] for of_stage in scores]
    means = tuple(float(values.mean()) if values.size else 0.0 for values in known)
    # Scores that are all equal say nothing, whatever they are divided by.
    scales = tuple(float(values.std()) if values.size and values.std() > 0 else 1.0 for values in known)

    def value_of(fusion: Fusion) -> float:
        matrix = fuse(first, second, fusion).scores_matrix(-np.inf)
        if metric == "map":
            return icd_metrics(matrix, labels, ks=())["map"]
        precision, recall, _ = micro_precision_recall_curve(matrix, labels)
        return float((2 * precision * recall / (precision + recall)).max(initial=0))

    return max((Fusion(float(weight), means, scales) for weight in weights), key=value_of)


def label_matrix(gold: Sequence[Iterable[str]], codes: Sequence[str]) -> np.ndarray:
    """`(notes, codes)` int8, 1 where a code is gold. Large: for metrics, not for storage.

    Raises:
        ValueError: a gold code that is not among the codes: left out, it would embellish every figure.

    Examples:
        >>> label_matrix([["R05"], []], ["I10", "R05"]).tolist()
        [[0, 1], [0, 0]]
    """
    place = {code: index for index, code in enumerate(codes)}
    labels = np.zeros((len(gold), len(place)), dtype=np.int8)
    for note, of_note in enumerate(gold):
        for code in of_note:
            if code not in place:
                raise ValueError(f"gold has {code!r} in note {note}, not one of the {len(place)} codes.")
            labels[note, place[code]] = 1
    return labels


def _by_length(notes: Sequence[str]) -> list[int]:
    lengths = [len(text) for text in notes]
    return sorted(range(len(lengths)), key=lengths.__getitem__)


@contextmanager
def _evaluation(model):
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class _CutNotes:
    """Counts how notes were cut, to say it once."""

    def __init__(self, max_length: int):
        self.max_length, self.counts = max_length, [0, 0, 0]

    def __enter__(self):
        return self

    def add(self, cuts: Iterable[int]) -> None:
        for cut in cuts:
            self.counts[cut] += 1

    def __exit__(self, *error) -> None:
        if any(self.counts[1:]):
            truncated, total = sum(self.counts[1:]), sum(self.counts)
            logger.warning(TRUNCATION_MESSAGE, truncated, total, self.max_length, *self.counts[1:])


def _score_joint(model, processor, notes, asked_of_notes, group_size: int, batch_size: int, scores: np.ndarray) -> None:
    asker = copy.copy(processor)
    asker.codes_per_prompt = group_size
    places, rows = [], []

    def score_rows() -> None:
        inputs = {name: values.to(model.device) for name, values in asker.pad(rows).items()}
        for (note, start, number), logits in zip(places, model(**inputs).logits.float().cpu().numpy(), strict=True):
            scores[note, start : start + number] = logits[:number]
        places.clear()
        rows.clear()

    with _CutNotes(processor.max_length) as cuts:
        for note, asked in asked_of_notes:
            features = asker([notes[note]], codes=[asked], return_cut=True)
            cuts.add(features.pop("cut"))
            for number in range(len(features["input_ids"])):
                start = number * group_size
                places.append((note, start, min(group_size, len(asked) - start)))
                rows.append({name: values[number] for name, values in features.items()})
                if len(rows) == batch_size:
                    score_rows()
        if rows:
            score_rows()


def _score_isolated(model, processor, notes, asked_of_notes, cache: CodeCache, scores: np.ndarray) -> None:
    with _CutNotes(processor.max_length) as cuts:
        for note, asked in asked_of_notes:
            features = processor([notes[note]], codes=[asked], return_cut=True)
            cuts.add(features["cut"])
            states = model.encode_note(torch.tensor(features["input_ids"], device=model.device))
            scores[note, : len(asked)] = model.score(states, cache, asked)[0].float().cpu().numpy()


def _cache_of(model, processor, codes: Sequence[str], cache: CodeCache | None) -> CodeCache:
    blocks = processor.code_blocks(codes)
    if cache is None:
        return model.encode_codes(blocks)
    cache.rows_of(blocks)  # compares the descriptions, once
    return cache


def _check_notes(notes: Sequence[str]) -> None:
    if isinstance(notes, str):
        raise TypeError("notes is one string; pass a list of notes.")


def _paired(first: Candidates, second: Candidates) -> tuple[np.ndarray, list[np.ndarray]]:
    """The candidates of each note in the order of the codes, and the scores of both stages, 0 where there is none."""
    if first.codes != second.codes or len(first) != len(second):
        raise ValueError(
            f"first has {len(first)} notes and {len(first.codes)} codes, second {len(second)} and "
            f"{len(second.codes)}; pass proposals for the same notes, of the same codes."
        )
    if first.note_ids is not None and second.note_ids is not None and first.note_ids != second.note_ids:
        raise ValueError(
            "first and second have other note_ids, or in another order; bring them into one order with for_notes."
        )
    # Of rows with as many candidates as the fullest one.
    width = max((int(proposals.num_candidates.max(initial=0)) for proposals in (first, second)), default=0)
    indices, scores = [], []
    for proposals in (first, second):
        width_of_one = proposals.top_k
        padding = ((0, 0), (0, max(width - width_of_one, 0)))
        places = np.pad(proposals.indices, padding, constant_values=-1)[:, :width]
        values = np.pad(proposals.scores, padding, constant_values=-np.inf)[:, :width]
        order = np.argsort(places, axis=1, kind="stable")
        indices.append(np.take_along_axis(places, order, axis=1))
        scores.append(np.where(indices[-1] >= 0, np.take_along_axis(values, order, axis=1), 0).astype(np.float64))
    if (indices[0] != indices[1]).any():
        note = int((indices[0] != indices[1]).any(axis=1).nonzero()[0][0])
        raise ValueError(
            f"first and second have other candidates, first in note {note}; pass the proposals that were scored anew: "
            "first.top(k), in_code_set(first, code_set, skip_unknown=True)."
        )
    return indices[0], scores
