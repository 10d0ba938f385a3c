"""Notes in files: what is read, where it stands, and what no message says."""

import gzip
import json
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from kept_hf.tables.note_files import read_notes, read_rows, read_texts, table_kind

SECRET = "Zanzibar syndrome"


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def rows_of(path, *columns, **options):
    return [(place.removeprefix(f"{path}, "), row) for place, row in read_rows(path, *columns, **options)]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_csv_is_text(tmp_path, ending):
    content = '\ufeffid,codes,text\r\n1,038.9,"Two\nlines, ""quoted"""\r\n\r\n2,,NA\r\n'
    path = write(tmp_path / f"notes.csv{ending}", content)
    assert rows_of(path, ["text", "codes"], ["patient_id"]) == [
        ("row 2", {"text": 'Two\nlines, "quoted"', "codes": "038.9"}),
        ("row 4", {"text": "NA", "codes": ""}),
    ]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_json_lines_keep_their_types(tmp_path, ending):
    lines = [{"text": "a", "codes": ["038.9"]}, {"codes": 38.9, "text": "b", "note_id": 7}]
    content = "\n\n".join(json.dumps(line) for line in lines)
    path = write(tmp_path / f"notes.jsonl{ending}", content)
    assert rows_of(path, ["text", "codes"], ["note_id"]) == [
        ("line 1", {"text": "a", "codes": ["038.9"], "note_id": None}),
        ("line 3", {"text": "b", "codes": 38.9, "note_id": 7}),
    ]


def test_parquet(tmp_path):
    table = pa.table({"text": [f"n{number}" for number in range(2500)], "codes": [["038.9"]] * 2500, "x": [1] * 2500})
    parquet.write_table(table, tmp_path / "notes.parquet")
    rows = rows_of(tmp_path / "notes.parquet", ["codes", "text"])
    assert rows[0] == ("row 1", {"codes": ["038.9"], "text": "n0"})
    assert [row["text"] for _, row in rows] == table["text"].to_pylist() and rows[-1][0] == "row 2500"


def test_notes_longer_than_csv_takes_by_default(tmp_path):
    path = write(tmp_path / "notes.csv", f"text\n{'a' * 300_000}\n")
    assert len(rows_of(path, ["text"])[0][1]["text"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.csv", "", "it holds no notes"),
        ("n.csv", f"text,codes\na,A\n{SECRET},A,B\n", "row 3 has 3 fields, the header 2"),
        ("n.csv", f'text,codes\na,A\n"{SECRET},A\nb,B\n', "after row 2 the quotes do not pair up"),
        ("n.csv", f"text,text\n{SECRET},A\n", "its header has text twice"),
        ("n.csv", f"note,codes\n{SECRET},A\n", "which has no column text; it has: note, codes"),
        ("n.csv", f"{SECRET} was found in him at last,A41.9\n", "its first row is no header"),
        ("n.csv.gz", gzip.compress(b"text\nabc\n", mtime=0)[:-6], "truncated or damaged"),
        ("n.csv", f"text\n{SECRET} Sécond\n".encode("latin-1"), "which is not UTF-8; convert it"),
        ("n.jsonl", f'{{"text": "a"}}\n{{"text": "{SECRET}"\n', "line 2 is no JSON"),
        ("n.jsonl", f'["{SECRET}"]\n', "line 1 is no JSON object"),
        ("n.jsonl", f'{{"note": "{SECRET}"}}\n', "which has no column text; it has: note"),
        ("n.parquet", SECRET, "which cannot be read as parquet"),
        ("n.xlsx", SECRET, "which is no table; pass one that ends in .csv, .jsonl, .parquet"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        rows_of(path, ["text"], argument="data_files")
    assert str(caught.value).startswith(f"data_files has {str(path)!r}") and SECRET not in str(caught.value)


def test_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        read_rows(tmp_path / "n.csv", ["text"])


def test_kinds():
    assert [table_kind(name) for name in ("a.CSV.GZ", "b.parquet", "c.parquet.gz", "csv", "d.txt")] == [
        *(".csv", ".parquet", None, None, None),
    ]


def test_texts_of_a_compressed_table(tmp_path):
    path = write(tmp_path / "n.jsonl.gz", '{"note": "a"}\n{"note": null}\n{}\n{"note": " "}\n')
    assert read_texts([path], "note") == ["a"]


def test_notes_with_ids(tmp_path):
    path = write(tmp_path / "n.jsonl", '{"text": "a", "note_id": 7}\n{"text": ""}\n{"text": "b", "note_id": "x"}\n')
    assert read_notes(path) == (["7", "line 2", "x"], ["a", "", "b"])
    assert read_notes(write(tmp_path / "n.csv", "text\na\n")) == (["row 2"], ["a"])
    (tmp_path / "folder").mkdir()
    for name in "ba":
        (tmp_path / "folder" / f"{name}.txt").write_text(name.upper())
    assert read_notes(tmp_path / "folder") == (["a", "b"], ["A", "B"])
    assert read_notes(tmp_path / "folder" / "a.txt") == (["a"], ["A"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no notes"),
        ('{"text": 3}\n', 'line 1: expected {"note_id": ..., "text": "..."}, but text is of type int.'),
        (f'{{"text": "a", "note_id": "{SECRET}"}}\n' * 2, "line 2: the note_id has occurred before"),
    ],
)
def test_notes_that_cannot_be_read(tmp_path, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_notes(write(tmp_path / "n.jsonl", content), "input")
    assert SECRET not in str(caught.value)


def test_tables_of_another_separator_and_of_pandas(tmp_path):
    path = write(tmp_path / "n.csv", f"text;codes\n{SECRET};I10\n")
    with pytest.raises(ValueError, match='separated by ";", so save the table with commas') as caught:
        read_notes(path)
    assert SECRET not in str(caught.value)
    path = write(tmp_path / "n.csv", ",text,codes\n0,Cough.,R05.9\n")
    assert [row for _, row in read_rows(path, ["text", "codes"])] == [{"text": "Cough.", "codes": "R05.9"}]
    with pytest.raises(ValueError, match="has no column subject; it has: , text, codes"):
        read_rows(path, ["subject"])


def test_binary_text_is_named(tmp_path):
    path = tmp_path / "n.parquet"
    parquet.write_table(pa.table({"text": pa.array([SECRET.encode()], pa.binary())}), path)
    with pytest.raises(ValueError, match="holds values of type bytes; write the notes as text"):
        read_texts([path])
    with pytest.raises(ValueError, match="but text is of type bytes"):
        read_notes(path)


def test_what_macos_writes_beside_files_is_no_note(tmp_path):
    write(tmp_path / "a.txt", "Cough.")
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    assert read_texts([tmp_path]) == ["Cough."] and read_notes(tmp_path) == (["a"], ["Cough."])
