import gzip

import pyarrow as pa
import pytest
from datasets import load_dataset
from pyarrow import feather
from test_dataset_scripts import run

from kept_hf.corpora import load_corpus
from kept_hf.corpora.mimic4 import Mimic4, draw_split, read_splits

PATIENTS = 60


def write(folder, name, lines):
    path = folder / f"{name}.csv.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture
def tables(tmp_path):
    """Sixty patients with two stays each: the first coded in ICD-9, the second in ICD-10."""
    folder = tmp_path / "tables"
    folder.mkdir()
    notes = ["note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"]
    diagnoses = ["subject_id,hadm_id,seq_num,icd_code,icd_version"]
    procedures = ["subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version"]
    for patient in range(PATIENTS, 0, -1):
        for stay, (code, procedure, version) in enumerate([("0389", "0407", 9), ("E1165", "0BW03ZZ", 10)]):
            hadm_id = 20_000 + 2 * patient + stay
            if patient != 7:
                notes.append(f'{patient}-DS-{stay},{patient},{hadm_id},DS,{stay},,,"Stay {stay}\nof patient {patient}"')
            diagnoses.append(f"{patient},{hadm_id},1,{code},{version}")
            diagnoses.append(f"{patient},{hadm_id},2,{code},{version}")
            procedures.append(f"{patient},{hadm_id},1,2180-01-01,{procedure},{version}")
    write(folder, "note/discharge", notes)
    write(folder, "hosp/diagnoses_icd", diagnoses)
    write(folder, "hosp/procedures_icd", procedures)
    titles = [
        "icd_code,icd_version,long_title",
        "0389,9,Unspecified septicemia",
        "E1165,10,Diabetes with hyperglycemia",
    ]
    write(folder, "hosp/d_icd_diagnoses", [*titles, "0389,10,Not this one"])
    return folder


@pytest.mark.parametrize(
    ("config", "codes", "stay"), [("icd9", ["038.9", "04.07"], 0), ("icd10", ["E11.65", "0BW03ZZ"], 1)]
)
def test_splits_are_disjoint_in_patients(tables, tmp_path, config, codes, stay):
    corpus = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", config=config)
    assert list(corpus.dataset) == ["train", "validation", "test"]
    patients = {split: set(rows["subject_id"]) for split, rows in corpus.dataset.items()}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == PATIENTS - 1
    assert len(patients["train"]) > 40
    for split, rows in corpus.dataset.items():
        assert list(rows["subject_id"]) == sorted(rows["subject_id"], key=int)
        for row in rows:
            assert draw_split(row["subject_id"]) == split
            assert row["codes"] == codes
            assert row["text"] == f"Stay {stay}\nof patient {row['subject_id']}"
            assert row["note_id"] == str(20_000 + 2 * int(row["subject_id"]) + stay)
    assert list(corpus.code_set) == sorted(codes)
    assert corpus.code_set.undescribed == (codes[1],)
    assert corpus.code_set.describe(codes[0]) in ("Unspecified septicemia", "Diabetes with hyperglycemia")


def test_the_draw_depends_on_seed_and_patient_alone(tables, tmp_path):
    assert [draw_split(str(i), seed=1) for i in range(300)] != [draw_split(str(i), seed=2) for i in range(300)]
    shares = [sum(draw_split(str(i)) == split for i in range(5000)) / 5000 for split in ("train", "validation", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    corpus = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", seed=5)
    assert all(draw_split(row["subject_id"], 5) == split for split, rows in corpus.dataset.items() for row in rows)


def test_a_given_split(tables, tmp_path, caplog):
    path = tmp_path / "splits.csv"
    path.write_text(
        "hadm_id,split\n20003,dev\n20005,train\n20004,train\n20009,Test\n20015,train\n99,train\n20005,train\n"
    )
    corpus = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", split_file=path)
    # 20004 has codes of the other version, 20015 no note, 99 does not exist.
    assert {split: list(rows["note_id"]) for split, rows in corpus.dataset.items()} == {
        "train": ["20005"],
        "validation": ["20003"],
        "test": ["20009"],
    }
    assert "1 of 4 listed admissions are left out" not in caplog.text
    assert "3 of 4 listed admissions are left out: 2 are not in the tables of codes, 1 have no" in caplog.text
    assert "patients are in more than one split" not in caplog.text
    path.write_text("hadm_id,split\n20003,validation\n20005,train\n")
    corpus = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", split_file=path)
    assert list(corpus.dataset) == ["train", "validation"]
    path.write_text("hadm_id,split\n99,train\n")
    with pytest.raises(ValueError, match="No admission of any split has both codes and a discharge summary"):
        load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", split_file=path)


def test_patients_in_two_splits_are_counted(tables, tmp_path, caplog):
    with gzip.open(tables / "note/discharge.csv.gz", "at") as file:
        file.write("1-DS-9,1,90000,DS,9,,,Another stay\n")
    with gzip.open(tables / "hosp/diagnoses_icd.csv.gz", "at") as file:
        file.write("1,90000,1,E1165,10\n")
    (tmp_path / "splits.csv").write_text("hadm_id,split\n90000,train\n20003,test\n20005,test\n")
    load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", split_file=tmp_path / "splits.csv")
    assert "1 of 2 patients are in more than one split: results will be optimistic." in caplog.text
    assert "The split validation has no notes: it is left out." in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hadm,split\n1,train\n", r"splits\.csv has no column hadm_id"),
        ("hadm_id,split\n1,train\nx1,train\n", "line 3: the column hadm_id holds no number"),
        ("hadm_id,split\n1,training\n", "line 2: the split must be one of train, dev, val, validation, test"),
        ("hadm_id,split\n1,train\n1,test\n", "line 3: the admission is in another split before"),
        ("hadm_id;split\n1;train\n", 'separated by ";", so save the table with commas'),
        ("", "has no column hadm_id, split"),
        ('hadm_id,split\n1,train\n2,"' + "test " * 50_000, r"splits\.csv, line \d+: no valid CSV"),
    ],
)
def test_bad_split_file(tmp_path, content, message):
    (tmp_path / "splits.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_splits(tmp_path / "splits.csv")


def test_cache_follows_content_and_options(tables, tmp_path):
    def folder_of(config="icd10", **options):
        return Mimic4(config, data_dir=tables, cache_dir=str(tmp_path / "cache"), **options).cache_dir

    (tmp_path / "splits.csv").write_text("hadm_id,split\n1,train\n")
    folders = [folder_of(), folder_of(), folder_of("icd9"), folder_of(seed=1)]
    folders.append(folder_of(split_file=tmp_path / "splits.csv"))
    (tmp_path / "splits.csv").write_text("hadm_id,split\n1,test\n")
    folders.append(folder_of(split_file=tmp_path / "splits.csv"))
    write(tables, "hosp/procedures_icd", ["subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version"])
    folders.append(folder_of())
    assert len(set(folders)) == 6


def test_script(tables, tmp_path, capsys):
    run(
        "mimic4", "--data_dir", tables, "--config", "icd9", "--out", tmp_path / "out", "--cache_dir", tmp_path / "cache"
    )
    assert "icd9: 2 codes" in capsys.readouterr().out
    loaded = load_dataset(str(tmp_path / "out"), "icd9", cache_dir=str(tmp_path / "read"))
    assert loaded["train"].column_names == ["note_id", "subject_id", "text", "codes"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Do not share" in card
    assert "drawn into splits 80 / 10 / 10 with seed 0" in card


def test_missing_things(tmp_path, tables):
    with pytest.raises(ValueError, match="config='icd11' is no configuration of mimic4; pass one of: icd9, icd10"):
        load_corpus("mimic4", data_dir=tables, config="icd11")
    with pytest.raises(FileNotFoundError, match="lacks note/discharge, hosp/diagnoses_icd, hosp/procedures_icd"):
        load_corpus("mimic4", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_corpus("mimic4", data_dir=tables, split_file=tmp_path / "nowhere.csv")


def test_the_split_files_of_the_replication_study(tables, tmp_path):
    path = tmp_path / "splits.feather"
    feather.write_feather(pa.table({"_id": [20003, 20005, 20009], "split": ["val", "train", "test"]}), path)
    assert read_splits(path) == {"20003": "validation", "20005": "train", "20009": "test"}
    corpus = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache", split_file=path)
    assert {split: len(rows) for split, rows in corpus.dataset.items()} == {"train": 1, "validation": 1, "test": 1}
    feather.write_feather(pa.table({"_id": [1, None], "split": ["val", "train"]}), path)
    with pytest.raises(ValueError, match="row 2: the column hadm_id holds no number"):
        read_splits(path)
    feather.write_feather(pa.table({"hadm": [1]}), path)
    with pytest.raises(ValueError, match="has no column _id, split; its columns are hadm"):
        read_splits(path)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read as feather"):
        read_splits(path)


def test_folders_as_wget_leaves_them(tables, tmp_path):
    expected = load_corpus("mimic4", data_dir=tables, cache_dir=tmp_path / "cache").dataset["train"].to_list()
    downloads = tmp_path / "downloads"
    for part, release in (("hosp", "mimiciv/3.1"), ("note", "mimic-iv-note/2.2")):
        (downloads / "physionet.org" / "files" / release).mkdir(parents=True)
        (tables / part).rename(downloads / "physionet.org" / "files" / release / part)
    corpus = load_corpus("mimic4", data_dir=downloads, cache_dir=tmp_path / "cache")
    assert corpus.dataset["train"].to_list() == expected
    assert corpus.code_set.describe("E11.65") == "Diabetes with hyperglycemia"
    with pytest.raises(FileNotFoundError, match="lacks note/discharge"):
        load_corpus("mimic4", data_dir=downloads / "physionet.org" / "files" / "mimiciv" / "3.1")
