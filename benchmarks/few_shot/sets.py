"""The sets of notes and codes of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from datasets import Dataset

from kept_hf import ICDCodeSet
from kept_hf.corpora import Corpus, load_corpus
from kept_hf.corpora.selection import rare_codes, restrict_codes

RARE_CODES = 50


@dataclass(frozen=True)
class BenchmarkSet:
    """Notes to learn from, notes to report, and the codes that are asked.

    Attributes:
        title: in words.
        train: columns `note_id`, `text`, `codes`. Epochs, thresholds and weights are chosen on these.
        reported: split → notes that are scored once a system: "dev", and "test" where the data have one.
        code_set: the codes that every system is asked about.
        listed: the codes of all splits, if `code_set` holds more: what earlier work was asked about, which tells a
            system that a rare code of the reported notes exists. Reported beside.
    """

    title: str
    train: Dataset
    reported: Mapping[str, Dataset]
    code_set: ICDCodeSet
    listed: tuple[str, ...] | None = None


def _of_corpus(corpus: Corpus, title: str) -> BenchmarkSet:
    names = {"validation": "dev", "test": "test"}
    reported = {name: corpus.dataset[split] for split, name in names.items() if split in corpus.dataset}
    return BenchmarkSet(title, corpus.dataset["train"], reported, corpus.code_set)


def rare_fifty(data_dir: str, number: int) -> BenchmarkSet:
    """The fifty codes of the rule "rare50", or the next fifty that the rule would take: none is in two sets.

    Args:
        data_dir: CodiEsp.
        number: 1 for those of the rule, 2 and 3 for the next ones.

    Raises:
        ValueError: fewer codes are left.
    """
    corpus = load_corpus("codiesp", data_dir)
    eligible = rare_codes(corpus)
    chosen = sorted(eligible[RARE_CODES * (number - 1) : RARE_CODES * number])
    if len(chosen) < RARE_CODES:
        raise ValueError(f"number={number}: the rule finds {len(eligible)} codes; pass a smaller number.")
    return _of_corpus(restrict_codes(corpus, chosen), f"CodiEsp, rare diagnoses, fifty no. {number}")


def all_diagnoses(data_dir: str, language: str = "en") -> BenchmarkSet:
    """All diagnoses: the codes of the training notes and the rest of an ICD-10-CM release.

    No list of codes is made from the reported notes. Codes of theirs that are neither in the release nor in a training
    note (1% of the pairs) are missed by every system, and count.
    """
    corpus = load_corpus("codiesp", data_dir, language=language)
    found = _of_corpus(corpus, "CodiEsp, all diagnoses" + ", Spanish texts" * (language == "es"))
    trained = {code for codes in found.train["codes"] for code in codes}
    code_set = ICDCodeSet.from_icd10cm(sorted(trained.union(ICDCodeSet.from_icd10cm())))
    return replace(found, code_set=code_set, listed=corpus.code_set.codes)


def procedures(data_dir: str) -> BenchmarkSet:
    """All procedures (ICD-10-PCS): those of the training notes, since no release with titles is at hand.

    Procedures of the reported notes that no training note has are missed by every system, and count.
    """
    corpus = load_corpus("codiesp", data_dir, codes="procedure")
    found = _of_corpus(corpus, "CodiEsp, all procedures")
    trained = sorted({code for codes in found.train["codes"] for code in codes})
    return replace(found, code_set=corpus.code_set.subset(trained), listed=corpus.code_set.codes)


SETS: dict[str, Callable[[str], BenchmarkSet]] = {
    **{f"rare50-{number}": lambda data_dir, number=number: rare_fifty(data_dir, number) for number in (1, 2, 3)},
    "all": all_diagnoses,
    "spanish": lambda data_dir: all_diagnoses(data_dir, "es"),
    "procedures": procedures,
}
"""Name → folder of CodiEsp → set."""
