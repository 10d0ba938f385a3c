"""The public preprocessing's reading of MIMIC-III's codes, and its 50 codes."""

import json
import logging
import random

import pytest
from test_corpora_mimic3 import COLUMNS, write_table
from test_dataset_scripts import run

from kept_hf.corpora import load_corpus
from kept_hf.corpora.mimic3_published import PUBLISHED_50, read_published_codes
from kept_hf.corpora.physionet import read_admissions
from kept_hf.models.code_set import ICDCodeSet
from kept_hf.models.processing_kept import KeptProcessor
from kept_hf.models.published import KEPT_50_PROMPT_ORDER

PIECE = 1 << 17
"""Rows of five columns that pandas guesses the type of together."""


def numbers(texts, kind):
    """The texts as numbers; None if one is not. A gap is no whole number."""
    try:
        return [kind(text or "nan") for text in texts]
    except ValueError:
        return None


def guess(values):
    """What pandas makes of a column of text, told from what it documents: numbers where a piece holds nothing else."""
    pieces = []
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE]
        pieces.append(numbers(piece, int) or numbers(piece, float) or [text or float("nan") for text in piece])
    # A column of whole and broken numbers only is one of broken numbers.
    if {type(value) for piece in pieces for value in piece} == {int, float}:
        pieces = [[float(value) for value in piece] for piece in pieces]
    return [value for piece in pieces for value in piece]


def published_labels(diagnoses, procedures, with_summary):
    """The two notebooks, step by step; rows are (patient, admission, code)."""
    rows = []
    for table, procedure in ((diagnoses, False), (procedures, True)):
        for (patient, admission, _), value in zip(table, guess([code for *_, code in table]), strict=True):
            code = str(value).replace(".", "")
            place = 2 if procedure else 4 if code[0] == "E" else 3
            if procedure or len(code) > place:
                code = code[:place] + "." + code[place:]
            rows.append((patient, admission, "" if code == "nan" else code))
    rows = [row for row in rows if row[1] in with_summary]
    for is_sorted in (False, True):
        if is_sorted:
            rows = sorted(rows, key=lambda row: row[:2])
        guessed = guess([code for *_, code in rows])
        rows = [(*row[:2], "" if value != value else str(value)) for row, value in zip(rows, guessed, strict=True)]
    labels = {}
    for _, admission, code in rows:
        labels.setdefault(str(admission), []).extend([code] if code else [])
    return labels


def write_codes(folder, diagnoses, procedures):
    for name, rows in (("DIAGNOSES_ICD", diagnoses), ("PROCEDURES_ICD", procedures)):
        lines = [
            f'{patient},{admission},1,"{code}"' if code else f"{patient},{admission},1,"
            for patient, admission, code in rows
        ]
        write_table(folder, name, "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE", lines)


def draw(generator, codes, number):
    admissions = [(admission % 97 + 3, 100_000 + admission) for admission in range(2_000)]
    chosen = zip(generator.choices(admissions, k=number), generator.choices(codes, k=number), strict=True)
    return [(*admission, code) for admission, code in chosen]


def test_codes_lose_zeros_and_fall_in_two_as_published(tmp_path):
    """As in MIMIC-III: one piece ends with diagnoses and begins with procedures, the next has procedures only."""
    generator = random.Random(1)
    diagnoses = draw(generator, ["0389", "25000", "4019", "311", "E8889", "V5861", ""], PIECE - 9_000)
    procedures = draw(generator, ["0066", "0407", "9390", "3893", "966", "0045", "3723"], 60_000)
    write_codes(tmp_path, diagnoses, procedures)
    with_summary = {admission for _, admission, _ in diagnoses if admission % 10}
    labels = read_published_codes(tmp_path, map(str, with_summary))
    assert labels == published_labels(diagnoses, procedures, with_summary)
    found = {code for codes in labels.values() for code in codes}
    assert {"66.", "66.0", "40.7", "93.90", "93.9", "38.93", "96.6", "45.", "45.0", "37.23"} <= found
    assert {"038.9", "250.00", "401.9", "311", "E888.9", "V58.61"} <= found
    assert found.isdisjoint({"00.66", "04.07", "00.45", "", "nan"})
    # What is not rewritten is the same as in a reading of text.
    text = read_admissions(tmp_path)
    for admission, codes in labels.items():
        assert [code for code in codes if code in PUBLISHED_50] == [
            code for code in text[admission].codes if code in PUBLISHED_50
        ]


@pytest.mark.parametrize(
    ("diagnosis_codes", "procedure_codes", "number"),
    [
        (["0389", "4019", "25000"], ["0407", "9390"], 40),  # digits only: diagnoses lose their zeros, too
        (["0389", "4019", ""], ["0407", "9390", ""], 40),  # numbers with a gap are broken numbers
        (["0389", "4019"], ["0407", "9390", ""], PIECE + 40),  # the second piece of diagnoses is unlike the first
        (["V5861", ""], ["0066"], 40),
    ],
)
def test_other_tables_are_guessed_as_pandas_does(tmp_path, diagnosis_codes, procedure_codes, number):
    generator = random.Random(2)
    diagnoses, procedures = draw(generator, diagnosis_codes, number), draw(generator, procedure_codes, 40)
    diagnoses += draw(generator, ["E8889"], 3 if number > 40 else 0)
    write_codes(tmp_path, diagnoses, procedures)
    with_summary = {admission for _, admission, _ in diagnoses + procedures}
    assert read_published_codes(tmp_path, map(str, with_summary)) == published_labels(
        diagnoses, procedures, with_summary
    )


@pytest.fixture
def tables(tmp_path):
    """The published 50 codes, of which 37.23 is on fewer notes than 93.90 is, and a note with none of them."""
    folder = tmp_path / "tables"
    folder.mkdir()
    rows = {"DIAGNOSES_ICD": [], "PROCEDURES_ICD": []}
    notes = []
    for number in range(60):
        patient, admission = number + 1, 100_000 + number
        notes.append(f'{patient},{admission},,,,"Discharge summary","Report",,,"Note of {patient}"')
        codes = [] if number == 7 else [code for code in PUBLISHED_50 if code != "37.23" or number < 3]
        for code in [*codes, *(["93.90"] if number > 4 else []), "00.66"]:
            is_procedure = len(code.partition(".")[0]) == 2
            rows["PROCEDURES_ICD" if is_procedure else "DIAGNOSES_ICD"].append(
                (patient, admission, code.replace(".", ""))
            )
    write_table(folder, "NOTEEVENTS", COLUMNS, notes)
    # 00.66 is on every note: in its place.
    write_codes(
        folder, rows["DIAGNOSES_ICD"], [row for row in rows["PROCEDURES_ICD"] if row[2] != "0066" or row[0] == 8]
    )
    for config in ("full", "50"):
        for split, part in (("train", range(40)), ("dev", range(40, 50)), ("test", range(50, 60))):
            listed = "".join(f"{100_000 + number}\n" for number in part)
            (folder / f"{split}_{config}_hadm_ids.csv").write_text(listed)
    return folder


def load(tables, tmp_path, config="50", **options):
    return load_corpus("mimic3", data_dir=tables, cache_dir=tmp_path / "cache", config=config, **options)


def test_50_has_the_published_codes(tables, tmp_path, caplog, tokenizer):
    corpus = load(tables, tmp_path)
    assert corpus.code_set.codes == PUBLISHED_50 == tuple(sorted(KEPT_50_PROMPT_ORDER))
    assert {split: len(rows) for split, rows in corpus.dataset.items()} == {"train": 39, "validation": 10, "test": 10}
    assert "100007" not in corpus.dataset["train"]["note_id"], "none of the codes"
    assert all(
        set(row["codes"]) == set(PUBLISHED_50) - ({"37.23"} if int(row["note_id"]) > 100_002 else set())
        for row in corpus.dataset["train"]
    )
    assert (
        "The 50 codes that these tables list most often are not the 50 published ones: the count has 93.90, and lacks "
        "37.23. The published ones are taken; recount_codes=True takes the count."
    ) in caplog.text
    # So the released 50-code checkpoint can be used.
    processor = KeptProcessor(tokenizer, corpus.code_set, prompt_order=KEPT_50_PROMPT_ORDER)
    assert len(processor.code_set) == 50


def test_the_count_is_an_option(tables, tmp_path, caplog):
    corpus = load(tables, tmp_path, recount_codes=True)
    assert set(corpus.code_set) == set(PUBLISHED_50) - {"37.23"} | {"93.90"}
    assert (
        "the count has 93.90, and lacks 37.23. recount_codes=True takes the count: figures do not compare"
        in caplog.text
    )
    assert "50 most frequent" in corpus.card.summary
    # Counted as published, the codes are the published ones where the tables have these.
    run(
        "mimic3",
        "--data_dir",
        tables,
        "--config",
        "50",
        "--recount_codes",
        "--out",
        tmp_path / "out",
        "--cache_dir",
        tmp_path / "cache",
    )
    assert ICDCodeSet.from_json(tmp_path / "out" / "50" / "code_set.json").codes == corpus.code_set.codes


def test_a_published_code_that_no_note_carries_stays(tables, tmp_path, caplog):
    path = tables / "DIAGNOSES_ICD.csv"
    path.write_text("".join(line for line in path.open() if '"4019"' not in line))
    assert load(tables, tmp_path).code_set.codes == PUBLISHED_50
    assert "1 of the 50 published codes are on no note: 401.9. Are these the notes of MIMIC-III v1.4?" in caplog.text


def test_full_as_published(tables, tmp_path, caplog):
    ours = load(tables, tmp_path, config="full")
    assert "00.66" in ours.code_set and "93.90" in ours.code_set
    assert "published_reading" not in caplog.text
    published = load(tables, tmp_path, config="full", published_reading=True)
    labels = read_published_codes(tables, [str(100_000 + number) for number in range(60)])
    for rows in published.dataset.values():
        assert {row["note_id"]: row["codes"] for row in rows} == {
            hadm_id: list(dict.fromkeys(labels[hadm_id])) for hadm_id in rows["note_id"]
        }
    assert "66." in published.code_set and "00.66" not in published.code_set
    assert (
        "published_reading: 1 of 60 admissions have other codes than the tables; 52 codes became 52 labels."
        in caplog.text
    )


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        ("full", "recount_codes", "recount_codes=True is an option of config='50', not of config='full'; leave it out"),
        ("rare50", "published_reading", "published_reading=True has no effect on config='rare50'.* repair_codes=False"),
    ],
)
def test_options_without_effect_are_refused(tables, tmp_path, config, option, message):
    with pytest.raises(ValueError, match=message):
        load(tables, tmp_path, config=config, **{option: True})


def test_json_files_cannot_be_recounted(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"mimic3-50_{split}.json").write_text("[]")
    with pytest.raises(ValueError, match=r"recount_codes=True, but data_dir=.* has no NOTEEVENTS: KEPT's JSON files"):
        load(tmp_path, tmp_path, recount_codes=True)


def test_the_published_codes_are_reported_by_the_logger_of_the_package(tables, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        load(tables, tmp_path)
    assert [record.levelname for record in caplog.records if "most often" in record.getMessage()] == ["WARNING"]


def test_other_codes_of_json_files_are_left_out_with_a_warning(tmp_path, caplog):
    for number, split in enumerate(("train", "dev", "test"), start=1):
        entry = {"subject_id": str(number), "hadm_id": str(number), "LABELS": "93.90;401.9", "TEXT": "Note"}
        (tmp_path / f"mimic3-50_{split}.json").write_text(json.dumps([entry]))
    corpus = load(tmp_path, tmp_path)
    assert corpus.dataset["train"][0]["codes"] == ["401.9"] and corpus.code_set.codes == PUBLISHED_50
    assert "have 1 codes that are not among the published 50, such as 93.90: they are left out." in caplog.text
