"""KEPT prompts as pure functions of text: descriptions, the prompt, note cleaning, section selection, code sampling.

Source: Yang et al., Findings of EMNLP 2022 (arXiv 2210.03304), and the published code's branches `main` (`kept-50`)
and `rerank300` (`kept-rerank`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from .published import EXACT_PRESET

PROMPT_LAYOUTS = ("joint", "isolated")
"""`"joint"`: one prompt before the note, as published. `"isolated"`: each code a block of its own."""

SECTION_HEADERS = (
    "chief complaint:",
    "major surgical or invasive procedure:",
    "procedure:",
    "history of present illness:",
    "past medical history:",
    "brief hospital course:",
    "discharge diagnosis:",
    "discharge diagnoses:",
    "discharge condition:",
)
"""Header lines of the sections that are kept of a note that is too long."""

PROMPT_END = ". "
"""What stands between the last mask and the note."""

_DEIDENTIFICATION_MARK = re.compile(r"(?<!_)___(?!_)")
_SPACES = re.compile(r"  +")


@dataclass(frozen=True)
class PromptPreset:
    """One way to write prompts and notes.

    Args:
        name: its name.
        separator: what stands directly after a mask that is not the last, and before a space.
        max_description_words: keep so many words of a description; without it, those before its first comma.
        clean_titles: whether "dr." and "m.d." become "doctor", date headers and dashed rules go.
        note_reserve: tokens of the limit that are kept for the prompt when it is decided whether a note is too long
            and only the note is counted; without it, prompt and note are counted together.
        global_masks: whether every mask has global attention, also off the stride.
        section_headers: the sections that are kept of a note that is too long.
        leaves_empty: ask about a code that has no description with an empty one, instead of another name.
        removes_underscores: whether MIMIC-IV's `___` is removed as MIMIC-III's `[**…**]` is.
    """

    name: str
    separator: str
    max_description_words: int | None
    clean_titles: bool
    note_reserve: int | None
    global_masks: bool
    section_headers: tuple[str, ...] = SECTION_HEADERS
    leaves_empty: bool = False
    removes_underscores: bool = True


_KEPT_50 = PromptPreset("kept-50", ",", None, clean_titles=True, note_reserve=None, global_masks=False)
_KEPT_RERANK = PromptPreset("kept-rerank", ";", 15, clean_titles=False, note_reserve=150, global_masks=True)
_KEPT_OPEN = PromptPreset("kept-open", ";", 30, clean_titles=True, note_reserve=None, global_masks=False)

PRESETS = {
    preset.name: preset
    for preset in (
        _KEPT_50,
        replace(_KEPT_50, name="kept-50-exact", **EXACT_PRESET),
        _KEPT_RERANK,
        replace(_KEPT_RERANK, name="kept-rerank-exact", **EXACT_PRESET),
        _KEPT_OPEN,
    )
}
"""Name → preset. Those named exact repeat the mistakes of the public code too ([`kept_hf.models.published`]).

`kept-open` is not published: it does not truncate names at a comma, so that fewer codes read alike."""


def get_preset(name: str) -> PromptPreset:
    """The preset of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    Examples:
        >>> get_preset("kept-rerank").separator
        ';'
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is unknown; pass one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def shorten_description(description: str, preset: PromptPreset) -> str:
    """Lower-case a description and shorten it as the preset says.

    Examples:
        >>> shorten_description("Acute kidney failure, unspecified", get_preset("kept-50"))
        'acute kidney failure'
        >>> shorten_description("Acute kidney failure, unspecified", get_preset("kept-rerank"))
        'acute kidney failure, unspecified'
    """
    if preset.max_description_words is None:
        return description.lower().split(",")[0]
    return " ".join(description.lower().split()[: preset.max_description_words])


def prompt_text(descriptions: Sequence[str], mask_token: str, preset: PromptPreset) -> str:
    """The prompt that asks about `descriptions`, each shortened, with a mask after each.

    Args:
        descriptions: one per code, in the order of the labels.
        mask_token: the tokenizer's.
        preset: see [`PRESETS`].

    Examples:
        >>> prompt_text(["Acute kidney failure, unspecified", "Sepsis"], "<mask>", get_preset("kept-50"))
        ' acute kidney failure <mask>, sepsis <mask>. '
    """
    shortened = (shorten_description(description, preset) for description in descriptions)
    return " " + f" {mask_token}{preset.separator} ".join(shortened) + f" {mask_token}{PROMPT_END}"


def text_behind_mask(note: str) -> str:
    """What follows the last mask: the end of the prompt, and a cleaned note.

    Examples:
        >>> text_behind_mask("fever and cough")
        '. fever and cough'
    """
    return PROMPT_END + note


def remove_deidentification_tags(text: str, underscores: bool = True) -> str:
    """Remove MIMIC-III's `[**…**]`, or MIMIC-IV's `___`; longer and shorter runs of underscores are no such marks.

    A note that has the former is of MIMIC-III, where `___` is a blank that someone left, and stays as published.

    Args:
        text: a note.
        underscores: remove `___`, too.

    Examples:
        >>> remove_deidentification_tags("on [**2120-2-28**] by ___ MD"), remove_deidentification_tags("by Dr. ___")
        ('on  by ___ MD', 'by Dr. ')
    """
    without_tags = "".join(_parts_outside_tags(text))
    has_tags = len(without_tags) < len(text)
    return _DEIDENTIFICATION_MARK.sub("", text) if underscores and not has_tags else without_tags


def _parts_outside_tags(text: str) -> Iterator[str]:
    """What the pattern `\\[\\*\\*[^\\]]*\\*\\*\\]` leaves, which would look for the end of each unclosed tag again."""
    *closed, rest = text.split("]")
    for part in closed:
        start = part.find("[**")
        # The stars of the end are others than those of the start.
        is_tag = start >= 0 and part.endswith("**", start + 3)
        yield part[:start] if is_tag else part + "]"
    yield rest


def clean_note(text: str, preset: PromptPreset) -> str:
    """The note as it stands behind the prompt: one line, lower case.

    Examples:
        >>> clean_note("Admission Date:\\nSeen by Dr. Who --", get_preset("kept-50"))
        ' seen by doctor who '
    """
    text = text.lower().replace("\n", " ")
    if preset.clean_titles:
        text = text.replace("\r", " ").replace("dr.", "doctor").replace("m.d.", "doctor")
        text = text.replace("admission date:", "").replace("discharge date:", "")
        text = re.sub("--|__|==", "", text)
    return _SPACES.sub(" ", text)


def select_sections(text: str, headers: Collection[str] = SECTION_HEADERS) -> str | None:
    """The sections of a note whose header is in `headers`, joined; `None` if there is no more than one of them.

    A header is a line that ends with ":"; a section runs to the next header line. The result is in lower case.

    Examples:
        >>> select_sections("Chief Complaint:\\nFever\\nAllergies:\\nNone\\nDischarge Diagnosis:\\nSepsis\\n")
        'chief complaint:\\nfever\\ndischarge diagnosis:\\nsepsis\\n'
        >>> select_sections("Fever, then sepsis.") is None
        True
    """
    text = text.lower()
    starts: list[tuple[str, int]] = []
    end = 0
    for line in text.split("\n"):
        header = line.strip()
        if header.endswith(":"):
            # As published: the next occurrence of the header's words, which may be inside an earlier line.
            start = text.index(header, end)
            end = start + len(header)
            starts.append((header, start))
    ends = [start for _, start in starts[1:]] + [len(text)]
    kept = [text[start:end] for (header, start), end in zip(starts, ends, strict=False) if header in headers]
    return "".join(kept) if len(kept) > 1 else None


def sample_codes(
    gold_codes: Collection[str],
    candidates: Sequence[str],
    num_codes: int,
    generator: random.Random,
    proposed: Collection[str] = (),
    hard_negatives: float = 0.5,
) -> list[str]:
    """Codes to ask in one training prompt: the gold codes and others, shuffled.

    Args:
        gold_codes: the codes of the note.
        candidates: all codes of the task.
        num_codes: how many to ask. If there are more gold codes than that, a random part of them.
        generator: the source of randomness.
        proposed: what a first stage proposed for the note: those that are not gold are its hard negatives.
        hard_negatives: the share of the others that is drawn from these, as far as there are so many; the rest is drawn
            from all others.

    Raises:
        ValueError: `num_codes` is less than 1, or `hard_negatives` is no share.

    Examples:
        >>> sorted(sample_codes(["A", "B"], ["A", "B", "C", "D"], 3, random.Random(0)))[:2]
        ['A', 'B']
        >>> sorted(sample_codes(["A"], ["A", "B", "C", "D"], 2, random.Random(0), ["A", "D"], hard_negatives=1.0))
        ['A', 'D']
    """
    if num_codes < 1:
        raise ValueError(f"num_codes={num_codes} is less than 1; pass how many codes a prompt asks.")
    if not 0 <= hard_negatives <= 1:
        raise ValueError(f"hard_negatives={hard_negatives} is no share; pass a number from 0 to 1.")
    wanted, hard = set(gold_codes), set(proposed)
    gold = [code for code in candidates if code in wanted]
    codes = generator.sample(gold, min(len(gold), num_codes))
    if hard:
        hard = [code for code in candidates if code in hard and code not in wanted]
        codes += generator.sample(hard, min(len(hard), round(hard_negatives * (num_codes - len(codes)))))
        wanted.update(codes)
    others = [code for code in candidates if code not in wanted]
    codes += generator.sample(others, min(len(others), num_codes - len(codes)))
    generator.shuffle(codes)
    return codes
