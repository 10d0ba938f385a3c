import errno
import gzip
import io
import logging
import random
import re

import pyarrow as pa
import pytest

from kept_hf.corpora import physionet
from kept_hf.tables import csv_tables
from kept_hf.tables.mimic_tables import MIMIC4, read_titles

NOTES = """\
ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT
1,10,200,2101-01-01,,,"Discharge summary","Report",,,"First line
second ""quoted"", line
"
2,11,0100,2101-01-01,,,"Discharge summary","Report",,,"Other, admission"
3,10,200,2101-01-01,,,"Nursing","Report",,,"A nurse's note"
4,10,,2101-01-01,,,"Discharge summary","Report",,,"No admission"
5,10,200,2101-01-02,,,"Discharge summary","Addendum",,,"Later"
6,12,300,2101-01-02,,,"Discharge summary","Report",,,""
"""
DIAGNOSES = """\
ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE
1,10,200,1,"0389"
2,10,200,2,"389"
3,10,200,3,"E8889"
4,10,200,4,"0389"
5,10,,5,"4019"
6,10,200,6,
7,11,0100,1,V5861
"""
PROCEDURES = """\
ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE
1,10,200,1,"0407"
2,11,0100,1,3995
"""


def write(folder, name, content):
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8", newline="")


@pytest.fixture(params=[".csv", ".csv.gz"])
def folder(request, tmp_path):
    tables = {"NOTEEVENTS": NOTES, "DIAGNOSES_ICD": DIAGNOSES, "PROCEDURES_ICD": PROCEDURES}
    for name, content in tables.items():
        write(tmp_path, name + request.param, content)
    return tmp_path


def test_summaries_of_an_admission_are_joined(folder):
    assert physionet.read_discharge_summaries(folder) == {
        "200": 'First line\nsecond "quoted", line\n\tLater',
        "0100": "Other, admission",
        "300": "",
    }
    assert list(physionet.read_discharge_summaries(folder, hadm_ids={"0100"})) == ["0100"]


def test_codes_keep_their_zeros_and_their_order(folder):
    assert physionet.read_admissions(folder) == {
        "200": physionet.Admission("10", ["038.9", "389", "E888.9", "038.9", "04.07"]),
        "0100": physionet.Admission("11", ["V58.61", "39.95"]),
    }


def test_an_admission_whose_codes_are_empty_has_none(folder):
    path = next(folder.glob("PROCEDURES_ICD.*"))
    write(folder, path.name, PROCEDURES + "3,12,300,1,\n4,12,300,2,  \n")
    assert physionet.read_admissions(folder)["300"] == physionet.Admission("12", [])


def test_many_blocks_give_the_same(folder, monkeypatch):
    whole = physionet.read_discharge_summaries(folder)
    # Blocks end anywhere, within a quoted text too.
    for size in range(150, 400, 10):
        monkeypatch.setattr(csv_tables, "_ROW_BYTES", size)
        monkeypatch.setattr(csv_tables, "_PARSED_BYTES", 60)
        assert len(list(csv_tables.stream_table(folder, "NOTEEVENTS", ("HADM_ID", "TEXT")))) > 1
        assert physionet.read_discharge_summaries(folder) == whole


def test_rows_without_the_category_are_left_out(tmp_path, monkeypatch):
    generator = random.Random(3)
    rows, expected = [], {}
    for number in range(400):
        is_summary = generator.random() < 0.05
        text = "".join(generator.choices(["a", " ", "\n", '""', ",", "é", "D"], k=generator.randint(0, 60)))
        if generator.random() < 0.02:
            text += "See the Discharge summary."
        category, quote = "Discharge summary" if is_summary else "Nursing", generator.choice(['"', ""])
        rows.append(f'{number},1,{number},,,,{quote}{category}{quote},"Report",,,"{text}"\n')
        if is_summary:
            expected[str(number)] = text.replace('""', '"')
    holding = sum("Discharge summary" in row for row in rows)
    assert len(expected) < holding < 60
    write(tmp_path, "NOTEEVENTS.csv", NOTES.splitlines()[0] + "\n" + "".join(rows))
    for size in (170, 200, 333, 1000):
        monkeypatch.setattr(csv_tables, "_ROW_BYTES", size)
        for dense_bytes, most in ((0, holding), (100, 250), (10_000, 300 if size < 1000 else 400)):
            monkeypatch.setattr(csv_tables, "_DENSE_BYTES", dense_bytes)
            parts = list(csv_tables.stream_table(tmp_path, "NOTEEVENTS", ("HADM_ID",), needle="Discharge summary"))
            assert holding <= sum(part.num_rows for part in parts) <= most
            assert physionet.read_discharge_summaries(tmp_path) == expected


def test_titles(tmp_path):
    write(
        tmp_path, "D_ICD_DIAGNOSES.csv", 'ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE\n1,"0389","Sept","Septicemia, any"\n'
    )
    write(
        tmp_path, "D_ICD_PROCEDURES.csv", 'row_id,icd9_code,short_title,long_title\n1,"0407","Exc","Nerve excision"\n'
    )
    assert read_titles(tmp_path) == ({"038.9": "Septicemia, any"}, {"04.07": "Nerve excision"})
    (tmp_path / "D_ICD_PROCEDURES.csv").unlink()
    assert read_titles(tmp_path) == ({"038.9": "Septicemia, any"}, {})


def test_split_lists(tmp_path):
    write(tmp_path, "ids.csv", "\ufeff0100\r\n\r\n200\n0100")
    assert physionet.read_hadm_ids(tmp_path / "ids.csv") == ["0100", "200"]
    write(tmp_path, "ids.csv", "100\n10_200\n")
    with pytest.raises(ValueError, match=r"ids\.csv, line 2: no HADM_ID") as caught:
        physionet.read_hadm_ids(tmp_path / "ids.csv")
    assert "10_200" not in str(caught.value)


def test_listed_admissions(caplog):
    texts = physionet.NoteTexts()
    for hadm_id, subject_id, text in (("1", "20", "one"), ("2", "9", "two"), ("4", "5", "né"), ("1", "20", "more")):
        texts.add([hadm_id], [subject_id], pa.chunked_array([[text]]))
    admissions = {
        "1": physionet.Admission("20", ["401.9", "401.9", "038.9"]),
        "2": physionet.Admission("9", []),
        "31": physionet.Admission("7", ["428.0"]),
    }
    with caplog.at_level(logging.WARNING):
        listed = physionet.listed_admissions(["1", "31", "2", "4", "5"], admissions, texts)
    assert list(listed) == ["1", "2"]
    assert "3 of 5 listed admissions are left out: 2 are not in the tables of codes, 1 have no discharge" in caplog.text
    assert "31" not in caplog.text
    assert list(physionet.by_patient(listed)) == ["2", "1"]  # 9 comes before 20
    assert list(physionet.note_rows(listed, texts)) == [
        {"note_id": "1", "subject_id": "20", "text": "one\tmore", "codes": ["401.9", "038.9"]},
        {"note_id": "2", "subject_id": "9", "text": "two", "codes": []},
    ]
    assert texts["4"] == "né"
    assert len(texts) == 3


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_dir=.*neither NOTEEVENTS\.csv nor NOTEEVENTS\.csv\.gz"):
        physionet.read_discharge_summaries(tmp_path)
    with pytest.raises(FileNotFoundError, match="lacks NOTEEVENTS, DIAGNOSES_ICD, PROCEDURES_ICD, each as"):
        physionet.MIMIC3.find_tables(tmp_path)
    write(tmp_path, "NOTEEVENTS.csv", "ROW_ID,SUBJECT_ID,HADM_ID,TEXT\n")
    with pytest.raises(
        ValueError, match=r"NOTEEVENTS\.csv has no column CATEGORY; its columns are ROW_ID, SUBJECT_ID, HADM_ID, TEXT"
    ):
        physionet.read_discharge_summaries(tmp_path)
    write(tmp_path, "NOTEEVENTS.csv", "")
    with pytest.raises(ValueError, match=r"NOTEEVENTS\.csv is empty"):
        physionet.read_discharge_summaries(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"7,12,300,secret\n", "row 8 has 4 fields, the header 11"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret",more\n', "row 8 has 12 fields, the header 11"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret \xff"\n', "row 8 holds bytes that are not UTF-8"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret', "row 8 is truncated"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret\nline\n', "row 8 is truncated"),
        (b'7,12,300,,,,"Discharge summary",,,,', "row 8 is truncated"),
        (b"7,12,3", "row 8 is truncated"),
    ],
)
@pytest.mark.parametrize("block_bytes", [300, 16 << 20])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_bad_rows_are_numbered_and_not_quoted(tmp_path, monkeypatch, row, message, block_bytes, suffix):
    monkeypatch.setattr(csv_tables, "_ROW_BYTES", block_bytes)
    content = NOTES.encode() + row
    (tmp_path / f"NOTEEVENTS{suffix}").write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    with pytest.raises(ValueError, match=rf"NOTEEVENTS\{suffix}: {message}") as caught:
        physionet.read_discharge_summaries(tmp_path)
    assert "secret" not in str(caught.value)


def test_a_truncated_gzip_file(tmp_path):
    rows = [f'{i},1,{i},,,,"Discharge summary",,,,"{random.Random(i).random()}\nsecret"\n' for i in range(5000)]
    whole = gzip.compress("".join([NOTES, *rows]).encode())
    for part in (0.3, 0.8):
        (tmp_path / "NOTEEVENTS.csv.gz").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(
            ValueError, match=r"NOTEEVENTS\.csv\.gz: row \d+ is truncated or the file is damaged there"
        ) as caught:
            physionet.read_discharge_summaries(tmp_path)
        row = int(re.search(r"row (\d+)", str(caught.value))[1])
        assert abs(row - 5007 * part) < 300
    (tmp_path / "NOTEEVENTS.csv.gz").write_bytes(whole[:12])
    with pytest.raises(ValueError, match="row 1 is truncated"):
        physionet.read_discharge_summaries(tmp_path)


def test_two_gzip_members_are_one_file(tmp_path):
    first, second = NOTES[:150].encode(), NOTES[150:].encode()
    (tmp_path / "NOTEEVENTS.csv.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    assert len(physionet.read_discharge_summaries(tmp_path)) == 3
    (tmp_path / "NOTEEVENTS.csv.gz").write_bytes(gzip.compress(first) + gzip.compress(second[:-4]))
    with pytest.raises(ValueError, match="row 7 is truncated"):
        physionet.read_discharge_summaries(tmp_path)


def test_reading_and_writing_in_turns(tmp_path):
    texts = physionet.NoteTexts(tmp_path)
    texts.add(["1"], ["7"], pa.chunked_array([["aaa"]]))
    texts.add(["2"], ["7"], pa.chunked_array([["bbb"]]))
    assert texts["1"] == "aaa"
    texts.add(["3"], ["8"], pa.chunked_array([["ccc"]]))
    assert [texts[hadm_id] for hadm_id in texts] == ["aaa", "bbb", "ccc"]
    with pytest.raises(ValueError, match="different patients") as caught:
        texts.add(["3"], ["9"], pa.chunked_array([["ddd"]]))
    assert "9" not in str(caught.value)


@pytest.mark.parametrize("first", ["Nursing", "Discharge summary"])
def test_a_row_longer_than_a_block(tmp_path, monkeypatch, first):
    monkeypatch.setattr(csv_tables, "_ROW_BYTES", 2000)
    row = '{},1,{},,,,"{}","Report",,,"{}"\n'
    rows = [row.format(1, 1, "Nursing", "short"), row.format(2, 2, first, "secret " * 400)]
    rows += [row.format(number, number, "Discharge summary", "short\n" * 50) for number in range(3, 30)]
    write(tmp_path, "NOTEEVENTS.csv", NOTES.splitlines()[0] + "\n" + "".join(rows))
    with pytest.raises(ValueError, match="row 3 is longer than 2,000 bytes; is a quote not closed") as caught:
        physionet.read_discharge_summaries(tmp_path)
    assert "secret" not in str(caught.value)


def test_stray_quotes_do_not_mix_notes(tmp_path, monkeypatch):
    """Quotes within unquoted fields: what they make of rows must not be believed."""
    monkeypatch.setattr(csv_tables, "_ROW_BYTES", 400)
    row = '{},1,{},,,,"{}",{},,,"{}"\n'
    rows = []
    for number in range(1, 60):
        is_summary = number in (5, 40)
        category, description = ("Discharge summary", '6" scar') if is_summary else ("Nursing", "Report")
        rows.append(row.format(number, number, category, description, f"text of {number}\n" * 3))
    write(tmp_path, "NOTEEVENTS.csv", NOTES.splitlines()[0] + "\n" + "".join(rows))
    try:
        texts = dict(physionet.read_discharge_summaries(tmp_path))
    except ValueError as error:
        assert "quote" in str(error)
    else:
        assert texts == {str(number): f"text of {number}\n" * 3 for number in (5, 40)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('7,12,300.5,,,,"Discharge summary",,,,"secret"\n', r"row 10 has no whole number in HADM_ID"),
        ('7,x12,300,,,,"Discharge summary",,,,"secret"\n', r"row 10 has no whole number in SUBJECT_ID"),
        ('7,99,200,,,,"Discharge summary",,,,"secret"\n', r"two notes of one admission name different patients"),
    ],
)
def test_bad_numbers(tmp_path, monkeypatch, row, message):
    monkeypatch.setattr(csv_tables, "_ROW_BYTES", 300)
    others = '8,1,1,,,,"Nursing",,,,"a"\n' * 2
    write(tmp_path, "NOTEEVENTS.csv", NOTES + others + row)
    with pytest.raises(ValueError, match=rf"NOTEEVENTS\.csv: {message}") as caught:
        physionet.read_discharge_summaries(tmp_path)
    for secret in ("secret", "300", "x12", "99", "200"):
        assert secret not in str(caught.value).replace(str(tmp_path), "")


def test_numbers_with_spaces(folder):
    path = next(folder.glob("NOTEEVENTS.*"))
    write(folder, path.name, NOTES.replace(",10,200,", ", 10 ,200 ,"))
    assert list(physionet.read_discharge_summaries(folder)) == ["200", "0100", "300"]


def test_codes_of_two_patients(folder):
    path = next(folder.glob("PROCEDURES_ICD.*"))
    write(folder, path.name, PROCEDURES + "3,13,0100,1,3995\n")
    with pytest.raises(ValueError, match=r"PROCEDURES_ICD.*two rows of one admission name different patients"):
        physionet.read_admissions(folder)
    texts, admissions = physionet.NoteTexts(), {"1": physionet.Admission("5", [])}
    texts.add(["1"], ["6"], pa.chunked_array([["text"]]))
    with pytest.raises(ValueError, match="The notes and the codes of an admission name different patients"):
        physionet.listed_admissions(["1"], admissions, texts)


def test_no_header(tmp_path):
    """The first row may be a note: it is not shown."""
    for content in (NOTES.split("\n", 1)[1], '"' + "secret " * 100_000):
        write(tmp_path, "NOTEEVENTS.csv", content)
        with pytest.raises(ValueError, match="row 1 is no header") as caught:
            physionet.read_discharge_summaries(tmp_path)
        assert "quoted" not in str(caught.value) and "secret" not in str(caught.value)


def test_damaged_gzip_files(tmp_path):
    whole = bytearray(gzip.compress(NOTES.encode()))
    path = tmp_path / "NOTEEVENTS.csv.gz"
    path.write_bytes(NOTES.encode())
    with pytest.raises(ValueError, match=r"NOTEEVENTS\.csv\.gz: row 1 is truncated or the file is damaged there"):
        physionet.read_discharge_summaries(tmp_path)
    whole[-8] ^= 1  # of the checksum
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"NOTEEVENTS\.csv\.gz: row \d is truncated or the file is damaged there"):
        physionet.read_discharge_summaries(tmp_path)


def test_text_files_that_are_not_utf8(tmp_path):
    (tmp_path / "ids.csv").write_bytes("1\n2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"ids\.csv is not UTF-8"):
        physionet.read_hadm_ids(tmp_path / "ids.csv")


def test_splits_that_share_admissions():
    physionet.check_disjoint({"train": ["1", "2"], "dev": ["3"]})
    with pytest.raises(ValueError, match="The splits train and test share admissions \\(2 of test are in another"):
        physionet.check_disjoint({"train": ["71", "72"], "dev": ["73"], "test": ["74", "71", "72"]})


def test_splits_without_notes(caplog):
    texts, notes = physionet.NoteTexts(), {"1": physionet.Admission("5", [])}
    with caplog.at_level(logging.WARNING):
        generators = physionet.split_generators({"train": notes, "validation": {}}, texts)
    assert [generator.name for generator in generators] == ["train"]
    assert "The split validation has no notes: it is left out." in caplog.text
    with pytest.raises(ValueError, match="No admission of any split has both codes and a discharge summary"):
        physionet.split_generators({"train": {}, "validation": {}}, texts)


def test_mimic4_layout(tmp_path):
    for folder in ("hosp", "note"):
        (tmp_path / folder).mkdir()
    write(
        tmp_path,
        "note/discharge.csv.gz",
        "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
        '10-DS-1,10,200,DS,1,,,"First\nnote"\n10-DS-2,10,200,DS,2,,,Second\n11-DS-1,11,,DS,1,,,Nobody\n',
    )
    write(
        tmp_path,
        "hosp/diagnoses_icd.csv.gz",
        "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
        "10,200,1,0389   ,9\n10,200,2,E8889,9\n11,300,1,E1165,10\n12,400,1,I10,10\n",
    )
    write(
        tmp_path,
        "hosp/procedures_icd.csv.gz",
        "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n10,200,1,,0407,9\n11,300,1,,0BW03ZZ,10\n",
    )
    write(tmp_path, "hosp/d_icd_diagnoses.csv", "icd_code,icd_version,long_title\nI10,10,Hypertension\n0389,9,Sepsis\n")
    mimic4 = MIMIC4
    assert physionet.read_discharge_summaries(tmp_path, mimic4) == {"200": "First\nnote\tSecond"}
    assert physionet.read_admissions(tmp_path, mimic4, 9) == {
        "200": physionet.Admission("10", ["038.9", "E888.9", "04.07"])
    }
    assert physionet.read_admissions(tmp_path, mimic4, 10) == {
        "300": physionet.Admission("11", ["E11.65", "0BW03ZZ"]),
        "400": physionet.Admission("12", ["I10"]),
    }
    assert read_titles(tmp_path, mimic4, 10) == ({"I10": "Hypertension"}, {})


class SlowFile(io.FileIO):
    """Takes and gives seven bytes at a time, and nothing when it is full, as the system may."""

    size = None

    def write(self, content):
        if self.size is not None and self.tell() >= self.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content[:7])

    def read(self, size):
        return super().read(min(size, 7))


@pytest.fixture
def slow_file(tmp_path, monkeypatch):
    file = SlowFile(tmp_path / "texts", "w+")
    monkeypatch.setattr(physionet.tempfile, "TemporaryFile", lambda **_: file)
    return file


def test_texts_are_written_and_read_to_their_end(slow_file):
    texts, long = physionet.NoteTexts(), "naïve text " * 1000
    texts.add(["1", "2"], ["7", "8"], pa.chunked_array([[long, "short"]]))
    assert texts["1"] == long and texts["2"] == "short"


def test_a_full_disk_is_an_error_and_loses_no_earlier_text(slow_file):
    texts = physionet.NoteTexts()
    texts.add(["1"], ["7"], pa.chunked_array([["first"]]))
    slow_file.size = 1000
    with pytest.raises(OSError, match="No space left"):
        texts.add(["2"], ["8"], pa.chunked_array([["x" * 40_003]]))
    assert list(texts) == ["1"] and texts["1"] == "first"
    slow_file.size = None
    texts.add(["2"], ["8"], pa.chunked_array([["y" * 2000]]))
    assert texts["2"] == "y" * 2000


def test_a_text_that_is_not_there_to_its_end_is_an_error(slow_file):
    texts = physionet.NoteTexts()
    texts.add(["4711"], ["7"], pa.chunked_array([["x" * 100]]))
    slow_file.truncate(60)
    with pytest.raises(OSError, match="ends 40 bytes too early") as caught:
        texts["4711"]
    assert "4711" not in str(caught.value)


def test_notes_that_can_be_left_out(tmp_path, monkeypatch):
    """Also where the first and the repeated one come in different pieces of the file."""
    monkeypatch.setattr(csv_tables, "_PARSED_BYTES", 100)
    header, *rows = NOTES.splitlines()[:1]
    summary = '2101-01-01,,,"Discharge summary","Report",'
    rows = [
        f'1,10,200,{summary},,"A  note\nof him"',
        f'2,10,200,{summary},1,"A wrong note"',
        f'3,10,200,{summary},,"A note of\nhim "',
        f'4,11,300,{summary},,"A note of him"',
        f'5,12,400,{summary},"1","Wrong"',
    ]
    write(tmp_path, "NOTEEVENTS.csv", "\n".join([header, *rows]) + "\n")
    read = physionet.read_discharge_summaries
    assert read(tmp_path)["200"] == "A  note\nof him\tA wrong note\tA note of\nhim "
    assert read(tmp_path, skip_notes=["errors"]) == {
        "200": "A  note\nof him\tA note of\nhim ",
        "300": "A note of him",
    }
    assert read(tmp_path, skip_notes=["errors", "repeated"]) == {"200": "A  note\nof him", "300": "A note of him"}
