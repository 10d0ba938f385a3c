from collections import deque

import numpy as np
import pytest

from kept_hf.knowledge import MAX_TREE_DISTANCE
from kept_hf.knowledge.hierarchy import depths, rows_to_offsets, tidy_edges, tree_distances


def random_edges(seed, num_concepts, num_edges, acyclic=False):
    generator = np.random.default_rng(seed)
    children, parents = generator.integers(0, num_concepts, (2, num_edges))
    if acyclic:
        children, parents = np.maximum(children, parents), np.minimum(children, parents)
    return children, parents


def parent_rows(children, parents, num_concepts):
    return rows_to_offsets(children, num_concepts), parents


def steps_up(edges, start):
    """Fewest edges from `start` to each of its ancestors, by breadth-first search."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for child, parent in edges:
            if child == node and parent not in steps:
                steps[parent] = steps[node] + 1
                queue.append(parent)
    return steps


def has_cycle(edges, num_concepts):
    """Kahn's algorithm, one node at a time."""
    edges, left = set(edges), set(range(num_concepts))
    while left:
        free = {node for node in left if not any(child == node for child, _ in edges)}
        if not free:
            return True
        left -= free
        edges = {(child, parent) for child, parent in edges if parent not in free}
    return False


@pytest.mark.parametrize("seed", range(6))
def test_distances_are_those_of_breadth_first_search(seed):
    num_concepts = 40
    children, parents, _ = tidy_edges(*random_edges(seed, num_concepts, 45, acyclic=True), num_concepts)
    edges = list(zip(children.tolist(), parents.tolist(), strict=True))
    up = [steps_up(edges, concept) for concept in range(num_concepts)]
    expected = [
        [min((up[a][c] + up[b][c] for c in up[a].keys() & up[b].keys()), default=MAX_TREE_DISTANCE) for b in range(40)]
        for a in range(40)
    ]
    concepts = np.append(np.random.default_rng(seed).permutation(num_concepts), [3, 3])
    found = tree_distances(*parent_rows(children, parents, num_concepts), concepts)
    np.testing.assert_array_equal(found, np.array(expected)[np.ix_(concepts, concepts)])
    assert found.dtype == np.int32 and (found == MAX_TREE_DISTANCE).any() and (found == 2).any()


def test_distances_that_everybody_knows():
    # 0 is the root; 1 and 2 below it; 3 and 4 below 1; 5 below 2; 6 alone.
    children, parents = np.array([1, 2, 3, 4, 5]), np.array([0, 0, 1, 1, 2])
    distances = tree_distances(*parent_rows(children, parents, 7), np.arange(7))
    assert distances[1, 0] == 1 and distances[3, 4] == 2 and distances[3, 5] == 4 and distances[3, 0] == 2
    assert distances[6, 0] == MAX_TREE_DISTANCE and distances[6, 6] == 0
    assert (distances == distances.T).all()
    assert tree_distances(*parent_rows(children, parents, 7), np.zeros(0, np.int64)).shape == (0, 0)


def test_distances_are_capped():
    chain = np.arange(300)
    distances = tree_distances(*parent_rows(chain[1:], chain[:-1], 300), np.array([0, 50, 299]))
    assert distances.tolist() == [[0, 50, 100], [50, 0, 100], [100, 100, 0]] and MAX_TREE_DISTANCE == 100


def test_the_shorter_of_two_ways_counts():
    # 3 lies below 2, 2 below 1, 1 below 0, and 3 also directly below 0.
    children, parents, _ = tidy_edges(np.array([3, 2, 1, 3]), np.array([2, 1, 0, 0]), 4)
    rows = parent_rows(children, parents, 4)
    assert tree_distances(*rows, np.array([3, 0])).tolist() == [[0, 1], [1, 0]]
    order = np.argsort(parents, kind="stable")
    assert depths(rows[0], rows_to_offsets(parents, 4), children[order]).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("seed", range(8))
def test_no_cycle_remains(seed):
    num_concepts = 25
    given = random_edges(seed, num_concepts, 60)
    children, parents, counts = tidy_edges(*given, num_concepts)
    edges = list(zip(children.tolist(), parents.tolist(), strict=True))
    assert not has_cycle(edges, num_concepts)
    assert counts["cycle_edges"] > 0
    assert len(edges) == 60 - sum(counts.values())
    assert edges == sorted(set(edges))
    # Each edge that was left out would close a cycle: the child is an ancestor of the parent.
    dropped = set(zip(*(part.tolist() for part in given), strict=True)) - set(edges)
    for child, parent in dropped:
        assert child in steps_up(edges, parent)
    again = tidy_edges(*given, num_concepts)
    assert all((a == b).all() for a, b in zip(again[:2], (children, parents), strict=True))


def test_acyclic_edges_stay():
    children, _, counts = tidy_edges(*random_edges(0, 50, 80, acyclic=True), 50)
    assert counts["cycle_edges"] == 0 and len(children) == 80 - counts["self_loops"] - counts["duplicate_edges"]
    assert has_cycle([(0, 1), (1, 2), (2, 0)], 3)


def test_long_chains_and_cycles():
    """No recursion, and nothing quadratic."""
    size = 20_000
    ring = np.arange(size)
    children, _, counts = tidy_edges(ring, np.roll(ring, 1), size)
    assert counts["cycle_edges"] == 1 and len(children) == size - 1
    children, _, counts = tidy_edges(ring[1:], ring[:-1], size)
    assert counts["cycle_edges"] == 0 and len(children) == size - 1


def test_edges_to_nothing():
    children, parents, counts = tidy_edges(np.array([0, -1, 1, -1]), np.array([-1, 0, 1, -1]), 2)
    assert not len(children) and not len(parents)
    assert counts == {
        "missing_parents": 2,
        "missing_children": 1,
        "self_loops": 1,
        "duplicate_edges": 0,
        "cycle_edges": 0,
    }
