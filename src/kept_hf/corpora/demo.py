"""A made-up corpus in MIMIC-III's file layout, for demonstrations and tests.

A seeded generator writes the raw tables as PhysioNet ships them (quoted newlines, empty HADM_IDs, notes of other
categories, addenda, repeated codes), and the builder reads them back with `physionet`. About 60 ICD-9-CM codes, most of
them with 2 to 10 training notes; the notes name them by abbreviations, lay words and misspellings, deny other codes of
the set and report them of relatives. No text is that of a patient.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import datasets

from ..models import code_set as code_set_module
from ..models.code_set import ICDCodeSet
from ..models.whole_file import whole_file
from ..tables import csv_tables, mimic_tables
from ..tables.mimic_tables import read_titles
from . import Corpus, CorpusCard, corpus_codes, demo_content, fingerprint, physionet, require_data_dir
from .demo_content import DemoCode

_T = TypeVar("_T")

_VERSION = datasets.Version("1.0.0")
_SPLIT_FILES = {
    "train": "train_full_hadm_ids.csv",
    "validation": "dev_full_hadm_ids.csv",
    "test": "test_full_hadm_ids.csv",
}
_SPLIT_SIZES = {"train": 320, "validation": 120, "test": 160}
# Notes of a split that carry a code, per training note, and at least.
_SPLIT_SHARES = {"train": (1.0, 1), "validation": (0.375, 2), "test": (0.5, 3)}
_UNLISTED_ADMISSIONS = 6
_MOST_CODES = 4
_CODE_COLUMNS = ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE")
_TITLE_COLUMNS = ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE")
_NOTE_COLUMNS = (
    *("ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "STORETIME"),
    *("CATEGORY", "DESCRIPTION", "CGID", "ISERROR", "TEXT"),
)
_TABLES = {
    "NOTEEVENTS": _NOTE_COLUMNS,
    "DIAGNOSES_ICD": _CODE_COLUMNS,
    "PROCEDURES_ICD": _CODE_COLUMNS,
    "D_ICD_DIAGNOSES": _TITLE_COLUMNS,
    "D_ICD_PROCEDURES": _TITLE_COLUMNS,
    "MENTIONS": ("HADM_ID", "CODE", "MENTION"),
}
_CONTENT = "NOTEEVENTS.csv, DIAGNOSES_ICD.csv, PROCEDURES_ICD.csv, D_ICD_*.csv, MENTIONS.csv and *_full_hadm_ids.csv"
MENTIONS = ("synonym", "abbreviation", "finding", "misspelling", "negated", "of a relative")
"""How a note mentions a code, the clearest way first.

"finding": by a finding, a cause or a treatment. The last two are mentions of codes that the note does not carry. No
note has a code's title.
"""

CARD = CorpusCard(
    title="kept-hf demo corpus",
    summary=(
        "Made-up discharge summaries with ICD-9-CM codes, long-tailed. Codes are named by abbreviations, lay words and "
        "misspellings; denied codes and those of relatives are not coded. No text is that of a patient."
    ),
    source="Written by the seeded generator of kept-hf (`kept_hf.corpora.demo`).",
    license="apache-2.0",
    language="en",
    columns={
        "note_id": "number of the admission",
        "subject_id": "number of the invented patient",
        "text": "its discharge summaries, joined with a tab",
        "codes": "ICD-9-CM codes, dotted, diagnoses before procedures",
    },
    caution=(
        "The notes were made up by a program: they name codes in fewer ways than people do, and no hospital writes "
        "like them. Figures on real notes will differ."
    ),
)


class Demo(datasets.GeneratorBasedBuilder):
    """The demo corpus.

    Columns:
        note_id: the HADM_ID.
        subject_id: the SUBJECT_ID, that of an invented patient.
        text: the admission's discharge summaries, joined with a tab.
        codes: dotted ICD-9-CM codes, diagnoses before procedures, in the tables' order, each once.

    Args:
        seed: another seed gives other notes of the same codes.
        data_dir: a folder that `write_demo_files` wrote, to read instead of writing one.

    Raises:
        FileNotFoundError: `data_dir` is no folder, or lacks a table.
        TypeError: `seed` is no whole number.
    """

    VERSION = _VERSION

    def __init__(self, seed: int = 0, data_dir: str | os.PathLike | None = None, **kwargs):
        _check_seed(seed)
        self.seed = seed
        files = _sources()
        if data_dir is not None:
            data_dir = require_data_dir("demo", data_dir, _CONTENT)
            files += _data_files(data_dir)
        kwargs.setdefault("hash", fingerprint(files, [seed]))
        super().__init__(data_dir=data_dir, **kwargs)

    @property
    def raw_dir(self) -> str:
        """The folder with the raw tables; they are written if they are not there."""
        if self.config.data_dir is not None:
            return self.config.data_dir
        # Beside the prepared datasets, and keyed like them.
        folder = os.path.join(os.path.abspath(self._cache_dir_root), f"{self.name}_raw", self.hash)
        if not os.path.isdir(folder):
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            # Other processes may be doing the same: each writes its own, the first one moves it into place.
            with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as scratch:
                write_demo_files(os.path.join(scratch, "raw"), seed=self.seed)
                try:
                    os.rename(os.path.join(scratch, "raw"), folder)
                except OSError:
                    if not os.path.isdir(folder):
                        raise
        return folder

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Made-up discharge summaries with ICD-9-CM codes.",
            license="Apache-2.0",
            features=physionet.NOTE_FEATURES,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        texts = physionet.read_discharge_summaries(self.raw_dir)
        admissions = physionet.read_admissions(self.raw_dir)
        splits = {}
        for split, file in _SPLIT_FILES.items():
            hadm_ids = physionet.read_hadm_ids(os.path.join(self.raw_dir, file))
            splits[split] = physionet.listed_admissions(hadm_ids, admissions, texts)
        return physionet.split_generators(splits, texts)

    def _generate_examples(self, admissions, texts) -> Iterator[tuple[int, dict]]:
        yield from enumerate(physionet.note_rows(admissions, texts))


def load(
    data_dir: str | os.PathLike | None = None, cache_dir: str | os.PathLike | None = None, seed: int = 0
) -> Corpus:
    """The demo corpus with its code set: official titles, no synonyms.

    The generator's wordings are kept out of the code set, since some of them occur in test notes only.

    Args:
        data_dir: a folder that `write_demo_files` wrote; by default one is written into the cache.
        cache_dir: where the raw files and the prepared dataset are kept.
        seed: see `Demo`.

    Raises:
        FileNotFoundError, TypeError: see `Demo`.
    """
    builder = Demo(seed=seed, data_dir=data_dir, cache_dir=cache_dir and os.fspath(cache_dir))
    builder.download_and_prepare()
    dataset = builder.as_dataset()
    diagnoses, procedures = read_titles(builder.raw_dir)
    code_set = ICDCodeSet(corpus_codes(dataset), diagnoses | procedures)
    return Corpus(dataset, code_set, CARD, read_mentions(builder.raw_dir))


def read_mentions(folder: str | os.PathLike) -> dict[tuple[str, str], str]:
    """How the notes mention codes: (note_id, dotted code) → one of `MENTIONS`, the first that applies.

    Args:
        folder: that `write_demo_files` wrote.

    Raises:
        FileNotFoundError: the folder has no MENTIONS.csv.
    """
    found: dict[tuple[str, str], str] = {}
    with open(os.path.join(folder, "MENTIONS.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pair = (row["HADM_ID"], row["CODE"])
            found[pair] = min(found.get(pair, MENTIONS[-1]), row["MENTION"], key=MENTIONS.index)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load` for a command."""
    parser.add_argument("--data_dir", help="folder with raw files of the demo corpus (default: generated)")
    parser.add_argument("--seed", type=int, default=0, help="of the generator (default: 0)")


def write_demo_files(folder: str | os.PathLike, seed: int = 0) -> None:
    """Write the demo corpus as raw files.

    `NOTEEVENTS.csv`, `DIAGNOSES_ICD.csv`, `PROCEDURES_ICD.csv`, `D_ICD_DIAGNOSES.csv`, `D_ICD_PROCEDURES.csv`; with one
    HADM_ID a line `{train,dev,test}_full_hadm_ids.csv` and `{train,dev,test}_50_hadm_ids.csv`; and
    `collectrare50data.py`: whatever `kept_hf.corpora.mimic3` reads. `MENTIONS.csv` says how the notes mention the codes
    (`read_mentions`). The same seed gives the same bytes on every
    platform and Python.

    Args:
        folder: created if need be; files of these names are overwritten.
        seed: of the generator.

    Raises:
        TypeError: `seed` is no whole number.
    """
    _check_seed(seed)
    os.makedirs(folder, exist_ok=True)
    draw = _Draw(seed)
    admissions = _admissions(draw)
    notes, mentions = _note_rows(draw, admissions)
    tables = {
        "NOTEEVENTS": notes,
        "DIAGNOSES_ICD": _code_rows(draw, admissions, procedure=False),
        "PROCEDURES_ICD": _code_rows(draw, admissions, procedure=True),
        "D_ICD_DIAGNOSES": _title_rows(procedure=False),
        "D_ICD_PROCEDURES": _title_rows(procedure=True),
        "MENTIONS": mentions,
    }
    for name, rows in tables.items():
        lines = [",".join(_quoted(value) for value in row) for row in [_TABLES[name], *rows]]
        _write(os.path.join(folder, f"{name}.csv"), lines)
    frequent = {code.code for code in sorted(demo_content.CODES, key=lambda code: -code.train_notes)[:50]}
    for split, name in _SPLIT_FILES.items():
        listed = [one for one in admissions if one.split == split]
        _write(os.path.join(folder, name), [str(one.hadm_id) for one in listed])
        listed = [one for one in listed if any(code.code in frequent for code in one.codes)]
        _write(os.path.join(folder, name.replace("full", "50")), [str(one.hadm_id) for one in listed])
    _write(os.path.join(folder, "collectrare50data.py"), _rare50_lines(admissions))


class _Draw:
    """Draws built on `Random.random` alone, the one method whose results Python promises to keep."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def choice(self, items: Sequence[_T]) -> _T:
        return items[self.integer(0, len(items) - 1)]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.integer(0, last)
            items[last], items[other] = items[other], items[last]
        return items

    def sample(self, items: Sequence[_T], size: int) -> list[_T]:
        return self.shuffled(items)[:size]


@dataclass
class _Admission:
    split: str
    subject_id: int
    sex: str
    age: int
    hadm_id: int = 0
    codes: list[DemoCode] = field(default_factory=list)

    def takes(self, code: DemoCode) -> bool:
        """Whether `code` may be added."""
        carried = {other.code for other in self.codes}
        return (
            len(carried) < _MOST_CODES
            and code.code not in carried
            and code.sex in ("", self.sex)
            and not any(code.code in pair and carried & set(pair) for pair in demo_content.APART)
        )


def _admissions(draw: _Draw) -> list[_Admission]:
    """All admissions with their codes, the splits' patients disjoint."""
    admissions: list[_Admission] = []
    subject_id = 10_000
    for split, size in [*_SPLIT_SIZES.items(), ("", _UNLISTED_ADMISSIONS)]:
        group: list[_Admission] = []
        for _ in range(size):
            if group and draw.chance(0.12):
                last = group[-1]
                group.append(_Admission(split, last.subject_id, last.sex, last.age))
            else:
                subject_id += draw.integer(1, 40)
                group.append(_Admission(split, subject_id, draw.choice("MF"), draw.integer(24, 94)))
        _deal_codes(draw, split, group)
        admissions += group
    # Numbers that tell nothing about the split.
    hadm_ids = draw.shuffled([100_000 + 130 * index + draw.integer(0, 129) for index in range(len(admissions))])
    for admission, hadm_id in zip(admissions, hadm_ids, strict=True):
        admission.hadm_id = hadm_id
    return admissions


def _deal_codes(draw: _Draw, split: str, group: list[_Admission]) -> None:
    """Give each code its number of admissions, and each admission at least one code."""
    if not split:
        for admission in group:
            admission.codes = [demo_content.CODES[0]]
        return
    share, least = _SPLIT_SHARES[split]
    labels = [code for code in demo_content.CODES for _ in range(max(least, int(code.train_notes * share + 0.5)))]
    labels = draw.shuffled(labels)
    without = list(group)
    for code in labels:
        # While admissions without a code are left, they come first.
        candidates = [one for one in without if one.takes(code)] or [one for one in group if one.takes(code)]
        taker = draw.choice(candidates)
        taker.codes.append(code)
        without = [one for one in without if one is not taker]


class _Writer:
    """Writes the discharge summary of one admission."""

    def __init__(self, draw: _Draw, admission: _Admission):
        self.draw = draw
        self.admission = admission
        male = admission.sex == "M"
        self.pronouns = {
            "he": "he" if male else "she",
            "his": "his" if male else "her",
            "him": "him" if male else "her",
            "man": draw.choice(("man", "male", "gentleman")) if male else draw.choice(("woman", "female", "lady")),
            "title": "Mr." if male else "Ms.",
            "sex": admission.sex,
            "age": admission.age,
        }
        self.pronouns |= {"He": self.pronouns["he"].capitalize(), "His": self.pronouns["his"].capitalize()}
        self.used: dict[str, set[str]] = {}
        self.mentions: list[tuple[str, str]] = []
        self.long = draw.chance(0.05)
        self.complaint = draw.choice(demo_content.COMPLAINTS)
        # De-identified dates lie in the 22nd century. The stay ends in its month.
        self.year, self.month = draw.integer(2101, 2199), draw.integer(1, 12)
        self.admitted = draw.integer(1, 18)
        self.discharged = self.admitted + draw.integer(2, 9)

    def summary(self) -> tuple[str, str]:
        """The report and, mostly empty, its addendum."""
        draw, content = self.draw, demo_content
        present: list[str] = [self.fill(draw.choice(content.OPENINGS), cc=self.complaint)]
        listed: list[str] = []
        operations: list[str] = []
        course: list[str] = []
        final: list[str] = []
        addendum = ""
        codes = draw.shuffled(self.admission.codes)
        late = codes[0] if draw.chance(0.06) else None
        for code in codes:
            wording = self.wording(code)
            if code is late:
                # Said in the addendum alone, so that whoever reads only the report misses it.
                addendum = self.asserted(content.ASSERTED[code.kind], code, wording)
            elif code.kind == "procedure":
                if draw.chance(0.5):
                    operations.append(self.listed(code, _capital(wording)))
                else:
                    course.append(self.asserted(content.ASSERTED["procedure"], code, wording))
            elif code.kind == "care":
                course.append(self.asserted(content.ASSERTED["care"], code, wording))
            elif code.kind in ("chronic", "status") and draw.chance(0.5):
                listed.append(self.listed(code, wording))
            else:
                present.append(self.asserted(content.ASSERTED[code.kind], code, wording))
            if code is not late and draw.chance(0.35):
                course.append(self.asserted(content.COURSE[code.kind], code, self.wording(code)))
            if code is not late and code.kind not in ("external", "care") and draw.chance(0.2):
                final.append(self.wording(code))
                self.record(code, final[-1], final[-1])

        doubtful = {name for code in codes for group in content.RELATED if code.code in group for name in group}
        doubtful |= {code.code for code in codes}
        others = draw.shuffled([code for code in content.CODES if code.code not in doubtful])
        denied = [others.pop() for _ in range(draw.choice((0, 0, 1, 1, 1, 2)))]
        for code in denied:
            sentence = self.not_coded("negated", content.DENIED[code.kind], code)
            (course if code.kind in ("procedure", "care") or draw.chance(0.4) else present).append(sentence)
        diseases = [code for code in others if code.kind in ("chronic", "acute")]
        family = draw.choice(content.NO_FAMILY_HISTORY)
        if draw.chance(0.35):
            family = self.not_coded("of a relative", content.FAMILY, diseases.pop())
        if draw.chance(0.08):
            present.append(self.not_coded("of a relative", content.OTHER_PERSON, diseases.pop()))

        fillers = len(content.FILLERS) if self.long else draw.integer(1, 2)
        present += [self.misspelt(self.fill(text), 0.06) for text in draw.sample(content.FILLERS, fillers)]
        fillers = len(content.COURSE_FILLERS) if self.long else draw.integer(1, 2)
        course += [self.misspelt(self.fill(text), 0.06) for text in draw.sample(content.COURSE_FILLERS, fillers)]
        present[1:], course = draw.shuffled(present[1:]), draw.shuffled(course)
        return self.layout(present, listed, operations, course, final, family), addendum

    def layout(
        self,
        present: list[str],
        listed: list[str],
        operations: list[str],
        course: list[str],
        final: list[str],
        family: str,
    ) -> str:
        """The sections in their usual order; short notes leave some of them out."""
        draw, content = self.draw, demo_content

        def keep(probability: float) -> bool:
            return self.long or draw.chance(probability)

        born = f"[**{self.year - self.admission.age}-{draw.integer(1, 12)}-{draw.integer(1, 28)}**]"
        sections = [
            f"Admission Date:  {self.date(self.admitted)}              Discharge Date:   {self.date(self.discharged)}\n"
            f"Date of Birth:  {born}             Sex:   {self.admission.sex}\n"
            f"Service: {draw.choice(content.SERVICES)}"
        ]
        if keep(0.5):
            sections.append("Chief Complaint:\n" + self.complaint.capitalize())
        if operations or keep(0.4):
            sections.append("Major Surgical or Invasive Procedure:\n" + ("\n".join(operations) or "None"))
        sections.append("History of Present Illness:\n" + _wrapped(present))
        if listed or keep(0.3):
            mark = draw.choice(("- ", "", "{}. "))
            lines = [mark.format(number) + text for number, text in enumerate(listed, start=1)]
            sections.append("Past Medical History:\n" + ("\n".join(lines) or "As above."))
        if keep(0.25):
            sections.append("Social History:\n" + self.fill(draw.choice(content.SOCIAL)))
        if family not in content.NO_FAMILY_HISTORY or keep(0.25):
            sections.append("Family History:\n" + family)
        if keep(0.2):
            sections.append("Medications on Admission:\n" + self.medications())
        if keep(0.35):
            sections.append("Physical Exam:\n" + self.fill(draw.choice(content.EXAM)))
        if keep(0.15):
            lines = draw.integer(12, 30) if self.long else draw.integer(1, 3)
            sections.append(
                "Pertinent Results:\n" + "\n".join(self.fill(draw.choice(content.LAB_LINES)) for _ in range(lines))
            )
        sections.append("Brief Hospital Course:\n" + _wrapped(course))
        if keep(0.2):
            sections.append("Discharge Medications:\n" + self.medications())
        if final:
            sections.append(draw.choice(("Discharge Diagnosis:\n", "Discharge Diagnoses:\n")) + "\n".join(final))
        if keep(0.5):
            sections.append("Discharge Condition:\n" + draw.choice(content.CONDITIONS))
        if keep(0.15):
            texts = content.INSTRUCTIONS if self.long else [draw.choice(content.INSTRUCTIONS)]
            sections.append("Followup Instructions:\n" + _wrapped([self.fill(text) for text in texts]))
        return "\n\n".join(sections) + "\n"

    def wording(self, code: DemoCode) -> str:
        """A wording of `code` that the note has not used yet, if there is one."""
        forms = code.forms
        if self.admission.split == "test" and self.draw.chance(0.25):
            forms = code.test_forms
        used = self.used.setdefault(code.code, set())
        form = self.draw.choice([form for form in forms if form not in used] or forms)
        used.add(form)
        return form

    def plain_name(self, code: DemoCode) -> str:
        names = code.forms[:2]
        if self.admission.split == "test" and self.draw.chance(0.3):
            names = code.test_forms[:1]
        return self.draw.choice(names)

    def asserted(self, templates: Sequence[str], code: DemoCode, wording: str) -> str:
        """A sentence by which the note carries `code`."""
        sentence = self.assertion(templates, wording)
        self.record(code, wording, sentence)
        return sentence

    def listed(self, code: DemoCode, wording: str) -> str:
        """An entry of a list by which the note carries `code`."""
        entry = self.misspelt(wording, 0.1)
        self.record(code, wording, entry)
        return entry

    def record(self, code: DemoCode, wording: str, text: str) -> None:
        """Keep how `text` mentions `code`, by a `wording` that it may misspell."""
        form = next(form for form in (*code.forms, *code.test_forms) if _capital(form) == _capital(wording))
        if form in demo_content.MISSPELT or not (wording in text or _capital(wording) in text):
            mention = "misspelling"
        elif form in demo_content.ABBREVIATIONS:
            mention = "abbreviation"
        else:
            mention = "synonym" if form in (*code.forms[:2], code.test_forms[0]) else "finding"
        self.mentions.append((code.code, mention))

    def not_coded(self, mention: str, templates: Sequence[str], code: DemoCode) -> str:
        """A sentence that names `code`, which the note does not carry."""
        sentence = self.assertion(templates, self.plain_name(code))
        self.mentions.append((code.code, mention))
        return sentence

    def assertion(self, templates: Sequence[str], wording: str) -> str:
        return self.misspelt(self.fill(self.draw.choice(templates), m=wording, M=_capital(wording)), 0.12)

    def medications(self) -> str:
        lines = self.draw.sample(demo_content.MEDICATIONS, 10 if self.long else self.draw.integer(2, 4))
        return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))

    def date(self, day: int, years: int = 0) -> str:
        return f"[**{self.year + years}-{self.month}-{day}**]"

    def fill(self, template: str, **slots: object) -> str:
        draw = self.draw
        # All are drawn for every template, so that a change of one template leaves the others' numbers alone.
        slots = {
            "n": draw.integer(2, 9),
            "tag": draw.integer(100, 9999),
            "date": self.date(draw.integer(self.admitted, self.discharged)),
            "earlier": self.date(draw.integer(1, 28), years=-1),
            "later": self.date(draw.integer(1, 28), years=1),
            "place": f"[**Hospital{draw.integer(1, 9)} {draw.integer(10, 99)}**]",
            "temp": f"{draw.integer(96, 99)}.{draw.integer(0, 9)}",
            "bp": f"{draw.integer(104, 138)}/{draw.integer(58, 84)}",
            "hr": draw.integer(58, 96),
            "rr": draw.integer(12, 19),
            "sat": draw.integer(95, 100),
            "minute": draw.integer(10, 59),
            "wbc": f"{draw.integer(5, 9)}.{draw.integer(0, 9)}",
            **self.pronouns,
            **slots,
        }
        return template.format(**slots)

    def misspelt(self, sentence: str, probability: float) -> str:
        """`sentence`, at times with two neighbouring letters of a long word swapped, or one dropped or doubled."""
        words = sentence.split(" ")
        long_words = [index for index, word in enumerate(words) if word.isalpha() and word.islower() and len(word) > 6]
        if long_words and self.draw.chance(probability):
            index = self.draw.choice(long_words)
            word, place = words[index], self.draw.integer(1, len(words[index]) - 3)
            words[index] = self.draw.choice(
                (
                    word[:place] + word[place + 1] + word[place] + word[place + 2 :],
                    word[:place] + word[place + 1 :],
                    word[:place] + word[place] + word[place:],
                )
            )
        return " ".join(words)


def _note_rows(draw: _Draw, admissions: list[_Admission]) -> tuple[list[list], list[list]]:
    """The rows of NOTEEVENTS: summaries in a random order, addenda after their report, other notes in between.

    Also those of MENTIONS.
    """
    rows: list[tuple[int, int, list]] = []
    mentions: list[list] = []

    def add(place: int, writer: _Writer, category: str, description: str, text: str, **other) -> None:
        subject_id, hadm_id = writer.admission.subject_id, other.get("hadm_id", writer.admission.hadm_id)
        date = f"{writer.year}-{writer.month:02d}-{writer.discharged:02d}"
        row = [subject_id, hadm_id, date, None, None, category, description, None, other.get("error"), text]
        rows.append((place, len(rows), row))

    for admission in admissions:
        writer = _Writer(draw, admission)
        report, addendum = writer.summary()
        mentions += [[admission.hadm_id, *mention] for mention in sorted(set(writer.mentions))]
        place = draw.integer(0, 999_999)
        add(place, writer, "Discharge summary", "Report", report)
        if addendum:
            text = f"Name:  [**Known lastname {draw.integer(100, 9999)}**]\n\nAddendum:\n{addendum}\n"
            add(place + draw.integer(1, 400_000), writer, "Discharge summary", "Addendum", text)
        if draw.chance(0.3):
            category, template = draw.choice(demo_content.OTHER_NOTES)
            code = draw.choice(demo_content.CODES)
            text = writer.fill(template, m=code.forms[0])
            hadm_id = None if draw.chance(0.3) else admission.hadm_id
            error = 1 if draw.chance(0.05) else None
            add(draw.integer(0, 999_999), writer, category, "Report", text, hadm_id=hadm_id, error=error)
    for admission in draw.sample(admissions, 3):
        # An outpatient's summary: no admission, so it belongs to none.
        writer = _Writer(draw, admission)
        add(draw.integer(0, 999_999), writer, "Discharge summary", "Report", writer.summary()[0], hadm_id=None)
    numbered = enumerate(sorted(rows, key=lambda row: row[:2]), start=1)
    return [[row_id, *row] for row_id, (_, _, row) in numbered], sorted(mentions)


def _code_rows(draw: _Draw, admissions: list[_Admission], procedure: bool) -> list[list]:
    """The rows of DIAGNOSES_ICD or PROCEDURES_ICD, with a few repeated and empty codes and one empty HADM_ID."""
    rows: list[list] = []
    for admission in sorted(admissions, key=lambda one: one.hadm_id):
        codes = [_undotted(code.code) for code in admission.codes if (code.kind == "procedure") == procedure]
        if codes and draw.chance(0.05):
            codes.append(draw.choice(codes))
        if draw.chance(0.02):
            codes.append(None)
        for number, code in enumerate(codes, start=1):
            rows.append([admission.subject_id, admission.hadm_id, number, code])
    stray = list(draw.choice(rows))
    stray[1] = None
    rows.append(stray)
    return [[row_id, *row] for row_id, row in enumerate(rows, start=1)]


def _title_rows(procedure: bool) -> list[list]:
    titles = [(code.code, code.title) for code in demo_content.CODES if (code.kind == "procedure") == procedure]
    titles += [(code, title) for code, title, is_procedure in demo_content.UNUSED_TITLES if is_procedure == procedure]
    return [
        [row_id, _undotted(code), title[:24], title] for row_id, (code, title) in enumerate(sorted(titles), start=1)
    ]


def _rare50_lines(admissions: list[_Admission]) -> list[str]:
    """KEPT's lists of a few-shot configuration: the codes with 2 to 8 training notes."""
    rare = {code.code for code in demo_content.CODES if 2 <= code.train_notes <= 8}
    lines = ['"""Made up, like all of the demo corpus."""']
    for split, name in _SPLIT_FILES.items():
        prefix = name.partition("_")[0]
        listed = [one for one in admissions if one.split == split and any(code.code in rare for code in one.codes)]
        labels = [";".join(sorted({code.code for code in one.codes} & rare)) for one in listed]
        lines.append(f"{prefix}_ids = {[f'{one.subject_id}_{one.hadm_id}' for one in listed]}")
        lines.append(f"{prefix}_labels = {labels}")
    return lines


def _undotted(code: str) -> str:
    return code.replace(".", "")


def _quoted(value: object) -> str:
    """A field as in MIMIC's files: text in quotes, numbers and gaps without."""
    if value is None:
        return ""
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else str(value)


def _write(path: str, lines: list[str]) -> None:
    with whole_file(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrapped(sentences: list[str]) -> str:
    """Lines of about 80 characters, as discharge summaries are typed; a problem ("# ...") has lines of its own."""
    paragraphs = [text for text in sentences if text.startswith("#")]
    running = " ".join(text for text in sentences if not text.startswith("#"))
    return "\n".join(
        textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False)
        for text in [running, *paragraphs]
        if text
    )


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed={seed!r} is of type {type(seed).__name__}; pass a whole number.")


def _sources() -> list[str]:
    files = (demo_content, physionet, mimic_tables, csv_tables, code_set_module)
    return [__file__, *(module.__file__ for module in files)]


def _data_files(data_dir: str) -> list[str]:
    files = [csv_tables.find_table(data_dir, name) for name in _TABLES]
    for name in _SPLIT_FILES.values():
        path = os.path.join(data_dir, name)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"data_dir={data_dir!r} lacks {name}; pass a folder with {_CONTENT}.")
        files.append(path)
    return files
