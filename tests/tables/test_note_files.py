"""Notes in files: what is read, where it stands, and what no message says."""

import gzip
import json
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from kept_hf.tables.note_files import SkippedRows, read_notes, read_rows, read_texts, table_kind

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
        ("n.jsonl", f'{{"text": "{SECRET}", "x": {"[" * 100_000}\n', "line 1 is nested too deeply"),
        (
            "n.jsonl",
            f'{{"text": "a"}}\n{{"text": "{SECRET} é"}}\n'.encode("latin-1"),
            "which is not UTF-8; convert it (line 2",
        ),
        ("n.csv", f"text\na\n{SECRET} é\n".encode("latin-1"), "which is not UTF-8; convert it (row 3"),
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


@pytest.mark.parametrize("escaped", [r"\ud83d", r"\ude00\ud83d"])
def test_a_lone_surrogate_is_named(tmp_path, escaped):
    for line in (f'{{"text": "{SECRET} {escaped}"}}', f'{{"text": "{SECRET}", "note_id": "{escaped}"}}'):
        path = write(tmp_path / "n.jsonl", f'{{"text": "a"}}\n{line}\n')
        with pytest.raises(
            ValueError, match=r"n\.jsonl, line 2: the column (text|note_id) has a lone surrogate"
        ) as caught:
            read_notes(path)
        assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match=r"line 2: the column note_id has a lone surrogate"):
        list(read_rows(path, ["text"], ["note_id"]))
    assert read_notes(write(tmp_path / "n.jsonl", r'{"text": "\ud83d\ude00"}')) == (["line 1"], ["😀"])


BAD_LINES = {
    2: b'{"text": "Zanzibar \xe9"}',
    3: rb'{"text": "\ud800"}',
    4: rb'{"text": "a", "note_id": "\ud800"}',
    5: b"no json",
    6: b"[" * 100_000,
    7: b'{"text": 3}',
    8: b'{"text": "b", "note_id": "x"}',
    9: b'{"text": "b", "note_id": ["x"]}',
    10: b'{"text": "' + b"c" * 101 + b'"}',
    11: b'{"text": "' + b"d" * 1_002_000 + b'"}',
    12: b'{"note_id": "y"}',
}


def test_bad_lines_are_left_out_and_counted(tmp_path):
    good = b'{"text": "a", "note_id": "x"}', b'{"text": "last"}'
    path = tmp_path / "n.jsonl"
    path.write_bytes(b"\n".join([good[0], *BAD_LINES.values(), good[1]]))
    skipped = SkippedRows()
    assert read_notes(path, "--input", 100, skipped) == (["x", "line 13"], ["a", "last"])
    assert skipped.kind == "line" and len(skipped) == len(BAD_LINES)
    assert sorted(number for numbers in skipped.numbers.values() for number in numbers) == list(BAD_LINES)
    assert "11 lines left out" in str(skipped) and "not UTF-8 (2)" in str(skipped)
    assert "lone surrogate (3-4)" in str(skipped)


@pytest.mark.parametrize("number", BAD_LINES)
def test_each_bad_line_is_an_error_otherwise(tmp_path, number):
    path = tmp_path / "n.jsonl"
    path.write_bytes(b'{"text": "a", "note_id": "x"}\n' + BAD_LINES[number] + b"\n")
    with pytest.raises(ValueError, match=r"^--input has .*line 2") as caught:
        read_notes(path, "--input", 100)
    assert "Zanzibar" not in str(caught.value) and "\n" not in str(caught.value)


def test_all_lines_left_out_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"which holds no notes; 2 lines left out: no JSON object \(1-2\)\.$"):
        read_notes(write(tmp_path / "n.jsonl", "a\nb\n"), skipped=SkippedRows())


def test_bad_rows_of_a_csv_are_left_out(tmp_path):
    content = 'note_id,text\n1,"Two\nlines"\n2,caf\u00e9\n3,a,b\n1,again\n4,' + "x" * 11 + "\n5,end\n"
    path = tmp_path / "n.csv"
    path.write_bytes(content.encode("latin-1"))
    skipped = SkippedRows()
    assert read_notes(path, max_note_chars=10, skipped=skipped) == (["1", "5"], ["Two\nlines", "end"])
    assert list(skipped.numbers.values()) == [[3], [4], [5], [6]] and skipped.kind == "row"


def test_bad_rows_of_parquet_are_left_out(tmp_path):
    binary = pa.array([b"a", b"caf\xe9", b"b" * 11, None, b"c"], pa.binary())
    path = tmp_path / "n.parquet"
    parquet.write_table(pa.table({"text": binary.view(pa.string())}), path)
    skipped = SkippedRows()
    assert read_notes(path, max_note_chars=10, skipped=skipped) == (["row 1", "row 5"], ["a", "c"])
    assert sorted(skipped.numbers.values()) == [[2], [3], [4]]
    with pytest.raises(ValueError, match=r"not UTF-8; convert it \(row 2"):
        read_notes(path)


def test_bad_files_of_a_folder_are_left_out(tmp_path):
    for name, content in {"a": b"A", "b": b"\xe9", "c": b"c" * 41, "d": b"d" * 11, "e": "é".encode() * 10}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    skipped = SkippedRows()
    assert read_notes(tmp_path, max_note_chars=10, skipped=skipped) == (["a", "e"], ["A", "é" * 10])
    assert str(skipped) == "3 files left out: not UTF-8 (2), longer than 10 characters (3-4)"
    (tmp_path / "b.txt").unlink()
    with pytest.raises(ValueError, match=r"c\.txt': a note of 41 bytes, and max_note_chars=10 allows no more"):
        read_notes(tmp_path, max_note_chars=10)


def test_a_long_line_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = write(tmp_path / "n.jsonl", '{"text": "a"}\n{"text": "' + "b" * 1_001_000 + '"}\n{"text": "c"}\n')
    parsed = []
    monkeypatch.setattr(
        "kept_hf.tables.note_files.json.loads", lambda line: parsed.append(line) or json.JSONDecoder().decode(line)
    )
    skipped = SkippedRows()
    assert read_notes(path, max_note_chars=10, skipped=skipped)[1] == ["a", "c"]
    assert len(parsed) == 2 and skipped.numbers == {"longer than 10 characters": [2]}


@pytest.mark.parametrize(
    "row",
    [
        "x" * 2_100_000,
        '"' + 'said ""no"", then, ' * 110_000 + '"',
        'a "quoted" word, ' * 130_000,
        "x," * 1_050_000 + 'an "inch',
        '"first\n' + "x" * 2_100_000 + '\nlast, ""b"""',
    ],
)
def test_a_long_line_of_a_csv_is_left_out_and_the_next_is_read(tmp_path, row):
    path = write(tmp_path / "n.csv", f"text\na\n{row}\nb\n\nc\n")
    skipped = SkippedRows()
    assert read_notes(path, max_note_chars=10, skipped=skipped)[1] == ["a", "b", "c"]
    assert skipped.numbers == {"longer than 10 characters": [3]}
    with pytest.raises(
        ValueError, match=r"n\.csv, row 3: a line of more than 1,000,120 characters, and max_note_chars=10"
    ):
        read_notes(path, max_note_chars=10)


def test_a_header_that_is_too_long(tmp_path):
    path = write(tmp_path / "n.csv", "text," + "x" * 1_001_000 + "\na,b\n")
    with pytest.raises(ValueError, match=r"cannot be read as csv: its header has more than 1,000,120 characters"):
        read_notes(path, max_note_chars=10, skipped=SkippedRows())


def test_the_longest_note_is_read_however_it_is_written(tmp_path):
    text = "😀" * 100_000
    assert read_notes(write(tmp_path / "n.jsonl", json.dumps({"text": text})), max_note_chars=100_000)[1] == [text]


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
