"""KEPT's published hand-over files."""

import logging

import numpy as np
import pytest

from kept_hf.candidates.candidates import Candidates
from kept_hf.candidates.handover import read_handover_file, write_handover_file
from kept_hf.models.code_set import ICDCodeSet

CODES = [f"A{number:02d}" for number in range(12)]


def random_candidates(notes=30, top_k=5):
    """With equal scores, and a note without candidates."""
    scores = np.random.default_rng(0).normal(size=(notes, len(CODES))).round(1)
    scores[3] = -np.inf
    return Candidates.from_scores(scores, CODES, top_k)


def test_handed_over_and_read(tmp_path):
    candidates = random_candidates()
    path = tmp_path / "mimic3_dev_predtop50.txt"
    write_handover_file(path, candidates)
    lines = path.read_bytes().decode().split("\n")
    assert len(lines) == 31 and lines[30] == "" and lines[0] == ";".join(candidates.codes_of(0)) and lines[3] == ""
    read = read_handover_file(path, ICDCodeSet(CODES), num_notes=30)
    assert np.array_equal(read.indices, candidates.indices) and read.note_ids is None
    assert read.scores[0, :3].tolist() == [0.0, -1.0, -2.0]
    ids = [str(number) for number in range(30)]
    assert read_handover_file(path, ICDCodeSet(CODES), note_ids=ids).note_ids == tuple(ids)


@pytest.mark.parametrize("content", ["A01;A00\r\nA02\r\n", "A01;A00\nA02", "\ufeffA01;A00\nA02\n"])
def test_files_of_other_systems(tmp_path, content):
    path = tmp_path / "dev.txt"
    path.write_bytes(content.encode())
    read = read_handover_file(path, ICDCodeSet(CODES), num_notes=2)
    assert [read.codes_of(note) for note in range(2)] == [["A01", "A00"], ["A02"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A00\nA01\n", r"has 2 lines, but there are 3 notes"),
        ("A00\nA01\nA02\n\n", r"has 4 lines, but there are 3 notes"),
        ("A00\nA01;\nA02\n", r"line 2: no code at the end of the line"),
        ("A00\nA01\nA02;;A03\n", r"line 3: no code at code 2"),
        ("A00\nA01\n;A02\n", r"line 3: no code at code 1"),
        (" \nA01\nA02\n", r"line 1: no code at the end of the line"),
        ("A00\nA01;B99\nA02\n", r"line 2: 'B99' is not among the 12 codes .*skip_unknown=True"),
        ("A00\nA01; A02\nA02\n", r"line 2: ' A02' has spaces around it"),
        ("A00\nA01;A02;A01\nA02\n", r"line 2: 'A01' is there twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, content, message):
    path = tmp_path / "mimic3_test_predtop50.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_handover_file(path, ICDCodeSet(CODES), num_notes=3)
    assert str(path) in str(caught.value)


def test_what_no_file_can_hold_is_noticed(tmp_path):
    path = tmp_path / "dev.txt"
    path.write_text("A00\nA01; A02\n")
    with pytest.raises(ValueError, match=r"line 2: ' A02' has spaces around it"):
        read_handover_file(path, ICDCodeSet(CODES), num_notes=2, skip_unknown=True)  # it is not unknown
    path.write_bytes(b"A00\nA01;\xff\n")
    with pytest.raises(ValueError, match=r"line 2: bytes that are not UTF-8"):
        read_handover_file(path, ICDCodeSet(CODES), num_notes=2)
    for code in ("A;1", "A 1", ""):
        with pytest.raises(ValueError, match=f"codes has '{code}', which the file cannot hold"):
            write_handover_file(path, Candidates.from_scores([[1.0]], [code], 1))
    assert path.read_bytes() == b"A00\nA01;\xff\n", "what was there stays"


def test_reading_asks_for_the_notes(tmp_path):
    with pytest.raises(ValueError, match="pass one, so that missing lines are noticed"):
        read_handover_file(tmp_path / "dev.txt", ICDCodeSet(CODES))


def test_unknown_codes_can_be_left_out(tmp_path, caplog):
    path = tmp_path / "dev.txt"
    path.write_text("B98;A01;B99;A00\nB99\n")
    with caplog.at_level(logging.WARNING):
        read = read_handover_file(path, ICDCodeSet(CODES), num_notes=2, skip_unknown=True)
    assert [read.codes_of(note) for note in range(2)] == [["A01", "A00"], []]
    assert "3 candidates are not in the code set" in caplog.text
