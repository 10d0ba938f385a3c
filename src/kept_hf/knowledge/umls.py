"""The UMLS Metathesaurus as a term graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..tables import rrf
from .code_names import CODE_SYSTEMS
from .names import ABBREVIATION, PREFERRED, SYNONYM, Names
from .term_graph import TermGraph

ABBREVIATION_TYPES = ("AB", "ACR", "AM", "MTH_ACR", "QAB", "RAB")
"""Term types (TTY) of abbreviations."""
RELATIONS = ("PAR", "CHD", "RB", "RN")
"""Relations (REL) of a hierarchy. In PAR and RB rows CUI2 is the parent of CUI1, in CHD and RN rows its child."""
_UPWARD = ("PAR", "RB")
_TITLE_TYPES = ("PT", "PX", "HT", "HX")


def load(
    folder: str | os.PathLike,
    language: str = "ENG",
    vocabularies: Sequence[str] | None = None,
    relations: Sequence[str] = RELATIONS,
    keep_suppressed: bool = False,
    max_name_length: int = 500,
) -> TermGraph:
    """The concepts of a META folder: MRCONSO.RRF and MRREL.RRF, each also as .gz.

    The files are streamed. Concepts have their CUI as id. The preferred name is the one that MRCONSO marks so (TS=P,
    STT=PF, ISPREF=Y), an abbreviation is a name with one of `ABBREVIATION_TYPES`, whatever else it is marked as.

    The codes of ICD-9-CM, ICD-10-CM and ICD-10-PCS are further ids of the concepts, as "ICD9CM:401.9" (rows of any
    language and suppressibility). As in MSMN's public code each code has one concept, that of its last row; here a row
    with the title of the code comes before others, since inclusion terms of ICD-10-CM bear the code, too.

    Args:
        folder: META of a release, or of a subset that MetamorphoSys wrote.
        language: of the names, as LAT has it.
        vocabularies: names and relations of these sources only, as SAB has them ("SNOMEDCT_US", "ICD10CM"); by default
            of all.
        relations: which rows of MRREL are hierarchy, out of `RELATIONS`. RB and RN are looser than PAR and CHD.
        keep_suppressed: keep names and relations that are marked obsolete or suppressible (SUPPRESS other than N).
        max_name_length: longer names, in characters, are dropped.

    Returns:
        The graph; its `counts` also have `filtered_names` and `filtered_edges`, rows left out by the filters. MRREL
        gives most relations in both directions: half of its rows are `duplicate_edges`.

    Raises:
        FileNotFoundError: MRCONSO or MRREL is missing.
        ValueError: a row with too few or too many columns or without a CUI, naming file and row; an unknown relation;
            or no name left by the filters.

    Source:
        UMLS Reference Manual, National Library of Medicine, chapter 3: Metathesaurus, Rich Release Format.
    """
    if isinstance(vocabularies, str):
        raise TypeError(f"vocabularies={vocabularies!r} is one string; pass a list: [{vocabularies!r}].")
    unknown = sorted(set(relations) - set(RELATIONS))
    if unknown:
        raise ValueError(f"relations has {', '.join(unknown)}; legal are: {', '.join(RELATIONS)}.")
    conso, rel = rrf.find_table(folder, "MRCONSO"), rrf.find_table(folder, "MRREL")
    keep = _Filter(vocabularies, keep_suppressed)
    numbers, texts, kinds, filtered_names, codes = _read_names(conso, language, keep)
    present = np.unique(numbers)
    lookup = rrf.number_lookup(present)
    children, parents, filtered_edges = _read_edges(rel, relations, keep)
    graph = TermGraph.from_numbers(
        rrf.cui_texts(present),
        Names(lookup[numbers], texts, kinds),
        lookup[children],
        lookup[parents],
        ("umls",),
        {"filtered_names": filtered_names, "filtered_edges": filtered_edges},
        max_name_length=max_name_length,
    )
    return _with_codes(graph, codes)


class _Filter:
    """Which rows are wanted by their vocabulary and suppressibility."""

    def __init__(self, vocabularies: Sequence[str] | None, keep_suppressed: bool):
        self._vocabularies = None if vocabularies is None else pa.array(vocabularies, pa.string())
        self._keep_suppressed = keep_suppressed

    def __call__(self, batch: pa.RecordBatch, mask: pa.BooleanArray) -> pa.BooleanArray:
        if self._vocabularies is not None:
            mask = pc.and_(mask, pc.is_in(batch["SAB"], value_set=self._vocabularies))
        if not self._keep_suppressed:
            mask = pc.and_(mask, pc.equal(batch["SUPPRESS"], "N"))
        return mask


def _with_codes(graph: TermGraph, codes: Mapping[str, int]) -> TermGraph:
    """The graph with codes as further ids, given with the numbers of their CUIs."""
    position = {number: concept for concept, number in enumerate(rrf.cui_numbers(graph.concept_ids).tolist())}
    found = {code: position[number] for code, number in codes.items() if number in position}
    alias_ids, alias_concepts = pa.array(list(found), pa.large_string()), np.array(list(found.values()), np.int32)
    return TermGraph(*graph.arrays._replace(alias_ids=alias_ids, alias_concepts=alias_concepts))


def _read_names(
    path: str, language: str, keep: _Filter
) -> tuple[np.ndarray, pa.LargeStringArray, np.ndarray, int, dict[str, int]]:
    """Numbers of CUIs, names, kinds, how many rows were left out, and the number of the CUI of each code."""
    wanted = ("CUI", "LAT", "TS", "STT", "ISPREF", "SAB", "TTY", "CODE", "STR", "SUPPRESS")
    of_terms, of_titles = {}, {}
    abbreviations = pa.array(ABBREVIATION_TYPES)
    numbers, texts, kinds, filtered = [np.zeros(0, np.int32)], [], [np.zeros(0, np.uint8)], 0
    for batch in rrf.stream_table(path, "MRCONSO", wanted):
        rows = batch.filter(keep(batch, pc.equal(batch["LAT"], language)))
        filtered += len(batch) - len(rows)
        _add_codes(batch, of_terms, of_titles, path)
        if (cuis := rrf.cui_numbers(rows["CUI"])) is None:
            raise rrf.explain(path, "MRCONSO")
        preferred = pc.and_(
            pc.and_(pc.equal(rows["TS"], "P"), pc.equal(rows["STT"], "PF")), pc.equal(rows["ISPREF"], "Y")
        )
        kind = np.where(preferred.to_numpy(zero_copy_only=False), PREFERRED, SYNONYM).astype(np.uint8)
        kind[pc.is_in(rows["TTY"], value_set=abbreviations).to_numpy(zero_copy_only=False)] = ABBREVIATION
        numbers.append(cuis)
        texts.append(rows["STR"].cast(pa.large_string()))
        kinds.append(kind)
    names = pa.chunked_array(texts, pa.large_string()).combine_chunks()
    return np.concatenate(numbers), names, np.concatenate(kinds), filtered, of_terms | of_titles


def _add_codes(batch: pa.RecordBatch, of_terms: dict[str, int], of_titles: dict[str, int], path: str) -> None:
    """Add the codes of some rows of MRCONSO: "ICD9CM:401.9" → number of its CUI, apart for rows with a title."""
    is_code = pc.and_(pc.is_in(batch["SAB"], value_set=pa.array(CODE_SYSTEMS)), pc.not_equal(batch["CODE"], ""))
    rows = batch.filter(is_code)
    if (cuis := rrf.cui_numbers(rows["CUI"])) is None:
        raise rrf.explain(path, "MRCONSO")
    codes = pc.binary_join_element_wise(rows["SAB"], rows["CODE"], ":").to_pylist()
    is_title = pc.is_in(rows["TTY"], value_set=pa.array(_TITLE_TYPES)).to_pylist()
    for code, cui, titled in zip(codes, cuis.tolist(), is_title, strict=True):
        (of_titles if titled else of_terms)[code] = cui


def _read_edges(path: str, relations: Sequence[str], keep: _Filter) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers of the CUIs of children and of parents, and how many rows of the wanted relations were left out."""
    value_set, upward = pa.array(relations, pa.string()), pa.array(_UPWARD)
    children, parents, filtered = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for batch in rrf.stream_table(path, "MRREL", ("CUI1", "REL", "CUI2", "SAB", "SUPPRESS")):
        batch = batch.filter(pc.is_in(batch["REL"], value_set=value_set))
        rows = batch.filter(keep(batch, pa.array(np.ones(len(batch), bool))))
        filtered += len(batch) - len(rows)
        first, second = rrf.cui_numbers(rows["CUI1"]), rrf.cui_numbers(rows["CUI2"])
        if first is None or second is None:
            raise rrf.explain(path, "MRREL")
        is_upward = pc.is_in(rows["REL"], value_set=upward).to_numpy(zero_copy_only=False)
        children.append(np.where(is_upward, first, second))
        parents.append(np.where(is_upward, second, first))
    return np.concatenate(children), np.concatenate(parents), filtered
