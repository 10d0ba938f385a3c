import logging

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from predictions import prediction_of
from torch import nn
from transformers import EvalPrediction, Trainer, TrainingArguments

from kept_hf import DataCollatorForICDPrompting, ICDCodeSet, KeptProcessor
from kept_hf.metrics import best_macro_f1_threshold, best_micro_f1_threshold, icd_metrics
from kept_hf.training.collators import LABEL_NAMES
from kept_hf.training.evaluation import ICDMetrics
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import train_only

COLUMNS = {"input_ids", "attention_mask", "global_attention_mask", *LABEL_NAMES, "length"}


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


@pytest.mark.parametrize(
    ("number", "options", "most"),
    [
        (300, {"prompt_layout": "joint", "codes_per_prompt": 30, "max_length": 1500}, 3),
        (300, {"prompt_layout": "isolated", "max_length": 200}, 0),
        (40_000, {"prompt_layout": "isolated", "max_length": 200}, 0),  # too many for two bytes a position
    ],
)
def test_prompt_rows_take_few_bytes_a_code(roberta_tokenizer, number, options, most):
    """They took 24, 209 kB a note for 8,700 codes; in the isolated layout none, since all are asked."""
    codes = [f"A{index // 1000:02}.{index % 1000:03}" for index in range(number)]
    processor = KeptProcessor(roberta_tokenizer, ICDCodeSet(codes), **options)
    rows = prompt_rows(Dataset.from_dict({"text": ["fever"], "codes": [[codes[7], codes[-1]]]}), processor)
    size = sum(rows.data.column(name).nbytes for name in ("labels", "label_codes", "code_indices") if name in rows[0])
    assert size < most * number + 500
    batch = DataCollatorForICDPrompting(processor)(list(rows))
    assert batch["labels"].dtype == batch["label_codes"].dtype == torch.int64
    asked, labels = (batch[name].flatten()[batch["labels"].flatten() != -100] for name in ("label_codes", "labels"))
    assert sorted(asked.tolist()) == list(range(number))
    assert set(asked[labels == 1].tolist()) == {7, number - 1}


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


def test_threshold_metric():
    generator = np.random.default_rng(4)
    labels = (generator.random((60, 6)) < [0.6, 0.5, 0.1, 0.1, 0.1, 0.1]).astype(int)
    scores = (generator.normal(size=(60, 6)) + 2 * labels + [2, 1, 0, 0, 0, 0]).astype(np.float32)
    found = {}
    for metric in ("f1_micro", "f1_macro"):
        found[metric] = ICDMetrics(threshold_metric=metric)(EvalPrediction(scores, labels))
    assert found["f1_macro"]["threshold"] == best_macro_f1_threshold(scores, labels)
    assert found["f1_micro"] == ICDMetrics()(EvalPrediction(scores, labels))
    assert found["f1_macro"]["f1_macro"] > found["f1_micro"]["f1_macro"]
    assert found["f1_macro"]["f1_micro"] < found["f1_micro"]["f1_micro"]
    with pytest.raises(ValueError, match="threshold_metric='f1' is unknown; pass one of f1_micro, f1_macro"):
        ICDMetrics(threshold_metric="f1")


def test_prompt_rows_without_notes(notes, processor):
    with pytest.raises(ValueError, match="no rows"):
        prompt_rows(notes.select([]), processor)


def predicted(rows, scores, order=None):
    """What the Trainer returns for `rows` in some order; `scores` are `(notes, codes)`."""
    rows = list(rows)
    rows = rows if order is None else [rows[index] for index in order]
    return prediction_of(rows, [scores[row["label_notes"], row["label_codes"]] for row in rows])


@pytest.fixture
def many(processor):
    """30 notes with random codes, and random scores."""
    generator = np.random.default_rng(0)
    labels = (generator.random((30, 6)) < 0.3).astype(int)
    scores = (generator.normal(size=(30, 6)) + labels).astype(np.float32)
    gold = [[code for code, label in zip(processor.code_set, row, strict=True) if label] for row in labels]
    return Dataset.from_dict({"text": ["fever"] * 30, "codes": gold}), scores, labels


@pytest.mark.parametrize("codes_per_prompt", [None, 4])
def test_icd_metrics(processor, many, codes_per_prompt):
    notes, scores, labels = many
    processor = processor.for_codes(processor.code_set, codes_per_prompt)
    rows = prompt_rows(notes, processor)
    order = np.random.default_rng(1).permutation(len(rows))
    threshold = best_micro_f1_threshold(scores, labels)
    loss = np.mean(np.log1p(np.exp(scores.astype(float))) - labels * scores)
    expected = {**icd_metrics(scores, labels, threshold=threshold), "threshold": threshold, "loss": loss}
    # Another processor than that of the rows: they say themselves what they ask.
    for evaluator in (processor, processor.for_codes(processor.code_set, 5)):
        got = ICDMetrics(evaluator)(predicted(rows, scores, order))
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, nan_ok=True), name
        merged = ICDMetrics(evaluator).scores_and_labels(predicted(rows, scores, order))
        assert np.array_equal(merged[0], scores) and np.array_equal(merged[1], labels)


def test_predictions_in_batches_with_further_outputs(processor, many):
    """As the Trainer gives them with `eval_do_concat_batches=False` and `output_hidden_states=True`."""
    notes, scores, _ = many
    processor.codes_per_prompt = 4
    parts = [predicted(prompt_rows(notes, processor), scores, range(start, start + 20)) for start in (40, 0, 20)]
    whole = EvalPrediction([(part.predictions, (np.zeros(20),)) for part in parts], [part.label_ids for part in parts])
    assert np.array_equal(ICDMetrics(processor).scores_and_labels(whole)[0], scores)
    whole = EvalPrediction([np.array([[2.0, 1.0]]), np.array([[3.0, 4.0]])], [np.array([[1, 0]]), np.array([[0, 0]])])
    assert [values.tolist() for values in ICDMetrics().scores_and_labels(whole)] == [[[2, 1], [3, 4]], [[1, 0], [0, 0]]]


def test_rows_that_do_not_fit(processor, many):
    notes, scores, _ = many
    metrics = ICDMetrics(processor)
    with pytest.raises(ValueError, match=r"Note 0 \(counted from 0\) was asked about 3 codes of 6; .* sampled_codes"):
        metrics(predicted(prompt_rows(notes, processor, sampled_codes=3), scores))
    processor.codes_per_prompt = 4
    rows = prompt_rows(notes, processor)
    with pytest.raises(ValueError, match=r"Note 29 \(counted from 0\) was asked about 4 codes of 6"):
        metrics(predicted(rows, scores, range(59)))
    with pytest.raises(ValueError, match=r"ask \d times about a code of a note again, first about code \d of note 0"):
        metrics(predicted(prompt_rows(notes.select([0, 1]), processor, sampled_codes=4, draws=2), scores))
    whole = predicted(rows, scores)
    with pytest.raises(ValueError, match=r"label_names=\['labels', 'label_notes', 'label_codes'\].*adapters"):
        metrics(EvalPrediction(whole.predictions, whole.label_ids[0]))
    fewer = processor.for_codes(processor.code_set.subset(list(processor.code_set)[:5]))
    with pytest.raises(ValueError, match=r"ask about code 5 \(counted from 0\), and there are 5; pass the processor"):
        ICDMetrics(fewer)(whole)
    own_rows = processor(notes["text"], gold_codes=notes["codes"])
    batch = DataCollatorForICDPrompting(processor)([{n: v[i] for n, v in own_rows.items()} for i in range(60)])
    label_ids = tuple(batch[name].numpy() for name in LABEL_NAMES)
    with pytest.raises(ValueError, match=r"The rows lack label_notes and label_codes, .*; evaluate rows of"):
        metrics(EvalPrediction(np.zeros((60, 4)), label_ids))


def test_prompt_rows_of_other_things(notes, processor):
    with pytest.raises(TypeError, match=r"type DatasetDict; pass the Dataset of one split, such as notes\['train'\]"):
        prompt_rows(DatasetDict(train=notes), processor)
    with pytest.raises(ValueError, match="notes has the columns text; it needs codes"):
        prompt_rows(notes.select_columns("text"), processor)
    with_labels = notes.add_column("labels", ["a text"] * 4).add_column("input_ids", [1] * 4)
    assert prompt_rows(with_labels, processor)["labels"][:] == prompt_rows(notes, processor)["labels"][:]


def test_processor_takes_columns(notes, processor):
    expected = processor(notes["text"][:], gold_codes=notes["codes"][:])
    assert dict(processor(notes["text"], gold_codes=notes["codes"])) == dict(expected)
    assert processor(np.array(notes["text"][:]))["input_ids"] == expected["input_ids"]
    with pytest.raises(TypeError, match="text is of type set; pass a note as str, or a list of notes"):
        processor({"Fever"})


def evaluation_rows(processor, number=16, **options):
    """Rows of shuffled lengths whose labels are the note's number in binary."""
    codes = list(processor.code_set)
    texts = ["fever " * ((7 * i) % number * 4 + 1) for i in range(number)]
    gold = [[code for bit, code in enumerate(codes) if i >> bit & 1] for i in range(number)]
    return prompt_rows(Dataset.from_dict({"text": texts, "codes": gold}), processor, **options)


def trainer_for(model, processor, rows, folder, metrics=None, **options):
    arguments = {
        "output_dir": str(folder),
        "max_steps": 2,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return Trainer(
        model,
        TrainingArguments(**{**arguments, **options}),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForICDPrompting(processor),
        processing_class=processor.tokenizer,
        compute_metrics=metrics,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eval_do_concat_batches": False, "per_device_eval_batch_size": 3},
        {"train_sampling_strategy": "random", "per_device_eval_batch_size": 5},
    ],
)
def test_metrics_do_not_depend_on_the_order_of_the_rows(tiny_model, processor, tmp_path, options):
    """With group_by_length transformers also evaluates in another order."""
    processor.codes_per_prompt = 4
    rows = evaluation_rows(processor)
    expected = {}
    tiny_model.eval()
    with torch.no_grad():
        batch = DataCollatorForICDPrompting(processor)(list(rows))
        scores = processor.merge_logits(tiny_model(**batch).logits)
    labels = np.array([[i >> bit & 1 for bit in range(6)] for i in range(16)])
    expected = icd_metrics(scores, labels, threshold=best_micro_f1_threshold(scores, labels))
    expected["loss"] = np.mean(np.log1p(np.exp(scores.astype(float))) - labels * scores)
    metrics = ICDMetrics(processor)
    trainer = trainer_for(tiny_model, processor, rows.shuffle(seed=3), tmp_path, metrics, **options)
    found = trainer.evaluate()
    for name, value in expected.items():
        assert found[f"eval_{name}"] == pytest.approx(value, nan_ok=True, abs=1e-4), name
    prediction = trainer.predict(rows)
    np.testing.assert_allclose(metrics.scores_and_labels(prediction)[0], scores, rtol=1e-3, atol=1e-4)
    tiny_model.config.output_hidden_states = tiny_model.config.output_attentions = True
    assert trainer.evaluate()["eval_auc_micro"] == pytest.approx(expected["auc_micro"], abs=1e-4)


def test_training_with_evaluation_leaves_the_arguments_alone(tiny_model, processor, tmp_path):
    trainer = trainer_for(tiny_model, processor, evaluation_rows(processor), tmp_path, ICDMetrics(processor))
    trainer.train()
    assert trainer.args.train_sampling_strategy == "group_by_length"
    assert [entry["step"] for entry in trainer.state.log_history if "eval_f1_micro" in entry] == [1, 2]


def test_sampled_rows_train_and_do_not_evaluate(tiny_model, processor, tmp_path):
    rows = evaluation_rows(processor, sampled_codes=5)
    trainer = trainer_for(tiny_model, processor, rows, tmp_path, ICDMetrics(processor), eval_strategy="no")
    trainer.train()
    with pytest.raises(ValueError, match="was asked about 5 codes of 6"):
        trainer.evaluate()


def test_a_loss_of_the_trainer(tiny_model, processor, tmp_path):
    """Label smoothing is for codes that exclude each other; a loss of one's own is welcome."""
    rows = evaluation_rows(processor, 4)
    with pytest.warns(UserWarning, match="not compatible with multi-label classification"):
        trainer = trainer_for(tiny_model, processor, rows, tmp_path, label_smoothing_factor=0.1, eval_strategy="no")
    assert trainer.label_smoother is None
    seen = []

    def own_loss(output, labels, num_items_in_batch=None):
        seen.append(labels.shape)
        return nn.functional.binary_cross_entropy_with_logits(output.logits, labels.float())

    trainer.compute_loss_func = own_loss
    trainer.train()
    assert seen == [(2, 6), (2, 6)]


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
    trainer_for(tiny_model, processor, evaluation_rows(processor, 8), tmp_path, eval_strategy="no").train()
    changed = {name for name, value in tiny_model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("bias" in name or "lm_head" in name for name in changed)
    assert "lm_head.decoder.weight" not in changed, "tied to the word embeddings, which do not train"


def test_train_only_unknown_name(tiny_model):
    with pytest.raises(ValueError, match=r"trainable='lm_heads' .*bias.*weight.*longformer, lm_head"):
        train_only(tiny_model, ["bias", "lm_heads"])
    assert all(parameter.requires_grad for parameter in tiny_model.parameters()), "nothing is frozen then"
    assert train_only(nn.Linear(3, 2), ["bias"]) == 2
