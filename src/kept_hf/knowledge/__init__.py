"""Medical knowledge as one graph of terms: concepts, their names and their hierarchy, from open or licensed sources.

`load_term_graph` is the way in. Each source is a module here with a function `load`, and a line in `sources.SOURCES`.
"""

from __future__ import annotations

import os
from importlib import import_module

from .sources import SOURCES, KnowledgeSource
from .term_graph import MAX_TREE_DISTANCE, NAME_KINDS, TermGraph

__all__ = ["MAX_TREE_DISTANCE", "NAME_KINDS", "SOURCES", "KnowledgeSource", "TermGraph", "load_term_graph"]


_LOADERS = {name: import_module(f".{source.module}", __name__).load for name, source in SOURCES.items()}


def load_term_graph(
    sources: str,
    umls_folder: str | os.PathLike | None = None,
    icd9_folder: str | os.PathLike | None = None,
    csv_file: str | os.PathLike | None = None,
) -> TermGraph:
    """The term graph of one source, or of several merged by name (`TermGraph.merge`).

    Args:
        sources: names out of `SOURCES`, with "+" between them. The first gives a concept its id: begin with the one
            whose codes are looked up.
        umls_folder: the META folder of a UMLS release, for "umls"; see `kept_hf.knowledge.umls.load`, which also
            filters.
        icd9_folder: the folder with MIMIC-III's D_ICD tables, for "icd9".
        csv_file: a table `concept_id,name,kind,parent_id`, for "csv".

    Raises:
        ValueError: an unknown source, one given twice, one without its folder or file, or a folder or file without its
            source. Also what the sources raise.

    Examples:
        >>> graph = load_term_graph("icd10cm+hpo+abbreviations")
        >>> graph.names_of("N40.0")[:1], graph.names_of("HP:0001250", kinds=["preferred"])
        (['Benign prostatic hyperplasia without lower urinary tract symptoms'], ['Seizure'])
    """
    names = [name.strip() for name in sources.split("+")]
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise ValueError(
            f"sources={sources!r} has {', '.join(map(repr, unknown))}; legal are: {', '.join(SOURCES)}, with + between "
            "several, as in 'icd10cm+hpo+abbreviations'."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"sources={sources!r} names a source twice; name each once.")
    paths = {"umls_folder": umls_folder, "icd9_folder": icd9_folder, "csv_file": csv_file}
    for name in names:
        argument = SOURCES[name].path_argument
        if argument is not None and paths[argument] is None:
            raise ValueError(f"{argument}=None, but sources={sources!r} has {name!r}; say where it lies.")
    for name, source in SOURCES.items():
        path = paths.get(source.path_argument)
        if name not in names and path is not None:
            raise ValueError(
                f"{source.path_argument}={os.fspath(path)!r}, but sources={sources!r} has no {name!r}; add it."
            )
    graphs = []
    for name in names:
        argument = SOURCES[name].path_argument
        graphs.append(_LOADERS[name]() if argument is None else _LOADERS[name](paths[argument]))
    return TermGraph.merge(graphs)
