import logging
from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from torch.utils.data import BatchSampler, SequentialSampler

from kept_hf.knowledge import TermGraph
from kept_hf.pretraining.hsap.families import TermCollator, TermFamilies

KINDS = ("preferred", "synonym", "abbreviation")


def graph_of(families=10, children=6, names=KINDS):
    """Families of a parent and children; each concept with these kinds of names, children of odd number with one."""
    rows, edges = [], []
    for family in range(families):
        for child in range(children + 1):
            concept = f"{family}" + (f".{child}" if child else "")
            kinds = names[:1] if child % 2 else names
            rows += [(concept, f"{kind} {concept}", kind) for kind in kinds]
            if child:
                edges.append((concept, f"{family}"))
    return TermGraph.from_tables(*zip(*rows, strict=True), *zip(*edges, strict=True))


@pytest.fixture(scope="module")
def graph():
    return graph_of()


def ids(graph, family):
    return [graph.concept_ids[concept].as_py() for concept, _ in family]


def kinds(family):
    return [name.split()[0] for _, name in family]


def test_items_have_one_length_and_names_of_their_concepts(graph):
    for length in (2, 3, 8, 30):
        families = TermFamilies(graph, names_per_family=length)
        for index in range(len(families)):
            family = families[index]
            assert len(family) == length
            assert all(name in graph.names_of(concept) for concept, name in family)


def test_siblings_follow_with_two_names_where_they_have_them(graph):
    families = TermFamilies(graph, names_per_family=7, synonym_rate=1, abbreviation_rate=0, parent_rate=0)
    met = set()
    for index in range(len(families)):
        concepts = ids(graph, families[index])
        assert concepts[0] == concepts[1]
        if "." in concepts[0]:  # parents have no siblings: the rest are pairs of others
            assert {concept.split(".")[0] for concept in concepts} == {concepts[0].split(".")[0]}
            assert len({name for _, name in families[index]}) == 7
            times = Counter(concepts)
            full = [concept for concept in times if int(concept.split(".")[1]) % 2 == 0]
            assert all(times[concept] == 1 for concept in times if concept not in full)
            assert sum(times[concept] == 1 for concept in full) <= 1, "the last may have found no room"
            met |= set(times)
    assert len(met) >= 55, "all of them take part"


def test_without_siblings_pairs_fill_the_family(graph):
    families = TermFamilies(graph, 8, 1, 0, 0, siblings=False)
    strangers = []
    for index in range(len(families)):
        concepts = ids(graph, families[index])
        assert concepts[::2] == concepts[1::2]
        strangers += [concept.split(".")[0] != concepts[0].split(".")[0] for concept in concepts]
    assert np.mean(strangers) > 0.5


@pytest.mark.parametrize(
    ("rates", "first", "expected"),
    [
        ((1, 0, 0), {"preferred", "synonym"}, 1),
        ((0, 1, 0), {"abbreviation"}, 1),
        ((0, 0, 1), {"preferred", "synonym"}, 2),
    ],
)
def test_pairs_of_each_kind(graph, rates, first, expected):
    families = TermFamilies(graph, 2, *rates)
    assert len(families) == (60 if rates[2] else 40), "each concept that has such a pair, once an epoch"
    anchors = []
    for index in range(len(families)):
        (one, two), family = ids(graph, families[index]), families[index]
        assert kinds(family)[0] in first and kinds(family)[1] != "abbreviation"
        assert len({one, two}) == expected and family[0] != family[1]
        if rates[2]:
            assert one.split(".")[0] == two
        anchors.append(one)
    assert len(set(anchors)) == len(anchors)


def test_rates(graph):
    families = TermFamilies(graph, 2, synonym_rate=0.5, abbreviation_rate=0.2, parent_rate=0.3)
    found = Counter()
    for epoch in range(20):
        families.set_epoch(epoch)
        for index in range(len(families)):
            family = families[index]
            is_parent = family[0][0] != family[1][0]
            found["parent" if is_parent else "abbreviation" if "abbreviation" in kinds(family) else "synonym"] += 1
    assert len(families) == round(40 / 0.7)
    for kind, rate in (("synonym", 0.5), ("abbreviation", 0.2), ("parent", 0.3)):
        assert found[kind] / found.total() == pytest.approx(rate, abs=0.05)


def test_an_item_depends_on_seed_epoch_and_number_alone(graph):
    def items(seed, epoch, numbers=range(30)):
        families = TermFamilies(graph, seed=seed)
        families.set_epoch(epoch)
        return [families[number] for number in numbers]

    expected = items(0, 0)
    assert items(0, 0, reversed(range(30)))[::-1] == expected
    assert items(0, 1) != expected != items(1, 0)
    families = TermFamilies(graph)
    families.set_epoch(3)
    families.set_epoch(0)
    assert [families[number] for number in range(30)] == expected


def test_all_concepts_are_drawn_equally_often(graph):
    families = TermFamilies(graph, 2, 1, 0, 0)
    drawn = Counter()
    for epoch in range(3):
        families.set_epoch(epoch)
        drawn.update(families[index][0][0] for index in range(len(families)))
    assert set(drawn.values()) == {3}


def test_held_out_names_are_never_drawn(graph):
    held_out = np.array([name.as_py().startswith("synonym") for name in graph.name_texts])
    families = TermFamilies(graph, 8, 0, 0.5, 0.5, held_out=held_out)
    assert {kind for index in range(len(families)) for kind in kinds(families[index])} == {"preferred", "abbreviation"}
    with pytest.raises(ValueError, match="no pair of the kind synonym: a concept needs two full names"):
        TermFamilies(graph, 8, 1, 0, 0, held_out=held_out)
    with pytest.raises(ValueError, match=f"held_out has 3 values; pass one for each of {graph.num_names} names"):
        TermFamilies(graph, held_out=[True] * 3)


def test_a_kind_that_is_missing_leaves_its_share(caplog):
    graph = graph_of(names=("preferred", "synonym"))
    with caplog.at_level(logging.WARNING, logger="kept_hf.pretraining.hsap.families"):
        families = TermFamilies(graph, 2)
    assert "no pair of the kind abbreviation; its share goes to the others" in caplog.text
    assert {kind for index in range(len(families)) for kind in kinds(families[index])} == {"preferred", "synonym"}
    caplog.clear()
    TermFamilies(graph, 2, 0.5, 0, 0.5)
    assert not caplog.text


def test_processes_and_resumed_runs_draw_what_one_run_draws(graph):
    """The stock Trainer shards and skips the numbers of the items."""
    batches = BatchSampler(SequentialSampler(TermFamilies(graph)), 4, drop_last=False)
    whole = list(batches)
    shards = [list(BatchSamplerShard(batches, 2, process)) for process in range(2)]
    assert [batch for pair in zip(*shards, strict=True) for batch in pair][: len(whole) - 1] == whole[:-1]
    assert list(SkipBatchSampler(batches, skip_batches=3)) == whole[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names_per_family": 1}, "names_per_family=1 holds no pair; pass at least 2"),
        ({"synonym_rate": 0.7}, "synonym_rate=0.7, abbreviation_rate=0.2 and parent_rate=0.2 add up to 1.1"),
        ({"synonym_rate": 1.2, "abbreviation_rate": -0.4}, "pass numbers from 0 to 1"),
    ],
)
def test_refused_arguments(graph, options, message):
    with pytest.raises(ValueError, match=message):
        TermFamilies(graph, **options)


def test_a_graph_without_any_pair():
    with pytest.raises(ValueError, match=r"1 concepts and 1 names to draw, but no pair of the kinds synonym, abbrev"):
        TermFamilies(TermGraph.from_tables(["a"], ["one"], ["preferred"]))


def test_items_end(graph):
    families = TermFamilies(graph)
    with pytest.raises(IndexError, match=f"none of the {len(families)} families"):
        families[len(families)]
    assert len(list(families)) == len(families)


def test_collator(tokenizer):
    collator = TermCollator(tokenizer, max_length=6)
    features = [[(3, "sepsis"), (3, "fever and cough")], [(5, "acute kidney failure " * 5)]]
    batch = collator(features)
    assert set(batch) == {"input_ids", "attention_mask", "concepts"}
    assert batch["concepts"].tolist() == [3, 3, 5]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 6)
    for row, (_, name) in enumerate(member for family in features for member in family):
        expected = tokenizer(name, truncation=True, max_length=6)["input_ids"]
        length = int(batch["attention_mask"][row].sum())
        assert batch["input_ids"][row, :length].tolist() == expected
        assert (batch["input_ids"][row, length:] == tokenizer.pad_token_id).all()
    with pytest.raises(ValueError, match="max_length=2 leaves no token of a name; pass more than 2"):
        TermCollator(tokenizer, max_length=2)
