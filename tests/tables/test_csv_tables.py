"""Columns of large CSV tables as text."""

import gzip
import re

import pytest

from kept_hf.tables.csv_tables import find_table, stream_table

CONTENT = 'row_id,CODE,"TEXT"\n1,0389,"Two\nlines, ""quoted"""\n2, 12 ,secret\n3,,\n'


def rows(folder, *columns, **options):
    return [row for part in stream_table(folder, "T", columns, **options) for row in part.to_pylist()]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_values_are_text(tmp_path, ending):
    content = CONTENT.encode()
    (tmp_path / f"T{ending}").write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
    assert find_table(tmp_path, "T") == str(tmp_path / f"T{ending}")
    assert rows(tmp_path, "TEXT", "ROW_ID") == [
        {"TEXT": 'Two\nlines, "quoted"', "ROW_ID": "1"},
        {"TEXT": "secret", "ROW_ID": "2"},
        {"TEXT": "", "ROW_ID": "3"},
    ]
    assert [row["CODE"] for row in rows(tmp_path, "CODE", numbers=["CODE"])] == ["0389", "12", ""]
    assert {"ROW_ID": "2"} in rows(tmp_path, "ROW_ID", needle="secret")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("secret of him,3\n", "row 1 is no header"),
        ("ROW_ID;CODE;TEXT\n1;2;secret\n", 'they are separated by ";", so save the table with commas'),
        ("ROW_ID\tCODE\n1\t2\n", "they are separated by tabs"),
        ("ROW_ID,TEXT\n", "has no column CODE; its columns are ROW_ID, TEXT"),
        ("CODE,TEXT\n1,secret,3\n", "row 2 has 3 fields, the header 2"),
        ('CODE,TEXT\n1,a\n2,"secret\n', "row 3 is truncated"),
        ("CODE,TEXT\nsecret,a\n", "row 2 has no whole number in CODE"),
    ],
)
def test_errors_name_the_row_and_quote_nothing(tmp_path, content, message):
    (tmp_path / "T.csv").write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        rows(tmp_path, "CODE", numbers=["CODE"])
    assert "secret" not in str(caught.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds neither T\.csv nor T\.csv\.gz"):
        rows(tmp_path, "CODE")


@pytest.mark.parametrize(
    "content",
    [
        "TEXT,CODE\nsecret,1\nother,2\n",  # R and SQL choose another order
        ",ROW_ID,CODE,TEXT\n0,7,1,secret\n1,8,2,other\n",  # pandas' index
        'CATEGORY,CODE,TEXT\n"a ""b""",1,secret\n,2,other\n',
    ],
)
def test_tables_with_another_first_column(tmp_path, content):
    (tmp_path / "T.csv").write_text(content)
    found = rows(tmp_path, "TEXT", "CODE", needle="secret")
    assert found[0] == {"TEXT": "secret", "CODE": "1"}
    assert rows(tmp_path, "TEXT", "CODE") == [found[0], {"TEXT": "other", "CODE": "2"}]


@pytest.mark.parametrize("download", ["", "files", "physionet.org/files"])
def test_names_in_either_case_and_folders_as_wget_leaves_them(tmp_path, download):
    for path in ("mimiciv/3.1/hosp/diagnoses_icd.csv.gz", "mimic-iv-note/2.2/note/discharge.csv", "mimiciii/1.4/T.csv"):
        file = tmp_path / download / path
        file.parent.mkdir(parents=True)
        file.touch()
        (file.parent / f"._{file.name}").touch()
        (file.parents[1] / "index.html").touch()
        name = path.partition(".csv")[0].split("/", 2)[2]
        assert find_table(tmp_path, name) == str(file)
        assert find_table(file.parents[name.count("/")], name.upper()) == str(file)
    (tmp_path / "noteevents.csv.gz").touch()
    assert find_table(tmp_path, "NOTEEVENTS") == str(tmp_path / "noteevents.csv.gz")
    # A table of the folder itself comes first.
    (tmp_path / "t.csv").touch()
    assert find_table(tmp_path, "T") == str(tmp_path / "t.csv")
    # Of two releases none is taken.
    older = tmp_path / download / "mimiciv" / "2.2" / "hosp" / "diagnoses_icd.csv.gz"
    older.parent.mkdir(parents=True)
    older.touch()
    with pytest.raises(ValueError, match=r"diagnoses_icd of several releases: .*2\.2.* and .*3\.1.*; leave one there"):
        find_table(tmp_path, "hosp/diagnoses_icd")
