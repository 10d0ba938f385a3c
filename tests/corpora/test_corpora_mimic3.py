import json
import logging
import random
from collections import Counter

import pytest
from datasets import load_dataset
from test_dataset_scripts import run

from kept_hf.corpora import load_corpus, mimic3, physionet
from kept_hf.corpora.demo import write_demo_files
from kept_hf.corpora.mimic3 import Mimic3, read_rare50_lists
from kept_hf.models.code_set import ICDCodeSet
from kept_hf.tables.mimic_tables import code_titles

DIAGNOSES = [f"{number:03d}.{digit}" for number in (38, 250, 401, 486, 599, 707) for digit in range(10)]
PROCEDURES = ["04.07", "38.93", "31.1", "96.71"]
COLUMNS = "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT"


def write_tables(folder, seed=0):
    """Random tables in MIMIC-III's layout, in an order that tells nothing, and CAML's lists of splits."""
    generator = random.Random(seed)
    admissions = []
    for subject_id in generator.sample(range(3, 30_000), 100):
        for _ in range(generator.choice([1, 1, 2])):
            admissions.append((subject_id, 100_000 + len(admissions) * 7919 % 99_991))
    notes, codes = [], {"DIAGNOSES_ICD": [], "PROCEDURES_ICD": []}
    for subject_id, hadm_id in admissions:
        for part in range(generator.choice([0, 1, 1, 1, 2, 3])):
            text = f'"Part {part} of an admission,\nwith ""quotes"" and {generator.random()}\n"'
            notes.append(f'{subject_id},{hadm_id},2101-01-01,,,"Discharge summary","Report",,,{text}')
        notes.append(f'{subject_id},{hadm_id},2101-01-01,,,"Nursing","Report",,,"a nurse\'s Discharge summary"')
        for table, known in (("DIAGNOSES_ICD", DIAGNOSES), ("PROCEDURES_ICD", PROCEDURES)):
            # Some codes are far more frequent than others, and some are listed twice.
            for code in generator.choices(known, weights=range(1, len(known) + 1), k=generator.randint(0, 6)):
                codes[table].append(f'{subject_id},{hadm_id},1,"{code.replace(".", "")}"')
    codes["DIAGNOSES_ICD"] += [f"{subject_id},{hadm_id},9," for subject_id, hadm_id in admissions[:3]]
    generator.shuffle(notes)
    write_table(folder, "NOTEEVENTS", COLUMNS, notes)
    for table, rows in codes.items():
        generator.shuffle(rows)
        write_table(folder, table, "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE", rows)
    hadm_ids = [str(hadm_id) for _, hadm_id in admissions]
    generator.shuffle(hadm_ids)
    for config in ("full", "50"):
        for split, part in (("train", hadm_ids[:90]), ("dev", hadm_ids[90:110]), ("test", hadm_ids[110:])):
            (folder / f"{split}_{config}_hadm_ids.csv").write_text("\n".join(part) + "\n", encoding="utf-8")
    return admissions


def write_table(folder, name, header, rows):
    lines = [header, *(f"{number},{row}" for number, row in enumerate(rows, start=1))]
    (folder / f"{name}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def write_titles(folder):
    write_table(
        folder,
        "D_ICD_DIAGNOSES",
        "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
        ['"311","Depr","Depressive disorder, not elsewhere classified"', '"0389","Sept","Unspecified septicemia"'],
    )
    write_table(
        folder,
        "D_ICD_PROCEDURES",
        "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
        ['"311","Trach","Temporary tracheostomy"', '"0407","Exc","Other excision of nerves"'],
    )
    (folder / "ICD9_descriptions").write_text(
        "@\tICD9 Hierarchy Root\n31.1\tTemporary tracheostomy (CAML)\n038.9\tOther words\n008.64\tRound [SRV&apos;s]\n"
        "401\tEssential hypertension\n52.0\tPancreatotomy (CAML)\n",
        encoding="utf-8",
    )


def write_rare50(folder, **lists):
    """KEPT's file: by default each split has one note."""
    values = {"train_ids": ["1_100"], "train_labels": ["990"], "dev_ids": ["2_200"], "dev_labels": ["40.7"]}
    values |= {"test_ids": ["3_300"], "test_labels": ["52.0;990;52.0"], **lists}
    source = "import os\nraise SystemExit('this file must not be run')\n"
    source += "".join(f"{name} = {value!r}\n" for name, value in values.items() if value is not None)
    (folder / mimic3.RARE50_FILE).write_text(source + "\ndef collect():\n    return train_ids\n", encoding="utf-8")


def published_json(folder, config):
    """What KEPT's notebook makes of the tables, written down from its description: split → list of entries.

    Its order of rows is that of CAML's sorted table of codes.
    """
    import csv

    def rows(name):
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)

    def dotted(code, diagnosis):
        size = (4 if code.startswith("E") else 3) if diagnosis else 2
        return code if len(code) <= size else code[:size] + "." + code[size:]

    notes = {}
    for row in rows("NOTEEVENTS"):
        if row["CATEGORY"] == "Discharge summary":
            notes.setdefault(row["HADM_ID"], []).append(row["TEXT"])
    codes = [
        (int(row["SUBJECT_ID"]), int(row["HADM_ID"]), dotted(row["ICD9_CODE"], table == "DIAGNOSES_ICD"))
        for table in ("DIAGNOSES_ICD", "PROCEDURES_ICD")
        for row in rows(table)
        if row["ICD9_CODE"]
    ]
    codes = [row for row in sorted(codes, key=lambda row: row[:2]) if str(row[1]) in notes]
    top = {code for code, _ in Counter(code for *_, code in codes).most_common(50)}
    labels = {}
    for subject_id, hadm_id, code in codes:
        labels.setdefault((subject_id, hadm_id), []).append(code)
    listed = {s: (folder / f"{s}_{config}_hadm_ids.csv").read_text().split() for s in ("train", "dev", "test")}
    splits = {split: [] for split in listed}
    for (subject_id, hadm_id), found in labels.items():
        if config == "50":
            found = [code for code in found if code in top]
        split = next((split for split, hadm_ids in listed.items() if str(hadm_id) in hadm_ids), None)
        if found and split:
            splits[split].append(
                {
                    "subject_id": str(subject_id),
                    "hadm_id": str(hadm_id),
                    "LABELS": ";".join(found),
                    "TEXT": "\t".join(notes[str(hadm_id)]),
                    "Addition": "Nursing: something",
                }
            )
    return splits


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    write_tables(folder)
    return folder


def entries(corpus):
    """Split → (patient, admission, text, set of codes), in order."""
    return {
        split: [(row["subject_id"], row["note_id"], row["text"], set(row["codes"])) for row in rows]
        for split, rows in corpus.dataset.items()
    }


@pytest.mark.parametrize("config", ["full", "50"])
def test_same_notes_labels_and_order_as_the_published_preprocessing(tables, tmp_path, config):
    # The codes of "50" are those of MIMIC-III; here those of the tables take their place.
    recount = {"recount_codes": True} if config == "50" else {}
    corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", config=config, **recount)
    published = published_json(tables, config)
    expected = {
        name: [
            (row["subject_id"], row["hadm_id"], row["TEXT"], set(row["LABELS"].split(";"))) for row in published[split]
        ]
        for split, name in (("train", "train"), ("dev", "validation"), ("test", "test"))
    }
    got = entries(corpus)
    if config == "full":
        # An admission whose codes are all empty stays, without codes; the published files call it "nan".
        got = {split: [row for row in rows if row[3]] for split, rows in got.items()}
    assert got == expected
    assert all(len(rows) > 3 for rows in expected.values())
    # The order of the labels: sorted as text.
    assert list(corpus.code_set) == sorted({code for rows in expected.values() for *_, codes in rows for code in codes})
    assert len(corpus.code_set) == 50 if config == "50" else len(corpus.code_set) > 55
    for rows in corpus.dataset.values():
        assert all(len(codes) == len(set(codes)) for codes in rows["codes"])


@pytest.mark.parametrize("config", ["full", "50"])
def test_the_published_json_files_give_the_same(tables, tmp_path, config):
    expected = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", config=config)
    folder = tmp_path / "json"
    folder.mkdir()
    prefix = {"full": "mimic3", "50": "mimic3-50"}[config]
    for split, rows in published_json(tables, config).items():
        (folder / f"{prefix}_{split}.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    corpus = load_corpus("mimic3", data_dir=folder, cache_dir=tmp_path / "cache", config=config)
    coded = {split: [row for row in rows if row[3]] for split, rows in entries(expected).items()}
    assert entries(corpus) == coded


def test_rare50(tmp_path, caplog):
    folder = tmp_path / "raw"
    folder.mkdir()
    summary = '2101-01-01,,,"Discharge summary","Report",,'
    notes = [f'{patient},{patient}00,{summary},"Note of {patient}"' for patient in (3, 2, 1, 4, 5)]
    write_table(folder, "NOTEEVENTS", COLUMNS, notes)
    for table in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        rows = [f'{patient},{patient}00,1,"4019"' for patient in (1, 2, 3, 4)]
        write_table(folder, table, "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE", rows)
    write_titles(folder)
    # 400 is not the stay of patient 9, and 500 is in no table of codes.
    write_rare50(folder, train_ids=["4_400", "9_400", "5_500", "1_100"], train_labels=["990", "990", "990", "V65.3"])
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("mimic3", data_dir=folder, cache_dir=tmp_path / "cache", config="rare50")
    assert entries(corpus) == {
        "train": [("1", "100", "Note of 1", {"V65.3"}), ("4", "400", "Note of 4", {"990"})],
        "validation": [("2", "200", "Note of 2", {"04.07"})],
        "test": [("3", "300", "Note of 3", {"52.0", "990"})],
    }
    assert corpus.dataset["test"][0]["codes"] == ["52.0", "990"]
    assert list(corpus.code_set) == ["04.07", "52.0", "990", "V65.3"]
    assert corpus.code_set.describe("04.07") == "Other excision of nerves"
    assert corpus.code_set.describe("52.0") == "Pancreatotomy (CAML)"
    assert corpus.code_set.undescribed == ("990", "V65.3")
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if "rare50" in message] == [
        "1 notes of rare50 list a code twice; it counts once.",
        "rare50: 40.7 of 1 notes had lost a zero; it is 04.07.",
        "rare50: 52.0 are categories, not codes, and what they were is uncertain; they are kept (1 notes).",
    ]
    assert "2 of 4 codes have no title: 0 are described by their category's, 2 by the code itself." in messages
    assert not any("400" in message or "Note of" in message for message in messages)

    published = load_corpus(
        "mimic3", data_dir=folder, cache_dir=tmp_path / "cache", config="rare50", repair_codes=False
    )
    assert entries(published)["validation"] == [("2", "200", "Note of 2", {"40.7"})]
    assert list(published.code_set) == ["40.7", "52.0", "990", "V65.3"]
    (folder / "ICD9_descriptions").unlink()
    corpus = load_corpus("mimic3", data_dir=folder, cache_dir=tmp_path / "cache", config="rare50")
    assert corpus.code_set.describe("52.0") == "Pancreatotomy"


def test_titles(tmp_path):
    write_titles(tmp_path)
    ours, published = code_titles(tmp_path), code_titles(tmp_path, published=True)
    assert ours["31.1"] == "Temporary tracheostomy"
    assert published["31.1"] == "Temporary tracheostomy (CAML)"  # taken for the diagnosis 311
    assert ours["008.64"] == "Round [SRV's]"
    assert published["008.64"] == "Round [SRV&apos;s]"
    for titles in (ours, published):
        assert titles["311"] == "Depressive disorder, not elsewhere classified"
        assert titles["038.9"] == "Unspecified septicemia"
        assert titles["04.07"] == "Other excision of nerves"
    assert code_titles(tmp_path / "nowhere") == {}


def test_codes_without_a_title_take_that_of_their_category(tables, tmp_path, caplog):
    write_titles(tables)
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache")
    assert corpus.code_set.describe("401.3") == "Essential hypertension"
    assert corpus.code_set.describe("486.1") == "486.1"
    assert caplog.text.count("have no title") == 1
    published = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", published_titles=True)
    assert published.code_set.describe("401.3") == "401.3"
    assert published.code_set.descriptions["31.1"] == "Temporary tracheostomy (CAML)"


def test_demo_files_through_the_script(tmp_path):
    raw = tmp_path / "raw"
    write_demo_files(raw)
    sizes = {}
    for config in ("full", "50", "rare50"):
        out = tmp_path / config
        options = ["--recount_codes"] if config == "50" else []
        run("mimic3", "--data_dir", raw, "--config", config, "--out", out, "--cache_dir", tmp_path / "cache", *options)
        loaded = load_dataset(str(out), config, cache_dir=str(tmp_path / "read"))
        assert list(loaded) == ["train", "validation", "test"]
        code_set = ICDCodeSet.from_json(out / config / "code_set.json")
        assert not code_set.undescribed
        sizes[config] = len(loaded["train"]), len(code_set)
        card = (out / "README.md").read_text(encoding="utf-8")
        assert "Do not share" in card
        assert "license_name: physionet-credentialed-1.5.0" in card
    assert sizes["full"] == (320, 60)
    assert sizes["50"][1] == 50
    train = load_dataset(str(tmp_path / "rare50"), "rare50", cache_dir=str(tmp_path / "read"))["train"]
    counts = Counter(code for codes in train["codes"] for code in codes)
    assert set(counts.values()) <= set(range(2, 9))
    assert len(counts) == sizes["rare50"][1]


def test_missing_lists_are_all_named(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tables / "dev_full_hadm_ids.csv").unlink()
    (tables / "test_full_hadm_ids.csv").unlink()
    own = {"test_full_hadm_ids.csv": "http://127.0.0.1:9/test.csv"}
    with pytest.raises(FileNotFoundError, match="lacks files that list the splits of 'full'") as caught:
        load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", urls=own)
    message = str(caught.value)
    assert "dev_full_hadm_ids.csv from https://raw.githubusercontent.com/jamesmullenbach/caml-mimic/" in message
    assert "test_full_hadm_ids.csv from http://127.0.0.1:9/test.csv" in message
    assert "train_full" not in message
    with pytest.raises(FileNotFoundError, match=r"collectrare50data\.py from https://raw.*whaleloops/KEPT"):
        load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", config="rare50")


def test_lists_are_downloaded(tables, tmp_path):
    """Through the builder's download manager, here from files."""
    expected = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    urls = {}
    for name in mimic3.SPLIT_URLS["full"]:
        (tables / name).rename(elsewhere / name)
        urls[name] = str(elsewhere / name)
    corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", urls=urls)
    assert entries(corpus) == entries(expected)


def test_the_cache_follows_lists_that_lie_elsewhere(tables, tmp_path):
    (tables / "test_full_hadm_ids.csv").rename(tmp_path / "list.csv")
    urls = {"test_full_hadm_ids.csv": str(tmp_path / "list.csv")}
    first = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", urls=urls).dataset["test"]["note_id"]
    (tmp_path / "list.csv").write_text(f"{first[1]}\n")
    second = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", urls=urls).dataset["test"]["note_id"]
    assert list(second) == [first[1]]
    with pytest.raises(ValueError, match=r"urls has test\.csv; the lists of 'full' are train_full_hadm_ids\.csv, dev"):
        load_corpus("mimic3", data_dir=tables, urls={"test.csv": "x"})


def test_an_admission_in_two_lists(tables, tmp_path):
    with open(tables / "test_full_hadm_ids.csv", "a") as file:
        file.write((tables / "train_full_hadm_ids.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="The splits train and test share admissions"):
        load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache")


def test_an_empty_split_is_left_out(tables, tmp_path, caplog):
    (tables / "dev_50_hadm_ids.csv").write_text("99999999\n")
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", config="50")
    assert list(corpus.dataset) == ["train", "test"]
    assert "The split validation has no notes" in caplog.text


def test_cache_follows_content_options_and_urls(tables, tmp_path):
    def folder_of(config="full", **options):
        return Mimic3(config, data_dir=tables, cache_dir=str(tmp_path / "cache"), **options).cache_dir

    first = folder_of()
    assert folder_of() == first
    others = {
        folder_of("50"),
        folder_of(repair_codes=False),
        folder_of(published_reading=True),
        folder_of("50", recount_codes=True),
        folder_of(urls={"train_full_hadm_ids.csv": "http://x/y"}),
    }
    with open(tables / "PROCEDURES_ICD.csv", "a", encoding="utf-8") as file:
        file.write('999,1,1,1,"0407"\n')
    others.add(folder_of())
    assert len(others | {first}) == 7


def test_nothing_is_written_when_a_table_is_cut_off(tables, tmp_path):
    path = tables / "NOTEEVENTS.csv"
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"NOTEEVENTS\.csv: row \d+ is truncated"):
        load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    path.write_bytes(content)
    assert len(load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache").dataset["train"])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"dev_labels": None}, "assigns no list of texts to dev_labels"),
        ({"dev_labels": [40.7]}, "assigns no list of texts to dev_labels"),
        ({"test_ids": ["3_300", "4_400"]}, "test_ids and test_labels have different lengths"),
        ({"train_ids": ["secret"]}, 'entry 0 of train_ids is no "SUBJECT_HADM" with labels'),
        ({"train_ids": ["1_100"] * 2, "train_labels": ["990", "991"]}, "entry 1 of train_ids is there twice"),
        ({"train_labels": [""]}, 'entry 0 of train_ids is no "SUBJECT_HADM" with labels'),
    ],
)
def test_bad_rare50_file(tmp_path, lists, message):
    write_rare50(tmp_path, **lists)
    with pytest.raises(ValueError, match=message) as caught:
        read_rare50_lists(tmp_path / mimic3.RARE50_FILE)
    assert "secret" not in str(caught.value)


def test_rare50_file_that_is_no_python(tmp_path):
    (tmp_path / mimic3.RARE50_FILE).write_text("<html>\n404: Not found\n")
    with pytest.raises(ValueError, match=r"collectrare50data\.py, line 1: no Python source"):
        read_rare50_lists(tmp_path / mimic3.RARE50_FILE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"subject_id": "1", "hadm_id": "2", "LABELS": "401.9", "TEXT": "secret n',
            "after entry 0; is the file truncated",
        ),
        (
            '[{"subject_id": "1", "hadm_id": "2", "LABELS": "401.9", "TEXT": "secret note"}',
            "after entry 1; is the file truncated",
        ),
        (
            '[{"subject_id": "1", "hadm_id": "2", "LABELS": 401.9, "TEXT": "secret note"}]',
            "entry 1 needs whole numbers",
        ),
        ('[{"subject_id": "1", "hadm_id": "2", "LABELS": "401.9"}]', "entry 1 needs whole numbers"),
        ('[{"subject_id": "1", "hadm_id": "2.5", "LABELS": "401.9", "TEXT": ""}]', "entry 1 needs whole numbers"),
        ('["secret note"]', "entry 1 is no JSON object"),
        ('{"subject_id": "1"}', "no list of JSON objects; it must begin"),
        ("", "no list of JSON objects; it must begin"),
        ("[]", "No admission of any split"),
    ],
)
def test_bad_json_file(tmp_path, content, message):
    for split in ("train", "dev", "test"):
        (tmp_path / f"mimic3-50_{split}.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        load_corpus("mimic3", data_dir=tmp_path, cache_dir=tmp_path / "cache", config="50")
    assert "secret note" not in str(caught.value)
    assert "mimic3-50_train.json" in str(caught.value) or content == "[]"


def json_files(folder, labels):
    rows = [{"subject_id": 1.0, "hadm_id": number + 1.0, "LABELS": codes, "TEXT": "a"} for number, codes in labels]
    for split in ("train", "dev", "test"):
        content = json.dumps(rows if split == "train" else [])
        (folder / f"mimic3_{split}.json").write_text(content, encoding="utf-8")


def test_missing_labels_and_ids_with_decimals_in_json_files(tmp_path):
    json_files(tmp_path, [(0, "401.9;nan; 038.9;NULL"), (1, "v45.81;04.07;None")])
    corpus = load_corpus("mimic3", tmp_path, tmp_path / "cache")
    assert corpus.dataset["train"]["codes"][:] == [["401.9", "038.9"], ["V45.81", "04.07"]]
    assert corpus.dataset["train"]["note_id"][:] == ["1", "2"]


@pytest.mark.parametrize("label", ["4019", "38.900", "4019.0", "A41.9", "1e+05", "7"])
def test_labels_that_are_no_codes(tmp_path, label):
    json_files(tmp_path, [(0, "401.9"), (1, label)])
    with pytest.raises(ValueError, match=r"mimic3_train\.json: entry 2: a label is no ICD-9-CM code with its dot"):
        load_corpus("mimic3", tmp_path, tmp_path / "cache")


def test_json_files_whose_procedures_lost_their_zeros(tmp_path):
    json_files(tmp_path, [(0, "038.9;" + ";".join(f"{number / 100:.2f}" for number in range(1000, 1100)))])
    message = r"mimic3_train\.json: the labels that are ICD-9-CM procedures were read as numbers, since none starts"
    with pytest.raises(ValueError, match=message):
        load_corpus("mimic3", tmp_path, tmp_path / "cache")


def test_neither_tables_nor_json_files(tmp_path):
    (tmp_path / "mimic3-50l_dev.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"lacks mimic3-50l_train\.json, mimic3-50l_test\.json; pass a folder"):
        load_corpus("mimic3", data_dir=tmp_path, config="rare50")
    (tmp_path / "NOTEEVENTS.csv").write_text("")
    with pytest.raises(FileNotFoundError, match="lacks DIAGNOSES_ICD, PROCEDURES_ICD, each as"):
        load_corpus("mimic3", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="data_dir=None"):
        load_corpus("mimic3")
    with pytest.raises(ValueError, match="config='51' is no configuration of mimic3; pass one of: full, 50, rare50"):
        load_corpus("mimic3", data_dir=tmp_path, config="51")
    assert physionet.MIMIC3.notes == "NOTEEVENTS"


def test_skip_notes(tables, tmp_path):
    with open(tables / "NOTEEVENTS.csv", encoding="utf-8", newline="") as file:
        content = file.read()
    hadm_id = (tables / "train_full_hadm_ids.csv").read_text().split()
    corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache")
    row = corpus.dataset["train"][0]
    assert row["note_id"] in hadm_id
    start = f'{row["subject_id"]},{row["note_id"]},2101-01-01,,,"Discharge summary","Report",,'
    content += f'9001,{start}1,"wrong"\n9002,{start},"twice"\n9003,{start},"twice"\n'
    (tables / "NOTEEVENTS.csv").write_text(content, encoding="utf-8", newline="")

    def text(**options):
        corpus = load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", **options)
        return corpus.dataset["train"][0]["text"]

    assert text() == row["text"] + "\twrong\ttwice\ttwice"
    assert text(skip_notes="errors") == row["text"] + "\ttwice\ttwice"
    assert text(skip_notes=["repeated", "errors"]) == row["text"] + "\ttwice"
    with pytest.raises(ValueError, match="skip_notes has 'double'; pass some of: errors, repeated"):
        text(skip_notes=["double"])
    for split in ("train", "dev", "test"):
        (tmp_path / f"mimic3_{split}.json").write_text("[]")
    with pytest.raises(ValueError, match=r"skip_notes=\['errors'\], but data_dir=.* has no NOTEEVENTS"):
        load_corpus("mimic3", data_dir=tmp_path, skip_notes="errors")


@pytest.mark.parametrize("listed", ["0052", "520"])
def test_an_uncertain_code_of_rare50_is_what_the_tables_say(tmp_path, caplog, listed):
    summary = '2101-01-01,,,"Discharge summary","Report",,'
    write_table(tmp_path, "NOTEEVENTS", COLUMNS, [f'{n},{n}00,{summary},"Note of {n}"' for n in (1, 2, 3)])
    header = "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE"
    write_table(tmp_path, "DIAGNOSES_ICD", header, [f'{n},{n}00,1,"4019"' for n in (1, 2, 3)])
    write_table(tmp_path, "PROCEDURES_ICD", header, ['1,100,1,"0052"', f'3,300,1,"{listed}"'])
    write_rare50(tmp_path, train_labels=["52.0"])
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache", "config": "rare50"}
    code = "00.52" if listed == "0052" else "52.0"
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus("mimic3", **options)
    assert corpus.dataset["train"][0]["codes"] == [code]
    assert corpus.dataset["test"][0]["codes"] == [code, "990"]
    assert ("rare50: 52.0 of 2 notes has lost a zero; the tables have 00.52." in caplog.text) == (code == "00.52")
    assert ("rare50: 52.0 are categories" in caplog.text) == (code == "52.0")
    assert "52.0" in load_corpus("mimic3", repair_codes=False, **options).code_set
