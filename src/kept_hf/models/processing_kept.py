"""`KeptProcessor`: from a clinical note to the model's inputs, and from the model's logits to scores per code."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import BatchEncoding, ProcessorMixin
from transformers.utils import cached_file

from .auto_map import PUBLISHED_TOGETHER  # noqa: F401 (all published files travel together)
from .code_set import ICDCodeSet
from .padding import pad_features
from .prompt_tokens import (
    answer_id,
    note_ids,
    note_ids_behind_mask,
    surrounding_ids,
    text_ids,
    without_special_tokens,
)
from .prompting import (
    PROMPT_LAYOUTS,
    get_preset,
    prompt_text,
    remove_deidentification_tags,
    select_sections,
    shorten_description,
)

logger = logging.getLogger(__name__)

CODE_SET_NAME = "code_set.json"

MAX_CACHED_PROMPTS = 256
"""Prompts whose token ids are kept: enough for fixed groups of codes; sampled prompts are seldom asked twice."""

TRUNCATION_MESSAGE = (
    "%d of %d inputs were longer than max_length=%d tokens: %d were reduced to their main sections, %d lost their end."
)


class KeptProcessor(ProcessorMixin):
    """Writes the prompt, tokenizes prompt and note, and sets global attention.

    In the isolated layout the note stands alone in its row, beside the numbers of the codes asked; the blocks of these,
    `<s> description`, are `code_blocks`, and join the batch when it is padded ([`KeptProcessor.pad`]).

    Args:
        tokenizer: any tokenizer with a mask token and single tokens for "yes" and "no".
        code_set: the codes to ask, in the order of the labels.
        preset: `"kept-50"` or `"kept-rerank"`; `"kept-50-exact"` and `"kept-rerank-exact"` repeat the mistakes of the
            public code too; `"kept-open"`, which is not published, keeps whole names. See
            [`kept_hf.models.prompting.PRESETS`].
        max_length: tokens of a sequence, special tokens included. Notes are truncated, prompts never.
        global_attention_stride: every how many-th prompt token has global attention.
        codes_per_prompt: ask the codes in several prompts of at most so many codes each; by default all in one.
        prompt_order: the codes of the code set in the order in which the prompt lists their descriptions, while mask i
            still stands for code i of the code set. Such a prompt asks each code under the name of another. Only for
            checkpoints that were trained so: see [`kept_hf.models.published.KEPT_50_PROMPT_ORDER`].
        prompt_layout: `"joint"`, as published, for `KeptLongformerForICDPrompting`; or `"isolated"`, for
            `KeptLongformerForICDMatching`.
        names_per_code: names in the block of a code, in the isolated layout: its description, and as many of the code
            set's synonyms as this allows.

    Raises:
        ValueError: a tokenizer without mask token or without the words "yes" and "no", an unknown preset, a limit or
            stride below 1, an unknown layout, a `prompt_order` that is no order of the code set's codes or that is
            combined with `codes_per_prompt`, or either of these in the isolated layout; several names in the joint
            layout.

    Source: Yang et al., Findings of EMNLP 2022, section 3 (arXiv 2210.03304).

    Examples:
        >>> from kept_hf import ICDCodeSet, KeptProcessor
        >>> code_set = ICDCodeSet(["401.9"], descriptions={"401.9": "Unspecified essential hypertension"})
        >>> processor = KeptProcessor(tokenizer, code_set)  # doctest: +SKIP
        >>> processor("BP 190/110 on arrival.")  # doctest: +SKIP
        {'input_ids': [...], 'attention_mask': [...], 'global_attention_mask': [...]}
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        tokenizer,
        code_set: ICDCodeSet | None = None,
        preset: str = "kept-50",
        max_length: int = 8192,
        global_attention_stride: int = 1,
        codes_per_prompt: int | None = None,
        prompt_order: Sequence[str] | None = None,
        prompt_layout: str = "joint",
        names_per_code: int = 1,
        **kwargs,
    ):
        if tokenizer.mask_token is None:
            raise ValueError(
                f"tokenizer={type(tokenizer).__name__} has no mask token, and KEPT reads each code's score at one; "
                "pass the tokenizer of a masked language model."
            )
        if isinstance(prompt_order, str):
            raise TypeError(f"prompt_order={prompt_order!r} is one string; pass a list of codes.")
        self.prompt_layout = prompt_layout
        self.names_per_code = names_per_code
        self._preset = get_preset(preset)
        self.preset = preset
        self.code_set = code_set
        self.max_length = max_length
        self.global_attention_stride = global_attention_stride
        self.codes_per_prompt = codes_per_prompt
        self.prompt_order = None if prompt_order is None else list(prompt_order)
        self._check_settings()
        super().__init__(tokenizer, **kwargs)
        self._first, self._last = surrounding_ids(tokenizer)
        self.yes_token_id = answer_id(tokenizer, "yes")
        self.no_token_id = answer_id(tokenizer, "no")
        self._prompts: dict[tuple[str, ...], tuple[list[int], int]] = {}
        self._blocks: dict[str, list[int]] = {}
        self._warned_of_names = False

    def for_codes(self, code_set: ICDCodeSet, codes_per_prompt: int | None = None) -> KeptProcessor:
        """A processor for other codes, with all other settings of this one.

        Args:
            code_set: the codes to ask.
            codes_per_prompt: the codes of a prompt; by default all in one, whatever this processor has. Pass
                `processor.codes_per_prompt` to keep its number.

        Returns:
            A new processor with the same tokenizer. What was tokenized for this one need not be so again.

        Raises:
            ValueError: as for the class. A `prompt_order` is kept too, and orders the codes of this processor only.

        Examples:
            >>> others = ICDCodeSet(["R05"], descriptions={"R05": "Cough"})
            >>> processor.for_codes(others)("Coughs at night.")  # doctest: +SKIP
            {'input_ids': [...], 'attention_mask': [...], 'global_attention_mask': [...]}
        """
        processor = copy.copy(self)
        processor.code_set = code_set
        processor.codes_per_prompt = codes_per_prompt
        processor._warned_of_names = False
        processor._check_settings()
        return processor

    def _check_settings(self) -> None:
        for name in ("max_length", "global_attention_stride", "codes_per_prompt", "names_per_code"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")
        if self.prompt_layout not in PROMPT_LAYOUTS:
            raise ValueError(
                f"prompt_layout={self.prompt_layout!r} is unknown; pass one of {', '.join(PROMPT_LAYOUTS)}."
            )
        for name in ("codes_per_prompt", "prompt_order"):
            if getattr(self, name) is not None and self.prompt_layout == "isolated":
                raise ValueError(
                    f"{name} with prompt_layout='isolated': codes do not see each other there, and a note is asked "
                    f"about all in one row; pass {name}=None."
                )
        if self.names_per_code > 1 and self.prompt_layout != "isolated":
            raise ValueError(
                f"names_per_code={self.names_per_code} with prompt_layout={self.prompt_layout!r}: a prompt has one "
                "name of a code; pass prompt_layout='isolated', or names_per_code=1."
            )
        self._check_prompt_order()

    def _check_prompt_order(self) -> None:
        if self.prompt_order is None or self.code_set is None:
            return
        if self.codes_per_prompt is not None:
            raise ValueError(
                f"codes_per_prompt={self.codes_per_prompt} with prompt_order: the order is that of one prompt."
            )
        if sorted(map(str, self.prompt_order)) != sorted(self.code_set):
            odd = sorted(set(map(str, self.prompt_order)) ^ set(self.code_set)) or self.prompt_order
            raise ValueError(
                f"prompt_order has {len(self.prompt_order)} codes, the code set {len(self.code_set)}; pass each code "
                f"of the code set once. In one of them only: {', '.join(odd[:5])}."
            )

    def check_model(self, model) -> None:
        """Check that a model takes this processor's rows.

        Raises:
            ValueError: it takes those of the other layout.
        """
        layout = getattr(model, "prompt_layout", self.prompt_layout)
        if layout != self.prompt_layout:
            raise ValueError(
                f"prompt_layout={self.prompt_layout!r} of the processor does not fit {type(model).__name__}; pass "
                f"KeptProcessor(..., prompt_layout={layout!r})."
            )

    def config_overrides(self) -> dict:
        """What a model's configuration must take from this processor.

        Examples:
            >>> model = KeptLongformerForICDPrompting.from_pretrained(
            ...     path, **processor.config_overrides()
            ... )  # doctest: +SKIP
        """
        overrides = {
            "yes_token_id": self.yes_token_id,
            "no_token_id": self.no_token_id,
            "mask_token_id": self.tokenizer.mask_token_id,
            "global_attention_stride": self.global_attention_stride,
        }
        if self.code_set is not None:
            overrides |= {"id2label": self.code_set.id2label, "label2id": self.code_set.label2id}
        return overrides

    def code_groups(self, codes: Sequence[str] | ICDCodeSet | None = None) -> list[list[str]]:
        """The codes of each prompt of a note, in order.

        Args:
            codes: the codes asked; by default the whole code set.
        """
        codes = list(self._code_set_of(codes) if codes is None else codes)
        if not codes:
            raise ValueError("codes=[] asks about no code; pass at least one for each note, or None for the code set.")
        size = len(codes) if self.prompt_layout == "isolated" else self.codes_per_prompt or len(codes)
        return [codes[start : start + size] for start in range(0, len(codes), size)]

    def code_blocks(self, codes: Sequence[str] | ICDCodeSet | None = None) -> dict[str, list[int]]:
        """The blocks of the isolated layout, for `KeptLongformerForICDMatching.encode_codes`.

        Args:
            codes: codes of the code set, or another `ICDCodeSet`. By default the code set.

        Returns:
            Code → token ids of `<s> description`, the description shortened as the preset says. With `names_per_code`
            further names follow, each with `<s>` before it.

        Raises:
            ValueError: no code set, or unknown codes.
        """
        code_set = self._code_set_of(codes)
        codes = list(code_set if codes is None else codes)
        shortened = self._shortened(self._descriptions(codes, code_set))
        self._warn_of_names(codes, shortened)
        new = [text for text in dict.fromkeys(shortened) if text not in self._blocks]
        if new:
            ids = text_ids(self.tokenizer, new)
            self._blocks.update((text, self._first + tokens) for text, tokens in zip(new, ids, strict=True))
        if self.names_per_code == 1:
            return {code: self._blocks[text] for code, text in zip(codes, shortened, strict=True)}
        return self._blocks_of_names(dict(zip(codes, shortened, strict=True)), code_set)

    def _blocks_of_names(self, first_names: dict[str, str], code_set: ICDCodeSet) -> dict[str, list[int]]:
        """Blocks of several names."""
        names = {
            code: list(dict.fromkeys([first, *self._shortened(code_set.synonyms.get(code, ()))]))[: self.names_per_code]
            for code, first in first_names.items()
        }
        new = [text for of_code in names.values() for text in of_code if text not in self._blocks]
        if new := list(dict.fromkeys(new)):
            ids = text_ids(self.tokenizer, new)
            self._blocks.update((text, self._first + tokens) for text, tokens in zip(new, ids, strict=True))
        return {code: [token for text in of_code for token in self._blocks[text]] for code, of_code in names.items()}

    def pad(
        self,
        rows: Sequence[dict[str, Sequence[int]]],
        pad_to_multiple_of: int | None = None,
        code_set: ICDCodeSet | None = None,
    ) -> dict[str, torch.Tensor]:
        """Make a batch of rows: padded to the longest, and in the isolated layout with the blocks of their codes.

        Args:
            rows: the rows of `__call__`, as a list of mappings.
            pad_to_multiple_of: see [`pad_features`].
            code_set: whose numbers `code_indices` are; by default the processor's.

        Returns:
            The arguments of the model's `forward`. Each block stands in `code_input_ids` once, in the
            order of the code set, and `code_indices` are numbers of these.
        """
        batch = pad_features(rows, self.tokenizer.pad_token_id, pad_to_multiple_of)
        if "code_indices" not in batch:
            return batch
        is_code = batch["code_indices"] >= 0
        asked, batch["code_indices"][is_code] = batch["code_indices"][is_code].unique(return_inverse=True)
        codes = self._code_set_of(code_set).codes
        wanted = [codes[index] for index in asked.tolist()]
        blocks = self.code_blocks(wanted if code_set is None else code_set.subset(wanted)).values()
        blocks = [{"code_input_ids": block, "code_attention_mask": [1] * len(block)} for block in blocks]
        return {**batch, **pad_features(blocks, self.tokenizer.pad_token_id, pad_to_multiple_of)}

    def __call__(
        self,
        text: str | Sequence[str],
        codes: Sequence[str] | Sequence[Sequence[str]] | ICDCodeSet | None = None,
        gold_codes: Sequence[str] | Sequence[Sequence[str]] | None = None,
        return_tensors: str | None = None,
        return_cut: bool = False,
    ) -> BatchEncoding:
        """Make the model's inputs.

        Args:
            text: a note, or a list of notes. An empty note gives the prompt alone, with a warning: its scores say
                nothing about a patient.
            codes: the codes to ask: a list for all notes, a list of lists with one list per note, or an `ICDCodeSet`
                that describes codes this processor does not know. By default the processor's code set.
            gold_codes: the codes that apply, a list per note; adds `labels`.
            return_tensors: `"pt"` or `"np"`: rows padded to the longest and stacked.
            return_cut: add a column `cut`: 0 for a whole note, 1 for one reduced to its main sections, 2 for one whose
                end was truncated.

        Returns:
            `input_ids`, `attention_mask`, `global_attention_mask` and, with `gold_codes`, `labels` (0 or 1 per code).
            In the isolated layout `code_indices` instead of `global_attention_mask`: numbers of the codes asked, in
            their code set; with `return_tensors` of the blocks `code_input_ids`, as [`KeptProcessor.pad`] makes them.
            One list each for a single note with a single prompt, else a list of rows: note by note, each with the
            prompts of [`KeptProcessor.code_groups`] in order; [`KeptProcessor.merge_logits`] puts them together again.

        Raises:
            TypeError: `text` is no text.
            ValueError: no code set, unknown codes, lists of different lengths, a prompt that leaves no room for
                the note, or in the isolated layout another `ICDCodeSet` without `return_tensors`; the message names the
                numbers.
        """
        is_single = isinstance(text, str)
        texts, codes_by_note, gold_by_note = self._by_note(text, codes, gold_codes)
        code_set = self._code_set_of(codes)
        is_isolated = self.prompt_layout == "isolated"
        if is_isolated and return_tensors is None and code_set is not self.code_set:
            raise ValueError(
                "codes is another ICDCodeSet, whose numbers the rows' code_indices would be; make a processor with "
                "that code set, or pass return_tensors='pt'."
            )

        make_rows = self._isolated_rows if is_isolated else self._joint_rows
        rows, truncations = [], []
        for note, note_codes, note_gold in zip(texts, codes_by_note, gold_by_note, strict=True):
            for row, truncation in make_rows(note, note_codes, note_gold, code_set):
                rows.append(row)
                truncations.append(truncation)
        self._warn(texts, truncations, is_counted=return_cut)
        if return_tensors is not None:
            batch = self.pad(rows, code_set=None if code_set is self.code_set else code_set) if rows else {}
            if return_cut:
                batch["cut"] = torch.tensor(truncations)
            return BatchEncoding({k: v.numpy() for k, v in batch.items()}, tensor_type=return_tensors)
        if return_cut:
            rows = [{**row, "cut": truncation} for row, truncation in zip(rows, truncations, strict=True)]
        if is_single and len(rows) == 1:
            return BatchEncoding(rows[0])
        return BatchEncoding({name: [row[name] for row in rows] for name in rows[0]} if rows else {})

    @staticmethod
    def _by_note(text, codes, gold_codes) -> tuple[list[str], list, list]:
        """The notes, and the codes and gold codes of each: the arguments of `__call__` in one form."""
        is_single = isinstance(text, str)
        if not is_single and not _is_list(text):
            raise TypeError(f"text is of type {type(text).__name__}; pass a note as str, or a list of notes.")
        for name, value in (("codes", codes), ("gold_codes", gold_codes)):
            if isinstance(value, str):
                raise TypeError(f"{name}={value!r} is one string; pass a list of codes: [{value!r}].")
        texts = [text] if is_single else list(text)
        for index, note in enumerate(texts):
            if not isinstance(note, str):
                raise TypeError(f"text[{index}] is of type {type(note).__name__}; pass notes as str.")
        is_list_per_note = _is_list(codes) and len(codes) > 0 and not isinstance(codes[0], str)
        codes_by_note = list(codes) if is_list_per_note else [codes] * len(texts)
        gold_by_note = [gold_codes] * len(texts) if gold_codes is None or is_single else list(gold_codes)
        for name, lists in (("codes", codes_by_note), ("gold_codes", gold_by_note)):
            if len(lists) != len(texts):
                raise ValueError(f"{name} has {len(lists)} lists for {len(texts)} notes; pass one list per note.")
        for gold in gold_by_note:
            if isinstance(gold, str):
                raise TypeError(f"gold_codes has {gold!r} for a note; pass a list of codes per note.")
        return texts, codes_by_note, gold_by_note

    def merge_logits(self, logits, codes: Sequence[str] | ICDCodeSet | None = None) -> np.ndarray:
        """Put the scores of a note's prompts side by side.

        Args:
            logits: `(notes × prompts, at least codes_per_prompt)`, in the order of `__call__`'s rows.
            codes: what was asked, the same for all notes; by default the code set.

        Returns:
            Scores of shape `(notes, codes)`, float32.

        Raises:
            ValueError: the number of rows is not a multiple of the number of prompts.
        """
        groups = self.code_groups(codes)
        logits = np.asarray(logits.detach().float().cpu() if isinstance(logits, torch.Tensor) else logits)
        if len(logits) % len(groups):
            raise ValueError(
                f"logits has {len(logits)} rows, which is no multiple of the {len(groups)} prompts of each note."
            )
        parts = [logits[index :: len(groups), : len(group)] for index, group in enumerate(groups)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _code_set_of(self, codes) -> ICDCodeSet:
        if isinstance(codes, ICDCodeSet):
            return codes
        if self.code_set is None:
            raise ValueError(
                "codes=None and the processor has no code set; pass KeptProcessor(tokenizer, code_set) or "
                "codes=ICDCodeSet(...)."
            )
        return self.code_set

    def _joint_rows(self, note: str, codes, gold, code_set: ICDCodeSet) -> Iterator[tuple[dict[str, list[int]], int]]:
        """The features of each prompt of one note, and how the note was truncated (see `return_cut`)."""
        preset = self._preset
        note = remove_deidentification_tags(note, preset.removes_underscores)
        whole = note_ids_behind_mask(self.tokenizer, note, preset)
        sections: list[int] | None = None
        if preset.note_reserve is not None:
            is_long_note = len(note_ids(self.tokenizer, note, preset)) > self.max_length - preset.note_reserve
        for group in self.code_groups(code_set if codes is None else codes):
            head, prompt_length = self._prompt_ids(tuple(group), code_set)
            room = self.max_length - len(self._first) - len(self._last) - len(head)
            tail, truncation = whole, 0
            if is_long_note if preset.note_reserve is not None else len(head) + len(whole) > self.max_length:
                if sections is None:
                    selected = select_sections(note, preset.section_headers)
                    sections = whole if selected is None else note_ids_behind_mask(self.tokenizer, selected, preset)
                tail, truncation = sections, int(sections is not whole)
            if len(tail) > room:
                tail, truncation = tail[:room], 2
            input_ids = self._first + head + tail + self._last
            row = {
                "input_ids": input_ids,
                "attention_mask": [1] * len(input_ids),
                "global_attention_mask": self._global_attention(input_ids, prompt_length),
            }
            if gold is not None:
                wanted = {code_set.find(code) for code in gold}
                row["labels"] = [int(code in wanted) for code in group]
            yield row, truncation

    def _isolated_rows(
        self, note: str, codes, gold, code_set: ICDCodeSet
    ) -> Iterator[tuple[dict[str, list[int]], int]]:
        """The features of a note that stands alone, and how it was truncated (see `return_cut`).

        That happens as in a prompt, but only where the note itself is too long: no room is kept for a prompt.
        """
        note = remove_deidentification_tags(note, self._preset.removes_underscores)
        room = self.max_length - len(self._first) - len(self._last)
        (group,) = self.code_groups(code_set if codes is None else codes)
        indices = [code_set.index(code) for code in self._known(group, code_set)]
        tail, truncation = note_ids(self.tokenizer, note, self._preset), 0
        if len(tail) > room:
            selected = select_sections(note, self._preset.section_headers)
            if selected is not None:
                tail, truncation = note_ids(self.tokenizer, selected, self._preset), 1
        if len(tail) > room:
            tail, truncation = tail[:room], 2
        input_ids = self._first + tail + self._last
        row = {"input_ids": input_ids, "attention_mask": [1] * len(input_ids), "code_indices": indices}
        if gold is not None:
            wanted = {code_set.find(code) for code in gold}
            row["labels"] = [int(code in wanted) for code in group]
        yield row, truncation

    def _prompt_ids(self, codes: tuple[str, ...], code_set: ICDCodeSet) -> tuple[list[int], int]:
        """Token ids up to the last mask, and the number of tokens of the whole prompt text."""
        key = self._descriptions(codes, code_set)
        if key not in self._prompts:
            if len(self._prompts) >= MAX_CACHED_PROMPTS:
                self._prompts.clear()
            tokenizer = self.tokenizer
            shortened = self._shortened(key)
            self._warn_of_names(codes, shortened)
            prompt_ids = text_ids(tokenizer, prompt_text(shortened, tokenizer.mask_token, self._preset))
            specials = len(self._first) + len(self._last)
            if len(prompt_ids) + specials >= self.max_length:
                raise ValueError(
                    f"The prompt of {len(codes)} codes has {len(prompt_ids)} tokens and {specials} special tokens, "
                    f"which leaves no room for a note in max_length={self.max_length}. Pass a greater max_length, or "
                    f"codes_per_prompt={max(1, len(codes) // 2)} or less to ask the codes in several prompts."
                )
            last_mask = len(prompt_ids) - 1 - prompt_ids[::-1].index(tokenizer.mask_token_id)
            self._prompts[key] = prompt_ids[: last_mask + 1], len(prompt_ids)
        return self._prompts[key]

    def _descriptions(self, codes: Sequence[str], code_set: ICDCodeSet) -> tuple[str, ...]:
        """The names that the prompt lists, in its order."""
        if self.prompt_order is not None:
            if self.code_set is None:
                raise ValueError(
                    "prompt_order needs the code set that it orders; pass KeptProcessor(tokenizer, code_set, ...)."
                )
            if code_set is not self.code_set or list(codes) != list(code_set):
                raise ValueError(
                    "codes=... with prompt_order: the processor asks its whole code set in that order, nothing else. "
                    "Pass codes=None, or make a processor without prompt_order."
                )
            codes = self.prompt_order
        codes = self._known(codes, code_set)
        if self._preset.leaves_empty:
            return tuple(code_set.descriptions.get(code, "") for code in codes)
        return tuple(code_set.describe(code) for code in codes)

    def _shortened(self, descriptions: Sequence[str]) -> list[str]:
        """Descriptions as the preset shortens them, without special tokens that they happen to hold."""
        return [
            without_special_tokens(self.tokenizer, shorten_description(description, self._preset))
            for description in descriptions
        ]

    def _warn_of_names(self, codes: Sequence[str], shortened: Sequence[str]) -> None:
        """Say once what a prompt asks about several codes in the same words."""
        if self._warned_of_names:
            return
        names = Counter(shortened)
        empty = names.pop("", 0)
        alike = sum(count for count in names.values() if count > 1)
        if empty:
            logger.warning("%d of %d codes have no description; %r leaves it empty.", empty, len(codes), self.preset)
        if alike:
            logger.warning(
                "%d of the %d codes of a prompt share their name, as preset=%r shortens it, with another: the model "
                "cannot tell them apart.",
                alike,
                len(codes),
                self.preset,
            )
        self._warned_of_names = bool(empty or alike)

    @staticmethod
    def _known(codes: Sequence[str], code_set: ICDCodeSet) -> Sequence[str]:
        unknown = [code for code in codes if code not in code_set]
        if unknown:
            raise ValueError(
                f"codes has {', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all), not in the code set; pass "
                "codes=ICDCodeSet(codes, descriptions=...) to ask about others."
            )
        return codes

    def _global_attention(self, input_ids: list[int], prompt_length: int) -> list[int]:
        """1 on every stride-th of the first token and the prompt, and on the masks if the preset says so."""
        mask_token_id = self.tokenizer.mask_token_id if self._preset.global_masks else None
        return [
            int((position <= prompt_length and position % self.global_attention_stride == 0) or token == mask_token_id)
            for position, token in enumerate(input_ids)
        ]

    def _warn(self, texts: Sequence[str], truncations: Sequence[int], is_counted: bool) -> None:
        empty = sum(not note.strip() for note in texts)
        if empty:
            logger.warning("%d of %d notes are empty: their scores say nothing about a patient.", empty, len(texts))
        if any(truncations) and not is_counted:
            number, total = sum(map(bool, truncations)), len(truncations)
            reduced, shortened = truncations.count(1), truncations.count(2)
            logger.warning(TRUNCATION_MESSAGE, number, total, self.max_length, reduced, shortened)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """Write tokenizer, `processor_config.json` and the code set (`code_set.json`) to a folder."""
        os.makedirs(save_directory, exist_ok=True)
        if self.code_set is not None:
            self.code_set.to_json(os.path.join(save_directory, CODE_SET_NAME))
        return super().save_pretrained(os.fspath(save_directory), push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict:
        """The processor's settings; the code set has a file of its own."""
        settings = super().to_dict()
        settings.pop("code_set", None)
        return settings

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, code_set: ICDCodeSet | None = None, **kwargs):
        """Load from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or a model id.
            code_set: replaces the saved code set.
            kwargs: `preset`, `max_length`, … replace the saved settings; `revision`, `token`, … as in transformers.
        """
        if code_set is None:
            hub_options = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            path = cached_file(
                pretrained_model_name_or_path,
                CODE_SET_NAME,
                _raise_exceptions_for_missing_entries=False,
                **{name: kwargs[name] for name in hub_options if name in kwargs},
            )
            if path is not None:
                with open(path, encoding="utf-8") as file:
                    code_set = ICDCodeSet.from_dict(json.load(file))
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        processor.code_set = code_set
        processor._check_prompt_order()
        return processor


def _is_list(value) -> bool:
    """Whether `value` is a list of some kind, such as a column of a dataset; no text, mapping, set or code set."""
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, (str, bytes, dict, ICDCodeSet))
    )
