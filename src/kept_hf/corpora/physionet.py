"""What MIMIC-III and MIMIC-IV have in common: admissions, their discharge summaries, codes and titles.

No message quotes a note or the number of a patient or an admission.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..models.code_set import ICDCodeSet
from ..tables.csv_tables import find_table, stream_table, whole_number
from ..tables.mimic_tables import MIMIC3, Layout, code_column, read_text, stream_version

logger = logging.getLogger(__name__)

NOTE_FEATURES = datasets.Features(
    {
        "note_id": datasets.Value("string"),
        "subject_id": datasets.Value("string"),
        "text": datasets.Value("string"),
        "codes": datasets.List(datasets.Value("string")),
    }
)
"""The columns of `note_rows`."""


SKIPPED_NOTES = {
    "errors": "those that a clinician has marked as wrong (ISERROR is 1)",
    "repeated": "those whose words are the same as of an earlier one of the admission",
}
"""Notes that can be left out."""


@dataclass(slots=True)
class Admission:
    """A patient's stay.

    Attributes:
        subject_id: the patient.
        codes: dotted codes in file order, diagnoses before procedures, as often as the tables list them.
    """

    subject_id: str
    codes: list[str]


class NoteTexts(Mapping[str, str]):
    """HADM_ID → text. The texts wait in a temporary file, so that memory does not grow with the table.

    Args:
        folder: where the file lies, unnamed and gone with this object; created if need be. By default the system's
            folder for such files.

    Attributes:
        subject_ids: HADM_ID → patient.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        # Unbuffered: notes are read in another order than they are written.
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
        self._size = 0
        self._positions: dict[str, list[tuple[int, int]]] = {}
        self.subject_ids: dict[str, str] = {}

    def __del__(self):
        self._file.close()

    def add(self, hadm_ids: Sequence[str], subject_ids: Sequence[str], texts: pa.ChunkedArray) -> None:
        """Take some texts; several of one admission are joined with a tab.

        Raises:
            ValueError: an earlier text of the admission is of another patient.
            OSError: the disk is full, or another fault of it.
        """
        for hadm_id, subject_id in zip(hadm_ids, subject_ids, strict=True):
            if self.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                raise ValueError("two notes of one admission name different patients")
        self._file.seek(self._size)
        positions = []
        for array in texts.chunks:
            # The texts of an array stand together. One write can stop before its end, as on a disk that gets full: the
            # next one then says why.
            _, offsets, values = array.buffers()
            ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1].tolist()
            rest = memoryview(values)[ends[0] : ends[-1]]
            while rest:
                rest = rest[self._file.write(rest) :]
            positions += [(self._size + start - ends[0], stop - start) for start, stop in pairwise(ends)]
            self._size += ends[-1] - ends[0]
        for hadm_id, position in zip(hadm_ids, positions, strict=True):
            self._positions.setdefault(hadm_id, []).append(position)

    def __getitem__(self, hadm_id: str) -> str:
        return "\t".join(self._read(offset, size).decode() for offset, size in self._positions[hadm_id])

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        text = b""
        while len(text) < size:
            part = self._file.read(size - len(text))
            if not part:
                raise OSError(f"The temporary file of note texts ends {size - len(text)} bytes too early; start again.")
            text += part
        return text

    def __contains__(self, hadm_id: object) -> bool:
        return hadm_id in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)


def read_discharge_summaries(
    data_dir: str | os.PathLike,
    layout: Layout = MIMIC3,
    hadm_ids: Iterable[str] | None = None,
    scratch_dir: str | os.PathLike | None = None,
    skip_notes: Collection[str] = (),
) -> NoteTexts:
    """HADM_ID → discharge summaries, admissions in the order of their first one.

    Notes of other categories and notes without an admission are left out. All summaries of an admission, addenda
    included, are joined with a tab in file order.

    Args:
        data_dir: the folder with the tables.
        layout: how they are named.
        hadm_ids: the admissions wanted; all by default.
        scratch_dir: see `NoteTexts`.
        skip_notes: some of `SKIPPED_NOTES`, to leave these out.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`; and where notes of one admission name different patients.
    """
    texts = NoteTexts(scratch_dir)
    listed = None if hadm_ids is None else pa.array(hadm_ids, pa.string())
    ids = ["SUBJECT_ID", "HADM_ID"]
    columns = [*ids, "TEXT"] + (["CATEGORY"] if layout.note_category else [])
    columns += ["ISERROR"] if "errors" in skip_notes else []
    seen: set[tuple[str, bytes]] = set()
    for rows in stream_table(data_dir, layout.notes, columns, numbers=ids, needle=layout.note_category or ""):
        is_wanted = pc.not_equal(rows["HADM_ID"], "")
        if layout.note_category:
            is_wanted = pc.and_(is_wanted, pc.equal(rows["CATEGORY"], layout.note_category))
        if hadm_ids is not None:
            is_wanted = pc.and_(is_wanted, pc.is_in(rows["HADM_ID"], listed))
        if "errors" in skip_notes:
            is_error = pc.is_in(pc.utf8_trim_whitespace(rows["ISERROR"]), pa.array(["1", "1.0"]))
            is_wanted = pc.and_(is_wanted, pc.invert(is_error))
        if not pc.all(is_wanted).as_py():  # spares a copy
            rows = rows.filter(is_wanted)
        if "repeated" in skip_notes:
            rows = rows.filter(pa.array(_is_new(rows, seen), pa.bool_()))
        try:
            texts.add(rows["HADM_ID"].to_pylist(), rows["SUBJECT_ID"].to_pylist(), rows["TEXT"])
        except ValueError as error:
            raise ValueError(f"{find_table(data_dir, layout.notes)}: {error}.") from None
    return texts


def _is_new(rows: pa.Table, seen: set[tuple[str, bytes]]) -> Iterator[bool]:
    """Whether each note is the first of its admission with that text; `seen` remembers them."""
    for hadm_id, text in zip(rows["HADM_ID"].to_pylist(), rows["TEXT"].to_pylist(), strict=True):
        note = hadm_id, hashlib.sha256(" ".join(text.split()).encode()).digest()
        yield note not in seen
        seen.add(note)


def read_admissions(data_dir: str | os.PathLike, layout: Layout = MIMIC3, icd_version: int = 9) -> dict[str, Admission]:
    """HADM_ID → patient and codes.

    Rows without an admission are left out; one without a code adds none.

    Args:
        data_dir: the folder with the tables.
        layout: how they are named.
        icd_version: 9 or 10; codes of the other one are left out.

    Raises:
        FileNotFoundError, ValueError: see `stream_table`; and where rows of one admission name different patients, a
            code is none of its system, or codes were read as numbers.
    """
    admissions: dict[str, Admission] = {}
    ids = ["SUBJECT_ID", "HADM_ID"]
    for table, procedure in layout.codes:
        column = code_column(data_dir, table, procedure, layout, icd_version)
        for batch in stream_version(data_dir, table, [*ids, layout.code_column], ids, layout, icd_version):
            for subject_id, hadm_id, code in zip(*(values.to_pylist() for values in batch.columns), strict=True):
                if not hadm_id:
                    continue
                admission = admissions.get(hadm_id)
                if admission is None:
                    admission = admissions[hadm_id] = Admission(subject_id, [])
                elif admission.subject_id != subject_id:
                    path = find_table(data_dir, table)
                    raise ValueError(f"{path}: two rows of one admission name different patients.")
                if dotted := column.dotted(code):
                    admission.codes.append(dotted)
        column.check()
    return admissions


def read_hadm_ids(path: str | os.PathLike) -> list[str]:
    """The admissions of a split list, one HADM_ID a line, in file order, each once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no number, named by its line number; a file that is not UTF-8.
    """
    hadm_ids = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        hadm_id = whole_number(text)
        if hadm_id and not hadm_id.isdecimal():
            raise ValueError(f"{os.fspath(path)}, line {line}: no HADM_ID; write one number a line, no header.")
        if hadm_id:
            hadm_ids[hadm_id] = None
    return list(hadm_ids)


def check_disjoint(splits: Mapping[str, Iterable[str]]) -> None:
    """Refuse splits that share admissions.

    Args:
        splits: split → its HADM_IDs.

    Raises:
        ValueError: the message names the splits and the number of admissions.
    """
    seen: dict[str, str] = {}
    for split, hadm_ids in splits.items():
        hadm_ids = list(hadm_ids)
        shared = [hadm_id for hadm_id in hadm_ids if hadm_id in seen]
        if shared:
            raise ValueError(
                f"The splits {seen[shared[0]]} and {split} share admissions ({len(shared)} of {split} are in another "
                "split too); put each into one list."
            )
        seen.update(dict.fromkeys(hadm_ids, split))


def listed_admissions(
    hadm_ids: Iterable[str], admissions: Mapping[str, Admission], texts: NoteTexts
) -> dict[str, Admission]:
    """The admissions of a split, in the order of its list.

    Those that are not in the tables of codes or have no discharge summary are left out; a warning counts them.

    Args:
        hadm_ids: what `read_hadm_ids` gave.
        admissions: what `read_admissions` gave.
        texts: what `read_discharge_summaries` gave.

    Raises:
        ValueError: an admission's notes and codes name different patients.
    """
    hadm_ids = list(hadm_ids)
    coded = [hadm_id for hadm_id in hadm_ids if hadm_id in admissions]
    found = [hadm_id for hadm_id in coded if hadm_id in texts]
    if any(admissions[hadm_id].subject_id != texts.subject_ids[hadm_id] for hadm_id in found):
        raise ValueError(
            "The notes and the codes of an admission name different patients; are the tables of one release?"
        )
    if len(found) < len(hadm_ids):
        logger.warning(
            "%d of %d listed admissions are left out: %d are not in the tables of codes, %d have no discharge summary.",
            len(hadm_ids) - len(found),
            len(hadm_ids),
            len(hadm_ids) - len(coded),
            len(coded) - len(found),
        )
    return {hadm_id: admissions[hadm_id] for hadm_id in found}


def by_patient(admissions: Mapping[str, Admission]) -> dict[str, Admission]:
    """The admissions sorted by the numbers of patient and admission.

    That is the order of the published data files, which hand-over files between two stages rely on.
    """
    return dict(sorted(admissions.items(), key=lambda item: (int(item[1].subject_id or 0), int(item[0]))))


def note_rows(admissions: Mapping[str, Admission], texts: Mapping[str, str]) -> Iterator[dict]:
    """The rows `note_id`, `subject_id`, `text`, `codes` of a split; a code counts once."""
    for hadm_id, admission in admissions.items():
        yield {
            "note_id": hadm_id,
            "subject_id": admission.subject_id,
            "text": texts[hadm_id],
            "codes": list(dict.fromkeys(admission.codes)),
        }


def split_generators(splits: Mapping[str, Mapping[str, Admission]], texts: NoteTexts) -> list[datasets.SplitGenerator]:
    """One generator per split that has notes, with the arguments of `note_rows`.

    A split without notes is left out with a warning: `datasets` can write it, but not load it.

    Raises:
        ValueError: no split has a note.
    """
    empty = [split for split, admissions in splits.items() if not admissions]
    if len(empty) == len(splits):
        raise ValueError(
            "No admission of any split has both codes and a discharge summary; are the tables and the lists of splits "
            "of one release?"
        )
    for split in empty:
        logger.warning("The split %s has no notes: it is left out.", split)
    return [
        datasets.SplitGenerator(name=split, gen_kwargs={"admissions": admissions, "texts": texts})
        for split, admissions in splits.items()
        if admissions
    ]


def described(codes: Sequence[str], titles: Mapping[str, str], parents: Mapping[str, str]) -> ICDCodeSet:
    """The code set of a corpus; one warning counts the codes without a title of their own.

    They are described by the nearest category with a title, and failing that by the code itself.

    Args:
        codes: in the order of the labels.
        titles: code or category → title.
        parents: code → the one above it.
    """
    code_set = ICDCodeSet(codes, titles, parents=parents)
    if code_set.undescribed:
        bare = sum(code_set.describe(code) == code for code in code_set.undescribed)
        logger.warning(
            "%d of %d codes have no title: %d are described by their category's, %d by the code itself.",
            len(code_set.undescribed),
            len(code_set),
            len(code_set.undescribed) - bare,
            bare,
        )
    return code_set
