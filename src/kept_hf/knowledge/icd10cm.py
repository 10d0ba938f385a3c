"""The ICD-10-CM tabular list as a term graph."""

from __future__ import annotations

import re

from ..models.code_set import ICDCodeSet, load_tabular_list
from .term_graph import TermGraph

# It starts where blanks do, so that a long run of them is read once.
_CODE_RANGE = re.compile(r"(?<!\s)\s*\([A-Z]\d\w(-[A-Z]\d\w)?\)$")


def load() -> TermGraph:
    """The tabular list that `simple-icd-10-cm` carries.

    Concepts are the codes of `ICDCodeSet.from_icd10cm`, the blocks above them ("N17-N19") and the chapters
    ("chapter 14"). A title is the preferred name, an inclusion term a synonym; the range of codes at the end of the
    titles of blocks and chapters is left out.

    Raises:
        ImportError: the package is missing.

    Examples:
        >>> graph = load()
        >>> graph.names_of("N17.9")
        ['Acute kidney failure, unspecified', 'Acute kidney injury (nontraumatic)']
        >>> [graph.names_of(int(parent))[0] for parent in graph.parents_of("N17")]
        ['Acute kidney failure and chronic kidney disease']
    """
    tabular_list, code_set = load_tabular_list(), ICDCodeSet.from_icd10cm()
    above = dict(code_set.parents)
    titles = dict(code_set.descriptions)
    for category in (code for code in code_set if code not in above):
        block = tabular_list.get_parent(category)
        if block == category:
            # A block of this one category bears its name.
            above[category] = f"chapter {tabular_list.get_parent(category, prioritize_blocks=True)}"
        else:
            above[category] = block
            chapter = tabular_list.get_parent(block)
            above[block], titles[block] = f"chapter {chapter}", tabular_list.get_description(block)
    for chapter in dict.fromkeys(above.values()):
        if chapter.startswith("chapter "):
            titles[chapter] = tabular_list.get_description(chapter.removeprefix("chapter "))
    rows = [(code, _CODE_RANGE.sub("", title), "preferred") for code, title in titles.items()]
    rows += [(code, name, "synonym") for code in code_set for name in code_set.synonyms.get(code, ())]
    return TermGraph.from_tables(*zip(*rows, strict=True), list(above), list(above.values()), source="icd10cm")
