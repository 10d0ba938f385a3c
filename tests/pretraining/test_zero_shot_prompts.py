import random
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from predictions import padded, prediction_of

from kept_hf import ICDCodeSet, KeptProcessor
from kept_hf.knowledge import TermGraph
from kept_hf.pretraining.zero_shot.evaluation import ZeroShotTask, zero_shot_table
from kept_hf.pretraining.zero_shot.examples import AFFIRMATIONS, NEGATIONS
from kept_hf.pretraining.zero_shot.passages import PassageSource
from kept_hf.pretraining.zero_shot.prompts import DataCollatorForZeroShot, ZeroShotPrompts, prompt_row
from kept_hf.training.collators import LABEL_NAMES


def word(number, letter):
    return letter * 4 + chr(97 + number // 10) + chr(104 + number % 10)


@pytest.fixture(scope="module")
def graph():
    """60 concepts in families of six below 10 more; each name is a word of its own."""
    ids, names, kinds, children, parents = [], [], [], [], []
    for number in range(70):
        ids += [f"C{number}"] * 2
        names += [word(number, "q"), word(number, "x")]
        kinds += ["preferred", "synonym"]
        if number < 60:
            children.append(f"C{number}")
            parents.append(f"C{60 + number // 6}")
    ids, names, kinds = [*ids, "Z"], [*names, "zzzzwithout"], [*kinds, "preferred"]
    return TermGraph.from_tables(ids, names, kinds, children, parents)


def notes(graph):
    """Ten notes of six sentences; every second sentence mentions a concept, one in six denies it."""
    texts = []
    for note in range(10):
        parts = []
        for place in range(6):
            name = word(note * 6 + place, "qx"[place % 2])
            parts.append([f"Plain sentence {place} here.", f"Came with {name}.", f"There was no {name}."][place % 3])
        texts.append(" ".join(parts))
    return texts


def concept_of(name):
    return next(n for n in range(70) if sorted(name) in (sorted(word(n, "q")), sorted(word(n, "x"))))


def said(text):
    """Concepts that the text affirms and those it negates; swapped letters are put up with by comparing sorted ones."""
    letters = {"".join(sorted(word(number, letter))): number for number in range(70) for letter in "qx"}
    affirmed, negated = set(), set()
    for sentence in re.split(r"(?<=\.)\s*", text):
        for token in re.findall(r"\w+", sentence):
            number = letters.get("".join(sorted(token)))
            if number is not None:
                carrier = sentence.replace(token, "{}")
                (negated if carrier in NEGATIONS or "There was no" in sentence else affirmed).add(number)
    return affirmed, negated


def test_labels_are_what_the_text_affirms(graph):
    source = PassageSource(graph, notes(graph))
    generator = random.Random(0)
    natural = own = negated_asked = 0
    for _ in range(300):
        example = source.draw(generator, 9, 6)
        affirmed, negated = said(example.text)
        assert len(set(example.concepts)) == len(example.concepts) == 9
        assert [concept_of(name) for name in example.names] == example.concepts
        for concept, label in zip(example.concepts, example.labels, strict=True):
            assert label == (concept in affirmed), (example, concept)
        assert 1 <= sum(example.labels) <= 3
        mentioned = {concept_of(t) for t in re.findall(r"Came with (\w+)", example.text)}
        natural += len(mentioned & {c for c, y in zip(example.concepts, example.labels, strict=True) if y})
        own += len(affirmed - mentioned)
        negated_asked += len(negated & set(example.concepts))
    assert natural > 100 and own > 300 and negated_asked > 100


def test_relatives_of_what_applies_are_not_asked_as_what_does_not(graph):
    source = PassageSource(graph, notes(graph))
    generator = random.Random(1)
    siblings = 0
    for _ in range(300):
        example = source.draw(generator, 9, 6)
        true = [c for c, y in zip(example.concepts, example.labels, strict=True) if y]
        false = [c for c, y in zip(example.concepts, example.labels, strict=True) if not y]
        for concept in true:
            near = {*graph.parents_of(concept).tolist(), *graph.children_of(concept).tolist()}
            assert not near & set(false)
            siblings += len(set(graph.siblings_of(concept).tolist()) & set(false))
    assert siblings > 100


def test_another_name_is_said_than_the_one_asked(graph):
    source = PassageSource(graph)
    for share, low, high in ((0.0, 0, 0), (1.0, 1, 1), (0.5, 0.3, 0.7)):
        generator, other, all_ = random.Random(2), 0, 0
        for _ in range(150):
            example = source.draw(generator, 4, 2, other_name=share)
            for name, label in zip(example.names, example.labels, strict=True):
                if label:
                    all_ += 1
                    other += name not in example.text
        assert low <= other / all_ <= high


def test_held_out_and_excluded_concepts_are_neither_asked_nor_added(graph):
    held_out, excluded = list(range(0, 60, 4)), [1, 2]
    source = PassageSource(graph, ["Nothing here. Nothing there."], held_out, excluded)
    generator = random.Random(3)
    for _ in range(200):
        example = source.draw(generator, 8, 3)
        affirmed, negated = said(example.text)
        assert not {*held_out, *excluded} & {*example.concepts, *affirmed, *negated}
        assert graph.concept_index("Z") not in example.concepts, "it has no place in the hierarchy"


def test_only_some_concepts(graph):
    held_out = np.arange(0, 60, 4)
    source = PassageSource(graph, notes(graph), held_out)
    example = source.draw(random.Random(4), 8, 4, only=held_out)
    assert set(example.concepts) <= set(held_out.tolist()) and len(example.concepts) == 8
    affirmed, _ = said(example.text)
    assert {c for c, y in zip(example.concepts, example.labels, strict=True) if y} == affirmed & set(example.concepts)


def test_a_passage_is_of_one_note_and_in_its_order(graph):
    source = PassageSource(graph, notes(graph))
    texts = notes(graph)
    generator = random.Random(5)
    for _ in range(50):
        said_here = re.findall(r"(?:Came with|There was no) (\w+)", source.draw(generator, 3, 3).text)
        in_notes = [re.findall(r"(?:Came with|There was no) (\w+)", text) for text in texts]
        assert any(said_here == [name for name in names if name in said_here] for names in in_notes)
    assert len(source.draw(generator, 3, 100).text.split(".")) >= 7, "a shorter note is taken whole"


def test_without_notes_stock_phrases_stand_between(graph):
    example = PassageSource(graph).draw(random.Random(0), 4, 3)
    assert any(example.text.startswith(c.split("{}")[0]) or "." in example.text for c in AFFIRMATIONS)


def test_too_few_concepts(graph):
    with pytest.raises(ValueError, match="71 concepts, of which 1 are left"):
        PassageSource(graph, (), held_out=range(69))


def test_deidentification_tags_are_no_part_of_a_passage(graph):
    source = PassageSource(graph, ["Seen by [**Name**] today. Came with fever."])
    assert "[**" not in source.draw(random.Random(0), 2, 2).text


@pytest.fixture(scope="module")
def items(graph, bert_tokenizer):
    processor = KeptProcessor(bert_tokenizer, max_length=600)
    return ZeroShotPrompts(
        PassageSource(graph, notes(graph)), processor, 40, (2, 12), (1, 6), tokens_per_item=800, seed=7
    )


def masks(items, row):
    return row["input_ids"].count(items.processor.tokenizer.mask_token_id)


def test_prompts_grow(items):
    sizes = [[masks(items, row) for row in items[index]] for index in range(len(items))]
    assert {size for item in sizes[:8] for size in item} == {2}
    assert max(size for item in sizes[8:16] for size in item) < 9
    assert min(size for item in sizes[32:] for size in item) >= 7
    assert max(size for item in sizes[32:] for size in item) >= 11
    assert len({size for item in sizes[32:] for size in item}) >= 4, "between half and all of the most"
    for index in (0, 39):
        lengths = [len(row["input_ids"]) for row in items[index]]
        assert sum(lengths) >= 800 > sum(lengths[:-1])
        assert all(len(row["labels"]) == masks(items, row) for row in items[index])


def test_an_item_depends_on_its_number_and_the_seed(items, graph):
    again = ZeroShotPrompts(items.source, items.processor, 40, (2, 12), (1, 6), tokens_per_item=800, seed=7)
    assert [again[i] for i in (39, 3)] == [items[i] for i in (39, 3)]
    other = ZeroShotPrompts(items.source, items.processor, 40, (2, 12), (1, 6), tokens_per_item=800, seed=8)
    assert other[3] != items[3] and items[3] != items[4]
    with pytest.raises(IndexError, match="index=40"):
        items[40]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"num_codes": (0, 3)}, r"num_codes=\(0, 3\)"),
        ({"num_sentences": (4, 2)}, r"num_sentences=\(4, 2\)"),
        ({"num_items": 0}, "num_items=0"),
        ({"tokens_per_item": 0}, "tokens_per_item=0"),
        ({"warm_up": 0.8, "growth": 0.4}, "warm_up=0.8 and growth=0.4"),
    ],
)
def test_wrong_options(items, options, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotPrompts(**{"source": items.source, "processor": items.processor, "num_items": 5, **options})


def test_a_batch_is_the_rows_of_its_items(items):
    batch = DataCollatorForZeroShot(items.processor)([items[0], items[39], items[20][0]])
    assert len(batch["input_ids"]) == len(items[0]) + len(items[39]) + 1
    assert set(batch) == {"input_ids", "attention_mask", "global_attention_mask", *LABEL_NAMES}
    assert batch["labels"][0].tolist() == items[0][0]["labels"] + [-100] * (batch["labels"].shape[1] - 2)


def test_the_prompt_asks_by_the_names_of_the_example(items, graph):
    example = items.source.draw(random.Random(0), 5, 3)
    row = prompt_row(example, items.processor)
    text = items.processor.tokenizer.decode(row["input_ids"]).replace(" ", "")
    assert "".join(f"{name}[MASK]," for name in example.names)[:-1] in text
    assert row["labels"] == example.labels


@pytest.fixture(scope="module")
def task(graph, bert_tokenizer):
    processor = KeptProcessor(
        bert_tokenizer,
        ICDCodeSet(["A01", "B02", "C03"], {"A01": "fever", "B02": "cough", "C03": "sepsis"}),
        max_length=600,
    )
    task = ZeroShotTask()
    concepts = np.arange(0, 60, 4)
    source = PassageSource(graph, notes(graph), concepts)
    task.add_concepts("short", source, concepts, processor, 6, 4, 2)
    task.add_concepts("long", source, concepts, processor, 3, 12, 4)
    real = Dataset.from_dict(
        {"text": ["fever", "cough and fever", "well"], "codes": [["A01"], ["A01", "B02"], ["C03"]]}
    )
    task.add_notes(real, processor, codes_per_prompt=2)
    task.add_notes(real, processor, codes_per_prompt=3)
    return task


def test_metrics_of_right_wrong_and_unknowing_answers(task):
    labels = padded(row["labels"] for row in task.rows)
    generator = np.random.default_rng(0)
    for scores, low, high in (
        (labels, 1, 1),
        (np.where(labels < 0, labels, -labels), 0, 0),
        (generator.random(labels.shape), 0.2, 0.8),
    ):
        order = generator.permutation(len(task))
        rows = [task[index] for index in order.tolist()]
        metrics = task.compute_metrics(prediction_of(rows, [scores[i][: len(task[i]["labels"])] for i in order]))
        assert set(metrics) == set(task.titles)
        assert low <= metrics["short_auc"] <= high and low <= metrics["long_auc"] <= high
        if low != 0.2:
            assert metrics["zero_shot_2_auc_macro"] == metrics["zero_shot_3_auc_macro"] == low
    assert len(task) == 6 + 3 + 3 * 2 + 3 and task[0] is task.rows[0]


def test_metrics_of_each_group_are_of_its_rows(task):
    labels = padded(row["labels"] for row in task.rows)
    scores = labels.copy()
    scores[6:9] *= -1  # only the long ones are wrong
    some = [row[: len(task[i]["labels"])] for i, row in enumerate(scores)]
    metrics = task.compute_metrics(prediction_of(task.rows, some))
    assert metrics["short_auc"] == 1 and metrics["long_auc"] == 0 and metrics["zero_shot_3_map"] == 1


def test_the_table_has_a_row_for_each_metric(task):
    measured = {"before": dict.fromkeys(task.titles, 0.5), "after": dict.fromkeys(task.titles, 0.75)}
    table = zero_shot_table(task, measured)
    assert table[0] == {"": "held-out concepts, 4 a prompt: AUC", "before": 0.5, "after": 0.75}
    assert [row[""] for row in table][2] == "notes, 2 codes a prompt: macro AUC" and len(table) == 2 + 2 * 3


def test_more_codes_than_concepts(task, items, graph):
    with pytest.raises(ValueError, match="concepts has 3, fewer than the num_codes=4"):
        task.add_concepts("x", items.source, np.arange(3), items.processor, 1, 4, 2)


def test_a_model_trains_on_them(items):
    from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting

    torch.manual_seed(0)
    config = KeptLongformerConfig(
        vocab_size=len(items.processor.tokenizer), hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
        intermediate_size=32, attention_window=8, max_position_embeddings=700, pad_token_id=0, prompt_loss="two_way",
        **items.processor.config_overrides(),
    )  # fmt: skip
    model = KeptLongformerForICDPrompting(config)
    batch = DataCollatorForZeroShot(items.processor)([items[0]])
    model(**batch).loss.backward()
    assert model.longformer.embeddings.word_embeddings.weight.grad.abs().sum() > 0
