import gzip
import logging

import pytest

from kept_hf.corpora import physionet

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
    assert physionet.read_codes(folder) == {
        "200": ["038.9", "389", "E888.9", "04.07"],
        "0100": ["V58.61", "39.95"],
    }


def test_many_blocks_give_the_same(folder, monkeypatch):
    whole = physionet.read_discharge_summaries(folder)
    # Blocks end anywhere, within a quoted text too.
    for size in range(150, 400, 10):
        monkeypatch.setattr(physionet, "_BLOCK_BYTES", size)
        assert len(list(physionet.stream_table(folder, "NOTEEVENTS", ("HADM_ID", "TEXT")))) > 1
        assert physionet.read_discharge_summaries(folder) == whole


def test_titles(tmp_path):
    write(
        tmp_path, "D_ICD_DIAGNOSES.csv", 'ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE\n1,"0389","Sept","Septicemia, any"\n'
    )
    write(
        tmp_path, "D_ICD_PROCEDURES.csv", 'row_id,icd9_code,short_title,long_title\n1,"0407","Exc","Nerve excision"\n'
    )
    assert physionet.read_titles(tmp_path) == {"038.9": "Septicemia, any", "04.07": "Nerve excision"}


def test_split_lists(tmp_path):
    write(tmp_path, "ids.csv", "\ufeff0100\r\n\r\n200\n0100")
    assert physionet.read_hadm_ids(tmp_path / "ids.csv") == ["0100", "200"]
    write(tmp_path, "ids.csv", "100\n10_200\n")
    with pytest.raises(ValueError, match=r"ids\.csv, line 2: no HADM_ID") as caught:
        physionet.read_hadm_ids(tmp_path / "ids.csv")
    assert "10_200" not in str(caught.value)


def test_admissions_without_a_summary_are_counted(caplog):
    texts, codes = {"1": "one", "2": "two"}, {"1": ["401.9"], "3": ["428.0"]}
    with caplog.at_level(logging.WARNING):
        rows = list(physionet.join_admissions(["2", "31", "1"], texts, codes))
    assert rows == [
        {"note_id": "2", "text": "two", "codes": []},
        {"note_id": "1", "text": "one", "codes": ["401.9"]},
    ]
    assert "1 listed admissions have no discharge summary" in caplog.text
    assert "31" not in caplog.text


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_dir=.*neither NOTEEVENTS\.csv nor NOTEEVENTS\.csv\.gz"):
        physionet.read_discharge_summaries(tmp_path)
    write(tmp_path, "NOTEEVENTS.csv", "ROW_ID,HADM_ID,TEXT\n")
    with pytest.raises(
        ValueError, match=r"NOTEEVENTS\.csv has no column CATEGORY; its columns are ROW_ID, HADM_ID, TEXT"
    ):
        physionet.read_discharge_summaries(tmp_path)
    write(tmp_path, "NOTEEVENTS.csv", "")
    with pytest.raises(ValueError, match=r"NOTEEVENTS\.csv is empty"):
        physionet.read_discharge_summaries(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"7,12,300,secret", "row 8 has 4 fields, the header 11"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret",more', "row 8 has 12 fields, the header 11"),
        (b'7,12,300,,,,"Discharge summary",,,,"secret \xff"', "bytes that are not UTF-8"),
    ],
)
def test_bad_rows_are_numbered_and_not_quoted(tmp_path, row, message):
    (tmp_path / "NOTEEVENTS.csv").write_bytes(NOTES.encode() + row + b"\n")
    with pytest.raises(ValueError, match=rf"NOTEEVENTS\.csv: .*{message}") as caught:
        physionet.read_discharge_summaries(tmp_path)
    assert "secret" not in str(caught.value)
