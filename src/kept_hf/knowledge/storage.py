"""A term graph as a folder of parquet tables. Ids are text in them: 038.9 stays 038.9."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..models.whole_file import whole_file, whole_path
from .arrays import GraphArrays
from .hierarchy import tidy_edges
from .names import NAME_KINDS, Names

FILE = "term_graph.json"
"""Sources and counts of a saved graph."""

_FORMAT = 1
_TABLES = ("concepts", "aliases", "names", "edges")


def save(graph: GraphArrays, folder: str | os.PathLike) -> None:
    """Write a graph into `folder`; see `TermGraph.save`."""
    tables = {
        "concepts": {"concept_id": graph.concept_ids},
        "aliases": {"concept_id": graph.alias_ids, "concept": graph.alias_concepts},
        "names": {"concept": graph.names.concepts, "name": graph.names.texts, "kind": graph.names.kinds},
        "edges": {"child": graph.children, "parent": graph.parents},
    }
    os.makedirs(folder, exist_ok=True)
    for name in _TABLES:
        with whole_path(_path(folder, name)) as path:
            pq.write_table(pa.table(tables[name]), path, compression="zstd")
    metadata = {"format": _FORMAT, "sources": list(graph.sources), "dropped": dict(graph.dropped)}
    with whole_file(os.path.join(folder, FILE)) as file:
        json.dump({**metadata, "checksum": _checksum(folder, metadata)}, file, indent=1)
        file.write("\n")


def load(folder: str | os.PathLike) -> GraphArrays:
    """The graph that `save` wrote; see `TermGraph.load`."""
    for path in (os.path.join(folder, FILE), *(_path(folder, name) for name in _TABLES)):
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"folder={os.fspath(folder)!r} holds no {os.path.basename(path)}; pass one that TermGraph.save wrote."
            )
    metadata = _read_metadata(os.path.join(folder, FILE))
    checksum = metadata.pop("checksum", None)
    damaged = (
        f"folder={os.fspath(folder)!r} is damaged: its files are not those that were saved; build the graph again."
    )
    if checksum is not None and checksum != _checksum(folder, metadata):
        raise ValueError(damaged)
    try:
        graph = _read_tables(folder, metadata)
        # Graphs of earlier versions have no checksum.
        is_sound = checksum is not None or _is_sound(graph)
    except (pa.ArrowException, LookupError, OSError, OverflowError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise ValueError(damaged)
    return graph


def _read_metadata(path: str) -> dict:
    """Format, sources, counts and, if there is one, the checksum."""
    try:
        with open(path, encoding="utf-8") as file:
            metadata = json.load(file)
    except (ValueError, RecursionError):
        metadata = None
    if isinstance(metadata, dict) and metadata.get("format", _FORMAT) != _FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']!r}; this version of kept-hf reads {_FORMAT}. Build the graph "
            "again, or update the package."
        )
    # Another key is a damaged one.
    is_whole = isinstance(metadata, dict) and {"format", "sources", "dropped"} == metadata.keys() - {"checksum"}
    if not (is_whole and isinstance(metadata["sources"], list) and isinstance(metadata["dropped"], dict)):
        raise ValueError(f"{path} describes no term graph, or is damaged; build the graph again.")
    return metadata


def _read_tables(folder: str | os.PathLike, metadata: dict) -> GraphArrays:
    concepts, aliases, names, edges = (pq.read_table(_path(folder, name)).combine_chunks() for name in _TABLES)
    return GraphArrays(
        _text(concepts, "concept_id"),
        Names(_numbers(names, "concept"), _text(names, "name"), _numbers(names, "kind")),
        _numbers(edges, "child"),
        _numbers(edges, "parent"),
        tuple(metadata["sources"]),
        metadata["dropped"],
        _text(aliases, "concept_id"),
        _numbers(aliases, "concept"),
    )


def _is_sound(graph: GraphArrays) -> bool:
    """Whether arrays keep the rules of `GraphArrays`."""
    names, children, parents = graph.names, graph.children, graph.parents
    numbers = (names.concepts, children, parents, graph.alias_concepts)
    if any(part.dtype != np.int32 for part in numbers) or names.kinds.dtype != np.uint8:
        return False
    if any(part.size and not 0 <= part.min() <= part.max() < graph.num_concepts for part in numbers):
        return False
    if any(column.null_count for column in (graph.concept_ids, names.texts, graph.alias_ids)):
        return False
    order = names.concepts.astype(np.int64) * len(NAME_KINDS) + names.kinds
    named = np.bincount(names.concepts, minlength=graph.num_concepts)
    if (names.kinds >= len(NAME_KINDS)).any() or (np.diff(order) < 0).any() or (named == 0).any():
        return False
    tidy_children, tidy_parents, dropped = tidy_edges(children, parents, graph.num_concepts)
    same_edges = np.array_equal(tidy_children, children) and np.array_equal(tidy_parents, parents)
    counts = graph.dropped.values()
    return same_edges and not any(dropped.values()) and all(isinstance(count, int) for count in counts)


def _checksum(folder: str | os.PathLike, metadata: dict) -> str:
    """Of the tables' files, and of what is said of them."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in _TABLES:
        part = hashlib.sha256()
        with open(_path(folder, name), "rb") as file:
            while block := file.read(1 << 20):
                part.update(block)
        digest.update(part.digest())
    return digest.hexdigest()


def _path(folder: str | os.PathLike, table: str) -> str:
    return os.path.join(folder, f"{table}.parquet")


def _text(table: pa.Table, column: str) -> pa.LargeStringArray:
    return pa.concat_arrays(table[column].cast(pa.large_string()).chunks or [pa.array([], pa.large_string())])


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return table[column].to_numpy()
