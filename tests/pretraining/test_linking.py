import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import EvalPrediction

from kept_hf.knowledge import TermGraph
from kept_hf.pretraining.hsap.linking import (
    FARTHEST,
    QUERY_KINDS,
    TOP,
    LinkingTask,
    linking_table,
    nearest_concepts,
    plot_linking,
)
from kept_hf.reports.tables import format_table


def tables(concepts=40):
    """Two trees; each concept with three full names, and an abbreviation that another concept has too."""
    rows = []
    for number in range(concepts):
        rows += [
            (f"c{number}", f"Disease of number {number}", "preferred"),
            (f"c{number}", f"number-{number} disorder", "synonym"),
            (f"c{number}", f"Morbus {number}", "synonym"),
            (f"c{number}", f"D{number // 2}X", "abbreviation"),  # two concepts each
        ]
    children = [f"c{number}" for number in range(2, concepts)]
    return rows, children, [f"c{(int(child[1:]) - 2) // 3}" for child in children]


@pytest.fixture(scope="module")
def graph():
    rows, children, parents = tables()
    rows.append(("c7", "MORBUS; 7", "synonym"))  # reads like another name of its concept
    rows.append(("c8", "morbus 9", "synonym"))  # reads like a name of another concept
    return TermGraph.from_tables(*zip(*rows, strict=True), children, parents)


@pytest.fixture(scope="module")
def task(graph):
    return LinkingTask.from_graph(graph, num_synonyms=9, num_abbreviations=3, num_trained=8, num_families=20)


def words(name):
    return "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()


def test_held_out_names_are_held_out_everywhere(graph, task):
    texts = graph.name_texts.to_pylist()
    queries = [task.names[row] for kind in QUERY_KINDS if kind.startswith("held_out") for row in task.queries[kind]]
    held_out = {tuple(words(name)) for name in queries}
    assert len(held_out) == 12
    assert [tuple(words(text)) in held_out for text in texts] == task.held_out.tolist()
    assert not held_out & {tuple(words(task.names[row])) for row in task.candidates}


def test_every_seed_holds_out_what_reads_alike(graph):
    texts = graph.name_texts.to_pylist()
    both = [texts.index(name) for name in ("Morbus 7", "MORBUS; 7")]
    found = set()
    for seed in range(60):
        task = LinkingTask.from_graph(graph, num_synonyms=9, seed=seed)
        found.add(tuple(task.held_out[both]))
        assert not task.held_out[[texts.index(name) for name in ("Morbus 9", "morbus 9")]].any(), "two concepts have it"
    assert found == {(True, True), (False, False)}


def test_queries(graph, task):
    assert [len(task.queries[kind]) for kind in QUERY_KINDS] == [9, 8, 3]
    for kind in QUERY_KINDS:
        for row, gold in zip(task.queries[kind], task.gold[kind], strict=True):
            concepts = {c for c in range(graph.num_concepts) if task.names[row] in graph.names_of(c)}
            assert gold == concepts and len(gold) == (1 if kind == "held_out_synonym" else 2)
    concepts = [next(iter(gold)) for gold in task.gold["held_out_synonym"]]
    assert len(set(concepts)) == 9, "one of a concept"
    for concept in concepts:
        kept = set(graph.names_of(concept, kinds=["preferred", "synonym"]))
        assert {task.names[row] for row in task.candidates} & kept
    trained = {task.names[row] for row in task.queries["trained_abbreviation"]}
    assert not trained & {task.names[row] for row in task.candidates}, "or they would find themselves"


def test_candidates(graph, task):
    full = {name for c in range(graph.num_concepts) for name in graph.names_of(c, kinds=["preferred", "synonym"])}
    names = [task.names[row] for row in task.candidates]
    held_out = set(np.array(graph.name_texts.to_pylist(), object)[task.held_out])
    assert set(names) == full - held_out
    assert all(n in graph.names_of(int(c)) for n, c in zip(names, task.candidate_concepts, strict=True))
    few = LinkingTask.from_graph(graph, num_synonyms=4, num_abbreviations=0, num_trained=0, num_concepts=10)
    concepts = set(few.candidate_concepts.tolist())
    assert len(concepts) == 10 and set().union(*few.gold["held_out_synonym"]) <= concepts


def test_pairs_have_the_distances_of_the_graph(graph, task):
    of_name = {name: c for c in range(graph.num_concepts) for name in graph.names_of(c)}
    assert set(task.distances.tolist()) >= {1, 2, 3, 4, FARTHEST}
    for (one, two), distance in zip(task.pairs, task.distances, strict=True):
        concepts = [of_name[task.names[one]], of_name[task.names[two]]]
        assert min(graph.tree_distance(concepts)[0, 1], FARTHEST) == distance > 0


def test_names_are_sorted_by_length_and_come_once(task):
    assert len(set(task.names)) == len(task.names)
    assert [len(name) for name in task.names] == sorted(len(name) for name in task.names)
    rows = task.dataset()
    assert len(rows) == len(task.names) and rows[3] == [(3, task.names[3])]


def test_same_seed_same_task(graph):
    one, two, other = (LinkingTask.from_graph(graph, 9, 3, seed=seed) for seed in (1, 1, 2))
    assert one.names == two.names and np.array_equal(one.pairs, two.pairs)
    assert not np.array_equal(one.held_out, other.held_out)


def naive_metrics(task, vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    result = {}
    for kind in QUERY_KINDS:
        for top in TOP:
            hits = 0
            for row, gold in zip(task.queries[kind], task.gold[kind], strict=True):
                order = sorted(range(len(task.candidates)), key=lambda c: -unit[row] @ unit[task.candidates[c]])
                hits += bool(gold & {int(task.candidate_concepts[c]) for c in order[:top]})
            result[f"{kind}_accuracy_at_{top}"] = hits / len(task.queries[kind])
    similarity = [unit[one] @ unit[two] for one, two in task.pairs]
    result["tree_distance_correlation"] = spearmanr(similarity, task.distances).statistic
    for distance in set(task.distances.tolist()):
        result[f"similarity_at_distance_{distance}"] = np.mean(np.array(similarity)[task.distances == distance])
    return result


def test_metrics_are_those_of_a_naive_reference(task):
    vectors = np.random.default_rng(0).normal(size=(len(task.names), 3))
    found = task.metrics(vectors)
    assert found == pytest.approx(naive_metrics(task, vectors), abs=1e-5)
    assert 0 < found["held_out_synonym_accuracy_at_5"] < 1
    assert list(found) == list(naive_metrics(task, vectors))


def test_vectors_without_fault(graph, task):
    """Names of a concept point one way, and the farther relatives, the farther they point from each other."""
    of_name = {name: c for c in range(graph.num_concepts) for name in graph.names_of(c)}
    apart = np.minimum(graph.tree_distance(np.arange(graph.num_concepts)), FARTHEST)
    values, directions = np.linalg.eigh(1 - (apart / 10) ** 0.5)
    places = directions * np.sqrt(values.clip(min=0))
    metrics = task.metrics(np.array([places[of_name[name]] for name in task.names]))
    assert all(metrics[f"{kind}_accuracy_at_5"] == 1 for kind in QUERY_KINDS)
    assert metrics["held_out_synonym_accuracy_at_1"] == 1
    assert metrics["tree_distance_correlation"] < -0.9
    similarity = [metrics[f"similarity_at_distance_{distance}"] for distance in (1, 2, 3, 4, FARTHEST)]
    assert similarity == sorted(similarity, reverse=True)


def test_compute_metrics_takes_any_order_and_repeated_rows(task):
    vectors = np.random.default_rng(0).normal(size=(len(task.names), 4)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(vectors))
    order = np.append(order, order[:3])  # as processes pad their last batch
    assert task.compute_metrics(EvalPrediction(vectors[order], order)) == task.metrics(vectors)


def test_nearest_of_few_candidates():
    assert nearest_concepts(torch.eye(2), torch.eye(2), np.array([4, 5]), 5) == [[4, 5], [5, 4]]


def test_graph_without_abbreviations_or_hierarchy():
    rows = [row for row in tables()[0] if row[2] != "abbreviation"]
    task = LinkingTask.from_graph(TermGraph.from_tables(*zip(*rows, strict=True)))
    assert [len(task.queries[kind]) for kind in QUERY_KINDS] == [10, 0, 0], "a quarter of what can be held out"
    metrics = task.metrics(np.random.default_rng(0).normal(size=(len(task.names), 4)))
    assert list(metrics) == ["held_out_synonym_accuracy_at_1", "held_out_synonym_accuracy_at_5"]
    assert len(linking_table(task, {"before": metrics})) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a"], ["one"], ["preferred"]), "graph has 1 concepts; linking needs at least two"),
        ((["a", "b"], ["one", "two"], ["preferred"] * 2), "graph has no name to link"),
    ],
)
def test_graphs_with_nothing_to_link(columns, message):
    with pytest.raises(ValueError, match=message):
        LinkingTask.from_graph(TermGraph.from_tables(*columns))


def test_table_and_picture(task, tmp_path):
    generator = np.random.default_rng(0)
    results = {name: task.metrics(generator.normal(size=(len(task.names), 3))) for name in ("before", "after")}
    table = linking_table(task, results)
    printed = format_table(table, digits=3)
    assert len(table) == 7 and "held-out synonyms, accuracy@1" in printed and "rank correlation" in printed
    assert table[0]["number"] == 9 and table[0]["after"] == results["after"]["held_out_synonym_accuracy_at_1"]
    plot_linking(tmp_path / "linking.png", results)
    assert (tmp_path / "linking.png").read_bytes()[:4] == b"\x89PNG"
