import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kept_hf import ICDCodeSet
from kept_hf.knowledge import MAX_TREE_DISTANCE, NAME_KINDS, TermGraph


def build(names, edges=(), **options):
    """Rows (concept, name, kind) and (child, parent)."""
    children, parents = zip(*edges, strict=True) if edges else ((), ())
    return TermGraph.from_tables(*zip(*names, strict=True), children, parents, **options)


def named(*concepts):
    return [(concept, f"name of {concept}", "preferred") for concept in concepts]


def ids(graph, concepts):
    return [graph.concept_ids[int(concept)].as_py() for concept in concepts]


def dropped(graph):
    return {name: count for name, count in graph.dropped.items() if count}


@pytest.fixture
def kidneys():
    return build(
        [
            ("N17", "Acute kidney failure", "preferred"),
            ("N17.9", "ARF", "abbreviation"),
            ("N17.9", "Acute renal failure", "synonym"),
            ("N17.9", "Acute kidney failure, unspecified", "preferred"),
            ("N17.0", "Acute kidney failure with tubular necrosis", "preferred"),
            ("N18", "Chronic kidney disease (CKD)", "preferred"),
            ("N17-N19", "Kidney failure", "preferred"),
        ],
        [("N17", "N17-N19"), ("N18", "N17-N19"), ("N17.9", "N17"), ("N17.0", "N17")],
    )


def test_arrays(kidneys):
    assert (kidneys.num_concepts, kidneys.num_names, kidneys.num_edges) == (5, 7, 4)
    assert kidneys.concept_ids.to_pylist() == ["N17", "N17.9", "N17.0", "N18", "N17-N19"]
    assert kidneys.name_offsets.tolist() == [0, 1, 4, 5, 6, 7]
    assert kidneys.name_concepts.tolist() == [0, 1, 1, 1, 2, 3, 4] and kidneys.name_concepts.dtype == np.int32
    assert [NAME_KINDS[kind] for kind in kidneys.name_kinds[1:4]] == ["preferred", "synonym", "abbreviation"]
    assert kidneys.name_kinds.dtype == np.uint8
    assert kidneys.parent_offsets.tolist() == [0, 1, 2, 3, 4, 4] and kidneys.parent_indices.tolist() == [4, 0, 0, 4]
    assert kidneys.child_offsets.tolist() == [0, 2, 2, 2, 2, 4] and kidneys.child_indices.tolist() == [1, 2, 0, 3]
    assert kidneys.parent_indices.dtype == kidneys.child_indices.dtype == np.int32
    assert kidneys.edge_children.tolist() == [0, 1, 2, 3]
    assert pa.types.is_large_string(kidneys.name_texts.type) and pa.types.is_large_string(kidneys.concept_ids.type)


def test_look_up(kidneys):
    at = kidneys.concept_index("N17.9")
    assert at == 1 and isinstance(at, int)
    assert kidneys.names_of(at) == ["Acute kidney failure, unspecified", "Acute renal failure", "ARF"]
    assert kidneys.names_of(at, kinds=("synonym", "preferred")) == kidneys.names_of("N17.9")[:2]
    assert ids(kidneys, kidneys.parents_of(at)) == ["N17"]
    assert ids(kidneys, kidneys.children_of("N17")) == ["N17.9", "N17.0"]
    assert ids(kidneys, kidneys.siblings_of(at)) == ["N17.0"] and ids(kidneys, kidneys.siblings_of("N17")) == ["N18"]
    assert not len(kidneys.siblings_of("N17-N19")) and not len(kidneys.parents_of("N17-N19"))
    assert kidneys.depth.tolist() == [1, 2, 2, 1, 0]
    assert kidneys.tree_distance([1, 2, 3, 4]).tolist() == [[0, 2, 3, 2], [2, 0, 3, 2], [3, 3, 0, 1], [2, 2, 1, 0]]
    assert "N18" in kidneys and "18" not in kidneys and 3 not in kidneys and kidneys.has_hierarchy


def test_every_id_is_found():
    codes = [f"{number / 100:06.2f}" for number in np.random.default_rng(0).permutation(5000)]
    graph = build(named(*codes))
    assert [graph.concept_index(code) for code in codes] == list(range(5000))
    assert "1000.00" not in graph and "" not in graph


def test_unknown_concepts_and_kinds(kidneys):
    with pytest.raises(KeyError, match=r"concept_id='N99' is none of the 5 concepts .* such as 'N17'"):
        kidneys.concept_index("N99")
    with pytest.raises(KeyError, match="N99"):
        kidneys.names_of("N99")
    for bad in (5, -1):
        with pytest.raises(IndexError, match="0 to 4"):
            kidneys.siblings_of(bad)
        with pytest.raises(IndexError, match="0 to 4"):
            kidneys.tree_distance([0, bad])
    with pytest.raises(ValueError, match="'title' is no kind of name; legal are: preferred, synonym, abbreviation"):
        kidneys.names_of(0, kinds=["title"])


def test_siblings_over_two_parents_come_once():
    edges = [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("c", "q")]
    graph = build(named("a", "b", "c", "p", "q"), edges)
    assert ids(graph, graph.siblings_of("a")) == ["b", "c"]


def test_a_graph_without_hierarchy():
    graph = build(named("a", "b"))
    assert not graph.has_hierarchy and graph.num_edges == 0
    assert graph.depth.tolist() == [0, 0] and not len(graph.siblings_of(0))
    assert graph.tree_distance([0, 1]).tolist() == [[0, MAX_TREE_DISTANCE], [MAX_TREE_DISTANCE, 0]]
    assert graph.counts["concepts_without_edges"] == 2


def test_names_that_say_nothing_new_are_dropped_and_counted():
    long = "x" * 10_000
    graph = build(
        [
            ("a", " Heart\n attack ", "preferred"),
            ("a", "heart  ATTACK", "synonym"),
            ("a", "", "synonym"),
            ("a", "   ", "synonym"),
            ("a", None, "synonym"),
            ("a", long, "synonym"),
            ("", "of nothing", "synonym"),
            (None, "of nothing", "synonym"),
            ("b", long, "preferred"),
            ("c", "heart attack", "preferred"),
            ("c", "y" * 500, "synonym"),
        ],
        [("b", "a"), ("c", "a")],
    )
    assert dropped(graph) == {
        "names_without_concept": 2,
        "empty_names": 3,
        "long_names": 2,
        "duplicate_names": 1,
        "missing_children": 1,
    }
    assert graph.concept_ids.to_pylist() == ["a", "c"], "b has lost its only name"
    assert graph.names_of("a") == ["Heart attack"]
    assert graph.counts["ambiguous_names"] == 1 and graph.counts["concepts_with_one_name"] == 1
    kept = build([("b", long, "preferred")], max_name_length=10_000)
    assert kept.names_of("b") == [long] and not dropped(kept)


def test_every_edge_that_is_dropped_is_counted():
    edges = [
        ("a", "b"),
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "c"),
        ("c", "nowhere"),
        ("nobody", "a"),
        ("nobody", "nowhere"),
        ("c", ""),
    ]
    graph = build(named("a", "b", "c"), edges)
    assert dropped(graph) == {
        "missing_parents": 3,
        "missing_children": 1,
        "self_loops": 1,
        "duplicate_edges": 1,
        "cycle_edges": 1,
    }
    assert ids(graph, graph.parents_of("a")) == ["b"] and ids(graph, graph.parents_of("b")) == ["c"]
    assert not len(graph.parents_of("c")), "the walk begins at a, and c closes the cycle"


def test_one_preferred_name_a_concept():
    graph = build(
        [
            ("a", "one", "preferred"),
            ("a", "two", "preferred"),
            ("b", "three", "synonym"),
            ("b", "four", "synonym"),
            ("c", "five", "abbreviation"),
            ("d", "COPD", "synonym"),
            ("d", "copd", "abbreviation"),
            ("d", "lung disease", "preferred"),
        ]
    )
    kinds = [[NAME_KINDS[kind] for kind in graph.name_kinds[graph.name_concepts == concept]] for concept in range(4)]
    assert kinds == [
        ["preferred", "synonym"],
        ["preferred", "synonym"],
        ["abbreviation"],
        ["preferred", "abbreviation"],
    ]
    assert graph.names_of("b") == ["three", "four"] and graph.names_of("d") == ["lung disease", "copd"]
    assert graph.counts["preferred"] == 3 and graph.counts["abbreviations"] == 2


@pytest.mark.parametrize("names", [[], ["", " "]])
def test_an_empty_graph(names):
    with pytest.raises(
        ValueError, match=r"term graph of mine is empty.*(there are none|empty_names: 2).*Pass at least"
    ):
        TermGraph.from_tables(["a"] * len(names), names, ["preferred"] * len(names), source="mine")


def test_bad_tables():
    with pytest.raises(TypeError, match=r"concept_ids is of type double; pass text: as codes '038.9' and 38.9 differ"):
        TermGraph.from_tables([38.9], ["sepsis"], ["preferred"])
    with pytest.raises(TypeError, match="concept_ids is no column of text"):
        TermGraph.from_tables(["a", 1], ["sepsis", "flu"], ["preferred"] * 2)
    with pytest.raises(TypeError, match="names='sepsis' is one string"):
        TermGraph.from_tables(["a"], "sepsis", ["preferred"])
    with pytest.raises(ValueError, match=r"kinds\[1\]='title' is no kind of name; legal are: preferred, synonym, abb"):
        TermGraph.from_tables(["a", "a"], ["sepsis", "flu"], ["preferred", "title"])
    with pytest.raises(ValueError, match=r"kinds\[0\]=np.int64\(3\)|kinds\[0\]=3"):
        TermGraph.from_tables(["a"], ["sepsis"], np.array([3]))
    with pytest.raises(ValueError, match="have 1, 2 and 1 rows"):
        TermGraph.from_tables(["a"], ["sepsis", "flu"], ["preferred"])
    with pytest.raises(ValueError, match="child_ids and parent_ids have 1 and 0 rows"):
        TermGraph.from_tables(["a"], ["sepsis"], ["preferred"], ["a"], [])
    with pytest.raises(ValueError, match="max_name_length=0"):
        TermGraph.from_tables(["a"], ["sepsis"], ["preferred"], max_name_length=0)


def test_arrow_columns_are_taken(kidneys):
    columns = pa.table(
        {
            "id": pa.chunked_array([["038.9"], ["38.9"]]).dictionary_encode(),
            "name": pa.array(["Septicemia", "procedure"], pa.string()),
            "kind": pa.array(["preferred", "preferred"]).dictionary_encode(),
        }
    )
    graph = TermGraph.from_tables(columns["id"], columns["name"], columns["kind"])
    assert graph.concept_ids.to_pylist() == ["038.9", "38.9"]
    numbers = TermGraph.from_tables(["a", "a"], ["flu", "f."], np.array([0, 2], np.uint8))
    assert numbers.names_of("a", kinds=["abbreviation"]) == ["f."]


def test_describe(kidneys):
    lines = kidneys.describe().splitlines()
    assert lines[0] == repr(kidneys) == "TermGraph(5 concepts, 7 names, 4 edges, from own)"
    assert "  abbreviations                   1" in lines and not any("cycle" in line for line in lines)


def test_save_and_load(kidneys, tmp_path):
    other = build([("X:1", "kidney failure", "preferred"), ("038.9", "Sepsis", "synonym")], [("038.9", "X:1")])
    graph = TermGraph.merge([kidneys, other])
    graph.save(tmp_path / "graph")
    again = TermGraph.load(tmp_path / "graph")
    for name, value in vars(graph).items():
        if not name.startswith("_") and name not in ("counts", "depth"):
            same = np.array_equal if isinstance(value, np.ndarray) else lambda a, b: a == b
            assert same(getattr(again, name), value), name
            assert not isinstance(value, np.ndarray) or getattr(again, name).dtype == value.dtype, name
    assert again.counts == graph.counts
    assert again.concept_index("X:1") == again.concept_index("N17-N19") and again.concept_index("038.9") == 5
    assert "38.9" not in again


def test_save_and_load_without_hierarchy(tmp_path):
    graph = build(named("a"))
    graph.save(tmp_path)
    assert TermGraph.load(tmp_path).describe() == graph.describe()


def test_load_refuses_other_folders(kidneys, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no term_graph\.json; pass one that TermGraph\.save wrote"):
        TermGraph.load(tmp_path)
    kidneys.save(tmp_path)
    (tmp_path / "names.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no names\.parquet"):
        TermGraph.load(tmp_path)
    kidneys.save(tmp_path)
    about = json.loads((tmp_path / "term_graph.json").read_text())
    (tmp_path / "term_graph.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(ValueError, match="has format 2; this version of kept-hf reads 1"):
        TermGraph.load(tmp_path)


def assert_same(one, other):
    for name, mine in one.arrays._asdict().items():
        theirs = getattr(other.arrays, name)
        if name == "names":
            assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        elif isinstance(mine, np.ndarray):
            assert np.array_equal(mine, theirs)
        else:
            assert mine == theirs


def test_damaged_files_are_refused(kidneys, tmp_path):
    """A changed byte or a truncation in any of the files: an error with the folder, or what was saved."""
    kidneys.save(tmp_path)
    generator, refused, cases = np.random.default_rng(0), 0, 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        damaged = [whole[:length] for length in generator.integers(0, len(whole), 15)]
        for place in generator.integers(0, len(whole), 150):
            damaged.append(whole[:place] + bytes([whole[place] ^ (1 << generator.integers(8))]) + whole[place + 1 :])
        for content in damaged:
            path.write_bytes(content)
            cases += 1
            try:
                again = TermGraph.load(tmp_path)
            except ValueError as error:
                assert str(tmp_path) in str(error)
                refused += 1
                continue
            assert_same(again, kidneys)
        path.write_bytes(whole)
    assert refused > 0.95 * cases
    assert_same(TermGraph.load(tmp_path), kidneys)


def test_tables_of_two_graphs_do_not_make_one(kidneys, tmp_path):
    kidneys.save(tmp_path / "one")
    build([*named("N17", "N17.9", "N17.0", "N18", "N17-N19"), ("N17", "AKF", "synonym")]).save(tmp_path / "other")
    (tmp_path / "other" / "names.parquet").replace(tmp_path / "one" / "names.parquet")
    with pytest.raises(ValueError, match="is damaged: its files are not those that were saved"):
        TermGraph.load(tmp_path / "one")


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("edges", {}),
        ("edges", {"child": np.array([0, 1, 2, 7], np.int32)}),
        ("edges", {"child": np.array([0, 1, 2, 3]) + 0.5}),
        ("edges", {"parent": np.array([4, 0, 0, 4], np.int64)}),
        ("edges", {"child": np.array([0, 1, 3, 2], np.int32)}),
        ("edges", {"parent": np.array([1, 0, 0, 4], np.int32)}),  # a cycle
        ("names", {"kind": np.array([0, 0, 1, 3, 0, 0, 0], np.uint8)}),
        ("names", {"concept": np.array([0, 1, 1, 1, 2, 2, 4], np.int32)}),  # the fourth concept has no name
        ("names", {"name": ["a", None, "c", "d", "e", "f", "g"]}),
        ("concepts", {"concept_id": ["a", "b"]}),
        ("concepts", {"other": ["a", "b", "c", "d", "e"]}),
    ],
)
def test_graphs_of_earlier_versions_are_checked(kidneys, tmp_path, table, columns):
    kidneys.save(tmp_path)
    described = json.loads((tmp_path / "term_graph.json").read_text())
    del described["checksum"]
    (tmp_path / "term_graph.json").write_text(json.dumps(described))
    if not columns:
        assert_same(TermGraph.load(tmp_path), kidneys)
        return
    path = tmp_path / f"{table}.parquet"
    known = pq.read_table(path)
    if "other" in columns:
        known = known.drop_columns(["concept_id"])
    length = len(next(iter(columns.values())))
    kept = {name: known[name][:length] for name in known.column_names}
    pq.write_table(pa.table({**kept, **columns}), path)
    with pytest.raises(ValueError, match="is damaged: its files"):
        TermGraph.load(tmp_path)


def test_synonyms_for_a_code_set(kidneys):
    code_set = ICDCodeSet(
        ["N17.9", "N18", "I10"],
        descriptions={"N17.9": "acute kidney failure, UNSPECIFIED"},
        synonyms={"N17.9": ["AKI", "arf"], "I10": ["HTN"]},
    )
    named = code_set.with_synonyms(kidneys)
    assert named.codes == code_set.codes
    assert named.synonyms == {"N17.9": ("AKI", "arf", "Acute renal failure"), "I10": ("HTN",)}
    assert named.descriptions == {"N17.9": code_set.descriptions["N17.9"], "N18": "Chronic kidney disease (CKD)"}
    assert code_set.synonyms["N17.9"] == ("AKI", "arf"), "the first one stays as it was"
    assert kidneys.synonym_table(code_set, 5) == [
        ["acute kidney failure, UNSPECIFIED", "AKI", "arf", "Acute renal failure", "acute kidney failure, UNSPECIFIED"],
        ["Chronic kidney disease (CKD)"] * 5,
        ["HTN"] * 5,
    ]
    assert kidneys.synonym_table(code_set, 2)[0] == ["acute kidney failure, UNSPECIFIED", "AKI"]
    with pytest.raises(ValueError, match="max_synonyms=0; pass at least 1"):
        kidneys.synonym_table(code_set, 0)
