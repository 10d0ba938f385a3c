"""Text for pretraining: files, corpora, names; what is held out; what no message says."""

import json
import re

import pyarrow as pa
import pytest
from pyarrow import parquet

from kept_hf.corpora import codiesp, load_corpus, load_unlabelled
from kept_hf.knowledge import TermGraph
from kept_hf.models.publication import CREDENTIALED, RESTRICTED, UMLS, UNSTATED, joint_license
from kept_hf.pretraining.notes import (
    NoteArguments,
    concept_texts,
    corpus_notes,
    hold_out,
    read_notes,
    term_sources,
    without_copies,
)
from kept_hf.tables.note_files import read_texts

SECRET = "Zanzibar syndrome"


def test_files_of_all_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("First,\nin two lines.\n", encoding="utf-8")
    (tmp_path / "note.report").write_text("Sécond.", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name, text in (("2.txt", "Fourth."), ("1.txt", "Third."), ("0.txt", "  \n"), ("x.pdf", "No note.")):
        (tmp_path / "folder" / name).write_text(text)
    (tmp_path / "t.csv").write_text('id,text\n1,"Fifth,\nwith a line."\n2,Sixth.\n3,\n')
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"note": text, "x": 1}) + "\n" for text in ("Seventh.", None)))
    parquet.write_table(pa.table({"text": ["Eighth."]}), tmp_path / "t.parquet")
    names = ("a.txt", "note.report", "folder", "t.csv", "t.parquet")
    assert read_texts([tmp_path / name for name in names]) == [
        *("First,\nin two lines.\n", "Sécond.", "Third.", "Fourth.", "Fifth,\nwith a line.", "Sixth.", "Eighth."),
    ]
    assert read_texts([tmp_path / "t.jsonl"], text_column="note") == ["Seventh."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "which does not exist; pass text files, a note each, folders of them, or tables (.csv, "),
        ("empty.txt", b" \n", "which holds no text; leave it out"),
        ("latin.txt", "Sécond".encode("latin-1"), "which is not UTF-8; convert it"),
        ("rows.csv", f"text\n{SECRET},2,3\n".encode(), "which cannot be read as csv"),
        ("rows.jsonl", f'{{"text": "{SECRET}"\n{SECRET}'.encode(), "which cannot be read as jsonl"),
        ("rows.parquet", SECRET.encode(), "which cannot be read as parquet"),
        ("latin.csv", "text\nSécond\n".encode("latin-1"), "latin.csv"),
        ("other.csv", f"note,id\n{SECRET},1\n".encode(), "text_column='text' is no column of"),
        ("lists.jsonl", b'{"text": ["a", "b"]}\n', "text_column='text' of"),
        ("folder/x.pdf", b"", "which is a folder without .txt files"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as error:
        read_texts([path.parent if "/" in name else path], argument="text_files")
    assert SECRET not in str(error.value) and error.value.__suppress_context__ == (error.value.__context__ is not None)


def test_held_out_notes_do_not_depend_on_the_order():
    notes = [f"note {number}" for number in range(50)]
    train, held_out = hold_out([*notes, notes[3]], 250)
    assert len(held_out) == 5 and sorted(train + held_out) == sorted(notes)
    assert hold_out(notes[::-1], 250)[1] == held_out
    assert hold_out(notes, 2)[1] == held_out[:2] and len(hold_out(notes[:2], 9)[1]) == 1
    for few, message in ((["a", "a"], "There is one note"), ([], "There are no notes")):
        with pytest.raises(ValueError, match=message):
            hold_out(few, 1)


def test_copies_of_held_out_notes_are_not_trained_on():
    assert without_copies(["A  Fall.\n", "Sepsis.", "a fall"], ["a fall."]) == ["Sepsis.", "a fall"]


@pytest.fixture
def folder(tmp_path):
    """CodiEsp in miniature."""
    for split, names in (("train", "ab"), ("dev", "cd"), ("test", "e")):
        for texts in ("text_files", "text_files_en"):
            (tmp_path / split / texts).mkdir(parents=True)
            for name in names:
                (tmp_path / split / texts / f"{name}.txt").write_text(f"{split} {name} {texts}")
        for table in "DP":
            (tmp_path / split / f"{split}{table}.tsv").write_text("".join(f"{name}\tr52\n" for name in names))
        (tmp_path / split / f"{split}X.tsv").write_text("")
    (tmp_path / "background" / "text_files_en").mkdir(parents=True)
    for name in "zey":
        (tmp_path / "background" / "text_files_en" / f"{name}.txt").write_text(f"background {name}")
    return tmp_path


def test_corpus_notes_are_those_of_train_and_background(folder, tmp_path):
    train, held_out, source = corpus_notes("codiesp", folder, tmp_path / "cache", {}, 250)
    assert sorted(train) == ["background y", "background z", "train a text_files_en", "train b text_files_en"]
    assert sorted(held_out) == ["dev c text_files_en", "dev d text_files_en"]
    assert source.license == "cc-by-4.0" and "Zenodo" in source.credit
    assert len(corpus_notes("codiesp", folder, tmp_path / "cache", {}, 1)[1]) == 1
    spanish = corpus_notes("codiesp", folder, tmp_path / "cache", {"language": "es"}, 250)
    assert sorted(spanish[0]) == ["train a text_files", "train b text_files"] and spanish[2].language == "es"


def test_without_validation_a_part_of_train_is_held_out(folder, tmp_path):
    (folder / "dev").rename(folder / "elsewhere")
    train, held_out, _ = corpus_notes("codiesp", folder, tmp_path / "cache", {}, 250)
    assert len(held_out) == 1 and len(train) == 3 and not [note for note in train + held_out if "test" in note]
    (folder / "train").rename(folder / "elsewhere2")
    with pytest.raises(ValueError, match="corpus='codiesp' has the splits test; add the folder of train"):
        corpus_notes("codiesp", folder, tmp_path / "cache", {}, 250)


def test_background(folder):
    assert codiesp.load_unlabelled(folder) == ["background y", "background z"], "e is a case of the test split"
    assert load_unlabelled("codiesp", folder, codes="procedure", language="es") == []
    with pytest.raises(ValueError, match="language='fr' is no language of CodiEsp"):
        codiesp.load_unlabelled(folder, language="fr")
    with pytest.raises(FileNotFoundError, match="data_dir=None"):
        codiesp.load_unlabelled(None)


def test_unknown_corpus(tmp_path):
    with pytest.raises(ValueError, match="name='codiespp' is no known corpus; pass one of: codiesp, demo"):
        corpus_notes("codiespp", None, None, {}, 1)
    assert "train" in load_corpus("demo", cache_dir=tmp_path).dataset


def test_lines_of_concepts():
    names = [f"Disease {number}" for number in range(10)]
    graph = TermGraph.from_tables(
        [*map(str, range(10)), "0"], [*names, "DZ"], ["preferred"] * 10 + ["abbreviation"], ["1"], ["0"], source="umls"
    )
    assert concept_texts(graph)[:2] == ["Disease 0; DZ.", "Disease 1."] and len(concept_texts(graph)) == 10
    assert concept_texts(graph, 5) == ["Disease 0; DZ.", "Disease 2.", "Disease 4.", "Disease 6.", "Disease 8."]
    assert len(concept_texts(graph, 4)) == 4 and len(concept_texts(graph, 100)) == 10
    assert term_sources(graph)[0].license == UMLS


def test_licence_of_several_sources():
    assert joint_license("cc-by-4.0", "mit", None, "cc-by-4.0") == "cc-by-4.0; mit"
    assert joint_license(None) is None and joint_license() is None
    assert joint_license(UNSTATED, UMLS, "mit", CREDENTIALED) == CREDENTIALED
    assert joint_license("mit", UNSTATED) == UNSTATED and UNSTATED in RESTRICTED


def test_no_notes_are_named():
    with pytest.raises(ValueError, match="corpus=None and no text_files: there are no notes; pass --corpus or"):
        read_notes(NoteArguments(), 5)


def test_notes_of_a_corpus_and_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("One note.")
    (tmp_path / "b.txt").write_text("Another note.")
    options = {"text_files": [str(tmp_path)], "data_license": "mit", "corpus": "demo", "cache_dir": str(tmp_path / "c")}
    notes, held_out, sources = read_notes(NoteArguments(**options), 20)
    assert len(notes) == 320 + 1 and len(held_out) == 20 + 1 and not set(notes) & set(held_out)
    assert [source.notes["held out"] for source in sources] == [20, 1] and sources[1].license == "mit"
