import numpy as np
import pytest

from kept_hf.knowledge import TermGraph


def build(source, names, edges=()):
    """Rows (concept, name[, kind]) and (child, parent); a name is a synonym unless it is its concept's first."""
    rows, seen = [], set()
    for concept, name, *kind in names:
        rows.append((concept, name, *(kind or ["synonym" if concept in seen else "preferred"])))
        seen.add(concept)
    return TermGraph.from_tables(
        *zip(*rows, strict=True), [child for child, _ in edges], [parent for _, parent in edges], source=source
    )


def merged_with(graph, concept):
    """Further ids of a concept."""
    at = graph.concept_index(concept)
    return [
        alias for alias, owner in zip(graph.alias_ids.to_pylist(), graph.alias_concepts, strict=True) if owner == at
    ]


def test_concepts_of_the_same_name_become_one():
    graph = TermGraph.merge(
        [
            build("icd10cm", [("I21", "Myocardial infarction"), ("I", "Heart disease")], [("I21", "I")]),
            build(
                "hpo",
                [("H1", "MYOCARDIAL-INFARCTION"), ("H1", "Heart attack"), ("H2", "Ischemia"), ("H3", "Rash")],
                [("H1", "H2")],
            ),
            build("abbreviations", [("m", "heart attack"), ("m", "MI", "abbreviation")]),
        ]
    )
    assert graph.sources == ("icd10cm", "hpo", "abbreviations")
    assert graph.concept_ids.to_pylist() == ["I21", "I", "H2", "H3"]
    assert graph.names_of("I21") == ["Myocardial infarction", "MYOCARDIAL-INFARCTION", "heart attack", "MI"]
    assert graph.concept_index("H1") == graph.concept_index("m") == graph.concept_index("I21") == 0
    assert merged_with(graph, "I21") == ["H1", "m"]
    assert [graph.concept_ids[int(parent)].as_py() for parent in graph.parents_of("I21")] == ["I", "H2"]
    assert graph.counts["merged_concepts"] == 2 and graph.counts["duplicate_names"] == 1


def test_abbreviations_join_nothing():
    graph = TermGraph.merge(
        [
            build("hpo", [("H1", "Atrial septal defect"), ("H1", "ASD", "abbreviation")]),
            build("umls", [("C1", "Autism"), ("C1", "ASD", "abbreviation"), ("C2", "ASD")]),
        ]
    )
    assert graph.num_concepts == 3 and graph.counts["merged_concepts"] == graph.counts["ambiguous_matches"] == 0


def test_the_best_match_wins():
    """A preferred name that agrees beats a synonym, on either side."""
    graph = TermGraph.merge(
        [
            build("hpo", [("H1", "Fever"), ("H2", "Heat"), ("H2", "Pyrexia")]),
            build("umls", [("C1", "Pyrexia"), ("C1", "Heat"), ("C2", "Fever"), ("C2", "Pyrexia")]),
        ]
    )
    assert merged_with(graph, "H1") == ["C2"] and merged_with(graph, "H2") == ["C1"]
    assert graph.counts["merged_concepts"] == 2 and graph.counts["ambiguous_matches"] == 0


@pytest.mark.parametrize("turn", [1, -1])
def test_ambiguous_matches_stay_apart(turn):
    two = build("hpo", [("H1", "Cold"), ("H2", "Chill"), ("H2", "Low temperature"), ("H1", "Low temperature")])
    one = build("umls", [("C1", "Low temperature"), ("C9", "Rash")])
    graph = TermGraph.merge([two, one][::turn])
    assert graph.num_concepts == 4 and graph.counts["merged_concepts"] == 0
    assert graph.counts["ambiguous_matches"] == (1 if turn == 1 else 2)


def test_nothing_is_glued_over_several_names():
    """Two concepts of one source never become one, whatever a third source calls by both their names."""
    graph = TermGraph.merge(
        [
            build("hpo", [("H1", "Fever"), ("H2", "Chills")]),
            build("umls", [("C1", "Fever and chills"), ("C1", "Fever"), ("C1", "Chills")]),
            build("csv", [("x", "Fever"), ("y", "Chills")]),
        ]
    )
    assert graph.concept_index("H1") != graph.concept_index("H2")
    assert merged_with(graph, "H1") == ["x"] and merged_with(graph, "H2") == ["y"]
    assert graph.concept_ids.to_pylist() == ["H1", "H2", "C1"]
    assert graph.counts["ambiguous_matches"] == 1


def test_unspecified_says_nothing():
    graph = TermGraph.merge(
        [
            build(
                "icd10cm", [("J44.9", "Chronic obstructive pulmonary disease, unspecified"), ("R", "Unspecified pain")]
            ),
            build("icd9", [("9", "Hypertension NOS"), ("8", "unspecified"), ("7", "Low back pain")]),
            build("abbreviations", [("m", "chronic obstructive pulmonary disease"), ("m", "COPD", "abbreviation")]),
            build("hpo", [("H1", "Pain"), ("H2", "Hypertension"), ("H3", "Unspecified")]),
        ]
    )
    assert graph.names_of("J44.9", kinds=["abbreviation"]) == ["COPD"]
    assert merged_with(graph, "R") == ["H1"] and merged_with(graph, "9") == ["H2"] and merged_with(graph, "8") == ["H3"]


def test_a_specified_name_beats_the_unspecified_one():
    graph = TermGraph.merge(
        [
            build("icd10cm", [("N17", "Acute kidney failure"), ("N17.9", "Acute kidney failure, unspecified")]),
            build("hpo", [("H1", "Acute kidney failure")]),
        ]
    )
    assert merged_with(graph, "N17") == ["H1"] and not merged_with(graph, "N17.9")


def test_inclusion_terms_join_nothing():
    graph = TermGraph.merge(
        [
            build("icd10cm", [("N64.89", "Other specified disorders of breast"), ("N64.89", "Galactocele")]),
            build("hpo", [("H1", "Galactocele")]),
        ]
    )
    assert graph.num_concepts == 2 and not merged_with(graph, "N64.89")


def test_names_without_letters_join_nothing():
    graph = TermGraph.merge([build("hpo", [("H1", "---")]), build("umls", [("C1", "?!")])])
    assert graph.num_concepts == 2 and graph.counts["ambiguous_matches"] == 0


def test_signs_that_say_something_stay():
    graph = TermGraph.merge(
        [build("hpo", [("H1", "HER2+"), ("H2", "BMI <20")]), build("umls", [("C1", "HER2 -"), ("C2", "BMI > 20")])]
    )
    assert graph.num_concepts == 4


def test_ones_own_ids_join_codes():
    """Names of one's own for codes of a code system, and concepts of one's own beside them."""
    graph = TermGraph.merge(
        [
            build("icd10cm", [("N17", "Acute kidney failure"), ("N17.9", "Acute kidney failure, unspecified")]),
            build(
                "csv",
                [("N17.9", "our AKI"), ("mine", "Acute kidney failure"), ("new", "Bad hair day")],
                [("new", "N17.9")],
            ),
        ]
    )
    assert graph.names_of("N17.9") == ["Acute kidney failure, unspecified", "our AKI"]
    assert graph.concept_ids.to_pylist() == ["N17", "N17.9", "new"] and merged_with(graph, "N17") == ["mine"]
    assert graph.parents_of("new").tolist() == [1] and graph.counts["renamed_ids"] == 0


def test_an_id_that_means_something_else_is_renamed():
    graph = TermGraph.merge(
        [
            build("icd9", [("V10", "History of neoplasm"), ("V11", "History of mental disorder"), ("E9", "Fall")]),
            build(
                "icd10cm",
                [("V10", "Pedal cycle rider injured"), ("V11", "Fall"), ("E9", "Fall, at home")],
                [("V11", "V10")],
            ),
        ]
    )
    assert graph.concept_ids.to_pylist() == ["V10", "V11", "E9", "icd10cm:V10", "icd10cm:E9"]
    assert graph.names_of("V10") == ["History of neoplasm"]
    assert graph.names_of("icd10cm:V10") == ["Pedal cycle rider injured"]
    assert graph.concept_index("icd10cm:V11") == graph.concept_index("E9")
    assert graph.parents_of("E9").tolist() == [graph.concept_index("icd10cm:V10")]
    assert graph.counts["renamed_ids"] == 3


def test_cycles_between_sources_are_opened():
    graph = TermGraph.merge(
        [
            build("icd10cm", [("1", "Pain"), ("2", "Headache")], [("2", "1")]),
            build("hpo", [("H1", "Pain"), ("H2", "Headache")], [("H1", "H2")]),
        ]
    )
    assert graph.counts["cycle_edges"] == 1 and graph.num_edges == 1


def test_counts_add_up():
    parts = [build("hpo", [("a", "x"), ("a", "X"), ("a", "y")]), build("umls", [("b", "x"), ("b", ""), ("b", "z")])]
    graph = TermGraph.merge(parts)
    assert graph.counts["duplicate_names"] == 2 and graph.counts["empty_names"] == 1
    assert graph.names_of("a") == ["x", "y", "z"] and graph.counts["preferred"] == 1


def test_long_names_that_were_kept_stay():
    long = TermGraph.from_tables(["a"], ["x" * 10_000], ["preferred"], max_name_length=20_000)
    graph = TermGraph.merge([long, build("hpo", [("b", "y")])])
    assert len(graph.names_of("a")[0]) == 10_000


def test_merging_a_merged_graph():
    first = TermGraph.merge([build("hpo", [("H1", "Pain")]), build("umls", [("C1", "pain"), ("C1", "Dolor")])])
    graph = TermGraph.merge([build("abbreviations", [("m", "Dolor")]), first])
    assert graph.concept_ids.to_pylist() == ["m"] and merged_with(graph, "m") == ["H1", "C1"]
    assert graph.sources == ("abbreviations", "hpo", "umls")


def test_one_graph_or_none():
    graph = build("hpo", [("a", "x")])
    assert TermGraph.merge([graph]) is graph
    with pytest.raises(ValueError, match=r"graphs=\[\] is empty"):
        TermGraph.merge([])


def test_large_graphs_merge_as_a_naive_loop_does():
    generator = np.random.default_rng(0)
    parts = [
        [(f"{source}{concept}", f"name {name}") for concept in range(60) for name in generator.integers(0, 90, 2)]
        for source in "ab"
    ]
    graph = TermGraph.merge([build("hpo", parts[0]), build("umls", parts[1])])
    names = [{}, {}]
    for part, found in zip(parts, names, strict=True):
        for concept, name in part:
            levels = found.setdefault(concept, {})
            levels.setdefault(name, min(len(levels), 1))
    level = {
        (a, b): min(names[0][a][name] + names[1][b][name] for name in names[0][a].keys() & names[1][b].keys())
        for a in names[0]
        for b in names[1]
        if names[0][a].keys() & names[1][b].keys()
    }
    expected = {}
    for (a, b), found in level.items():
        rivals = [pair for pair, other in level.items() if (pair[0] == a) != (pair[1] == b) and other <= found]
        if not rivals:
            expected[b] = a
    assert expected == {
        alias: graph.concept_ids[int(owner)].as_py()
        for alias, owner in zip(graph.alias_ids.to_pylist(), graph.alias_concepts, strict=True)
    }
    assert graph.counts["ambiguous_matches"] == len({b for _, b in level}) - len(expected) and len(expected) > 5
