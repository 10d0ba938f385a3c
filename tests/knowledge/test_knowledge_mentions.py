import random
import re

import numpy as np
import pytest

from kept_hf.knowledge import TermGraph
from kept_hf.knowledge.mentions import NEGATION_CUES, MentionFinder, below


@pytest.fixture(scope="module")
def graph():
    rows = [
        ("N17", "Acute kidney failure", "preferred"),
        ("N17", "Acute renal failure", "synonym"),
        ("N17", "AKF", "abbreviation"),
        ("N19", "Unspecified kidney failure", "preferred"),
        ("I10", "Essential (primary) hypertension", "preferred"),
        ("I15", "Hypertension", "preferred"),
        ("R50", "Fever, unspecified", "preferred"),
        ("R50.0", "Fever, NOS", "preferred"),
        ("M84", "Fracture of bone", "preferred"),
        ("A1", "Rash", "preferred"),
        ("A2", "Nevus", "preferred"),
        ("B1", "cold injury", "preferred"),
        ("B2", "Cold injury", "preferred"),
        ("D1", "a very long name of eight words here", "preferred"),
    ]
    ids, names, kinds = zip(*rows, strict=True)
    return TermGraph.from_tables(ids, names, kinds, ["N17", "N19", "I10", "R50.0"], ["I15", "I15", "N17", "R50"])


def found(graph, text, **options):
    return [
        (graph.concept_ids[m.concept].as_py(), text[m.start : m.end], m.negated)
        for m in MentionFinder(graph, **options)(text)
    ]


def test_the_longest_name_at_each_place(graph):
    text = "Acute kidney failure, then kidney failure; ACUTE RENAL\nFAILURE."
    assert found(graph, text) == [
        ("N17", "Acute kidney failure", False),
        ("N19", "kidney failure", False),
        ("N17", "ACUTE RENAL\nFAILURE", False),
    ]


def test_brackets_and_unspecified_may_be_left_out_unless_another_is_called_so(graph):
    assert found(graph, "essential hypertension and essential primary hypertension") == [
        ("I10", "essential hypertension", False),
        ("I10", "essential primary hypertension", False),
    ]
    assert found(graph, "hypertension") == [("I15", "hypertension", False)]


def test_names_are_found_without_what_stands_in_closed_brackets():
    pattern, generator = re.compile(r"\([^)]*\)|\[[^\]]*\]"), random.Random(0)
    for _ in range(300):
        # Letters in order, so that each part that is left out shows.
        marks = generator.choices("()[] ", k=6)
        name = "".join(f"word{letter}{mark}" for letter, mark in zip("abcdef", marks, strict=True))
        graph = TermGraph.from_tables(["1"], [name], ["preferred"])
        expected = re.findall(r"\w+", pattern.sub(" ", name))
        assert MentionFinder(graph)(" ".join(expected)) == [(0, 0, len(" ".join(expected)), False)], name


def test_a_name_of_several_concepts_is_left_out(graph):
    assert found(graph, "fever and cold injury") == []
    assert found(graph, "Fever unspecified.") == [("R50", "Fever unspecified", False)]


def test_plurals(graph):
    assert found(graph, "fractures of bones, nevus") == [
        ("M84", "fractures of bones", False),
        ("A2", "nevus", False),
    ]


def test_no_abbreviation_no_short_and_no_long_name(graph):
    assert found(graph, "AKF, rash, a very long name of eight words here") == []
    assert found(graph, "a rash", min_letters=4) == [("A1", "rash", False)]
    assert len(found(graph, "a very long name of eight words here", max_words=8)) == 1


@pytest.mark.parametrize("cue", ["No", "denies", "mother with", "ruled out for"])
def test_negation_stands_shortly_before(graph, cue):
    assert found(graph, f"{cue} acute kidney failure")[0][2]
    assert not found(graph, f"{cue} one two three four five six acute kidney failure")[0][2]
    assert found(graph, f"{cue} one two three four five six acute kidney failure", cue_distance=9)[0][2]
    assert not found(graph, f"acute kidney failure {cue}")[0][2]


def test_places_are_of_the_text(graph):
    text = "é “acute  kidney-failure”"
    assert found(graph, text) == [("N17", "acute  kidney-failure", False)]
    assert found(graph, "") == []


@pytest.mark.parametrize("name", ["max_words", "min_letters", "cue_distance"])
def test_wrong_numbers(graph, name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        MentionFinder(graph, **{name: 0})


def test_below(graph):
    assert [graph.concept_ids[int(c)].as_py() for c in np.flatnonzero(below(graph, ["I15"]))] == [
        "N17",
        "N19",
        "I10",
        "I15",
    ]
    assert not below(graph, []).any()
    with pytest.raises(KeyError, match="'X9'"):
        below(graph, ["X9"])


def test_cues_are_single_words_in_lower_case():
    assert all(cue == cue.lower() and cue.isalpha() for cue in NEGATION_CUES)
