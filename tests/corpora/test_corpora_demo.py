import csv
import doctest
import functools
import hashlib
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

import kept_hf.corpora
from kept_hf.corpora import demo, demo_content, load_corpus
from kept_hf.corpora.demo import Demo, write_demo_files
from kept_hf.corpora.selection import training_counts

# Of the files that seed 0 gives. It changes with the tables and the generator, and with nothing else: the same on every
# platform and Python.
DIGEST = "63b720e8b517c116413bf4e0a89af3bafa2dbd8868a95b7c42b49cc6c9b86bc9"

HEADERS = {
    "Addendum:",
    "Brief Hospital Course:",
    "Chief Complaint:",
    "Discharge Condition:",
    "Discharge Diagnoses:",
    "Discharge Diagnosis:",
    "Discharge Medications:",
    "Family History:",
    "Followup Instructions:",
    "History of Present Illness:",
    "Major Surgical or Invasive Procedure:",
    "Medications on Admission:",
    "Past Medical History:",
    "Pertinent Results:",
    "Physical Exam:",
    "Social History:",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_demo_files(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus("demo", cache_dir=tmp_path_factory.mktemp("cache"))


def rows(folder, name):
    with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digest(folder):
    whole = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


@functools.cache
def pattern(wording):
    bare = re.sub(r"^(a|an|the) ", "", wording.lower())
    return re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)")


@functools.cache
def plain(text):
    return " ".join(text.lower().split())


def mentions(wording, text):
    """Whether `text` has `wording`, articles, case and line breaks aside."""
    return pattern(wording).search(plain(text)) is not None


def look_up(split, wordings):
    """Precision and recall of the codes one of whose `wordings(code)` a note has."""
    hits = found = wanted = 0
    for row in split:
        guessed = {
            code.code for code in demo_content.CODES if any(mentions(form, row["text"]) for form in wordings(code))
        }
        hits, found, wanted = hits + len(guessed & set(row["codes"])), found + len(guessed), wanted + len(row["codes"])
    return hits / max(found, 1), hits / wanted


def test_sizes_and_long_tail(corpus):
    assert {split: len(rows) for split, rows in corpus.dataset.items()} == {
        "train": 320,
        "validation": 120,
        "test": 160,
    }
    assert corpus.dataset["train"].column_names == ["note_id", "subject_id", "text", "codes"]
    counts = training_counts(corpus)
    assert counts == {code.code: code.train_notes for code in sorted(demo_content.CODES)}
    assert sum(2 <= count <= 10 for count in counts.values()) >= 50
    assert max(counts.values()) == 58
    for split, least in (("validation", 2), ("test", 3)):
        split_counts = Counter(code for codes in corpus.dataset[split]["codes"] for code in codes)
        assert all(split_counts[code] >= least for code in corpus.code_set)


def test_code_set_has_official_titles_and_no_wordings(corpus):
    code_set = corpus.code_set
    assert list(code_set) == sorted(code.code for code in demo_content.CODES)
    assert {"038.9", "042", "04.07", "E888.9", "V58.61"} <= set(code_set)
    assert code_set.describe("04.07") == "Other excision or avulsion of cranial and peripheral nerves"
    assert code_set.descriptions == {code.code: code.title for code in demo_content.CODES}
    assert code_set.synonyms == {}


def test_notes_are_compact_and_sectioned(corpus):
    lengths = [len(text.split()) for text in corpus.dataset["train"]["text"]]
    assert 90 <= median(lengths) <= 150
    assert 5 <= sum(length > 400 for length in lengths) <= 30
    texts = [text for split in corpus.dataset.values() for text in split["text"]]
    headers = {line.strip() for text in texts for line in text.splitlines() if line.rstrip().endswith(":")}
    assert headers == HEADERS
    assert all("[**" in text and "Brief Hospital Course:" in text for text in texts)
    # Tags are closed, and every slot of every template is filled.
    assert not any("**" in re.sub(r"\[\*\*[^\]]*\*\*\]", "", text) or re.search(r"[{}]", text) for text in texts)
    assert len(set(texts)) == len(texts)


def test_titles_are_not_in_the_notes_but_wordings_are(corpus):
    for split in ("train", "test"):
        assert look_up(corpus.dataset[split], lambda code: [code.title.split(",")[0]])[1] < 0.05
    precision, recall = look_up(corpus.dataset["test"], lambda code: code.forms + code.test_forms)
    # All but the misspelt ones are found; about as many mentions are denied or of other people.
    assert recall > 0.9
    assert 0.4 < precision < 0.8


def test_some_wordings_are_in_test_notes_only(corpus):
    for split in ("train", "validation"):
        assert look_up(corpus.dataset[split], lambda code: code.test_forms)[0] == 0
        assert not any(
            mentions(form, text)
            for code in demo_content.CODES
            for form in code.test_forms
            for text in corpus.dataset[split]["text"]
        )
    assert look_up(corpus.dataset["test"], lambda code: code.forms)[1] < 0.9


def test_mentions_of_every_kind_occur(corpus):
    texts = " ".join(" ".join(text.split()) for text in corpus.dataset["train"]["text"])
    names = "|".join(re.escape(form) for code in demo_content.CODES for form in code.forms)
    for sentence in ("denies ({})", "no evidence of ({})", "({}) was ruled out", "(?:Father with|Mother had) ({})"):
        assert len(re.findall(sentence.format(names), texts, re.IGNORECASE)) > 5, sentence
    known = set(re.findall("[a-z]{7,}", Path(demo_content.__file__).read_text(encoding="utf-8")))
    misspelt = set(re.findall(r"\b[a-z]{7,}\b", texts)) - known
    assert 50 < len(misspelt) < 400


def test_the_corpus_says_how_its_notes_mention_codes(corpus):
    gold = {(row["note_id"], code) for rows in corpus.dataset.values() for row in rows for code in row["codes"]}
    counts = Counter(corpus.mentions.values())
    assert set(counts) == set(demo.MENTIONS) and counts["misspelling"] > 30 and counts["of a relative"] > 100
    texts = {row["note_id"]: row["text"] for rows in corpus.dataset.values() for row in rows}
    # A few admissions of the tables are in no split.
    known = {pair: mention for pair, mention in corpus.mentions.items() if pair[0] in texts}
    denied = {pair for pair, mention in known.items() if mention in ("negated", "of a relative")}
    assert set(known) - denied == gold and not denied & gold
    forms = {code.code: code.forms + code.test_forms for code in demo_content.CODES}
    for (note_id, code), mention in known.items():
        found = {form for form in forms[code] if mentions(form, texts[note_id])}
        if mention in ("synonym", "finding", "abbreviation"):
            assert found, (code, mention)
        if mention == "abbreviation":
            assert found & demo_content.ABBREVIATIONS, code
    assert {form for all in forms.values() for form in all} >= demo_content.ABBREVIATIONS | demo_content.MISSPELT


def test_some_codes_are_named_in_an_addendum_only(corpus):
    wordings = {code.code: code.forms + code.test_forms for code in demo_content.CODES}
    only = 0
    for row in corpus.dataset["train"]:
        report, _, addendum = row["text"].partition("\t")
        for code in row["codes"] if addendum else ():
            named = [any(mentions(form, part) for form in wordings[code]) for part in (report, addendum)]
            only += named == [False, True]
    assert only >= 3


def test_tables_of_wordings():
    codes = demo_content.CODES
    assert 55 <= len(codes) <= 65
    assert sum(code.kind == "procedure" for code in codes) == 8
    for code in codes:
        assert len(code.forms) in (3, 4) and len(code.test_forms) == 2
        for other in codes:
            # A wording names one code, and one of the test split is not hidden in one of the training split.
            clashing = other.forms if other is code else other.forms + other.test_forms
            for form in code.test_forms if other is code else code.forms + code.test_forms:
                assert not any(mentions(form, text) for text in clashing), (code.code, form, other.code)
    sentences = (
        *demo_content.FILLERS,
        *demo_content.COURSE_FILLERS,
        *demo_content.OPENINGS,
        *demo_content.COMPLAINTS,
        *demo_content.SOCIAL,
        *demo_content.EXAM,
        *demo_content.LAB_LINES,
        *demo_content.MEDICATIONS,
        *demo_content.CONDITIONS,
        *demo_content.INSTRUCTIONS,
    )
    for code in codes:
        for form in code.forms + code.test_forms:
            assert not any(mentions(form, sentence) for sentence in sentences), (code.code, form)


def test_same_seed_same_bytes(raw, tmp_path):
    assert digest(raw) == DIGEST
    write_demo_files(tmp_path / "again", seed=0)
    assert digest(tmp_path / "again") == digest(raw)
    write_demo_files(tmp_path / "other", seed=1)
    assert digest(tmp_path / "other") != digest(raw)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_have_the_same_codes(tmp_path, seed):
    other = load_corpus("demo", cache_dir=tmp_path, seed=seed)
    assert training_counts(other) == {code.code: code.train_notes for code in sorted(demo_content.CODES)}


def test_raw_files_are_as_odd_as_the_real_ones(raw):
    notes = rows(raw, "NOTEEVENTS")
    summaries = [note for note in notes if note["CATEGORY"] == "Discharge summary"]
    assert {"Nursing", "Radiology"} <= {note["CATEGORY"] for note in notes}
    assert [note["ROW_ID"] for note in notes] == [str(number) for number in range(1, len(notes) + 1)]
    assert {note["DESCRIPTION"] for note in summaries} == {"Report", "Addendum"}
    assert sum(not note["HADM_ID"] for note in summaries) == 3
    assert sum(not note["HADM_ID"] for note in notes) > 20
    assert any('"' in note["TEXT"] for note in summaries)
    first = {}
    for place, note in enumerate(summaries):
        assert note["HADM_ID"] == "" or (note["DESCRIPTION"] == "Report") == (note["HADM_ID"] not in first)
        first.setdefault(note["HADM_ID"], place)
    apart = [
        place - first[note["HADM_ID"]] for place, note in enumerate(summaries) if note["DESCRIPTION"] == "Addendum"
    ]
    assert len(apart) > 10
    assert max(apart) > 10
    labels = [(row["HADM_ID"], row["ICD9_CODE"]) for row in rows(raw, "DIAGNOSES_ICD")]
    assert max(Counter(labels).values()) > 1
    assert any(not hadm_id for hadm_id, _ in labels)
    assert any(not code for _, code in labels)
    assert {"0389", "042", "E8889", "V5861"} <= {code for _, code in labels}
    assert "0407" in {row["ICD9_CODE"] for row in rows(raw, "PROCEDURES_ICD")}


def test_patients_and_admissions_are_disjoint(raw):
    subjects = {note["HADM_ID"]: note["SUBJECT_ID"] for note in rows(raw, "NOTEEVENTS")}
    splits = [
        (raw / f"{split}_full_hadm_ids.csv").read_text(encoding="utf-8").split() for split in ("train", "dev", "test")
    ]
    assert [len(split) for split in splits] == [320, 120, 160]
    patients = [{subjects[hadm_id] for hadm_id in split} for split in splits]
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert len(patients[0]) < 320, "no patient comes twice"


def test_builder_reads_what_the_csv_module_reads(raw, corpus):
    texts, codes = {}, {}
    for note in rows(raw, "NOTEEVENTS"):
        if note["CATEGORY"] == "Discharge summary" and note["HADM_ID"]:
            texts.setdefault(note["HADM_ID"], []).append(note["TEXT"])
    for table in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        for row in rows(raw, table):
            if row["ICD9_CODE"] and row["ICD9_CODE"] not in codes.setdefault(row["HADM_ID"], []):
                codes[row["HADM_ID"]].append(row["ICD9_CODE"])
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        ids = (raw / f"{name}_full_hadm_ids.csv").read_text(encoding="utf-8").split()
        read = corpus.dataset[split]
        assert list(read["note_id"]) == ids
        assert list(read["text"]) == ["\t".join(texts[hadm_id]) for hadm_id in ids]
        assert [[code.replace(".", "") for code in row] for row in read["codes"]] == [codes[hadm_id] for hadm_id in ids]
    joined = [text for text in corpus.dataset["train"]["text"] if "\t" in text]
    assert len(joined) > 5


def test_data_dir_is_read_and_never_stale(raw, corpus, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "raw")
    load = lambda: load_corpus("demo", data_dir=folder, cache_dir=tmp_path / "cache")  # noqa: E731
    assert list(load().dataset["test"]) == list(corpus.dataset["test"])
    path = folder / "NOTEEVENTS.csv"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"History of Present Illness:", b"History Of Present Illness:"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "History Of Present" in load().dataset["test"]["text"][0]
    (folder / "dev_full_hadm_ids.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_dir=.*lacks dev_full_hadm_ids\.csv"):
        load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"NOTEEVENTS\.csv"):
        load()
    with pytest.raises(FileNotFoundError, match=r"data_dir='nowhere' is no folder"):
        load_corpus("demo", data_dir="nowhere")


def test_a_changed_generator_writes_again(tmp_path, monkeypatch):
    names = [Path(source).name for source in demo._sources()]
    assert names == ["demo.py", "demo_content.py", "physionet.py", "mimic_tables.py", "csv_tables.py", "code_set.py"]
    source = Path(shutil.copy(demo_content.__file__, tmp_path / "demo_content.py"))
    monkeypatch.setattr(demo, "_sources", lambda: [source])
    load = lambda: load_corpus("demo", cache_dir=tmp_path / "cache").dataset["train"]["text"][0]  # noqa: E731
    text = load()
    monkeypatch.setattr(demo_content, "SERVICES", ("RADIOLOGY",))
    assert load() == text, "the cache was not used at all"
    source.write_text(source.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert "Service: RADIOLOGY" in load()


def test_raw_files_are_written_once_and_completed_again(tmp_path):
    builder = Demo(cache_dir=str(tmp_path))
    written = Path(builder.raw_dir)
    stamp = (written / "NOTEEVENTS.csv").stat().st_mtime_ns
    assert Path(Demo(cache_dir=str(tmp_path)).raw_dir) == written
    assert (written / "NOTEEVENTS.csv").stat().st_mtime_ns == stamp
    assert [path.name for path in written.parent.iterdir()] == [written.name], "scratch folders were left"
    shutil.rmtree(written)
    assert (Path(builder.raw_dir) / "NOTEEVENTS.csv").is_file()
    assert Demo(seed=1, cache_dir=str(tmp_path)).raw_dir != builder.raw_dir


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="no option language; it has: seed"):
        load_corpus("demo", language="en")
    for seed in ("0", 1.5, None, True):
        with pytest.raises(TypeError, match=r"seed=.*whole number"):
            load_corpus("demo", cache_dir=tmp_path, seed=seed)


def test_examples_of_the_docstrings():
    assert doctest.testmod(kept_hf.corpora).failed == 0
