"""Hierarchies as pairs of integer arrays: cycles, depths, ancestors, distances. Pure functions of numpy arrays.

An edge is a child and a parent; a concept may have several parents. Lists of lists are kept in compressed sparse rows:
the entries of row `i` are `indices[offsets[i] : offsets[i + 1]]`.
"""

from __future__ import annotations

import numpy as np

MAX_TREE_DISTANCE = 100
"""The tree distance of two concepts without a common ancestor, and the largest that is reported."""


def rows_to_offsets(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Where each row starts among entries whose sorted row numbers are `rows`; (num_rows + 1,) integers.

    Examples:
        >>> rows_to_offsets(np.array([0, 0, 2]), 3).tolist()
        [0, 2, 2, 3]
    """
    offsets = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows), out=offsets[1:])
    return offsets


def gather_rows(offsets: np.ndarray, indices: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of some rows, one row after the other, and how many each has.

    Examples:
        >>> entries, lengths = gather_rows(np.array([0, 2, 2, 3]), np.array([7, 8, 9]), np.array([2, 0]))
        >>> entries.tolist(), lengths.tolist()
        ([9, 7, 8], [1, 2])
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    before = np.cumsum(lengths) - lengths
    return indices[np.repeat(starts - before, lengths) + np.arange(lengths.sum())], lengths


def tidy_edges(
    children: np.ndarray, parents: np.ndarray, num_concepts: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Edges without cycles or repetition, sorted by child and parent.

    Args:
        children: (edges,) concept numbers, -1 where the child is no concept.
        parents: (edges,) likewise.
        num_concepts: how many there are.

    Returns:
        Children, parents, and how many edges were dropped: `missing_parents`, `missing_children`, `self_loops`,
        `duplicate_edges`, `cycle_edges`.

    Examples:
        >>> children, parents, counts = tidy_edges(np.array([1, 2, 0, 2, 1]), np.array([0, 1, 2, 1, -1]), 3)
        >>> list(zip(children.tolist(), parents.tolist()))
        [(0, 2), (2, 1)]
        >>> {name: count for name, count in counts.items() if count}
        {'missing_parents': 1, 'duplicate_edges': 1, 'cycle_edges': 1}
    """
    no_parent, no_child = parents < 0, children < 0
    counts = {"missing_parents": int(no_parent.sum()), "missing_children": int((no_child & ~no_parent).sum())}
    keep = ~(no_parent | no_child)
    counts["self_loops"] = int((keep & (children == parents)).sum())
    keep &= children != parents
    keys = children[keep].astype(np.int64) * num_concepts + parents[keep]
    unique = np.unique(keys)
    counts["duplicate_edges"] = len(keys) - len(unique)
    children, parents = (part.astype(np.int32) for part in np.divmod(unique, max(num_concepts, 1)))
    closing = _edges_closing_cycles(children, parents, num_concepts)
    counts["cycle_edges"] = len(closing)
    return np.delete(children, closing), np.delete(parents, closing), counts


def _edges_closing_cycles(children: np.ndarray, parents: np.ndarray, num_concepts: int) -> np.ndarray:
    """Numbers of the edges (sorted by child) to leave out so that no cycle remains.

    A depth-first walk from child to parent, in the order of the numbers, leaves out each edge that leads back onto its
    own path. What no cycle can touch is taken away first, whole levels at a time.
    """
    inside = _off_the_ends(parents, children, num_concepts, np.ones(num_concepts, bool))
    inside = _off_the_ends(children, parents, num_concepts, inside)
    edges = np.flatnonzero(inside[children] & inside[parents])
    if not len(edges):
        return edges
    offsets = rows_to_offsets(children[edges], num_concepts)
    above, numbers = parents[edges].tolist(), edges.tolist()
    nodes = np.unique(children[edges]).tolist()
    position = dict(zip(nodes, offsets[nodes].tolist(), strict=True))
    end = dict(zip(nodes, offsets[np.array(nodes) + 1].tolist(), strict=True))
    on_path, done, closing = set(), set(), []
    for start in nodes:
        path = [] if start in done else [start]
        on_path.update(path)
        while path:
            node = path[-1]
            if (at := position.get(node, 0)) == end.get(node, 0):
                path.pop()
                on_path.remove(node)
                done.add(node)
                continue
            position[node] = at + 1
            if above[at] in on_path:
                closing.append(numbers[at])
            elif above[at] not in done:
                path.append(above[at])
                on_path.add(above[at])
    return np.sort(np.array(closing, np.int64))


def _off_the_ends(sources: np.ndarray, targets: np.ndarray, num_concepts: int, inside: np.ndarray) -> np.ndarray:
    """Which of the concepts `inside` remain when those without an edge into them are taken away, again and again."""
    among = inside[sources] & inside[targets]
    sources, targets = sources[among], targets[among]
    order = np.argsort(sources, kind="stable")
    offsets, targets = rows_to_offsets(sources, num_concepts), targets[order]
    pending = np.bincount(targets, minlength=num_concepts)
    inside = inside.copy()
    frontier = np.flatnonzero(inside & (pending == 0))
    while len(frontier):
        inside[frontier] = False
        reached, _ = gather_rows(offsets, targets, frontier)
        reached, times = np.unique(reached, return_counts=True)
        pending[reached] -= times
        frontier = reached[pending[reached] == 0]
    return inside


def depths(parent_offsets: np.ndarray, child_offsets: np.ndarray, child_indices: np.ndarray) -> np.ndarray:
    """Fewest edges from each concept up to one without parents; (concepts,) integers.

    Examples:
        >>> depths(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2]), np.array([1, 2])).tolist()
        [0, 1, 2]
    """
    result = np.full(len(parent_offsets) - 1, -1, np.int32)
    frontier, depth = np.flatnonzero(np.diff(parent_offsets) == 0), 0
    while len(frontier):
        result[frontier] = depth
        reached, _ = gather_rows(child_offsets, child_indices, frontier)
        frontier, depth = np.unique(reached[result[reached] < 0]), depth + 1
    return result


def ancestors(
    parent_offsets: np.ndarray, parent_indices: np.ndarray, concepts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every ancestor of each concept, the concept itself among them.

    Returns:
        Positions in `concepts`, ancestors, and fewest edges up to them; three arrays of one length.

    Examples:
        >>> positions, above, steps = ancestors(np.array([0, 0, 1, 3]), np.array([0, 0, 1]), np.array([2, 1]))
        >>> sorted(zip(positions.tolist(), above.tolist(), steps.tolist()))
        [(0, 0, 1), (0, 1, 1), (0, 2, 0), (1, 0, 1), (1, 1, 0)]
    """
    num_concepts = len(parent_offsets) - 1
    keys = [np.arange(len(concepts)) * num_concepts + concepts]
    seen = keys[0]
    while len(keys[-1]):
        positions, nodes = np.divmod(keys[-1], num_concepts)
        above, lengths = gather_rows(parent_offsets, parent_indices, nodes)
        reached = np.unique(np.repeat(positions, lengths) * num_concepts + above)
        reached = reached[~np.isin(reached, seen, assume_unique=True)]
        seen = np.concatenate([seen, reached])
        keys.append(reached)
    steps = np.repeat(np.arange(len(keys)), [len(level) for level in keys])
    positions, nodes = np.divmod(seen, num_concepts)
    return positions, nodes, steps


def tree_distances(parent_offsets: np.ndarray, parent_indices: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """Fewest edges between each two concepts over a common ancestor.

    Args:
        parent_offsets, parent_indices: the parents of every concept.
        concepts: (n,) concept numbers; repetitions are allowed.

    Returns:
        (n, n) int32: 0 for a concept and itself, 1 for child and parent, 2 for siblings, 4 for cousins,
        `MAX_TREE_DISTANCE` where there is no common ancestor or none so near.

    Examples:
        >>> offsets, parents = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 0, 1])
        >>> tree_distances(offsets, parents, np.array([1, 2, 3, 4])).tolist()
        [[0, 2, 1, 100], [2, 0, 3, 100], [1, 3, 0, 100], [100, 100, 100, 0]]
    """
    unique, inverse = np.unique(concepts, return_inverse=True)
    positions, above, steps = ancestors(parent_offsets, parent_indices, unique)
    order = np.argsort(above, kind="stable")
    positions, above, steps = positions[order], above[order], steps[order].astype(np.int32)
    starts = np.flatnonzero(np.diff(above, prepend=-1))
    ends = np.append(starts[1:], len(above))
    distances = np.full((len(unique), len(unique)), MAX_TREE_DISTANCE, np.int32)
    np.fill_diagonal(distances, 0)
    shared = ends - starts > 1
    for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True):
        members, up = positions[start:end], steps[start:end]
        block = np.ix_(members, members)
        distances[block] = np.minimum(distances[block], up[:, None] + up)
    return distances[np.ix_(inverse, inverse)]
