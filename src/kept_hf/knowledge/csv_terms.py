"""A table of one's own as a term graph."""

from __future__ import annotations

import csv
import os

from ..models.code_set import separator_hint
from .names import NAME_KINDS
from .term_graph import TermGraph

_COLUMNS = ("concept_id", "name", "kind", "parent_id")


def load(csv_file: str | os.PathLike) -> TermGraph:
    """A UTF-8 CSV with the columns `concept_id`, `name`, `kind` and `parent_id`, in any order, others beside them.

    A row gives a concept a name of a kind ("preferred", "synonym" or "abbreviation"; empty: "synonym"), or a parent, or
    both: either may be empty. Several rows give it several.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, an unknown kind, a row without a concept or with neither name nor parent; the
            message names the line. Also a table without any name.

    Examples:
        >>> import tempfile
        >>> table = '''concept_id,name,kind,parent_id
        ... 038,Septicemia,preferred,
        ... 038.9,Unspecified septicemia,preferred,038
        ... 038.9,blood poisoning,,
        ... '''
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "terms.csv")
        ...     with open(path, "w") as file:
        ...         _ = file.write(table)
        ...     graph = load(path)
        >>> graph.names_of("038.9"), graph.concept_ids[int(graph.parents_of("038.9")[0])].as_py()
        (['Unspecified septicemia', 'blood poisoning'], '038')
    """
    path = os.fspath(csv_file)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"csv_file={path!r} is no file; pass a table with the columns {', '.join(_COLUMNS)}.")
    names, edges = [], []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}; its columns are {reader.fieldnames}, and "
                f"{', '.join(_COLUMNS)} are needed{separator_hint(reader.fieldnames or ())}."
            )
        for row in reader:
            concept, name, kind, parent = ((row[column] or "").strip() for column in _COLUMNS)
            if not concept or not (name or parent):
                raise ValueError(f"{path}, line {reader.line_num}: give concept_id, and name or parent_id, or both.")
            if kind and kind not in NAME_KINDS:
                raise ValueError(
                    f"{path}, line {reader.line_num}: kind={kind!r} is no kind of name; legal are: "
                    f"{', '.join(NAME_KINDS)}."
                )
            if name:
                names.append((concept, name, kind or "synonym"))
            if parent:
                edges.append((concept, parent))
    if not names:
        raise ValueError(f"{path} has no row with a name; give at least one.")
    return TermGraph.from_tables(*zip(*names, strict=True), *(zip(*edges, strict=True) if edges else ()), source="csv")
