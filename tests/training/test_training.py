import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, KeptProcessor
from kept_hf.metrics import best_macro_f1_threshold, best_micro_f1_threshold, icd_metrics
from kept_hf.training.callbacks import KeepEvaluationOrder
from kept_hf.training.evaluation import ICDMetrics
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import train_only

COLUMNS = {"input_ids", "attention_mask", "global_attention_mask", "labels", "length"}


@pytest.fixture
def notes():
    return Dataset.from_dict(
        {
            "note_id": ["a", "b", "c", "d"],
            "text": ["Fever", "cough " * 300, "sepsis and fever", ""],
            "codes": [["401.9"], ["038.9", "E888.9", "not in the set"], [], ["584.9"]],
        }
    )


def test_prompt_rows(notes, processor, caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf.training.rows"):
        rows = prompt_rows(notes, processor)
    assert len(rows) == 4 and set(rows.column_names) == COLUMNS
    for row, note in zip(rows, notes, strict=True):
        expected = processor(note["text"], gold_codes=note["codes"])
        assert {name: row[name] for name in expected} == dict(expected)
        assert row["length"] == len(row["input_ids"])
    assert [r.getMessage() for r in caplog.records if r.name == "kept_hf.training.rows"] == [
        "1 of 4 inputs were longer than max_length=200 tokens: 0 were reduced to their main sections, 1 lost their end."
    ]


def test_prompt_rows_in_groups(notes, processor):
    processor.codes_per_prompt = 4
    rows = prompt_rows(notes, processor)
    assert len(rows) == 8
    merged = processor.merge_logits(np.array([row["labels"] + [-100] * (4 - len(row["labels"])) for row in rows]))
    assert merged.tolist() == [processor.code_set.multi_hot(codes) for codes in notes["codes"]]


def test_prompt_rows_of_many_notes(processor):
    number = 230  # more than a batch of the map
    codes = list(processor.code_set)
    notes = Dataset.from_dict({"text": ["fever"] * number, "codes": [[codes[i % 6]] for i in range(number)]})
    assert [row["labels"].index(1) for row in prompt_rows(notes, processor)] == [i % 6 for i in range(number)]


def test_prompt_rows_with_codes_asked(processor):
    notes = Dataset.from_dict(
        {"text": ["Fever", "Cough"], "codes": [["401.9"], []], "asked": [["038.9", "401.9"], ["E888.9"]]}
    )
    rows = prompt_rows(notes, processor)
    assert rows["labels"][:] == [[0, 1], [0]]
    assert rows[0]["input_ids"] == processor("Fever", codes=["038.9", "401.9"])["input_ids"]


def asked_in(processor, row):
    """Codes of a row, read back from its text."""
    prompt = processor.tokenizer.decode(row["input_ids"]).split("<s>")[1]
    titles = {processor.code_set.describe(code).lower().split(",")[0]: code for code in processor.code_set}
    return [titles[part.strip(" ,.")] for part in prompt.split("<mask>")[: len(row["labels"])]]


def test_prompt_rows_with_sampled_codes(notes, processor):
    rows = prompt_rows(notes, processor, sampled_codes=3, draws=5, seed=1)
    assert len(rows) == 20
    different = set()
    for index, row in enumerate(rows):
        asked = asked_in(processor, row)
        gold = notes[index // 5]["codes"]
        assert len(asked) == len(set(asked)) == 3
        assert row["labels"] == [int(code in gold) for code in asked]
        assert set(gold) & set(processor.code_set) <= set(asked), "all gold codes are asked"
        different.add((index // 5, tuple(asked)))
    assert len(different) > 12
    again = prompt_rows(notes, processor, sampled_codes=3, draws=5, seed=1)
    assert again["input_ids"][:] == rows["input_ids"][:]
    other = prompt_rows(notes, processor, sampled_codes=3, draws=5, seed=2)
    assert other["input_ids"][:] != rows["input_ids"][:]


def test_threshold_metric(processor):
    generator = np.random.default_rng(4)
    labels = (generator.random((60, 6)) < [0.6, 0.5, 0.1, 0.1, 0.1, 0.1]).astype(int)
    scores = (generator.normal(size=(60, 6)) + 2 * labels + [2, 1, 0, 0, 0, 0]).astype(np.float32)
    found = {}
    for metric in ("f1_micro", "f1_macro"):
        found[metric] = ICDMetrics(processor, metric)(EvalPrediction(scores, labels))
    assert found["f1_macro"]["threshold"] == best_macro_f1_threshold(scores, labels)
    assert found["f1_micro"] == ICDMetrics(processor)(EvalPrediction(scores, labels))
    assert found["f1_macro"]["f1_macro"] > found["f1_micro"]["f1_macro"]
    assert found["f1_macro"]["f1_micro"] < found["f1_micro"]["f1_micro"]
    with pytest.raises(ValueError, match="threshold_metric='f1' is unknown; pass one of f1_micro, f1_macro"):
        ICDMetrics(processor, "f1")


def test_prompt_rows_without_notes(notes, processor):
    with pytest.raises(ValueError, match="no rows"):
        prompt_rows(notes.select([]), processor)


@pytest.mark.parametrize("codes_per_prompt", [None, 4])
def test_icd_metrics(roberta_tokenizer, code_set, codes_per_prompt):
    generator = np.random.default_rng(0)
    labels = (generator.random((30, 6)) < 0.3).astype(int)
    scores = (generator.normal(size=(30, 6)) + labels).astype(np.float32)
    threshold = best_micro_f1_threshold(scores, labels)
    expected = {**icd_metrics(scores, labels, threshold=threshold), "threshold": threshold}
    processor = KeptProcessor(roberta_tokenizer, code_set, codes_per_prompt=codes_per_prompt)
    if codes_per_prompt:
        grouped = []
        for values in (scores, labels):
            rows = np.full((60, 4), -100, dtype=values.dtype)
            rows[0::2], rows[1::2, :2] = values[:, :4], values[:, 4:]
            grouped.append(rows)
        prediction = EvalPrediction(*grouped)
    else:
        prediction = EvalPrediction(scores, labels)
    got = ICDMetrics(processor)(prediction)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, nan_ok=True), name


def evaluation_rows(processor, number=16):
    """Rows of shuffled lengths whose labels are the row's number in binary."""
    codes = list(processor.code_set)
    texts = ["fever " * ((7 * i) % number * 4 + 1) for i in range(number)]
    gold = [[code for bit, code in enumerate(codes) if i >> bit & 1] for i in range(number)]
    return prompt_rows(Dataset.from_dict({"text": texts, "codes": gold}), processor)


def trained(model, processor, rows, folder, callbacks, metrics=None):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        learning_rate=1e-3,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=4,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForICDPrompting(processor),
        processing_class=processor.tokenizer,
        compute_metrics=metrics,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def test_evaluation_is_out_of_order_without_the_callback(tiny_model, processor, tmp_path):
    """The trap. If this fails, transformers has mended it and the callback can go."""
    rows = evaluation_rows(processor)
    prediction = trained(tiny_model, processor, rows, tmp_path, []).predict(rows)
    assert prediction.label_ids.tolist() != rows["labels"][:]
    assert sorted(prediction.label_ids.tolist()) == sorted(rows["labels"][:])


def test_evaluation_stands_in_order_with_the_callback(tiny_model, processor, tmp_path):
    rows = evaluation_rows(processor)
    seen = []

    def metrics(prediction):
        seen.append(prediction.label_ids.tolist())
        return {}

    trainer = trained(tiny_model, processor, rows, tmp_path, [KeepEvaluationOrder()], metrics)
    assert len(seen) == 2 and all(labels == rows["labels"][:] for labels in seen), "during the training"
    prediction = trainer.predict(rows)
    assert prediction.label_ids.tolist() == rows["labels"][:]
    tiny_model.eval()
    with torch.no_grad():
        for index in (0, 5, 11):
            features = {name: torch.tensor([rows[index][name]]) for name in COLUMNS - {"length"}}
            expected = tiny_model(**features).logits[0]
            np.testing.assert_allclose(prediction.predictions[index], expected, rtol=1e-3, atol=1e-4)


def test_training_is_still_grouped_by_length(tiny_model, processor, tmp_path):
    rows = evaluation_rows(processor, 16)
    seen = []

    class Spy(DataCollatorForICDPrompting):
        def __call__(self, features):
            if len(features) == 8:
                seen.append(tuple(len(feature["input_ids"]) for feature in features))
            return super().__call__(features)

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=8,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    Trainer(
        tiny_model,
        arguments,
        train_dataset=rows,
        data_collator=Spy(processor),
        processing_class=processor.tokenizer,
        callbacks=[KeepEvaluationOrder()],
    ).train()
    # From long to short, but for the first, which the sampler exchanges for the longest of all.
    assert len(seen) == 6 and all(list(lengths[1:]) == sorted(lengths[1:], reverse=True) for lengths in seen)
    assert seen[0] != tuple(rows["length"][:8])


def test_callback_leaves_other_strategies_alone(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    before = arguments.train_sampling_strategy
    KeepEvaluationOrder().on_train_begin(arguments, None, None)
    assert arguments.train_sampling_strategy == before != "group_by_length"


def test_train_only(tiny_model):
    names = dict(tiny_model.named_parameters())
    count = train_only(tiny_model, ["bias", "lm_head"])
    wanted = {name for name in names if "bias" in name or "lm_head" in name}
    assert {name for name, parameter in names.items() if parameter.requires_grad} == wanted
    assert count == sum(names[name].numel() for name in wanted) > 0
    assert "longformer.encoder.layer.0.attention.self.query_global.bias" in wanted
    assert not tiny_model.longformer.embeddings.word_embeddings.weight.requires_grad
    # Another choice undoes the first.
    train_only(tiny_model, ["query"])
    assert {name for name, parameter in names.items() if parameter.requires_grad} == {n for n in names if "query" in n}


def test_train_only_trains_only_that(tiny_model, processor, tmp_path):
    train_only(tiny_model, ["bias", "lm_head"])
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    trained(tiny_model, processor, evaluation_rows(processor, 8), tmp_path, [KeepEvaluationOrder()])
    changed = {name for name, value in tiny_model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("bias" in name or "lm_head" in name for name in changed)
    assert "lm_head.decoder.weight" not in changed, "tied to the word embeddings, which do not train"


def test_train_only_unknown_name(tiny_model):
    with pytest.raises(ValueError, match=r"trainable='lm_heads' .*bias.*weight.*longformer, lm_head"):
        train_only(tiny_model, ["bias", "lm_heads"])
    assert all(parameter.requires_grad for parameter in tiny_model.parameters()), "nothing is frozen then"
    assert train_only(nn.Linear(3, 2), ["bias"]) == 2
