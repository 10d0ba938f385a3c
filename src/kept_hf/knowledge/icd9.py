"""ICD-9-CM from the D_ICD tables of MIMIC as a term graph."""

from __future__ import annotations

import os

from ..models.code_set import category_parents
from ..tables import csv_tables, mimic_tables
from .term_graph import TermGraph


def load(folder: str | os.PathLike) -> TermGraph:
    """The codes of D_ICD_DIAGNOSES and D_ICD_PROCEDURES (.csv or .csv.gz), with the categories that their digits give.

    LONG_TITLE is the preferred name, SHORT_TITLE an abbreviation ("Ac kidny fail, tubr necr"). 038.91 lies below 038.9,
    that below 038. The tables have no titles for most categories: one that CAML's `ICD9_descriptions` names, if that
    file lies in the folder, has its title from there, any other the words that all titles below it share ("essential
    hypertension" for 401), or else its code.

    Args:
        folder: with at least one of the tables, as MIMIC-III has them.

    Returns:
        The graph; its `counts` also have `categories_named_by_words` and `categories_named_by_code`.

    Raises:
        FileNotFoundError: neither table is there.
        ValueError: a table that is not as published, or has no rows.
    """
    short_titles, missing = [], []
    for table, procedure in mimic_tables.MIMIC3.titles:
        try:
            csv_tables.find_table(folder, table)
        except FileNotFoundError:
            missing.append(table)
            continue
        codes = mimic_tables.code_column(folder, table, procedure, mimic_tables.MIMIC3, 9, has_titles=True)
        for batch in csv_tables.stream_table(folder, table, ["ICD9_CODE", "SHORT_TITLE"]):
            short_titles += [
                (dotted, title)
                for code, title in zip(*(column.to_pylist() for column in batch.columns), strict=True)
                if (dotted := codes.dotted(code))
            ]
    if len(missing) == len(mimic_tables.MIMIC3.titles):
        raise FileNotFoundError(
            f"folder={os.fspath(folder)!r} holds neither {' nor '.join(missing)}, as .csv or .csv.gz."
        )
    titles = mimic_tables.code_titles(folder)
    parents = category_parents([*titles, *(code for code, _ in short_titles)])
    shared = _shared_words(titles, parents)
    unnamed = [code for code in dict.fromkeys(parents.values()) if code not in titles]
    rows = [(code, title, "preferred") for code, title in titles.items()]
    rows += [(code, shared.get(code) or code, "preferred") for code in unnamed]
    rows += [(code, title, "abbreviation") for code, title in short_titles]
    by_words = sum(bool(shared.get(code)) for code in unnamed)
    if not rows:
        raise ValueError(f"folder={os.fspath(folder)!r}: the D_ICD tables have no rows with a code and a title.")
    graph = TermGraph.from_tables(*zip(*rows, strict=True), list(parents), list(parents.values()), source="icd9")
    graph.dropped |= {"categories_named_by_words": by_words, "categories_named_by_code": len(unnamed) - by_words}
    return graph


def _shared_words(titles: dict[str, str], parents: dict[str, str]) -> dict[str, str]:
    """Category → the words that all titles below it share, in the order of the first; nothing if they say nothing."""
    shared: dict[str, list[str]] = {}
    for code, title in titles.items():
        words = title.replace(",", " ").split()
        while code := parents.get(code):
            lower = {word.lower() for word in words}
            shared[code] = [word for word in shared.get(code, words) if word.lower() in lower]
    return {code: " ".join(words) for code, words in shared.items() if any(len(word) > 4 for word in words)}
