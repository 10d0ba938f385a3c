import pytest
import torch
from datasets import Dataset

from kept_hf import ICDCodeSet, MSMNTokenizer
from kept_hf.training.collators import DataCollatorForMSMN
from kept_hf.training.msmn import note_rows


@pytest.fixture
def msmn_rows():
    tokenizer = MSMNTokenizer.from_texts(["fever and cough"], min_count=1)
    return DataCollatorForMSMN(tokenizer, num_labels=4), [dict(tokenizer("Fever")), dict(tokenizer("A fever, cough"))]


def test_msmn_labels(msmn_rows):
    collator, rows = msmn_rows
    for labels in ([3, 1], torch.tensor([1, 3]), [1.0, 3.0]):
        batch = collator([rows[0] | {"labels": labels}, rows[1] | {"labels": []}])
        assert batch["labels"].tolist() == [[0, 1, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0.0, 1.0, 1.0, 0.0], [True, False, True, True], [2, 2]])
def test_msmn_wants_no_multi_hot_rows(msmn_rows, labels):
    collator, rows = msmn_rows
    with pytest.raises(ValueError, match=r"labels of a row has \d entries, some of them equal; pass the places"):
        collator([rows[0] | {"labels": labels}])


@pytest.mark.parametrize("place", [-1, -100, 4])
def test_msmn_labels_outside_the_code_set(msmn_rows, place):
    collator, rows = msmn_rows
    with pytest.raises(ValueError, match=f"labels has {place}; pass places in the code set, 0 to 3"):
        collator([rows[0] | {"labels": [place]}])


def test_msmn_without_labels(msmn_rows):
    collator, rows = msmn_rows
    assert "labels" not in collator(rows) and "labels" not in collator([row | {"labels": None} for row in rows])
    with pytest.raises(ValueError, match="labels stand in 1 of 2 rows; pass them in all rows, or in none"):
        collator([rows[0] | {"labels": [1]}, rows[1]])


def test_msmn_rows_name_each_code_once():
    """Two notes of the published rare50 carry a code twice."""
    tokenizer = MSMNTokenizer.from_texts(["fever and cough"], min_count=1)
    notes = Dataset.from_dict({"text": ["Fever"], "codes": [["R05", "I10", "R05"]]})
    rows = note_rows(notes, tokenizer, ICDCodeSet(["I10", "R05"]))
    assert DataCollatorForMSMN(tokenizer, 2)(list(rows))["labels"].tolist() == [[1, 1]]
