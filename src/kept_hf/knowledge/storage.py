"""A term graph as a folder of parquet tables. Ids are text in them: 038.9 stays 038.9."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..models.whole_file import whole_file, whole_path
from .arrays import GraphArrays
from .names import Names

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
    with whole_file(os.path.join(folder, FILE)) as file:
        json.dump({"format": _FORMAT, "sources": graph.sources, "dropped": graph.dropped}, file, indent=1)
        file.write("\n")


def load(folder: str | os.PathLike) -> GraphArrays:
    """The graph that `save` wrote; see `TermGraph.load`."""
    for path in (os.path.join(folder, FILE), *(_path(folder, name) for name in _TABLES)):
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"folder={os.fspath(folder)!r} holds no {os.path.basename(path)}; pass one that TermGraph.save wrote."
            )
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        metadata = json.load(file)
    if metadata["format"] != _FORMAT:
        raise ValueError(
            f"{os.path.join(folder, FILE)} has format {metadata['format']!r}; this version of kept-hf reads {_FORMAT}. "
            "Build the graph again, or update the package."
        )
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


def _path(folder: str | os.PathLike, table: str) -> str:
    return os.path.join(folder, f"{table}.parquet")


def _text(table: pa.Table, column: str) -> pa.LargeStringArray:
    return pa.concat_arrays(table[column].cast(pa.large_string()).chunks or [pa.array([], pa.large_string())])


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return table[column].to_numpy()
