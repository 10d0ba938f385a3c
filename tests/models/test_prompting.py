import random
import re

import pytest

from kept_hf.models.code_set import ICDCodeSet
from kept_hf.models.processing_kept import KeptProcessor
from kept_hf.models.prompting import (
    PRESETS,
    SECTION_HEADERS,
    clean_note,
    get_preset,
    prompt_text,
    remove_deidentification_tags,
    sample_codes,
    select_sections,
    shorten_description,
)

KEPT_50, KEPT_RERANK = get_preset("kept-50"), get_preset("kept-rerank")


def test_presets():
    assert PRESETS.keys() >= {"kept-50", "kept-50-exact", "kept-rerank", "kept-rerank-exact"}
    for name in ("kept-50", "kept-rerank"):
        ours, exact = get_preset(name), get_preset(f"{name}-exact")
        assert set(ours.section_headers) ^ set(exact.section_headers) == {
            "past medical history:",
            "past eedical history:",
        }
    with pytest.raises(
        ValueError, match=r"preset='kept-51' is unknown; pass one of kept-50, kept-50-exact, kept-rerank"
    ):
        get_preset("kept-51")


@pytest.mark.parametrize(
    "description,kept_50,kept_rerank",
    [
        ("Unspecified essential hypertension", "unspecified essential hypertension", None),
        ("Acute kidney failure, unspecified", "acute kidney failure", "acute kidney failure, unspecified"),
        ("Knee, leg, ankle, and foot injury", "knee", "knee, leg, ankle, and foot injury"),
        (
            " ".join(f"W{i}" for i in range(16)),
            " ".join(f"w{i}" for i in range(16)),
            " ".join(f"w{i}" for i in range(15)),
        ),
        (" ".join(f"w{i}" for i in range(15)), None, None),
    ],
)
def test_shorten_description(description, kept_50, kept_rerank):
    assert shorten_description(description, KEPT_50) == (kept_50 or description.lower())
    assert shorten_description(description, KEPT_RERANK) == (kept_rerank or description.lower())


@pytest.mark.parametrize("mask", ["<mask>", "[MASK]"])
@pytest.mark.parametrize("number", [1, 2, 7])
def test_prompt_text(mask, number):
    names = [f"Name {i}, more" for i in range(number)]
    assert (
        prompt_text(names, mask, KEPT_50) == " " + f" {mask}, ".join(f"name {i}" for i in range(number)) + f" {mask}. "
    )
    assert (
        prompt_text(names, mask, KEPT_RERANK)
        == " " + f" {mask}; ".join(f"name {i}, more" for i in range(number)) + f" {mask}. "
    )
    for preset in PRESETS.values():
        assert prompt_text(names, mask, preset).count(mask) == number


@pytest.mark.parametrize(
    "text,expected",
    [
        ("Dr. [**Last Name (STitle) **] on [**2101-1-1**]", "Dr.  on "),
        ("[**a\nb**]x[****]y", "xy"),
        ("[*a*] [b] ** ]", "[*a*] [b] ** ]"),
        ("[**open to the end", "[**open to the end"),
        ("[**a]b**] c", "[**a]b**] c"),
        ("[**a[**b**]c**]", "c**]"),
    ],
)
def test_deidentification_tags(text, expected):
    assert remove_deidentification_tags(text) == expected


def test_deidentification_tags_are_those_of_the_published_pattern():
    published, generator = re.compile(r"\[\*\*[^\]]*\*\*\]"), random.Random(0)
    for _ in range(20_000):
        text = "".join(generator.choices("[*] a\n_", weights=[3, 6, 3, 1, 1, 1, 1], k=generator.randrange(24)))
        expected, count = published.subn("", text)
        assert remove_deidentification_tags(text, underscores=False) == expected, text
        if not count:
            expected = re.sub(r"(?<!_)___(?!_)", "", text)
        assert remove_deidentification_tags(text) == expected, text


@pytest.mark.parametrize(
    "text,kept_50,kept_rerank",
    [
        ("", "", ""),
        (" \n ", " ", " "),
        ("A\nB\rC\r\nD", "a b c d", "a b\rc\r d"),
        ("a    b  c d", "a b c d", "a b c d"),
        ("a\t\tb", "a\t\tb", "a\t\tb"),
        ("Dr. X and M.D. Y", "doctor x and doctor y", "dr. x and m.d. y"),
        ("Admission Date: 1 Discharge Date: 2", " 1 2", "admission date: 1 discharge date: 2"),
        ("a -- b ___ c ==== d", "a b _ c d", "a -- b ___ c ==== d"),
        ("=--= -__-", "== --", "=--= -__-"),  # one pass: what a removal leaves is not looked at again
        ("Fièvre É", "fièvre é", "fièvre é"),
    ],
)
def test_clean_note(text, kept_50, kept_rerank):
    assert clean_note(text, KEPT_50) == kept_50
    assert clean_note(text, KEPT_RERANK) == kept_rerank


def naive_sections(text, headers):
    """Line by line; right where no line's header words stand earlier in the text."""
    kept, current, found = [], None, 0
    for line in text.lower().splitlines(keepends=True):
        if line.strip().endswith(":"):
            current = line.strip() in headers
            found += current
        if current:
            kept.append(line.lstrip(" \t") if line.strip().endswith(":") else line)
    return "".join(kept) if found > 1 else None


@pytest.mark.parametrize("seed", range(20))
def test_select_sections(seed):
    generator = random.Random(seed)
    others = ["Allergies:", "Social History:", "Medications on Admission:"]
    names = [header.title() for header in SECTION_HEADERS] + others
    generator.shuffle(names)
    lines = ["first line"]
    for name in names[: generator.randint(0, len(names))]:
        lines.append(name)
        lines += [f"text {generator.random()} at 10:30" for _ in range(generator.randint(0, 3))]
    text = "\n".join(lines)
    assert select_sections(text) == naive_sections(text, SECTION_HEADERS)


def test_select_sections_examples():
    text = "Chief Complaint:\nFever\n  Allergies:  \nnone\nDischarge Diagnosis:\nSepsis"
    assert select_sections(text) == "chief complaint:\nfever\n  discharge diagnosis:\nsepsis"
    assert select_sections("Chief Complaint:\nFever\nAllergies:\nnone") is None, "one section is not enough"
    assert select_sections("Chief Complaint: fever\nDischarge Diagnosis: sepsis") is None, "a header has its line"
    assert (
        select_sections("Procedure:\r\na\r\nDischarge Condition:\r\nb")
        == "procedure:\r\na\r\ndischarge condition:\r\nb"
    )
    assert select_sections("past eedical history:\na\nprocedure:\nb") is None, "the published misspelling is not ours"
    assert select_sections("") is None and select_sections("no header at all\nin two lines") is None
    assert select_sections("A:\nx\nB:\ny\nA:\nz\n", headers=["a:"]) == "a:\nx\na:\nz\n"


def test_section_headers_are_the_published_ones():
    assert len(SECTION_HEADERS) == len(set(SECTION_HEADERS)) == 9
    assert all(re.fullmatch("[a-z ]+:", header) for header in SECTION_HEADERS)


@pytest.mark.parametrize("seed", range(10))
def test_sample_codes(seed):
    candidates = [f"C{i}" for i in range(20)]
    gold = ["C3", "C7", "C11", "not a candidate"]
    codes = sample_codes(gold, candidates, 8, random.Random(seed))
    assert len(codes) == len(set(codes)) == 8 and set(codes) <= set(candidates)
    assert {"C3", "C7", "C11"} <= set(codes)
    assert codes == sample_codes(gold, candidates, 8, random.Random(seed))


def test_sample_codes_at_the_edges():
    candidates = [f"C{i}" for i in range(20)]
    drawn = [sample_codes(candidates[:9], candidates, 4, random.Random(seed)) for seed in range(40)]
    assert all(len(codes) == 4 and set(codes) <= set(candidates[:9]) for codes in drawn)
    assert set().union(*drawn) == set(candidates[:9])
    assert sorted(sample_codes(["C1"], candidates, 99, random.Random(0))) == sorted(candidates)
    positions = {sample_codes(["C1"], candidates, 5, random.Random(seed)).index("C1") for seed in range(60)}
    assert positions == set(range(5)), "the gold codes stand anywhere"
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_codes={number}"):
            sample_codes([], candidates, number, random.Random(0))


@pytest.mark.parametrize("name", ["kept-50", "kept-rerank"])
def test_the_marks_of_mimic4_are_removed_but_by_the_exact_presets(tokenizer, name):
    """`___` stands for a name or a date as `[**…**]` does; a longer run is a line to write on."""
    code_set = ICDCodeSet(["401.9"], {"401.9": "Hypertension"})

    def note_tokens(note, preset):
        return KeptProcessor(tokenizer, code_set, preset, 200)(note)["input_ids"]

    marked, tagged, bare = "Seen by ___ on ___, ____ x", "Seen by [**A**] on [**B**], ____ x", "Seen by  on , ____ x"
    assert note_tokens(marked, name) == note_tokens(tagged, name) == note_tokens(bare, name)
    exact = f"{name}-exact"
    assert note_tokens(tagged, exact) == note_tokens(bare, exact) == note_tokens(bare, name)
    assert note_tokens(marked, exact) != note_tokens(bare, exact)
    blank = "Signed [**A**] ___ MD"
    assert note_tokens(blank, name) == note_tokens(blank, exact), "a note of MIMIC-III, as published"
