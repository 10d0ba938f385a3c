import logging
import os
import shutil
from pathlib import Path

import pytest

from kept_hf.corpora import CORPORA, codiesp, fingerprint, load_corpus
from kept_hf.corpora.codiesp import CodiEsp
from kept_hf.models.code_set import ICDCodeSet

# case → Spanish text, English text, diagnosis rows, procedure rows, evidence rows
MINIATURE = {
    "train": {
        "caso-2": (
            "Paciente con tos.\r\nRx de tórax con cavidad y tos.",
            "Patient with cough.\nChest X-ray with a cavity.",
            ["r05", "a15.0", "r05"],
            ["bw03zzz"],
            [
                ("DIAGNOSTICO", "r05", "tos", "13 16;45 48"),
                ("PROCEDIMIENTO", "bw03zzz", "Rx tórax", "19 21;25 30"),
                ("DIAGNOSTICO", "a15.0", "cavidad", "31 31;35 42"),
            ],
        ),
        "caso-1": ("Fiebre.", "Fever.", ["r50.9"], [], [("DIAGNOSTICO", "r50.9", "Fiebre", "0 6")]),
    },
    "dev": {"caso-3": ("Ecografía.", "Ultrasound.", [], ["bt41"], [("PROCEDIMIENTO", "bt41", "Ecografía", "0 9")])},
}


def write_codiesp(folder, splits=("train", "dev")):
    """CodiEsp's published layout with three made-up cases."""
    for split in splits:
        base = Path(folder, split)
        for language in (0, 1):
            texts = base / ("text_files", "text_files_en")[language]
            texts.mkdir(parents=True)
            for case, content in MINIATURE[split].items():
                (texts / f"{case}.txt").write_bytes(content[language].encode())
        tables = {"D": [], "P": [], "X": []}
        for case, (_, _, diagnoses, procedures, evidence) in MINIATURE[split].items():
            tables["D"] += [(case, code) for code in diagnoses]
            tables["P"] += [(case, code) for code in procedures]
            tables["X"] += [(case, *row) for row in evidence]
        for table, rows in tables.items():
            lines = ["\t".join(row) + "\n" for row in rows]
            (base / f"{split}{table}.tsv").write_text("".join(lines), encoding="utf-8")
    return str(folder)


def real_codiesp():
    """The folder with the real corpus; skips where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "codiesp"
    folder = Path(os.environ.get("KEPT_CODIESP_DIR", default))
    if not (folder / "train" / "trainD.tsv").is_file():
        pytest.skip("CodiEsp is not here; set KEPT_CODIESP_DIR to its folder")
    return folder


@pytest.fixture
def folder(tmp_path):
    return Path(write_codiesp(tmp_path / "codiesp"))


@pytest.fixture
def load(folder, tmp_path):
    return lambda **options: load_corpus("codiesp", data_dir=folder, cache_dir=tmp_path / "cache", **options)


def test_diagnoses_in_english(load):
    corpus = load()
    assert list(corpus.dataset) == ["train", "validation"]
    assert corpus.dataset["train"].column_names == ["note_id", "text", "codes", "evidence"]
    first, second = corpus.dataset["train"]
    assert first == {
        "note_id": "caso-1",
        "text": "Fever.",
        "codes": ["R50.9"],
        "evidence": [{"code": "R50.9", "text": "Fiebre", "start": 0, "end": 6}],
    }
    assert second["codes"] == ["A15.0", "R05"]
    assert second["text"] == MINIATURE["train"]["caso-2"][1]
    # One entry per piece, the empty one left out, nothing of the procedures.
    assert second["evidence"] == [
        {"code": "R05", "text": "tos", "start": 13, "end": 16},
        {"code": "R05", "text": "tos", "start": 45, "end": 48},
        {"code": "A15.0", "text": "cavidad", "start": 35, "end": 42},
    ]
    assert corpus.code_set.codes == ("A15.0", "R05", "R50.9")
    assert corpus.code_set.describe("A15.0") == "Tuberculosis of lung"
    assert corpus.code_set.parents["A15.0"] == "A15"


def test_a_case_without_codes_of_the_kind_is_kept(load):
    assert load().dataset["validation"][0]["codes"] == []
    procedures = load(codes="procedure")
    assert [row["codes"] for row in procedures.dataset["train"]] == [[], ["BW03ZZZ"]]
    assert procedures.dataset["validation"][0]["codes"] == ["BT41"]
    assert procedures.code_set == ICDCodeSet(["BT41", "BW03ZZZ"])


def test_offsets_point_into_the_spanish_text(load):
    row = load(language="es").dataset["train"][1]
    assert row["text"] == MINIATURE["train"]["caso-2"][0]
    assert [row["text"][span["start"] : span["end"]] for span in row["evidence"]] == ["tos", "tos", "cavidad"]
    assert row["evidence"] == load(language="en").dataset["train"][1]["evidence"]


def test_splits_may_be_missing_and_background_is_left_aside(folder, load):
    shutil.rmtree(folder / "train")
    (folder / "background" / "text_files_en").mkdir(parents=True)
    (folder / "background" / "text_files_en" / "caso-9.txt").write_text("More.")
    corpus = load(codes="procedure")
    assert list(corpus.dataset) == ["validation"]
    assert corpus.dataset["validation"]["note_id"] == ["caso-3"]


def test_builder_has_the_four_configurations(folder, tmp_path):
    assert sorted(CodiEsp.builder_configs) == ["diagnosis-en", "diagnosis-es", "procedure-en", "procedure-es"]
    builder = CodiEsp("procedure-es", data_dir=folder, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert builder.as_dataset(split="train[1:]")[0]["codes"] == ["BW03ZZZ"]
    assert builder.info.license == "CC BY 4.0"
    with pytest.raises(ValueError, match=r"procedure-fr.*Available.*diagnosis-en"):
        CodiEsp("procedure-fr", data_dir=folder, cache_dir=str(tmp_path / "cache"))


def test_a_changed_file_is_read_again(folder, load):
    text = folder / "train" / "text_files_en" / "caso-1.txt"
    assert load().dataset["train"][0]["text"] == "Fever."
    before = text.stat()
    text.write_text("Chill.")
    # Same path, same size, same time: the content alone tells.
    os.utime(text, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load().dataset["train"][0]["text"] == "Chill."
    table = folder / "train" / "trainD.tsv"
    table.write_text(table.read_text().replace("r50.9", "r50.8"))
    assert load().dataset["train"][0]["codes"] == ["R50.8"]


def test_a_changed_builder_reads_again(load, tmp_path, monkeypatch):
    assert codiesp._sources() == [codiesp.__file__]
    source = Path(shutil.copy(codiesp.__file__, tmp_path / "codiesp.py"))
    monkeypatch.setattr(codiesp, "_sources", lambda: [source])
    assert load().dataset["train"][0]["codes"] == ["R50.9"]
    monkeypatch.setattr(codiesp, "_read_code", lambda path, line, code: "Z00.0")
    assert load().dataset["train"][0]["codes"] == ["R50.9"], "the cache was not used at all"
    source.write_text(source.read_text() + "# changed\n")
    assert load().dataset["train"][0]["codes"] == ["Z00.0"]


def test_relative_and_absolute_folders_share_a_cache(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    one = CodiEsp(data_dir="codiesp", cache_dir=str(tmp_path / "cache"))
    assert one.cache_dir == CodiEsp(data_dir=folder, cache_dir=str(tmp_path / "cache")).cache_dir


def test_fingerprint_separates_files_and_options(tmp_path):
    for name, content in (("a", "1"), ("b", "2"), ("c", "12"), ("d", "")):
        (tmp_path / name).write_text(content)
    keys = [
        fingerprint([tmp_path / name for name in names], options)
        for names in ("ab", "ba", "cd", "dc", "a", "")
        for options in ([], [1], ["1"])
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("D", "caso-1", r"trainD\.tsv, line 5: 1 filled columns of 1; expected 2"),
        ("D", "caso-1\tr50.9\tfiebre", r"trainD\.tsv, line 5: 3 filled columns of 3; expected 2"),
        ("D", "caso-1\t", r"trainD\.tsv, line 5: 1 filled columns of 2"),
        ("D", "caso-1\tr50 9", r"trainD\.tsv, line 5: the column code"),
        ("X", "caso-1\tDIAGNOSTICO\tr50.9\tfiebre", r"trainX\.tsv, line 5: 4 filled columns of 4; expected 5"),
        ("X", "caso-1\tDIAGNOSTICO\tr50.9\tfiebre\t0", r"trainX\.tsv, line 5: the spans"),
        ("X", "caso-1\tDIAGNOSTICO\tr50.9\tfiebre\t6 0", r"trainX\.tsv, line 5: the spans"),
        ("X", "caso-1\tOTRO\tr50.9\tfiebre\t0 6", r"trainX\.tsv, line 5: the kind"),
        ("X", "caso-1\tDIAGNOSTICO\tr50.9\tfiebr\udcff\t0 6", r"trainX\.tsv, line 5: not UTF-8"),
    ],
)
def test_odd_rows_are_named_by_file_and_line(folder, load, table, row, message):
    path = folder / "train" / f"train{table}.tsv"
    with open(path, "ab") as file:
        file.write(b"\n" + row.encode(errors="surrogateescape") + b"\n")
        # The blank line is skipped, and still counts.
    lines = path.read_bytes().count(b"\n")
    with pytest.raises(ValueError, match=message.replace("line 5", f"line {lines}")) as caught:
        load()
    assert "caso-1" not in str(caught.value)
    assert "fiebr" not in str(caught.value)


def test_a_coded_case_without_text_is_an_error(folder, load):
    (folder / "train" / "text_files_en" / "caso-1.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"trainD\.tsv, line 4: the case has no text file in .*text_files_en"):
        load()


def test_missing_files_are_named(folder, load, tmp_path):
    (folder / "dev" / "devX.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the file .*devX\.tsv"):
        load()
    shutil.rmtree(folder / "train" / "text_files_en")
    with pytest.raises(FileNotFoundError, match=r"no texts in .*train/text_files_en"):
        load()
    with pytest.raises(FileNotFoundError, match=r"data_dir=.*none of the folders train, dev, test"):
        load_corpus("codiesp", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"data_dir='nowhere' is no folder.*\{split\}D\.tsv"):
        load_corpus("codiesp", data_dir="nowhere")
    with pytest.raises(FileNotFoundError, match=r"data_dir=None.*codiesp"):
        load_corpus("codiesp")


def test_unknown_choices_list_the_legal_ones(load):
    with pytest.raises(ValueError, match=r"name='mimic9'.*" + ", ".join(CORPORA)):
        load_corpus("mimic9")
    with pytest.raises(ValueError, match="no option kind; it has: codes, language"):
        load(kind="diagnosis")
    with pytest.raises(ValueError, match=r"codes='both'.*diagnosis, procedure"):
        load(codes="both")
    with pytest.raises(ValueError, match=r"language='fr'.*en, es"):
        load(language="fr")


def test_nothing_coded_is_an_error(folder, load):
    for split in ("train", "dev"):
        (folder / split / f"{split}P.tsv").write_text("")
    with pytest.raises(ValueError, match="no procedure code in any split"):
        load(codes="procedure")


def test_logs_hold_no_note(load, caplog):
    with caplog.at_level(logging.DEBUG):
        load()
    assert "caso-1" not in caplog.text
    assert "Fever" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "codes", "rows", "empty", "spans"),
    [("diagnosis", 1767, 5639, 0, 8305), ("procedure", 563, 1550, 65, 2795)],
)
def test_real_corpus_has_the_published_sizes(tmp_path, kind, codes, rows, empty, spans):
    corpus = load_corpus("codiesp", data_dir=real_codiesp(), cache_dir=tmp_path, codes=kind, language="es")
    train = corpus.dataset["train"]
    assert (len(train), len(corpus.dataset["validation"])) == (500, 250)
    assert len({code for note in train["codes"] for code in note}) == codes
    assert sum(map(len, train["codes"])) == rows
    assert sum(not note for note in train["codes"]) == empty
    assert sum(map(len, train["evidence"])) == spans
    quoted = [note["text"][span["start"] : span["end"]] in span["text"] for note in train for span in note["evidence"]]
    assert sum(quoted) / len(quoted) > 0.99


def test_what_macos_writes_beside_files_is_no_case(folder, load):
    expected = {split: list(rows["note_id"]) for split, rows in load().dataset.items()}
    for text in list(folder.rglob("*.txt")):
        text.with_name(f"._{text.name}").write_bytes(b"\x00\x05\x16\x07\xff")
    assert {split: list(rows["note_id"]) for split, rows in load().dataset.items()} == expected
