"""Terms as options of the commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import SOURCES, TermGraph, load_term_graph, storage


@dataclass
class TermFolderArguments:
    """Where terms that no package carries lie."""

    umls_folder: str | None = field(default=None, metadata={"help": "META folder of a release, for umls."})
    icd9_folder: str | None = field(default=None, metadata={"help": "Folder of the D_ICD tables, for icd9."})
    csv_file: str | None = field(default=None, metadata={"help": "Columns concept_id,name,kind,parent_id, for csv."})


@dataclass
class TermSourceArguments(TermFolderArguments):
    """The term graph."""

    sources: str = field(
        default="icd10cm+hpo+abbreviations",
        metadata={"help": f"Of the term graph, with + between: {', '.join(SOURCES)}. Or a folder of `TermGraph.save`."},
    )


def read_terms(sources: str, arguments: TermFolderArguments) -> TermGraph:
    """The graph of these sources, or of a folder that `TermGraph.save` wrote."""
    if Path(sources, storage.FILE).is_file():
        return TermGraph.load(sources)
    return load_term_graph(sources, arguments.umls_folder, arguments.icd9_folder, arguments.csv_file)
