"""The selection of codes of a corpus."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ..models.code_set import ICDCodeSet
from . import Corpus

logger = logging.getLogger(__name__)

RULES = ("all", "top50", "rare50")
"""The named rules of `select_codes`."""

_SIZE = 50
_RARE_TRAIN_NOTES = range(4, 11)
_RARE_VALIDATION_NOTES = 2


def training_counts(corpus: Corpus) -> dict[str, int]:
    """Code → number of training notes that carry it, for every code of the code set, in its order.

    Raises:
        ValueError: the corpus has no training split.
    """
    counts = _note_counts(corpus, "train", "training_counts")
    return {code: counts[code] for code in corpus.code_set}


def select_codes(corpus: Corpus, rule: str | os.PathLike) -> Corpus:
    """The corpus restricted to the codes that `rule` picks.

    Notes without any of the codes are dropped from every split, and the columns `codes` and (where there is one)
    `evidence` are restricted to them. A split of which no note is left is left out, with a warning. The corpus passed
    in stays as it is.

    Args:
        corpus: what `load_corpus` gave.
        rule:
            - "all": every code of any split; the corpus unchanged, notes without codes included.
            - "top50": the 50 codes with the most training notes (the smaller code first among equals), sorted.
            - "rare50": of the codes with 4 to 10 training notes and at least 2 validation notes the 50 that come
              first in order of the hex digest of sha256(code as written in the code set), sorted.
            - the path of a file with one code a line (blank lines are skipped), kept in the file's order.

    Raises:
        ValueError: an unknown rule (and no such file); a missing split that the rule counts in; no code left; a file
            that is empty or names unknown or repeated codes.
    """
    if rule == "all":
        return corpus
    if rule == "top50":
        counts = _note_counts(corpus, "train", "rule='top50'")
        codes = sorted(sorted(counts, key=lambda code: (-counts[code], code))[:_SIZE])
    elif rule == "rare50":
        codes = sorted(rare_codes(corpus)[:_SIZE])
    elif os.path.isfile(rule):
        codes = _read_codes(rule, corpus.code_set)
    else:
        raise ValueError(
            f"rule={os.fspath(rule)!r} is neither a rule nor a file; pass one of {', '.join(RULES)}, or the path of a "
            "file with one code a line."
        )
    if not codes:
        raise ValueError(f"rule={rule!r} leaves no code: none of the {len(corpus.code_set)} codes meets it.")
    if rule in RULES and len(codes) < _SIZE:
        logger.warning("The rule %s finds %d codes here, fewer than %d: it takes them all.", rule, len(codes), _SIZE)
    return restrict_codes(corpus, codes)


def rare_codes(corpus: Corpus) -> list[str]:
    """The codes that the rule "rare50" chooses from, in its order: the first fifty are its own.

    Raises:
        ValueError: a missing split that the rule counts in.
    """
    train = _note_counts(corpus, "train", "rule='rare50'")
    validation = _note_counts(corpus, "validation", "rule='rare50'")
    eligible = [
        code
        for code, count in train.items()
        if count in _RARE_TRAIN_NOTES and validation[code] >= _RARE_VALIDATION_NOTES
    ]
    return sorted(eligible, key=lambda code: hashlib.sha256(code.encode()).hexdigest())


def _note_counts(corpus: Corpus, split: str, who: str) -> Counter[str]:
    if split not in corpus.dataset:
        raise ValueError(
            f"{who} counts notes of the split {split!r}, which is missing; there is: {', '.join(corpus.dataset)}."
        )
    # A note counts once per code, however often the code is listed.
    return Counter(code for codes in corpus.dataset[split]["codes"] for code in set(codes))


def _read_codes(path: str | os.PathLike, code_set: ICDCodeSet) -> list[str]:
    with open(path, encoding="utf-8-sig") as file:
        codes = [line.strip() for line in file if line.strip()]
    if not codes:
        raise ValueError(f"{os.fspath(path)} holds no code; write one a line.")
    codes = [code_set.find(code) or code for code in codes]
    unknown = [code for code in codes if code not in code_set]
    if unknown:
        shown = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        raise ValueError(f"{os.fspath(path)} names codes that the corpus does not have: {shown}.")
    return codes


def restrict_codes(corpus: Corpus, codes: Iterable[str]) -> Corpus:
    """The corpus restricted to some of its codes; see [`select_codes`]."""
    code_set = corpus.code_set.subset(codes)
    splits = {}
    for split, rows in corpus.dataset.items():
        columns = {"codes": [[code for code in codes if code in code_set] for codes in rows["codes"]]}
        if "evidence" in rows.column_names:
            columns["evidence"] = [[span for span in spans if span["code"] in code_set] for spans in rows["evidence"]]
        restricted = rows
        for name, values in columns.items():
            # Only the labels are held in memory; the texts stay where they are.
            restricted = restricted.remove_columns(name).add_column(name, values, feature=rows.features[name])
        kept = [index for index, codes in enumerate(columns["codes"]) if codes]
        if kept:
            splits[split] = restricted.select_columns(rows.column_names).select(kept)
        else:
            # datasets can write a split without rows, but not load it.
            logger.warning("No note of the split %s carries any of the %d codes: it is left out.", split, len(code_set))
        logger.info("%s: %d of %d notes carry one of the %d codes.", split, len(kept), len(rows), len(code_set))
    return replace(corpus, dataset=type(corpus.dataset)(splits), code_set=code_set)
