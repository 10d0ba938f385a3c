import random

import pytest

from kept_hf import ICDCodeSet
from kept_hf.pretraining.zero_shot.examples import AFFIRMATIONS, FILLERS, NEGATIONS, name_variant
from kept_hf.pretraining.zero_shot.sentences import background_sentences, split_sentences
from kept_hf.pretraining.zero_shot.synthetic import synthetic_curriculum, synthetic_examples


@pytest.fixture(scope="module")
def concepts():
    """Forty codes in ten families; every name is one word of its own, so that a mention gives its code away."""
    codes = [f"{chr(65 + family)}{number:02d}.{number}" for family in range(10) for number in range(4)]

    def word(index, letter):
        return letter * 3 + chr(97 + index // 10) + chr(102 + index % 10)

    return ICDCodeSet(
        codes,
        descriptions={code: word(i, "q") for i, code in enumerate(codes)},
        synonyms={code: [word(i, "x"), word(i, "z")] for i, code in enumerate(codes) if i % 2},
        parents={code: code[0] for code in codes},
    )


def names_in(code_set, sentence):
    """Codes mentioned in a sentence; swapped letters are put up with by comparing sorted ones."""
    letters = {
        "".join(sorted(name)): code
        for code in code_set
        for name in (code_set.describe(code), *code_set.synonyms.get(code, ()))
    }
    words = sentence.replace(",", " ").replace(".", " ").split()
    return [letters["".join(sorted(word))] for word in words if "".join(sorted(word)) in letters]


def sentences_of(text):
    return [part + "." for part in text.split(".") for part in [part.strip()] if part]


def test_mentions(concepts):
    fillers = {s.strip(".") for s in FILLERS}
    asked_total = affirmed_total = negated_total = 0
    negating = [carrier.split("{}") for carrier in NEGATIONS]
    for example in synthetic_examples(concepts, 400, (4, 12), (4, 12), seed=3):
        asked, gold = example.concepts, example.gold
        assert example.names == [concepts.describe(code) for code in asked]
        assert 4 <= len(asked) <= 12 and len(asked) == len(set(asked)) and set(asked) <= set(concepts)
        assert set(gold) <= set(asked) and len(gold) == len(set(gold))
        sentences = sentences_of(example.text)
        affirmed, negated = set(), set()
        for sentence in sentences:
            if sentence.strip(".") in fillers:
                continue
            mentioned = names_in(concepts, sentence)
            assert len(mentioned) == 1, sentence
            is_negated = any(sentence.startswith(start) and sentence.endswith(end) for start, end in negating)
            (negated if is_negated else affirmed).update(mentioned)
        assert affirmed & set(asked) == set(gold), "the gold codes are those asked that the text affirms"
        assert negated <= set(asked) - set(gold)
        asked_total, affirmed_total, negated_total = (
            asked_total + len(asked),
            affirmed_total + len(gold),
            negated_total + len(negated),
        )
    assert 0 < affirmed_total / asked_total < 0.4 and 0.02 < negated_total / asked_total < 0.15


def test_about_a_quarter_is_affirmed(concepts):
    examples = list(synthetic_examples(concepts, 500, (6, 12), seed=1))
    share = sum(len(e.gold) for e in examples) / sum(len(e.concepts) for e in examples)
    assert 0.18 < share < 0.32


def test_positions_say_nothing(concepts):
    first = [e.concepts[0] in e.gold for e in synthetic_examples(concepts, 600, (6, 6), seed=5) if e.gold]
    last = [e.concepts[-1] in e.gold for e in synthetic_examples(concepts, 600, (6, 6), seed=5) if e.gold]
    assert abs(sum(first) / len(first) - sum(last) / len(last)) < 0.1


def test_siblings_are_asked_together(concepts):
    together = 0
    for example in synthetic_examples(concepts, 200, (6, 6), seed=2):
        families = [concepts.parents[code] for code in example.concepts]
        together += len(set(families)) < len(families)
    assert together > 120


def test_seed(concepts):
    assert list(synthetic_examples(concepts, 20, seed=1)) == list(synthetic_examples(concepts, 20, seed=1))
    assert list(synthetic_examples(concepts, 20, seed=1)) != list(synthetic_examples(concepts, 20, seed=2))
    assert len(list(synthetic_examples(concepts, 7))) == 7 and list(synthetic_examples(concepts, 0)) == []


def test_ranges(concepts):
    examples = list(synthetic_examples(concepts, 100, (2, 3), (1, 2), seed=0))
    assert {len(e.concepts) for e in examples} == {2, 3}
    assert all(1 <= len(sentences_of(e.text)) <= max(2, len(e.concepts)) for e in examples)
    assert {len(e.concepts) for e in synthetic_examples(concepts, 10, (1, 1), (1, 1))} == {1}
    assert {len(e.concepts) for e in synthetic_examples(concepts, 5, (20, 20))} == {20}


def test_background(concepts):
    background = ["background one", "background two"]
    text = " ".join(e.text for e in synthetic_examples(concepts, 50, background=background))
    assert "background one" in text and "background two" in text
    assert not any(filler in text for filler in FILLERS)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"num_codes": (0, 3)}, r"num_codes=\(0, 3\)"),
        ({"num_codes": (5, 3)}, r"num_codes=\(5, 3\)"),
        ({"num_sentences": (4, 2)}, r"num_sentences=\(4, 2\)"),
        ({"num_sentences": (0, 2)}, r"num_sentences=\(0, 2\)"),
        ({"num_codes": (4, 21)}, "40 codes.*at least 42"),
    ],
)
def test_wrong_ranges(concepts, settings, message):
    with pytest.raises(ValueError, match=message):
        next(synthetic_examples(concepts, 1, **settings))


def test_no_synonyms_and_no_parents():
    code_set = ICDCodeSet([f"A{i:02d}" for i in range(30)])
    assert len(list(synthetic_examples(code_set, 20))) == 20


def test_carriers_hold_one_mention():
    assert all(carrier.count("{}") == 1 for carrier in AFFIRMATIONS + NEGATIONS)
    assert not set(AFFIRMATIONS) & set(NEGATIONS) and not any("{" in filler for filler in FILLERS)


@pytest.mark.parametrize(
    "name",
    [
        "Acute kidney failure, unspecified",
        "Other specified diseases of liver",
        "Sepsis",
        "Tuberculosis of lung, confirmed, by culture",
        "Other, unspecified",
        "Unspecified",
        "Other",
        "Other specified",
        "Not elsewhere classified",
        "Other , not elsewhere classified",
        "A",
        ", other",
    ],
)
def test_name_variant(name):
    variants = {name_variant(name, random.Random(seed)) for seed in range(300)}
    for variant in variants:
        assert variant and variant == " ".join(variant.lower().split())


def test_name_variant_keeps_the_words():
    seen = set()
    for seed in range(500):
        variant = name_variant("Other specified acute bronchitis, with obstruction", random.Random(seed))
        seen.add(variant)
        letters = {"".join(sorted(word.strip(","))) for word in variant.split()}
        assert letters <= {"".join(sorted(w)) for w in ("acute", "bronchitis", "with", "obstruction")}
    assert {"acute bronchitis", "with obstruction acute bronchitis", "acute bronchitis, with obstruction"} <= seen


def test_real_names():
    code_set = ICDCodeSet.from_icd10cm()
    generator = random.Random(0)
    for code in code_set.codes[::7]:
        for name in (code_set.describe(code), *code_set.synonyms.get(code, ())):
            for _ in range(3):
                assert name_variant(name, generator).strip()


def test_background_sentences_are_whole_and_carry_no_header_or_tag():
    course = "Seen by [**Name**] in the\nclinic today. Ok. She slept well at night."
    note = f"Chief Complaint:\nFever\n\nHospital Course:\n{course}"
    assert background_sentences([note, note]) == ["Seen by in the clinic today.", "She slept well at night."]
    assert background_sentences([note], words=(1, 1)) == ["Fever", "Ok."]


@pytest.mark.parametrize(
    ("text", "sentences", "with_initials"),
    [
        ("Came in. Went home.", ["Came in.", "Went home."], None),
        ("Fever 39! Why? Yes", ["Fever 39!", "Why?", "Yes"], None),
        ("Fever (high). Home", ["Fever (high).", "Home"], None),
        ("approx. three\n\nweeks.  ok", ["approx. three weeks. ok"], None),
        (
            "By J. Smith. Had an ECG. Fine.",
            ["By J.", "Smith.", "Had an ECG.", "Fine."],
            ["By J. Smith.", "Had an ECG. Fine."],
        ),
        ("At 97%. Stable.", ["At 97%.", "Stable."], ["At 97%. Stable."]),
        (" \n", [], None),
    ],
)
def test_sentences(text, sentences, with_initials):
    """The two rules differ after a capital letter and after a sign."""
    assert split_sentences(text) == sentences
    assert split_sentences(text, keep_initials=True) == (sentences if with_initials is None else with_initials)


def test_curriculum_grows_and_begins_with_the_names_asked():
    code_set = ICDCodeSet.from_icd10cm()
    examples = synthetic_curriculum(code_set, 200, (3, 12), (1, 8), seed=3)
    assert len(examples) == 200
    sizes = [len(example.concepts) for example in examples]
    assert max(sizes[:100]) <= 4 and max(sizes[-30:]) >= 10 and min(sizes[-30:]) >= 8

    def share_named(part):
        named = [code_set.describe(c).lower() in e.text for e in part for c in e.gold]
        return sum(named) / len(named)

    assert share_named(examples[:100]) > 0.7 > share_named(examples[100:])
    assert examples == synthetic_curriculum(code_set, 200, (3, 12), (1, 8), seed=3)
