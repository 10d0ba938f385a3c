import copy

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, KeptProcessor
from kept_hf.training.evaluation import ICDMetrics
from kept_hf.training.rows import prompt_rows

FILL = {"input_ids": 1, "attention_mask": 0, "global_attention_mask": 0, "labels": -100, "label_codes": -100}


@pytest.fixture
def rows(processor):
    notes = [("Fever", 2), ("cough and sepsis " * 5, 1), ("stable", 6)]
    rows = [
        dict(processor(note, codes=list(processor.code_set)[:number], gold_codes=["401.9", "038.9"]))
        for note, number in notes
    ]
    return [{**row, "label_notes": 5, "label_codes": list(range(len(row["labels"])))} for row in rows]


@pytest.mark.parametrize("multiple", [None, 1, 7, 8, 50])
def test_padding(processor, rows, multiple):
    batch = DataCollatorForICDPrompting(processor, pad_to_multiple_of=multiple)(rows)
    assert set(batch) == {*FILL, "label_notes"} and batch["label_notes"].tolist() == [5, 5, 5]
    for name, fill in FILL.items():
        length = max(len(row[name]) for row in rows)
        if not name.startswith("label") and multiple:
            length = -(-length // multiple) * multiple
        assert batch[name].dtype == torch.int64
        assert batch[name].tolist() == [row[name] + [fill] * (length - len(row[name])) for row in rows], name
    assert batch["labels"].shape == (3, 6)
    assert batch["input_ids"].shape[1] < processor.max_length, "never to the model's maximum"


def test_rows_are_left_as_they_are(processor, rows):
    for row in rows[1:]:
        del row["label_notes"], row["label_codes"]
    before = copy.deepcopy(rows)
    DataCollatorForICDPrompting(processor)(rows)
    assert rows == before


def test_other_columns_are_left_out(processor, rows):
    for row in rows:
        row |= {"length": len(row["input_ids"]), "note_id": "a", "text": "secret"}
    assert set(DataCollatorForICDPrompting(processor)(rows)) == {*FILL, "label_notes"}


def test_without_labels(processor, rows):
    rows = [{name: value for name, value in row.items() if "label" not in name} for row in rows]
    assert set(DataCollatorForICDPrompting(processor)(rows)) == set(FILL) - {"labels", "label_codes"}


def test_rows_that_do_not_say_what_they_ask_can_be_trained_on(processor, rows):
    for row in rows:
        del row["label_notes"], row["label_codes"]
    batch = DataCollatorForICDPrompting(processor)(rows)
    assert batch["label_notes"].tolist() == [-1, -1, -1] and batch["label_codes"][0].tolist() == [-1, -1, *[-100] * 4]


def test_tokenizer_instead_of_processor(processor, rows, bert_tokenizer):
    expected = DataCollatorForICDPrompting(processor)(rows)
    got = DataCollatorForICDPrompting(processor.tokenizer)(rows)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert (DataCollatorForICDPrompting(bert_tokenizer)(rows)["input_ids"][0, -1] == bert_tokenizer.pad_token_id).all()


def test_tensors_and_dataset_rows(processor, rows):
    expected = DataCollatorForICDPrompting(processor)(rows)
    for others in (
        [{name: torch.tensor(value) for name, value in row.items()} for row in rows],
        list(Dataset.from_list(rows)),
        list(Dataset.from_list(rows).with_format("torch")),
        list(Dataset.from_list(rows).with_format("numpy")),
    ):
        got = DataCollatorForICDPrompting(processor)(others)
        assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("features,found", [([], "no rows"), ([{"text": "x", "codes": []}], "text, codes")])
def test_rows_without_input_ids(processor, features, found):
    with pytest.raises(ValueError, match=f"input_ids; got {found}.*KeptProcessor"):
        DataCollatorForICDPrompting(processor)(features)


def test_padding_does_not_change_scores(tiny_model, processor, rows):
    batch = DataCollatorForICDPrompting(processor, pad_to_multiple_of=32)(rows)
    with torch.no_grad():
        together = tiny_model(**batch)
        for index, row in enumerate(rows):
            alone = tiny_model(**DataCollatorForICDPrompting(processor)([row])).logits
            torch.testing.assert_close(together.logits[index, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)


def test_isolated_rows_train_with_the_stock_trainer(matching_model, matching_processor, tmp_path):
    model, processor = matching_model, matching_processor
    notes = Dataset.from_dict(
        {"text": ["fever", "admitted with sepsis", "cough"] * 2, "codes": [["401.9"], ["038.9"], []] * 2}
    )
    collator = DataCollatorForICDPrompting(processor)
    sampled, every = prompt_rows(notes, processor, sampled_codes=3, draws=2), prompt_rows(notes, processor)
    assert collator([*sampled])["code_indices"].shape == (12, 3)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path),
            use_cpu=True,
            max_steps=2,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=4,
            gradient_accumulation_steps=2,
            report_to="none",
        ),
        data_collator=collator,
        train_dataset=sampled,
        eval_dataset=every,
        compute_metrics=ICDMetrics(processor),
    )
    trainer.train()
    predicted = trainer.predict(every)
    assert (
        predicted.predictions.shape == predicted.label_ids[0].shape == (6, 6) and "test_f1_micro" in predicted.metrics
    )
    cache = model.eval().encode_codes(processor.code_blocks())
    ids = torch.tensor([every[1]["input_ids"]])
    scores = model.score(model.encode_note(ids), cache)
    torch.testing.assert_close(torch.tensor(predicted.predictions[1:2]), scores, rtol=0, atol=1e-5)


def test_in_batch_negatives(roberta_tokenizer, code_set):
    """The loss is that of one batch in which each note was asked about all these codes; rows that do so stay."""
    processor = KeptProcessor(roberta_tokenizer, code_set, max_length=100, prompt_layout="isolated")
    gold = [["401.9"], [code_set.codes[1]], [code_set.codes[2], "401.9"]]
    notes = Dataset.from_dict({"text": ["fever", "admitted with sepsis", "cough"], "codes": gold})
    rows = prompt_rows(notes, processor, sampled_codes=2, seed=3)
    batch = DataCollatorForICDPrompting(processor, in_batch_negatives=True)([*rows])
    codes = sorted({code for row in rows for code in row["label_codes"]})
    assert len(codes) >= 3 and batch["label_codes"].tolist() == [codes] * 3
    named = [code_set.codes[code] for code in codes]
    assert batch["labels"].tolist() == [[int(code in of_note) for code in named] for of_note in gold]
    blocks = [[*block] for block in processor.code_blocks(named).values()]
    got = batch["code_input_ids"].tolist()
    assert [row[: len(block)] for row, block in zip(got, blocks, strict=True)] == blocks
    asked = prompt_rows(notes.add_column("asked", [named] * 3), processor)
    expected = DataCollatorForICDPrompting(processor)([*asked])
    assert {name: value.tolist() for name, value in batch.items()} == {k: v.tolist() for k, v in expected.items()}
    again = DataCollatorForICDPrompting(processor, in_batch_negatives=True)([*asked.with_format("torch")])
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_isolated_rows_ask_about_all_gold_codes(roberta_tokenizer, code_set):
    processor = KeptProcessor(roberta_tokenizer, code_set, prompt_layout="isolated")
    notes = Dataset.from_dict({"text": ["fever"], "codes": [list(code_set.codes[:4])]})
    assert sorted(prompt_rows(notes, processor, sampled_codes=2)[0]["labels"]) == [1, 1, 1, 1]


def test_in_batch_negatives_need_rows_of_the_isolated_layout(processor, rows):
    with pytest.raises(ValueError, match="in_batch_negatives=True needs rows of prompt_rows"):
        DataCollatorForICDPrompting(processor, in_batch_negatives=True)(rows)


def test_isolated_rows_need_their_processor(roberta_tokenizer, code_set):
    rows = [dict(KeptProcessor(roberta_tokenizer, code_set, prompt_layout="isolated")("fever"))]
    with pytest.raises(ValueError, match="pass the KeptProcessor that made them"):
        DataCollatorForICDPrompting(roberta_tokenizer)(rows)
