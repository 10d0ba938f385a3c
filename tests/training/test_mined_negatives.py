"""Late interaction asks about the codes that it takes for those of a note."""

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting
from kept_hf.training import mined_negatives
from kept_hf.training.arguments import DataArguments
from kept_hf.training.checks import check_negatives
from kept_hf.training.mined_negatives import MinedNegatives
from kept_hf.training.rows import prompt_rows

TEXTS = ["fever and cough", "admitted with sepsis and acute kidney failure, treated", "atrial fibrillation"]
GOLD = [["401.9"], ["038.9", "584.9"], ["V45.81"]]


@pytest.fixture
def rows(matching_processor):
    notes = Dataset.from_dict({"text": TEXTS, "codes": GOLD})
    return prompt_rows(notes, matching_processor, sampled_codes=2, draws=2)


@pytest.fixture
def mined(matching_processor, rows, monkeypatch):
    monkeypatch.setattr(mined_negatives, "MOST_SIMILAR", 4)
    return MinedNegatives(matching_processor, rows, number=2, seed=3, batch_size=2)


def expected_codes(model, processor):
    """The four best codes of each note, note by note."""
    codes = model.encode_codes(processor.code_blocks())
    ids = (torch.tensor([processor(text)["input_ids"]]) for text in TEXTS)
    return [set(model.score(model.encode_note(note), codes)[0].topk(4).indices.tolist()) for note in ids]


def test_the_most_similar_codes_of_each_note(mined, matching_model, matching_processor):
    matching_model.train()
    found = mined.search(matching_model)
    assert matching_model.training, "the mode is as before"
    expected = expected_codes(matching_model.eval(), matching_processor)
    assert [set(of_note) for of_note in found.tolist()] == expected
    assert list(map(len, found)) == [4, 4, 4], "of two rows of a note one is searched"


def test_draws_depend_on_epoch_and_note(mined, matching_model):
    assert mined.draw(0) == [], "nothing has been searched"
    found = mined._found = mined.search(matching_model)
    drawn = {}
    for epoch in range(1, 9):
        mined._epoch = epoch
        drawn[epoch] = [mined.draw(note) for note in range(3)]
        assert drawn[epoch] == [mined.draw(note) for note in range(3)]
        assert all(len(set(codes) & set(found[note].tolist())) == 2 for note, codes in enumerate(drawn[epoch]))
    assert len({str(codes) for codes in drawn.values()}) > 4
    assert mined.draw(17) == [], "a note of another split"


def test_batches_ask_about_them_with_the_right_labels(mined, matching_model, matching_processor, rows):
    mined._found, mined._epoch = mined.search(matching_model), 1
    batch = DataCollatorForICDPrompting(matching_processor, in_batch_negatives=True, mined_negatives=mined)([*rows])
    without = DataCollatorForICDPrompting(matching_processor, in_batch_negatives=True)([*rows])
    drawn = {code for note in range(3) for code in mined.draw(note)}
    asked = batch["label_codes"][0].tolist()
    assert asked == sorted({*without["label_codes"][0].tolist(), *drawn}) and len(drawn) > 2
    codes = matching_processor.code_set.codes
    for note, labels in zip(batch["label_notes"].tolist(), batch["labels"].tolist(), strict=True):
        assert labels == [int(codes[code] in GOLD[note]) for code in asked]


def test_the_stock_trainer_searches_from_the_second_epoch_on(mined, matching_model, matching_processor, rows, tmp_path):
    collator = DataCollatorForICDPrompting(matching_processor, in_batch_negatives=True, mined_negatives=mined)
    asked, states = [], []

    def watched(features):
        batch = collator(features)
        asked.append((mined._epoch, set(batch["label_codes"][0].tolist())))
        return batch

    search = mined.search
    mined.search = lambda model: states.append(model.training) or search(model)
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=3, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(matching_model, arguments, data_collator=watched, train_dataset=rows, callbacks=[mined]).train()
    assert len(states) == 2, "at the beginning of two epochs"
    by_epoch = [sum(len(codes) for epoch, codes in asked if epoch == number) for number in range(3)]
    assert len(asked) == 9 and by_epoch[0] < min(by_epoch[1:])


def test_errors(matching_processor, rows):
    with pytest.raises(ValueError, match="number=0 is less than 1"):
        MinedNegatives(matching_processor, rows, number=0)
    with pytest.raises(ValueError, match="pass rows of prompt_rows"):
        MinedNegatives(matching_processor, rows.remove_columns("label_notes"), number=2)
    for data in (DataArguments(mined_negatives=3), DataArguments(mined_negatives=-1)):
        with pytest.raises(ValueError, match="are further codes of a batch"):
            check_negatives(data, "matching")
    check_negatives(DataArguments(mined_negatives=3, in_batch_negatives=True, sampled_codes=4), "matching")
