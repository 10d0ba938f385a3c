"""Notes of one's own as a corpus."""

import csv
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi
from transformers import TrainingArguments

from kept_hf.commands import export
from kept_hf.commands.evaluate import EvaluationArguments, read_split
from kept_hf.corpora import load_corpus
from kept_hf.corpora.arguments import CorpusArguments, read_corpus
from kept_hf.corpora.selection import select_codes
from kept_hf.corpora.splits import draw_splits
from kept_hf.models.code_set import ICDCodeSet
from kept_hf.models.publication import CREDENTIALED, UNSTATED

SECRET = "Zanzibar syndrome"
NOTES = [
    {
        "text": f"Seen for {('sepsis', 'a urinary tract infection', 'a fall')[number % 3]}, visit {number}.",
        "codes": [("A41.9", "N39.0", "W19")[number % 3], *(["I10"] if number % 2 else [])],
        "note_id": f"n{number}",
        "patient_id": number // 2,
    }
    for number in range(40)
]


def write(path, rows):
    """A table of the kind that its ending says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            for row in rows:
                codes = row["codes"]
                writer.writerow({**row, "codes": ";".join(codes) if isinstance(codes, list) else codes})
    else:
        Dataset.from_list(rows).to_parquet(path)
    return str(path)


def load(tmp_path, data_files, **options):
    return load_corpus("own", cache_dir=tmp_path / "cache", data_files=data_files, **options)


def without(column, rows=NOTES):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def test_a_file_for_each_split(tmp_path):
    files = {
        "train": write(tmp_path / "a.jsonl", NOTES[:20]),
        "val": write(tmp_path / "b.csv", NOTES[20:30]),
        "test": write(tmp_path / "c.parquet", NOTES[30:]),
    }
    corpus = load(tmp_path, files)
    assert list(corpus.dataset) == ["train", "validation", "test"]
    assert [row for rows in corpus.dataset.values() for row in rows] == [
        {
            "note_id": note["note_id"],
            "subject_id": str(note["patient_id"]),
            "text": note["text"],
            "codes": note["codes"],
        }
        for note in NOTES
    ]
    assert corpus.code_set.codes == ("A41.9", "I10", "N39.0", "W19")
    assert corpus.code_set.describe("N39.0") == "Urinary tract infection, site not specified"
    again = load(tmp_path, [f"{split}={path}" for split, path in files.items()])
    assert list(again.dataset["train"]) == list(corpus.dataset["train"])


def test_one_file_is_split_by_patient(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", NOTES)
    corpus = load(tmp_path, path)
    assert {split: len(rows) for split, rows in corpus.dataset.items()} == {"train": 32, "validation": 4, "test": 4}
    patients = [set(rows["subject_id"]) for rows in corpus.dataset.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 20
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def split_of(corpus):
        return {note_id: split for split, rows in corpus.dataset.items() for note_id in rows["note_id"]}

    write(tmp_path / "b.jsonl", NOTES[::-1])
    assert split_of(load(tmp_path, {"train": tmp_path / "b.jsonl"})) == split_of(corpus), "whatever the order"
    assert split_of(load(tmp_path, path, seed=1)) != split_of(corpus)
    renamed = [{**without("patient_id", [note])[0], "who": note["patient_id"]} for note in NOTES]
    write(tmp_path / "c.jsonl", renamed)
    assert split_of(load(tmp_path, tmp_path / "c.jsonl", patient_column="who")) == split_of(corpus)


def test_one_file_without_patients_is_split_by_note(tmp_path, caplog):
    rows = without("note_id", without("patient_id"))
    corpus = load(tmp_path, write(tmp_path / "a.csv", [*rows, rows[0]]))
    assert "has no column with the patient" in caplog.text
    assert set(corpus.dataset["train"].column_names) == {"note_id", "text", "codes"}
    found = {note_id: split for split, rows in corpus.dataset.items() for note_id in rows["note_id"]}
    assert len(found) == 41 and found["note-1"] == found["note-41"], "copies stay together"


def test_the_shares_of_a_draw():
    for count, sizes in ((3, (1, 1, 1)), (10, (8, 1, 1)), (100, (80, 10, 10))):
        drawn = draw_splits([str(number) for number in range(count)])
        assert tuple(map(drawn.count, ("train", "validation", "test"))) == sizes


def test_patients_in_two_splits_are_reported(tmp_path, caplog):
    write(tmp_path / "a.jsonl", NOTES[:21])
    write(tmp_path / "b.jsonl", NOTES[21:])
    load(tmp_path, {"train": tmp_path / "a.jsonl", "test": tmp_path / "b.jsonl"})
    assert "1 of 20 patients are in more than one split" in caplog.text


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "a.jsonl", NOTES)
    load(tmp_path, path)
    write(tmp_path / "a.jsonl", NOTES[:30])
    assert sum(map(len, load(tmp_path, path).dataset.values())) == 30


def test_data_sets(tmp_path):
    splits = DatasetDict(train=Dataset.from_list(NOTES[:30]), dev=Dataset.from_list(NOTES[30:]))
    splits.save_to_disk(tmp_path / "saved")
    for split, rows in splits.items():
        (tmp_path / "parquet").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "parquet" / f"{'validation' if split == 'dev' else split}.parquet")
    for folder in ("saved", "parquet"):
        corpus = load(tmp_path, tmp_path / folder)
        assert {split: len(rows) for split, rows in corpus.dataset.items()} == {"train": 30, "validation": 10}
    assert len(load(tmp_path, {"test": tmp_path / "saved" / "dev"}).dataset["test"]) == 10
    with pytest.raises(ValueError, match="a data set without a split test; it has: train, dev"):
        load(tmp_path, {"test": tmp_path / "saved"})
    assert sum(map(len, load(tmp_path, {"train": tmp_path / "saved"}).dataset.values())) == 30, "its own train, split"
    numbers = Dataset.from_list([{"text": "a", "codes": [38.9]}])
    DatasetDict(train=numbers, test=numbers).save_to_disk(tmp_path / "numbers")
    with pytest.raises(ValueError, match=r"numbers \(train\), row 1: a code is of type float"):
        load(tmp_path, tmp_path / "numbers")


def test_descriptions(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", [*NOTES, {**NOTES[0], "note_id": "x", "codes": ["n39.0", "ZZ9", "Q00.0"]}])
    codes = tmp_path / "codes.csv"
    codes.write_text("code,description,synonyms\nn39.0,Our urine infection,UTI;cystitis\nB99,Of no note,\nQ00.0,,\n")
    code_set = load(tmp_path, path, codes_file=codes).code_set
    assert code_set.describe("N39.0") == "Our urine infection" and code_set.synonyms["N39.0"] == ("UTI", "cystitis")
    assert (
        code_set.describe("I10") == "Essential (primary) hypertension" and code_set.describe("Q00.0") == "Anencephaly"
    )
    assert "B99" not in code_set
    assert "1 of 6 codes have no description (ZZ9); pass a CSV with the columns code and description" in caplog.text


def test_icd9_codes_are_not_described_as_icd10(tmp_path, caplog):
    """V10.3 is a history of breast cancer in ICD-9 and a cyclist's accident in ICD-10."""
    rows = [{**note, "codes": ["V10.3", "038.9"]} for note in NOTES]
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=r"codes_file=None: 2 of 2 codes have no description \(038.9, V10.3\); pass a"):
        load(tmp_path, path)
    (tmp_path / "codes.csv").write_text("code,description\n038.9,Septicemia\nV10,History of cancer\n")
    code_set = load(tmp_path, path, codes_file=str(tmp_path / "codes.csv")).code_set
    assert [code_set.describe(code) for code in code_set] == ["Septicemia", "History of cancer"]


def test_codes_that_both_systems_have_are_not_guessed(tmp_path):
    """V codes alone, and external causes of ICD-9."""
    for codes in (["V10.3", "V45.81"], ["V10", "V45.81"], ["V10.3", "E880.0"], ["E880"]):
        path = write(tmp_path / "a.csv", [{**note, "codes": codes} for note in NOTES])
        with pytest.raises(ValueError, match=rf"^codes_file=None: {len(codes)} of {len(codes)} codes have no desc"):
            load(tmp_path, path)
    path = write(tmp_path / "a.csv", [{**note, "codes": ["V10.3"]} for note in NOTES])
    with pytest.raises(ValueError, match="V codes alone may be of ICD-9 or of ICD-10"):
        load(tmp_path, path)
    (tmp_path / "codes.csv").write_text("code,description\nV10.3,History of breast cancer\n")
    assert load(tmp_path, path, codes_file=tmp_path / "codes.csv").code_set.describe("V10.3").startswith("History")


def test_codes_of_icd10_beside_v_codes_and_procedures(tmp_path):
    path = write(tmp_path / "a.csv", [{**note, "codes": ["V10.3", "I10", "B2111ZZ"]} for note in NOTES])
    code_set = load(tmp_path, path).code_set
    assert "pedal cycle" in code_set.describe("V10.3") and code_set.describe("B2111ZZ") == "B2111ZZ"


def test_one_content_in_two_splits(tmp_path):
    rows = without("note_id")
    path = write(tmp_path / "a.jsonl", rows)
    files = {"train": path, "test": write(tmp_path / "b.jsonl", rows[::-1])}
    with pytest.raises(ValueError, match="data_files has the same notes for train and test; pass other notes"):
        load(tmp_path, files)
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(ValueError, match="has one file in two splits"):
        load(tmp_path, {"train": path, "test": tmp_path / "link.jsonl"})


def test_patients_in_some_files_only(tmp_path, caplog):
    files = {"train": write(tmp_path / "a.jsonl", NOTES[:20])}
    files["test"] = write(tmp_path / "b.jsonl", without("patient_id", NOTES[20:]))
    assert "subject_id" not in load(tmp_path, files).dataset["train"].column_names
    assert "a column with the patient for train only: whether a patient is in more than one split" in caplog.text


def test_parquet_with_binary_text(tmp_path):
    path = write(tmp_path / "a.parquet", [{"text": b"Seen.", "codes": ["I10"]}])
    with pytest.raises(ValueError, match="row 1: the column text is of type bytes; write the notes as text"):
        load(tmp_path, path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"codes": "A41.9"}], "which has no column text; it has: codes, more"),
        ([{"text": "a"}], "which has no column codes; it has: text, more"),
        ([{"text": "a", "codes": ["A41.9"]}, {"text": " ", "codes": []}], "line 2: the column text is empty"),
        ([{"text": "a", "codes": 38.9}], "line 1: the column codes is a number; write codes as text with their dot"),
        (
            [{"text": "a", "codes": ["038.9", 401.9]}],
            "line 1: a code is of type float, and a number has lost its zeros",
        ),
        ([{"text": 5, "codes": "A41.9"}], "line 1: the column text is of type int; write the notes as text"),
        ([{"text": "a", "codes": ["A41.9", None]}], "line 1: a code of the list is empty (None); leave it out"),
        ([{"text": "a", "codes": [["A41.9"]]}], "line 1: a code is of type list; write codes as text"),
        ([{"text": "a", "codes": ["4019"]}], "line 1: the code 4019 has no dot; write 401.9, or 40.19 for a procedure"),
        ([{"text": "a", "codes": "38.9;25000"}], "line 1: the code 25000 has no dot; write 250.00."),
        ([{"text": "a", "codes": "v5861"}], "line 1: the code V5861 has no dot; write V58.61."),
        ([{"text": "a", "codes": "E8800"}], "the code E8800 has no dot; write E880.0 for ICD-9, E88.00 for ICD-10."),
        ([{"text": "a", "codes": "A419"}], "line 1: the code A419 has no dot; write A41.9."),
        ([{"text": "a", "codes": "S72001A"}], "line 1: the code S72001A has no dot; write S72.001A."),
        *(
            (
                [{"text": "a", "codes": f"A41.9{separator}I10"}],
                'the column codes has a separator that is not ";"; write',
            )
            for separator in "|/；，"
        ),
        ([{"text": "a", "codes": "A41.9;4019.0"}], "line 1: a code was read as a number"),
        ([{"text": "a", "codes": "38.900000000000006"}], "line 1: a code was read as a number"),
        ([{"text": "a", "codes": ["1e+05"]}], "line 1: a code was read as a number"),
        ([{"text": f"{number}", "codes": "nan"} for number in range(5)], "no note has a code; write codes as text"),
        ([{"text": "a", "codes": "A41.9;99213"}], "A code of CPT or HCPCS is no ICD code: leave it out."),
        (
            [
                {"text": f"{number}", "codes": [f"{number}.{number % 9 + 1}{number % 8 + 1}"]}
                for number in range(100, 210)
            ],
            "since of those of ICD-9 none starts with 0 or ends with 0 after the dot",
        ),
        (
            [{"text": "a", "codes": "['A41.9', 'I10']"}],
            'line 1: a code has a space, comma, quote or bracket in it; write ";"',
        ),
        ([{"text": "a", "codes": f"{SECRET}"}], "line 1: a code has a space"),
        ([{"text": "a", "codes": {"A41.9": 1}}], "line 1: the column codes is of type dict"),
        (
            [{"text": "a", "codes": [], "note_id": SECRET}] * 2,
            "line 2: the note_id has occurred before; give each note",
        ),
        (
            [{"text": "a", "codes": [], "note_id": "1"}, {"text": "b", "codes": []}],
            "line 2: the column note_id is empty",
        ),
        (
            [{"text": "a", "codes": [], "patient_id": " "}],
            "line 1: the column patient_id is empty; fill it in all rows",
        ),
        (
            [{"text": "a", "codes": ["A41.9"]}] * 9,
            "of different notes, 1 are too few for train, validation, test; pass more",
        ),
        ([{"text": f"{number}", "codes": None} for number in range(5)], "no note has a code"),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({**row, "more": SECRET}) + "\n" for row in rows))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load(tmp_path, {"train": path})
    assert SECRET not in str(caught.value) and "data_files" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data_files=None, but the corpus 'own' is read from files; pass split=FILE for train"),
        ({"data_files": "nowhere.csv"}, "data_files has 'nowhere.csv', which does not exist; pass split=FILE"),
        (
            {"data_files": "some/name"},
            "data_files has 'some/name', which is no file, and cannot be loaded as a data set",
        ),
        ({"data_files": {"tran": "a.csv"}}, "data_files has the split 'tran'; the splits are: train, dev, val"),
        ({"data_files": ["train=a.csv", "train=b.csv"]}, "has train twice"),
        ({"data_files": ["a.csv", "b.csv"]}, "has several files without a split"),
        ({"data_files": ["a.csv", "test=b.csv"]}, "has a file without a split"),
        ({"data_files": ["train=a.csv", "test=./a.csv"]}, "has one file in two splits"),
        ({"data_files": __file__}, "which is no table; pass one that ends in .csv, .jsonl, .parquet"),
        ({"data_files": "a.csv", "data_dir": "x"}, "data_dir='x': the corpus 'own' has data_files"),
        ({"data_files": "a.csv", "seed": "abc"}, "seed='abc' is no whole number; pass one, such as 0"),
        ({"data_files": "a.csv", "patient_column": "text"}, "patient_column='text' holds no patients; pass the name"),
        ({"data_files": "a.csv", "data_license": " "}, "data_license=' '; pass an identifier such as cc-by-4.0"),
        ({"data_files": "a.csv", "split": 1}, "The corpus 'own' has no option split; it has: data_files, codes_file"),
    ],
)
def test_bad_options(tmp_path, options, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the Hub is tried several times
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load_corpus("own", cache_dir=tmp_path / "cache", **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file; pass a CSV with the columns code, description"),
        ("codes,text\n", "has no column code, description"),
        ("code,description\nA41.9,a\nA41.9,b\n", "pass each code once"),
        ("code,description\n4019.0,a\n", "'4019.0' was written as a number"),
        ("code,description\nNULL,a\n", "line 2: the column code is empty, or has a word that stands for no code"),
        ("code,description\nA41.9,é\n".encode("latin-1"), "is not UTF-8; convert it"),
    ],
)
def test_bad_codes_files(tmp_path, content, message):
    path = tmp_path / "codes.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as caught:
        load(tmp_path, write(tmp_path / "a.jsonl", NOTES), codes_file=path)
    assert str(caught.value).startswith("codes_file=")


def test_words_for_a_missing_value_are_no_codes(tmp_path):
    missing = ["NULL", "nan", "A41.9; NaN ;\\N", "None", None, float("nan"), ["A41.9", "N/A", ""]]
    rows = [{"text": f"{number}", "codes": codes} for number, codes in enumerate(missing)]
    corpus = load(tmp_path, {"train": write(tmp_path / "a.jsonl", rows), "test": write(tmp_path / "b.jsonl", NOTES)})
    assert corpus.dataset["train"]["codes"][:] == [[], [], ["A41.9"], [], [], [], ["A41.9"]]


def test_a_codes_file_in_another_spelling(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code,description\na419,Blood poisoning\n n390,Infection\n")
    code_set = load(tmp_path, write(tmp_path / "a.jsonl", NOTES), codes_file=path).code_set
    assert code_set.describe("A41.9") == "Blood poisoning" and code_set.describe("N39.0") == "Infection"


def test_patients_as_numbers_with_decimals(tmp_path, caplog):
    for name, patient in (("a", 7), ("b", 7.0)):
        write(tmp_path / f"{name}.jsonl", [{"text": name, "codes": ["A41.9"], "patient_id": patient}])
    corpus = load(tmp_path, {"train": tmp_path / "a.jsonl", "test": tmp_path / "b.jsonl"})
    assert [rows["subject_id"][0] for rows in corpus.dataset.values()] == ["7", "7"]
    assert "patient" in caplog.text


def test_licence(tmp_path, monkeypatch):
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(private=False))
    path = write(tmp_path / "a.jsonl", NOTES)
    corpus = load(tmp_path, path)
    assert corpus.card.license == UNSTATED
    for dataset in (corpus.dataset, select_codes(corpus, "all").dataset):
        with pytest.raises(PermissionError, match="comes from data under the unstated licence"):
            dataset.push_to_hub("me/notes")
    assert load(tmp_path, path, data_license="cc-by-4.0").card.license == "cc-by-4.0"
    assert load(tmp_path, path, data_license="physionet-credentialed-1.5.0").card.license == CREDENTIALED


def test_options_of_the_commands(tmp_path):
    path = write(tmp_path / "a.jsonl", NOTES)
    options = {"cache_dir": str(tmp_path / "cache"), "data_license": "mit"}
    corpus = read_corpus(CorpusArguments("own", ["seed=1"], "rare50", data_files=[path], **options))
    assert corpus.card.license == "mit" and "seed 1" in corpus.card.summary
    for field in ({"data_files": [path]}, {"codes_file": "c.csv"}, {"data_license": "mit"}):
        with pytest.raises(ValueError, match=f"The corpus 'demo' has no option {next(iter(field))}; it has: seed"):
            read_corpus(CorpusArguments(**field))
    with pytest.raises(ValueError, match="corpus_options has 'seed'; write name=value"):
        read_corpus(CorpusArguments(corpus_options=["seed"]))
    with pytest.raises(ValueError, match=r"corpus_options has 'seed=\[', whose value cannot be read; close"):
        read_corpus(CorpusArguments(corpus_options=["seed=["]))
    with pytest.raises(ValueError, match=r"name='nope' is no known corpus; .* This is the option --corpus\.$"):
        read_corpus(CorpusArguments("nope"))
    with pytest.raises(ValueError, match=r"rule='nope' is neither .* This is the option --codes\.$"):
        read_corpus(CorpusArguments("own", codes="nope", data_files=[path], cache_dir=options["cache_dir"]))


def test_export(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", NOTES)
    out = tmp_path / "out"
    export.main(["own", "--data_files", path, "--out", str(out), "--cache_dir", str(tmp_path / "cache")])
    assert "all: 4 codes; notes: 32 train, 4 validation, 4 test" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert (
        "license_name: unstated" in card and "**Do not share**: this folder holds notes of patients. The folder" in card
    )
    assert "visit" not in card and "n39" not in card
    assert load(tmp_path, out).dataset["train"][0] == load(tmp_path, path).dataset["train"][0]


def test_a_model_is_trained_on_them(tmp_path, tiny_checkpoint, train):
    path = write(tmp_path / "a.jsonl", NOTES)
    options = {
        "data_files": path,
        "output_dir": tmp_path / "run",
        "cache_dir": tmp_path / "cache",
        "model_name_or_path": tiny_checkpoint,
        "max_length": 128,
        "position_period": 32,
        "max_steps": 2,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "use_cpu": True,
        "bf16": False,
    }
    train.main(["--corpus", "own", *(str(word) for name, value in options.items() for word in (f"--{name}", value))])
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert results["notes"] == {"train": 32, "validation": 4, "test": 4} and results["codes"] == 4
    assert results["corpus"]["license"] == UNSTATED and results["settings"]["scorer"] == "matching"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data_license"] == UNSTATED


def test_the_example_of_the_document_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs" / "own_notes.md").read_text(encoding="utf-8")
    for program in re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL):
        exec(program.replace("seed=0)", f"seed=0, cache_dir={str(tmp_path / 'cache')!r})"), {})
    assert "{'train': 74, 'validation': 8, 'test': 8} ICDCodeSet(6 codes" in capsys.readouterr().out


def test_the_code_set_of_a_model_describes_codes(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": f"Note {number}.", "codes": ["401.9"]} for number in range(9)])
    with pytest.raises(ValueError, match="codes_file=None: 1 of 1 codes have no description"):
        load(tmp_path, path)
    ICDCodeSet(["401.9"], {"401.9": "Hypertension"}).to_json(tmp_path / "code_set.json")
    assert load(tmp_path, path, codes_file=tmp_path / "code_set.json").code_set.describe("401.9") == "Hypertension"
    arguments = EvaluationArguments(
        model=str(tmp_path), corpus="own", data_files=[f"test={path}"], split="test", cache_dir=str(tmp_path / "cache")
    )
    training = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    assert read_split(arguments, training).code_set.describe("401.9") == "Hypertension"
