"""Texts of prompts and notes as token ids: pure functions of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from .prompting import PromptPreset, clean_note, text_behind_mask


def surrounding_ids(tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text: "<s>" and "</s>" in RoBERTa, "[CLS]" and "[SEP]" in BERT."""
    ids = tokenizer("yes").input_ids
    return ids[:1], ids[2:]


def answer_id(tokenizer, word: str) -> int:
    """Id of an answer.

    Raises:
        ValueError: the tokenizer has no single token for the word.
    """
    ids = text_ids(tokenizer, word)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(f"tokenizer={type(tokenizer).__name__} has no single token for {word!r}, an answer of KEPT.")
    return ids[0]


def text_ids(tokenizer, text: str | Sequence[str]) -> list[int] | list[list[int]]:
    """Ids of a text, or of several, with nothing around them."""
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def without_special_tokens(tokenizer, text: str) -> str:
    """Cleaned text in which a mask token that it happens to hold cannot be taken for a code's."""
    for token in tokenizer.all_special_tokens:
        if token in text:
            text = text.replace(token, " ")
    return text


def note_ids(tokenizer, note: str, preset: PromptPreset) -> list[int]:
    """Ids of the cleaned note with nothing before it."""
    return text_ids(tokenizer, without_special_tokens(tokenizer, clean_note(note, preset)))


def note_ids_behind_mask(tokenizer, note: str, preset: PromptPreset) -> list[int]:
    """Ids of what stands behind the last mask: the end of the prompt and the cleaned note."""
    text = text_behind_mask(without_special_tokens(tokenizer, clean_note(note, preset)))
    # The mask token makes the tokenizer see this text where it stands, not at the beginning of a sequence.
    return text_ids(tokenizer, tokenizer.mask_token + text)[1:]
