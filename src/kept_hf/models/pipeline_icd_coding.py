"""`pipeline("icd-coding", model=...)`: from notes to codes with their descriptions, scores and probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import logging

from .auto_map import AUTO_CLASSES, PUBLISHED_TOGETHER  # noqa: F401 (all published files travel together)
from .caches import CodeCache
from .code_set import ICDCodeSet
from .loading import check_model_type
from .processing_kept import KeptProcessor

logger = logging.get_logger(__name__)

SORTED_BATCHES = 16
"""Notes of so many batches are read ahead and batched by length."""


class ICDCodingPipeline(ChunkPipeline):
    """
    The ICD codes of clinical notes.

    With late interaction each note is encoded once for all codes, and their names once for all calls: each call
    compares them and the model's weights with those of the call before.

    Args:
        model: a [`KeptLongformerForICDPrompting`] or [`KeptLongformerForICDMatching`], or its folder or model id
            through `transformers.pipeline`.
        processor: its [`KeptProcessor`]; read from the same place by default.
        batch_size (`int`, defaults to 1): prompts at a time. Notes of like length are batched together.
        kwargs: the arguments of `__call__` but the notes, as defaults; `device`, `num_workers` as in transformers.

    Raises:
        ValueError: no processor, one that does not fit the model, or a model of another architecture.

    Examples:
        >>> from transformers import pipeline
        >>> coder = pipeline("icd-coding", model="outputs/demo")  # doctest: +SKIP
        >>> coder("Afib, rate controlled.", top_k=1)  # doctest: +SKIP
        [{'code': '427.31', 'description': 'Atrial fibrillation', 'score': 3.6, 'probability': 0.97, 'assigned': True}]
        >>> coder("Afib, rate controlled.", codes={"R00.1": "Bradycardia"})  # doctest: +SKIP
        [{'code': 'R00.1', 'description': 'Bradycardia', 'score': -3.1, 'probability': 0.04, 'assigned': False}]
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        if kwargs.get("processor") is None:
            raise ValueError("processor=None; pass the KeptProcessor that belongs to the model.")
        self._processor_of_call: tuple[ICDCodeSet | None, int | None, KeptProcessor] | None = None
        self._code_cache: CodeCache | None = None
        self._compared_processor: KeptProcessor | None = None
        self._warned_of_truncation = False
        super().__init__(*args, **kwargs)
        check_model_type(self.model.name_or_path, self.model.config.model_type, tuple(AUTO_CLASSES))
        self.processor.check_model(self.model)
        self.model.eval()

    def __call__(self, inputs, **kwargs):
        """
        Score notes.

        Args:
            inputs: a note as text; or a list of them, a `datasets.Dataset` with a column `text`, or a generator. Notes
                may also be mappings with a `text`.
            codes: ask about these instead of the processor's code set: a list of codes of it, a mapping of code to
                description, or an [`ICDCodeSet`]. The model need not have seen them in training.
            codes_per_prompt (`int`): ask in several prompts of at most so many codes each. By default the processor's
                number, or as many as its code set has. Without effect with late interaction.
            top_k (`int`): only so many codes with the highest scores; all by default.
            threshold (`float`): a code whose score is greater is assigned; `config.threshold` by default, tuned by
                training for the codes of its task. A score is a logit: 0 is a probability of one half.
            batch_size (`int`): prompts at a time.

        Returns:
            For each note a list of `{"code", "description", "score", "probability", "assigned"}`, highest score first.
            A list of these lists for a list, and an iterator for a dataset or a generator.

        Raises:
            TypeError: a note is no text.
            ValueError: unknown codes, a prompt that is too long, or a `top_k` or `codes_per_prompt` less than 1.
        """
        columns = getattr(inputs, "column_names", None)
        if columns is not None and "text" not in columns:
            raise ValueError(f"inputs has the columns {columns}; pass one split, with its notes in a column text.")
        if hasattr(inputs, "column_names") or isinstance(inputs, Iterator):
            inputs = (note for note in inputs)
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            if not inputs:
                return []
            inputs = list(inputs)
        # Since the last call settings, descriptions and weights may have changed.
        self._processor_of_call = self._compared_processor = None
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory, **kwargs):
        """Write model, processor and their code to a folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id, *, permitted_by=None, **kwargs):
        """Publish model and processor; see `KeptLongformerForICDPrompting.push_to_hub`."""
        self.model.push_to_hub(repo_id, permitted_by=permitted_by, **kwargs)
        return self.processor.push_to_hub(repo_id, **kwargs)

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """As in transformers; with batches, notes of like length come together, and the results in the given order."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is less than 1; pass 1 or more.")
        parameters = (num_workers, batch_size, preprocess_params, forward_params, postprocess_params)
        if batch_size == 1:
            return super().get_iterator(inputs, *parameters)
        return self._by_length(inputs, parameters)

    def _by_length(self, inputs: Iterable, parameters: tuple) -> Iterator[list[dict]]:
        notes = iter(inputs)
        while window := list(islice(notes, SORTED_BATCHES * parameters[1])):
            order = sorted(range(len(window)), key=lambda index: len(_text_of(window[index])))
            results: list[list[dict]] = [[]] * len(window)
            in_order = super().get_iterator([window[index] for index in order], *parameters)
            for index, result in zip(order, in_order, strict=True):
                results[index] = result
            yield from results

    def _sanitize_parameters(self, codes=None, codes_per_prompt=None, top_k=None, threshold=None):
        for name, value in (("top_k", top_k), ("codes_per_prompt", codes_per_prompt)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")
        if threshold is not None and 0 < threshold < 1:
            logger.warning_once(
                f"threshold={threshold} is compared with scores, which are logits: it is a probability of "
                f"{1 / (1 + math.exp(-threshold)):.2f}. If you mean the probability {threshold}, pass "
                f"threshold={math.log(threshold / (1 - threshold)):.3g}."
            )
        prompting = {"codes": None if codes is None else self._code_set(codes), "codes_per_prompt": codes_per_prompt}
        selection = {"top_k": top_k, "threshold": threshold}
        # Only what was given, so that the pipeline's own defaults hold for the rest.
        prompting = {name: value for name, value in prompting.items() if value is not None}
        selection = {name: value for name, value in selection.items() if value is not None}
        return prompting, prompting, {**prompting, **selection}

    def _code_set(self, codes) -> ICDCodeSet:
        """The codes that a call asks about."""
        if self.processor.prompt_order is not None:
            raise ValueError(
                "codes=... with a processor that has prompt_order: it asks its whole code set in that order, nothing "
                "else. Pass codes=None."
            )
        if isinstance(codes, ICDCodeSet):
            return codes
        if isinstance(codes, Mapping):
            return ICDCodeSet(list(codes), descriptions=codes)
        if isinstance(codes, str):
            raise TypeError(f"codes={codes!r} is one string; pass a list of codes: [{codes!r}].")
        if self.processor.code_set is None:
            raise ValueError("codes is a list, and the processor has no code set; pass {code: description, ...}.")
        codes = list(codes)
        unknown = [code for code in codes if code not in self.processor.code_set]
        if unknown:
            raise ValueError(
                f"codes has {', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all), not in the processor's "
                "code set; pass {code: description, ...} to ask about others."
            )
        return self.processor.code_set.subset(codes)

    def _processor_for(self, codes: ICDCodeSet | None, codes_per_prompt: int | None) -> KeptProcessor:
        """The processor of a call, which asks about its codes; one object for all its notes."""
        own, known = self.processor, self._processor_of_call
        if codes is None and codes_per_prompt is None:
            return own
        if known is None or known[0] is not codes or known[1] != codes_per_prompt:
            if own.prompt_layout == "isolated":
                number = None
            else:
                number = codes_per_prompt or own.codes_per_prompt or (own.code_set and len(own.code_set))
            known = self._processor_of_call = codes, codes_per_prompt, own.for_codes(codes or own.code_set, number)
        return known[2]

    def preprocess(self, note, codes: ICDCodeSet | None = None, codes_per_prompt: int | None = None) -> Iterator[dict]:
        """The prompts of a note."""
        processor = self._processor_for(codes, codes_per_prompt)
        features = processor([_text_of(note)], return_cut=True)
        self._warn_of_truncation(features.pop("cut"))
        features.pop("code_indices", None)  # all that are asked, in their order
        groups = processor.code_groups()
        for index, group in enumerate(groups):
            tensors = {name: torch.tensor([rows[index]]) for name, rows in features.items()}
            yield {**tensors, "num_codes": len(group), "is_last": index == len(groups) - 1}

    def _warn_of_truncation(self, kinds: Sequence[int]) -> None:
        if any(kinds) and not self._warned_of_truncation:
            logger.warning(
                "A note was longer than max_length=%d tokens allow and was truncated; this is said once.",
                self.processor.max_length,
            )
            self._warned_of_truncation = True

    def _forward(
        self, model_inputs: dict, codes: ICDCodeSet | None = None, codes_per_prompt: int | None = None
    ) -> dict:
        metadata = {name: model_inputs.pop(name) for name in ("num_codes", "is_last")}
        if self.processor.prompt_layout == "isolated":
            cache = self._encoded_codes(self._processor_for(codes, codes_per_prompt))
            return {"logits": self.model.score_notes(cache, **model_inputs), **metadata}
        return {"logits": self.model(**model_inputs).logits, **metadata}

    def _encoded_codes(self, processor: KeptProcessor) -> CodeCache:
        """The encoded descriptions of a call, compared once with the present descriptions and weights."""
        if self._compared_processor is not processor:
            blocks, cache = processor.code_blocks(), self._code_cache
            is_same = cache is not None and cache.codes == list(blocks) and cache.blocks == blocks
            if not is_same or cache.weights != self.model.weights_fingerprint():
                self._code_cache = self.model.encode_codes(blocks)
            self._compared_processor = processor
        return self._code_cache

    def postprocess(
        self,
        model_outputs: list[dict],
        codes: ICDCodeSet | None = None,
        codes_per_prompt: int | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> list[dict]:
        """The codes of a note, highest score first."""
        code_set = self._processor_for(codes, codes_per_prompt).code_set
        threshold = self.model.config.threshold if threshold is None else threshold
        scores = torch.cat([output["logits"][0, : output["num_codes"]].float() for output in model_outputs])
        best = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        return [
            {
                "code": code_set.codes[index],
                "description": code_set.describe(code_set.codes[index]),
                "score": scores[index].item(),
                "probability": scores[index].sigmoid().item(),
                "assigned": scores[index].item() > threshold,
            }
            for index in best
        ]


def _text_of(note: str | Mapping) -> str:
    text = note.get("text") if isinstance(note, Mapping) else note
    if not isinstance(text, str):
        raise TypeError(f"A note is of type {type(note).__name__}; pass text, or a mapping with text under 'text'.")
    return text
