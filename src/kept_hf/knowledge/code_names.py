"""The names that a term graph has for ICD codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)

CODE_SYSTEMS = ("ICD9CM", "ICD10CM", "ICD10PCS")
"""Vocabularies of UMLS (SAB) whose codes find its concepts: "ICD9CM:401.9" is a further id of one."""


def names_of_codes(graph, codes: Sequence[str]) -> dict[str, list[str]]:
    """See `TermGraph.names_of_codes`."""
    concepts = {code: {f"{system}:{code}" for system in CODE_SYSTEMS if f"{system}:{code}" in graph} for code in codes}
    # A code that two systems have (V10 is one thing in ICD-9, another in ICD-10) is that of the others' system.
    systems = {_system(*ids) for ids in concepts.values() if len(ids) == 1}
    names, ambiguous = {}, []
    for code, ids in concepts.items():
        if len({graph.concept_index(found) for found in ids}) > 1:
            ids = {found for found in ids if systems == {_system(found)}}
            ambiguous += [] if ids else [code]
        found = [name for concept in [code, *sorted(ids)] if concept in graph for name in graph.names_of(concept)]
        # The first spelling of each.
        names[code] = list({name.lower(): name for name in reversed(found)}.values())[::-1]
    if ambiguous:
        logger.warning(
            "%d of %d codes, such as %s, mean something else in ICD-9 and ICD-10, and the others do not tell which is "
            "meant: they get no names of UMLS. Ask for the codes of one system at a time.",
            len(ambiguous),
            len(codes),
            ambiguous[0],
        )
    if missing := [code for code in codes if not names[code]]:
        logger.warning(
            "%d of %d codes, such as %s, have no names in this term graph (%s).",
            len(missing),
            len(codes),
            missing[0],
            ", ".join(graph.sources),
        )
    return names


def _system(concept_id: str) -> str:
    return concept_id.partition(":")[0]
