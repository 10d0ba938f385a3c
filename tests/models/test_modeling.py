import json
import logging
import warnings

import pytest
import torch
from datasets import Dataset
from tiny import randomize
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    LongformerConfig,
    LongformerForMaskedLM,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from kept_hf import (
    DataCollatorForICDPrompting,
    KeptLongformerConfig,
    KeptLongformerForICDPrompting,
    KeptLongformerForMaskedLM,
    KeptLongformerModel,
)

MASK, PAD = 4, 1


@pytest.fixture
def batch():
    """Three rows with 3, 1 and 2 codes; the first is the longest."""
    rows = [
        [0, 20, 21, MASK, 22, MASK, 23, 24, MASK, 25, 26, 27, 28, 2],
        [0, 30, MASK, 31, 32, 33, 34, 2],
        [0, 40, MASK, 41, MASK, 42, 43, 44, 2],
    ]
    length = max(map(len, rows))
    input_ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    labels = torch.tensor([[1, 0, 1], [0, -100, -100], [0, 1, -100]])
    attention_mask = (input_ids != PAD).long()
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "global_attention_mask": (torch.arange(length)[None] < 4).long() * attention_mask,
        "labels": labels,
    }


def masked_lm_of(model):
    other = KeptLongformerForMaskedLM(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def naive(model, batch, prompt_loss="full_vocabulary"):
    """Scores and the cross entropies, one mask at a time, from a forward pass of the whole masked language model."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    vocabulary = masked_lm_of(model)(**inputs).logits
    yes, no = model.config.yes_token_id, model.config.no_token_id
    scores, losses = torch.full(batch["labels"].shape, -100.0), []
    for row, ids in enumerate(batch["input_ids"].tolist()):
        slot = 0
        for position, token in enumerate(ids):
            if token != MASK or not batch["attention_mask"][row, position]:
                continue
            at_mask = vocabulary[row, position]
            scores[row, slot] = at_mask[yes] - at_mask[no]
            label = int(batch["labels"][row, slot])
            if prompt_loss == "full_vocabulary":
                losses.append(at_mask.logsumexp(0) - at_mask[yes if label == 1 else no])
            else:
                wrong, right = (no, yes) if label == 1 else (yes, no)
                losses.append((1 + (at_mask[wrong] - at_mask[right]).exp()).log())
            slot += 1
    return scores, torch.stack(losses)


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("prompt_loss", ["full_vocabulary", "two_way"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_scores_and_loss(tiny_model, batch, prompt_loss, backend):
    tiny_model.config.attention_backend = backend
    tiny_model.config.prompt_loss = prompt_loss
    scores, losses = naive(tiny_model, batch, prompt_loss)
    assert len(losses) == 6
    output = tiny_model(**batch)
    torch.testing.assert_close(output.logits, scores)
    torch.testing.assert_close(output.loss, losses.mean())
    asked_only = tiny_model(**without_labels(batch))
    assert asked_only.loss is None
    torch.testing.assert_close(asked_only.logits, scores)
    torch.testing.assert_close(tiny_model(**batch, num_items_in_batch=24).loss, losses.sum() / 24)
    torch.testing.assert_close(tiny_model(**batch, num_items_in_batch=torch.tensor(24)).loss, losses.sum() / 24)


@pytest.mark.parametrize("prompt_loss", ["full_vocabulary", "two_way"])
def test_gradients(tiny_model, batch, prompt_loss):
    tiny_model.config.prompt_loss = prompt_loss
    tiny_model(**batch).loss.backward()
    other = masked_lm_of(tiny_model)
    logits = other(**without_labels(batch)).logits[batch["input_ids"] == MASK]
    labels = batch["labels"][batch["labels"] != -100]
    yes_no = torch.tensor([tiny_model.config.yes_token_id, tiny_model.config.no_token_id])
    if prompt_loss == "two_way":
        cross_entropy(logits[:, yes_no], 1 - labels).backward()
    else:
        cross_entropy(logits, yes_no[1 - labels]).backward()
    expected = dict(other.named_parameters())
    for name, parameter in tiny_model.named_parameters():
        assert (parameter.grad is None) == (expected[name].grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_more_label_slots_than_codes(tiny_model, batch):
    expected = tiny_model(**batch)
    batch["labels"] = torch.nn.functional.pad(batch["labels"], (0, 2), value=-100)
    output = tiny_model(**batch)
    assert output.logits.shape == (3, 5)
    torch.testing.assert_close(output.logits[:, :3], expected.logits)
    assert (output.logits[:, 3:] == -100).all()
    torch.testing.assert_close(output.loss, expected.loss)


def test_rows_do_not_depend_on_their_batch(tiny_model, batch):
    together = tiny_model(**without_labels(batch)).logits
    for row, (length, codes) in enumerate([(14, 3), (8, 1), (9, 2)]):
        alone = {name: value[row : row + 1, :length] for name, value in without_labels(batch).items()}
        torch.testing.assert_close(tiny_model(**alone).logits, together[row : row + 1, :codes], rtol=1e-4, atol=1e-5)


def test_masks_in_the_padding_are_no_codes(tiny_model, batch):
    expected = tiny_model(**batch)
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, MASK)
    torch.testing.assert_close(tiny_model(**batch).logits, expected.logits)


@pytest.mark.parametrize("stride", [1, 3])
def test_default_global_attention(tiny_model, batch, stride):
    tiny_model.config.global_attention_stride = stride
    expected = torch.zeros_like(batch["input_ids"])
    for row, last_mask in enumerate([8, 2, 4]):
        expected[row, 0 : last_mask + 1 : stride] = 1
    expected[batch["input_ids"] == MASK] = 1
    given = tiny_model(**{**batch, "global_attention_mask": expected})
    del batch["global_attention_mask"]
    torch.testing.assert_close(tiny_model(**batch).logits, given.logits, rtol=0, atol=0)
    torch.testing.assert_close(tiny_model(batch["input_ids"][:1]).logits, given.logits[:1], rtol=1e-4, atol=1e-5)


def test_outputs(tiny_model, batch):
    output = tiny_model(**batch, output_hidden_states=True, output_attentions=True)
    assert output.loss.shape == () and output.logits.shape == (3, 3) and output.logits.dtype == torch.float32
    assert [tuple(h.shape) for h in output.hidden_states] == [(3, 14, 16)] * 3
    assert len(output.attentions) == len(output.global_attentions) == 2
    torch.testing.assert_close(output.logits, tiny_model(**batch).logits, rtol=1e-4, atol=1e-5)


def test_return_dict_false(tiny_model, batch):
    output = tiny_model(**batch)
    loss, logits = tiny_model(**batch, return_dict=False)
    assert torch.equal(loss, output.loss) and torch.equal(logits, output.logits)
    (logits,) = tiny_model(**without_labels(batch), return_dict=False)
    torch.testing.assert_close(logits, output.logits)
    tiny_model.config.return_dict = False
    assert isinstance(tiny_model(**batch), tuple)


def test_bfloat16_scores_are_float32(tiny_model, batch):
    expected = tiny_model(**batch)
    output = tiny_model.to(torch.bfloat16)(**batch)
    assert output.logits.dtype == output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected.loss, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "labels,message",
    [
        ([[1, 0, 1], [0, 1, -100], [0, 1, -100]], "Row 1 .* 1 mask tokens and 2 labels"),
        ([[1, 0], [0, -100], [0, 1]], "Row 0 .* 3 mask tokens and 2 labels"),
        ([[1, 0, 1], [-100, -100, -100], [0, 1, -100]], "Row 1 .* 1 mask tokens and 0 labels"),
    ],
)
def test_labels_that_do_not_fit_the_masks(tiny_model, batch, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**{**batch, "labels": torch.tensor(labels)})


def test_a_label_slot_left_out_between_others_is_not_taken_for_a_no(tiny_model, batch):
    # One mask, one label, but the label is in another slot than the mask.
    batch["labels"] = torch.tensor([[1, 0, 1], [-100, 1, -100], [0, 1, -100]])
    with pytest.raises(ValueError, match="-100"):
        tiny_model(**batch)


def test_no_mask_token(tiny_model):
    for labels in (None, torch.full((1, 2), -100)):
        with pytest.raises(ValueError, match="no mask token" if labels is None else "mask"):
            tiny_model(torch.tensor([[0, 7, 8, 2]]), labels=labels)


def test_no_input_ids(tiny_model):
    with pytest.raises(ValueError, match="input_ids=None"):
        tiny_model()


@pytest.mark.parametrize("name", ["yes_token_id", "no_token_id", "mask_token_id"])
def test_missing_token_ids(tiny_config, batch, name):
    setattr(tiny_config, name, None)
    with pytest.raises(ValueError, match=rf"lacks {name}.*config_overrides\(\)"):
        KeptLongformerForICDPrompting(tiny_config)(**batch)


def test_too_long(tiny_model):
    with pytest.raises(ValueError, match=r"201 tokens.* 200 "):
        tiny_model(torch.full((1, 201), MASK))


def test_parameter_names(tiny_model, tiny_config):
    stock = LongformerConfig(
        **{n: v for n, v in tiny_config.to_dict().items() if n in LongformerConfig().to_dict() and n != "model_type"}
    )
    names = set(tiny_model.state_dict())
    assert names == set(LongformerForMaskedLM(stock).state_dict())
    assert {name.split(".")[0] for name in names} == {"longformer", "lm_head"}
    assert {"longformer." + name for name in KeptLongformerModel(tiny_config).state_dict()} < names


def assert_tied(model):
    assert model.lm_head.decoder.weight is model.longformer.embeddings.word_embeddings.weight
    assert model.lm_head.decoder.bias is model.lm_head.bias


def test_tied_weights(tiny_model, tmp_path):
    assert_tied(tiny_model)
    tiny_model.save_pretrained(tmp_path)
    again = KeptLongformerForICDPrompting.from_pretrained(tmp_path)
    assert_tied(again)
    again.resize_token_embeddings(again.config.vocab_size + 3)
    assert_tied(again)
    assert again.lm_head.decoder.weight.shape[0] == again.lm_head.bias.shape[0] == tiny_model.config.vocab_size + 3


def test_save_load_round_trip(tiny_model, batch, tmp_path):
    expected = tiny_model(**batch)
    tiny_model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    again, info = KeptLongformerForICDPrompting.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    output = again.eval()(**batch)
    assert torch.equal(output.logits, expected.logits) and torch.equal(output.loss, expected.loss)
    assert again.config.id2label == tiny_model.config.id2label
    assert again.state_dict().keys() == tiny_model.state_dict().keys()


def test_auto_classes(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is KeptLongformerConfig
    for auto, kind in (
        (AutoModel, KeptLongformerModel),
        (AutoModelForMaskedLM, KeptLongformerForMaskedLM),
        (AutoModelForSequenceClassification, KeptLongformerForICDPrompting),
    ):
        model, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(model) is kind and not info["missing_keys"] and not info["mismatched_keys"]
        assert type(auto.from_config(tiny_model.config)) is kind
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    inputs = without_labels(batch)
    torch.testing.assert_close(
        encoder(**inputs).last_hidden_state, tiny_model.longformer(**inputs).last_hidden_state, rtol=0, atol=0
    )


def published_scores(config, state, batch):
    """What the public model computes, with the Longformer of transformers; -100 beyond the codes of a row."""
    fields = {name: value for name, value in config.items() if name in LongformerConfig().to_dict()}
    stock = LongformerForMaskedLM(LongformerConfig(**{k: v for k, v in fields.items() if k != "model_type"})).eval()
    stock.load_state_dict(
        {k: v for k, v in state.items() if "pooler" not in k and "position_ids" not in k}, strict=False
    )
    stock.tie_weights()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "global_attention_mask")}
    with torch.no_grad():
        logits = stock(**inputs).logits
    scores = torch.full(batch["labels"].shape, -100.0)
    for row in range(len(scores)):
        at_masks = logits[row][batch["input_ids"][row] == MASK]
        scores[row, : len(at_masks)] = at_masks[:, config["yes_token_id"]] - at_masks[:, config["no_token_id"]]
    return scores


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
@pytest.mark.parametrize("layout", ["with tied entries", "without tied entries"])
def test_old_checkpoint(tiny_model, batch, tmp_path, caplog, capfd, layout, zipped):
    """A folder as transformers 4.16 wrote it, the layout of the released KEPT checkpoints."""
    known = LongformerConfig().to_dict()
    old = {n: v for n, v in tiny_model.config.to_dict().items() if n in known}
    old |= {
        "model_type": "longformer",
        "architectures": ["LongformerForMaskedLM"],
        "transformers_version": "4.16.2",
        "ignore_attention_mask": False,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "use_cache": True,
        "classifier_dropout": None,
        "gradient_checkpointing": False,
    }
    for name in ("id2label", "label2id"):
        old.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(old))
    state = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    if layout == "without tied entries":
        del state["lm_head.decoder.weight"], state["lm_head.decoder.bias"]
    state["longformer.embeddings.position_ids"] = torch.arange(202)[None]
    state["longformer.pooler.dense.weight"] = torch.zeros(16, 16)
    state["longformer.pooler.dense.bias"] = torch.zeros(16)
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)

    ids = {name: getattr(tiny_model.config, name) for name in ("yes_token_id", "no_token_id", "mask_token_id")}
    capfd.readouterr()
    transformers_logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING), warnings.catch_warnings():
            warnings.simplefilter("error")
            model, info = KeptLongformerForICDPrompting.from_pretrained(
                tmp_path, output_loading_info=True, **ids, id2label={0: "401.9"}, label2id={"401.9": 0}
            )
    finally:
        transformers_logging.disable_propagation()
    assert not any(info.values()), info
    assert not [record.getMessage() for record in caplog.records]
    shown = capfd.readouterr()
    assert "report" not in (shown.out + shown.err).lower() and "warn" not in (shown.out + shown.err).lower()
    assert model.config.model_type == "kept_longformer" and model.config.num_labels == 1
    assert_tied(model)
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    torch.testing.assert_close(model.eval()(**batch).logits, tiny_model(**batch).logits, rtol=0, atol=0)
    torch.testing.assert_close(
        model(**batch).logits, published_scores({**old, **ids}, state, batch), rtol=1e-4, atol=1e-4
    )
    model.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "kept_longformer"


def one_step(config, processor, rows, folder, **settings):
    model = randomize(KeptLongformerForICDPrompting(config))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Plain gradient descent, as Adam would hide a loss of another scale.
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=1e9,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        **settings,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorForICDPrompting(processor))
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return before, {name: value.clone() for name, value in model.state_dict().items()}, loss


def trainer_rows(processor):
    """Rows with 1, 4, 2 and 6 codes."""
    codes = list(processor.code_set)
    rows = []
    for number, note in zip((1, 4, 2, 6), ("fever", "sepsis and cough " * 4, "stable", "doctor " * 9), strict=True):
        rows.append(dict(processor(note, codes=codes[:number], gold_codes=codes[1:number:2])))
    assert sorted({len(row["labels"]) for row in rows}) == [1, 2, 4, 6]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("prompt_loss", ["full_vocabulary", "two_way"])
def test_gradient_accumulation_with_the_stock_trainer(tiny_config, processor, tmp_path, prompt_loss):
    tiny_config.prompt_loss = prompt_loss
    rows = trainer_rows(processor)
    before, whole, loss = one_step(tiny_config, processor, rows, tmp_path / "a", per_device_train_batch_size=4)
    _, parts, parts_loss = one_step(
        tiny_config, processor, rows, tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    assert loss == pytest.approx(parts_loss, rel=1e-4)
    model = randomize(KeptLongformerForICDPrompting(tiny_config)).eval()
    collated = DataCollatorForICDPrompting(processor)(list(rows))
    expected = model(**collated).loss
    assert loss == pytest.approx(expected.item(), rel=1e-4), "the mean over all codes"
    expected.backward()
    gradient = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    moved = 0
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)
        if name in gradient:
            torch.testing.assert_close(value, before[name] - 0.1 * gradient[name], rtol=1e-4, atol=1e-5, msg=name)
            moved += not torch.equal(value, before[name])
    assert moved > 10


def test_evaluation_loss_with_the_stock_trainer(tiny_model, processor, tmp_path):
    rows = trainer_rows(processor)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, per_device_eval_batch_size=4
    )
    trainer = Trainer(tiny_model, arguments, data_collator=DataCollatorForICDPrompting(processor))
    expected = tiny_model(**DataCollatorForICDPrompting(processor)(list(rows)))
    prediction = trainer.predict(rows)
    assert prediction.metrics["test_loss"] == pytest.approx(expected.loss.item(), rel=1e-4)
    torch.testing.assert_close(torch.tensor(prediction.predictions), expected.logits.detach(), rtol=1e-4, atol=1e-5)
    arguments.per_device_eval_batch_size = 1
    apart = Trainer(tiny_model, arguments, data_collator=DataCollatorForICDPrompting(processor)).predict(rows)
    torch.testing.assert_close(torch.tensor(apart.predictions), expected.logits.detach(), rtol=1e-4, atol=1e-5)


def test_masked_lm_is_transformers(tiny_model, batch):
    config = LongformerConfig(
        **{
            n: v
            for n, v in tiny_model.config.to_dict().items()
            if n in LongformerConfig().to_dict() and n != "model_type"
        }
    )
    stock = LongformerForMaskedLM(config)
    stock.load_state_dict(tiny_model.state_dict())
    labels = torch.where(batch["input_ids"] == MASK, 9, -100)
    mine = masked_lm_of(tiny_model)(**{**batch, "labels": labels})
    theirs = stock.eval()(**{**batch, "labels": labels})
    real = batch["attention_mask"] > 0
    torch.testing.assert_close(mine.logits[real], theirs.logits[real], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
