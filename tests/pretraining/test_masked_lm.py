"""Blocks, masks, metrics and the model of masked-language-model pretraining."""

import math
import re

import numpy as np
import pytest
import torch
from tiny import SENTENCES, randomize
from transformers import EvalPrediction

from kept_hf import KeptLongformerForMaskedLM
from kept_hf.pretraining.masked_lm.blocks import (
    METRICS,
    DataCollatorForBlocks,
    MaskedBlocks,
    MaskedLMTask,
    common_tokens,
    masked_lm_table,
    pack_blocks,
    tokenize,
)
from kept_hf.pretraining.masked_lm.model import KeptLongformerForBlocks

TEXTS = [f"{SENTENCES[2]} {SENTENCES[3]}", SENTENCES[4], f"{SENTENCES[5]} {SENTENCES[5]}"]


@pytest.fixture
def blocks(roberta_tokenizer):
    return pack_blocks(tokenize(TEXTS, roberta_tokenizer), 50, roberta_tokenizer)


def inner(block, tokenizer):
    return [token for token in block.tolist() if token not in (tokenizer.cls_token_id, tokenizer.sep_token_id)]


def test_text_is_tokenized_as_the_tokenizer_does(tokenizer):
    found = tokenize([*TEXTS, f"fever {tokenizer.mask_token} and {tokenizer.sep_token} cough"], tokenizer)
    for text, ids in zip(TEXTS, found, strict=False):
        assert ids.tolist() == tokenizer(text, add_special_tokens=False).input_ids
    assert not {tokenizer.mask_token_id, tokenizer.sep_token_id} & set(found[-1].tolist())
    assert len(found[-1]) > 2


@pytest.mark.parametrize("block_size", [3, 10, 50, 1000])
@pytest.mark.parametrize("whole", [False, True])
def test_blocks_hold_all_tokens_in_their_order(tokenizer, block_size, whole):
    documents = tokenize(TEXTS, tokenizer)
    blocks = pack_blocks(documents, block_size, tokenizer, whole=whole)
    assert max(map(len, blocks)) <= block_size
    assert np.concatenate([inner(block, tokenizer) for block in blocks]).tolist() == np.concatenate(documents).tolist()
    assert all(block[0] == tokenizer.cls_token_id and block[-1] == tokenizer.sep_token_id for block in blocks)
    if block_size == 1000:
        assert len(blocks) == (3 if whole else 1)
        separators = sum(int((block == tokenizer.sep_token_id).sum()) for block in blocks)
        assert separators == 3, "one behind each document"


def test_a_document_that_fits_is_not_cut(roberta_tokenizer):
    documents = [np.full(length, 50 + length) for length in (5, 6, 30, 7, 2)]
    blocks = pack_blocks(documents, 14, roberta_tokenizer)
    for document in (documents[0], documents[1], documents[3], documents[4]):
        assert sum((block == document[0]).any() for block in blocks) == 1
    assert [len(block) for block in blocks] == [14, 14, 14, 8, 12]


def test_pieces_without_a_word_are_dropped(bert_tokenizer):
    unknown = np.full(4, bert_tokenizer.unk_token_id)
    assert pack_blocks([unknown, np.array([], np.int64)], 10, bert_tokenizer) == []
    assert len(pack_blocks([unknown, np.array([20])], 10, bert_tokenizer)) == 1


def test_common_tokens_make_up_the_share():
    text = np.repeat([5, 6, 7, 8], [50, 30, 15, 5])
    assert common_tokens([text[:40], text[40:]]) == {5}
    assert common_tokens([text], 0.6) == {5, 6}
    assert common_tokens([text], 0.99) == {5, 6, 7, 8}


def test_masks(blocks, roberta_tokenizer):
    rows = MaskedBlocks(blocks, roberta_tokenizer, mlm_probability=0.3)
    masked = kept = changed = total = 0
    for epoch in range(60):
        rows.set_epoch(epoch)
        for index in range(len(blocks)):
            block = blocks[rows._order[index]]
            ids, labels = np.array(rows[index]["input_ids"]), np.array(rows[index]["labels"])
            is_masked = labels != -100
            assert (labels[is_masked] == block[is_masked]).all() and (ids[~is_masked] == block[~is_masked]).all()
            assert not np.isin(block[is_masked], roberta_tokenizer.all_special_ids).any()
            masked += (ids[is_masked] == roberta_tokenizer.mask_token_id).sum()
            kept += (ids[is_masked] == block[is_masked]).sum()
            changed += is_masked.sum()
            total += len(inner(block, roberta_tokenizer))
    assert changed / total == pytest.approx(0.3, abs=0.02)
    assert masked / changed == pytest.approx(0.8, abs=0.03) and kept / changed == pytest.approx(0.1, abs=0.03)


def test_an_item_depends_on_seed_epoch_and_number_alone(blocks, roberta_tokenizer):
    rows, again = (MaskedBlocks(blocks, roberta_tokenizer, seed=1) for _ in range(2))
    first = [rows[index] for index in range(len(blocks))]
    torch.manual_seed(99)
    assert [again[index] for index in reversed(range(len(blocks)))] == first[::-1]
    rows.set_epoch(1)
    assert rows[0] != first[0]
    rows.set_epoch(0)
    assert rows[0] == first[0]
    assert MaskedBlocks(blocks, roberta_tokenizer, seed=2)[0] != first[0]
    twice = MaskedBlocks([blocks[0], blocks[0]], roberta_tokenizer)
    assert twice[0] != twice[1]


def test_each_epoch_has_all_blocks_in_another_order(blocks, roberta_tokenizer):
    rows = MaskedBlocks([np.array([0, token, 2]) for token in range(10, 30)], roberta_tokenizer)
    orders = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        orders.append([row["labels"][1] for row in map(rows.__getitem__, range(20))])
        assert sorted(orders[-1]) == list(range(10, 30))
    assert orders[0] != orders[1] != orders[2]


def test_each_block_has_a_mask_and_measurements_nothing_but_masks(blocks, roberta_tokenizer):
    rows = MaskedBlocks(blocks, roberta_tokenizer, mlm_probability=1e-9)
    assert [sum(label != -100 for label in rows[index]["labels"]) for index in range(len(rows))] == [1] * len(rows)
    rows = MaskedBlocks(blocks, roberta_tokenizer, mlm_probability=0.5, always_mask=True)
    for index in range(len(rows)):
        at_masks = {
            i for i, label in zip(rows[index]["input_ids"], rows[index]["labels"], strict=True) if label != -100
        }
        assert at_masks == {roberta_tokenizer.mask_token_id}


def test_global_masks(blocks, roberta_tokenizer):
    plain, rows = (MaskedBlocks(blocks, roberta_tokenizer, global_masks=number) for number in (0, 3))
    assert "global_attention_mask" not in plain[0]
    assert rows[0]["labels"] == plain[0]["labels"]
    is_global = np.array(rows[0]["global_attention_mask"])
    assert is_global[0] == 1 and is_global.sum() == 4
    assert (np.array(rows[0]["labels"])[1:][is_global[1:] == 1] != -100).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlm_probability": 0}, "mlm_probability=0 is not between 0 and 1; pass 0.3"),
        ({"mlm_probability": 1.0}, "mlm_probability=1.0 is not between 0 and 1"),
        ({"mlm_probability": float("nan")}, "mlm_probability=nan"),
        ({"global_masks": -1}, "global_masks=-1 is negative"),
    ],
)
def test_bad_masks(blocks, roberta_tokenizer, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MaskedBlocks(blocks, roberta_tokenizer, **options)


def test_bad_blocks(roberta_tokenizer):
    with pytest.raises(ValueError, match="block_size=2 leaves no token"):
        pack_blocks([], 2, roberta_tokenizer)
    with pytest.raises(ValueError, match="blocks is empty"):
        MaskedBlocks([], roberta_tokenizer)


def row(ids, labels):
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def test_metrics_by_hand():
    # 4 is the mask. 11 stands elsewhere, 12 nowhere, 13 is common; 14 stands elsewhere only behind another mask.
    task = MaskedLMTask(
        [
            row([0, 4, 11, 4, 13, 4, 2], [-100, 11, -100, 12, -100, 13, -100]),
            row([0, 4, 4, 11, 2], [-100, 14, 14, -100, -100]),
        ],
        common={13},
    )
    assert task.groups.tolist() == ["repeated", "new", "common", "new", "new"]
    assert task.counts == {"repeated": 1, "new": 3, "common": 1}
    losses = np.array([[0.1, 0.2, 0.3], [0.4, 1.0, -100]], np.float32)
    tokens = np.array([[11, 99, 13], [14, 99, -100]])
    labels = np.array([[11, -100, 12, 13, -100], [14, 14, -100, -100, -100]])
    with pytest.raises(ValueError, match=r"another order; pass .*train_sampling_strategy='sequential'"):
        task.compute_metrics(EvalPrediction((losses[::-1], tokens[::-1]), labels[::-1]))
    metrics = task.compute_metrics(EvalPrediction((losses, tokens), labels))
    assert set(metrics) == set(METRICS)
    assert metrics["masked_loss"] == pytest.approx(0.4) and metrics["perplexity"] == pytest.approx(math.exp(0.4))
    assert metrics["accuracy"] == pytest.approx(3 / 5) and metrics["accuracy_new"] == pytest.approx(1 / 3)
    assert metrics["accuracy_repeated"] == 1 and metrics["accuracy_common"] == 1
    table = masked_lm_table(task.counts, {"before": metrics, "after": metrics})
    by_name = {entry[""]: entry for entry in table}
    assert by_name["perplexity"]["masked tokens"] == 5
    assert by_name["accuracy, rarer words that stand nowhere else in it"]["masked tokens"] == 3
    assert "accuracy_common" not in MaskedLMTask([row([0, 4, 2], [-100, 9, -100])]).metrics(np.zeros(1), np.zeros(1))


@pytest.fixture
def batch(blocks, roberta_tokenizer):
    rows = MaskedBlocks(blocks, roberta_tokenizer, global_masks=2)
    assert len({len(block) for block in blocks}) > 1, "padding"
    return DataCollatorForBlocks(roberta_tokenizer)([rows[index] for index in range(len(rows))])


@pytest.mark.parametrize("with_global", [False, True])
def test_loss_and_gradients_are_those_of_all_logits(tiny_config, batch, with_global):
    plain, ours = (randomize(c(tiny_config)).train() for c in (KeptLongformerForMaskedLM, KeptLongformerForBlocks))
    batch = dict(batch)
    if not with_global:
        del batch["global_attention_mask"]
    expected, found = plain(**batch), ours(**batch)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    expected.loss.backward()
    found.loss.backward()
    gradients = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if gradients[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-4, msg=name)
    scaled = ours(**batch, num_items_in_batch=7).loss
    assert scaled.item() == pytest.approx(expected.loss.item() * int((batch["labels"] != -100).sum()) / 7, rel=1e-5)


def test_predictions_are_those_of_all_logits(tiny_config, batch):
    plain, ours = (randomize(c(tiny_config)).eval() for c in (KeptLongformerForMaskedLM, KeptLongformerForBlocks))
    with torch.no_grad():
        logits, found = plain(**batch).logits, ours(**batch)
    is_masked = batch["labels"] != -100
    for number in range(len(logits)):
        count = int(is_masked[number].sum())
        assert found.predictions[number, :count].equal(logits[number, is_masked[number]].argmax(-1))
        assert (found.predictions[number, count:] == -100).all() and (found.token_losses[number, count:] == -100).all()
        losses = torch.nn.functional.cross_entropy(
            logits[number, is_masked[number]], batch["labels"][number, is_masked[number]], reduction="none"
        )
        torch.testing.assert_close(found.token_losses[number, :count], losses, atol=1e-5, rtol=1e-4)


def test_the_head_sees_masked_tokens_only(tiny_config, batch):
    model = KeptLongformerForBlocks(tiny_config)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    model(**batch)
    assert seen == [int((batch["labels"] != -100).sum())]


def test_no_masked_token(tiny_config, batch):
    model = KeptLongformerForBlocks(tiny_config)
    for labels in (None, torch.full_like(batch["labels"], -100)):
        with pytest.raises(ValueError, match="labels names no masked token; pass its id where one was masked"):
            model(**{**batch, "labels": labels})


def test_frozen_global_projections_and_the_ordinary_model(tiny_config):
    model = randomize(KeptLongformerForBlocks(tiny_config))
    model.freeze_global_projections()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all("_global." in name for name in frozen) and len(frozen) == 2 * 3 * 2
    result = model.as_masked_lm()
    assert type(result) is KeptLongformerForMaskedLM
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in result.state_dict().items())
