import hashlib
import logging
from collections import Counter

import datasets
import pytest
from test_corpora_codiesp import real_codiesp

from kept_hf.corpora import Corpus, CorpusCard, load_corpus
from kept_hf.corpora.selection import RULES, select_codes, training_counts
from kept_hf.models.code_set import ICDCodeSet


def make_corpus(descriptions=None, **splits):
    """A corpus from lists of codes per note; each code also gets a span of evidence."""
    features = datasets.Features(
        {
            "note_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "codes": datasets.List(datasets.Value("string")),
            "evidence": datasets.List({"code": datasets.Value("string"), "start": datasets.Value("int32")}),
        }
    )
    made = {}
    for split, notes in splits.items():
        rows = [
            {
                "note_id": f"{split}-{index}",
                "text": f"text {index}",
                "codes": codes,
                "evidence": [{"code": code, "start": index} for code in codes],
            }
            for index, codes in enumerate(notes)
        ]
        made[split] = datasets.Dataset.from_list(rows, features=features)
    codes = sorted({code for notes in splits.values() for note in notes for code in note})
    card = CorpusCard("Title", "Summary", "Source", "cc-by-4.0", "en", {})
    return Corpus(datasets.DatasetDict(made), ICDCodeSet(codes, descriptions), card)


def many_codes():
    """Codes with every training count from 1 to 14 and validation counts from 0 to 3."""
    train, validation = [], []
    for number in range(140):
        code = f"{100 + number}.{number % 10}"
        train += [[code] for _ in range(1 + number % 14)]
        validation += [[code] for _ in range(number // 14 % 4)]
    return make_corpus(train=[*train, []], validation=validation, test=[["100.0"], ["131.1", "100.0"], []])


def test_training_counts_count_notes():
    corpus = make_corpus(train=[["401.9", "401.9"], ["401.9", "038.9"]], test=[["V58.61", "401.9"]])
    assert training_counts(corpus) == {"038.9": 1, "401.9": 2, "V58.61": 0}


def test_all_changes_nothing():
    corpus = make_corpus(train=[["401.9"], []], test=[["038.9"]])
    selected = select_codes(corpus, "all")
    assert selected.code_set.codes == ("038.9", "401.9")
    assert len(selected.dataset["train"]) == 2


def test_rare50_follows_its_rule():
    corpus = many_codes()
    train = Counter(code for codes in corpus.dataset["train"]["codes"] for code in codes)
    validation = Counter(code for codes in corpus.dataset["validation"]["codes"] for code in codes)
    eligible = [code for code in corpus.code_set if 4 <= train[code] <= 10 and validation[code] >= 2]
    assert {train[code] for code in eligible} == set(range(4, 11))
    few = select_codes(corpus, "rare50")
    assert list(few.code_set) == sorted(eligible)
    # Twice as many eligible codes: the hash decides.
    doubled = make_corpus(
        **{
            split: [*notes, *[[f"V{code}" for code in codes] for codes in notes]]
            for split, notes in ((split, rows["codes"]) for split, rows in corpus.dataset.items())
        }
    )
    eligible += [f"V{code}" for code in eligible]
    assert len(eligible) > 50
    expected = sorted(sorted(eligible, key=lambda code: hashlib.sha256(code.encode()).hexdigest())[:50])
    assert list(select_codes(doubled, "rare50").code_set) == expected


def test_top50_takes_the_most_frequent_and_breaks_ties_by_code():
    # 49 codes twice, then a tie of three for the last place; a code of the test split alone is never taken.
    codes = [f"{100 + number}" for number in range(52)]
    train = [[code] for code in codes[:49] for _ in range(2)] + [[code] for code in reversed(codes[49:])]
    selected = select_codes(make_corpus(train=train, test=[["001"], ["149"], ["150"]]), "top50")
    assert list(selected.code_set) == codes[:50]
    assert selected.dataset["test"]["codes"] == [["149"]]


def test_notes_and_labels_are_restricted():
    corpus = many_codes()
    selected = select_codes(corpus, "rare50")
    kept = set(selected.code_set)
    for split, rows in corpus.dataset.items():
        expected = [
            {
                **row,
                "codes": [code for code in row["codes"] if code in kept],
                "evidence": [span for span in row["evidence"] if span["code"] in kept],
            }
            for row in rows
            if kept & set(row["codes"])
        ]
        assert list(selected.dataset[split]) == expected
        assert selected.dataset[split].features == rows.features
    assert len(corpus.dataset["train"]["codes"][-1]) == 0, "the corpus passed in was changed"


def test_a_file_keeps_its_order_and_what_is_known_of_the_codes(tmp_path, caplog):
    corpus = make_corpus({"401.9": "Hypertension"}, train=[["401.9", "038.9"], ["428.0"]], validation=[["428.0"]])
    path = tmp_path / "codes.txt"
    path.write_text("401.9\n\n 038.9 \n")
    selected = select_codes(corpus, path)
    assert selected.code_set.codes == ("401.9", "038.9")
    assert selected.code_set.describe("401.9") == "Hypertension"
    assert {split: len(rows) for split, rows in selected.dataset.items()} == {"train": 1}
    assert "No note of the split validation" in caplog.text
    assert select_codes(corpus, str(path)).code_set == selected.code_set


def test_selecting_twice(tmp_path):
    (tmp_path / "two").write_text("401.9\n038.9\n")
    (tmp_path / "one").write_text("038.9\n")
    corpus = make_corpus(train=[["428.0"], ["401.9"], ["038.9", "401.9"]])
    selected = select_codes(select_codes(corpus, tmp_path / "two"), tmp_path / "one")
    assert list(selected.dataset["train"]["note_id"]) == ["train-2"]
    assert selected.dataset["train"][0]["codes"] == ["038.9"]


def test_bad_rules(tmp_path):
    corpus = make_corpus(train=[["401.9"]], validation=[["401.9"]])
    with pytest.raises(ValueError, match=rf"rule='rare5'.*{', '.join(RULES)}.*file"):
        select_codes(corpus, "rare5")
    path = tmp_path / "codes"
    path.write_text("401.9\n38.9\n999\n")
    with pytest.raises(ValueError, match=r"does not have: '38\.9', '999'\."):
        select_codes(corpus, path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no code"):
        select_codes(corpus, path)
    path.write_text("401.9\n401.9\n")
    with pytest.raises(ValueError, match=r"401\.9.*once"):
        select_codes(corpus, path)
    with pytest.raises(ValueError, match=r"rule='rare50' leaves no code"):
        select_codes(corpus, "rare50")


def test_missing_splits_are_named():
    with pytest.raises(ValueError, match=r"rule='rare50'.*'validation'.*there is: train, test"):
        select_codes(make_corpus(train=[["401.9"]], test=[["401.9"]]), "rare50")
    without_train = make_corpus(validation=[["401.9"]])
    with pytest.raises(ValueError, match=r"rule='top50'.*'train'"):
        select_codes(without_train, "top50")
    with pytest.raises(ValueError, match=r"training_counts.*'train'"):
        training_counts(without_train)
    assert len(select_codes(without_train, "all").code_set) == 1


def test_too_few_codes_are_counted_in_the_log(caplog):
    with caplog.at_level(logging.INFO):
        select_codes(make_corpus(train=[["401.9"], ["038.9"], []]), "top50")
    assert "top50 finds 2 codes here, fewer than 50" in caplog.text
    assert "train: 2 of 3 notes carry one of the 2 codes" in caplog.text


def test_rare50_of_the_real_corpus(tmp_path):
    corpus = load_corpus("codiesp", data_dir=real_codiesp(), cache_dir=tmp_path)
    selected = select_codes(corpus, "rare50")
    sizes = {split: len(rows) for split, rows in selected.dataset.items()}
    assert (sizes["train"], sizes["validation"]) == (201, 117)
    assert len(selected.code_set) == 50
    assert (selected.code_set.codes[0], selected.code_set.codes[-1]) == ("A15.0", "Z99.3")
    assert len(select_codes(corpus, "top50").code_set) == 50
