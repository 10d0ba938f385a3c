import logging
import math
import os
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from tiny import randomize
from torch import distributed, multiprocessing

from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting, KeptLongformerForMaskedLM
from kept_hf.knowledge import TermGraph
from kept_hf.pretraining.hsap.loss import hsap_loss, mined_pairs
from kept_hf.pretraining.hsap.model import KeptLongformerForHSAP


def drawn(seed, names=24, size=5, concepts=9):
    """Vectors, concepts and tree distances of some names; a few concepts have one name only."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(names, size, generator=generator, dtype=torch.float64)
    vectors[:, 0] += 1.0  # so that names are alike enough to be mined
    ids = torch.randint(concepts, (names,), generator=generator)
    apart = torch.randint(1, 9, (concepts, concepts), generator=generator)
    apart = torch.maximum(apart, apart.T)
    apart.fill_diagonal_(0)
    return vectors.requires_grad_(), ids, apart[ids[:, None], ids[None]]


def naive_loss(vectors, ids, distances, weight=1.0, far=6, margin=0.2, alpha=1.0, beta=60.0, base=0.5):
    """The formula of the docstring, name by name."""
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    number = len(ids)

    def similarity(i, j):
        return (unit[i] * unit[j]).sum()

    def apart(i, j):
        return (unit[i] - unit[j]).norm()

    def related(i, j):
        return 1 - min(int(distances[i, j]), far) / far

    total = 0
    for i in range(number):
        same = [p for p in range(number) if p != i and ids[p] == ids[i]]
        other = [n for n in range(number) if ids[n] != ids[i]]
        violating = [
            (p, n) for p in same for n in other if apart(i, n) - apart(i, p) <= margin * (1 - weight * related(i, n))
        ]
        if violating:
            positives, negatives = ({pair[k] for pair in violating} for k in (0, 1))
            pull = sum(torch.exp(-alpha * (similarity(i, p) - base)) for p in positives)
            push = sum(torch.exp(beta * (similarity(i, n) - weight * margin * related(i, n) - base)) for n in negatives)
            total = total + torch.log(1 + pull) / alpha + torch.log(1 + push) / beta
    for i in range(number):
        relatives = [j for j in range(number) if 0 < distances[i, j] < far]
        for j in relatives:
            farther = [k for k in range(number) if min(distances[i, k], far) > distances[i, j]]
            if farther:
                gaps = [similarity(i, k) - similarity(i, j) + margin * (related(i, j) - related(i, k)) for k in farther]
                order = torch.log(1 + sum(torch.exp(beta * gap) for gap in gaps)) / beta
                total = total + weight * order / len(relatives)
    return total / number


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_is_the_formula(weight, seed):
    vectors, ids, distances = drawn(seed)
    expected = naive_loss(vectors, ids, distances, weight)
    (gradient,) = torch.autograd.grad(expected, vectors)
    found = hsap_loss(vectors, ids, distances, weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, vectors)[0], gradient, rtol=1e-6, atol=1e-9)


def sapbert_loss(vectors, ids):
    miner = TripletMarginMiner(margin=0.2, type_of_triplets="all")
    return MultiSimilarityLoss(alpha=1, beta=60, base=0.5)(vectors, ids, miner(vectors, ids))


@pytest.mark.parametrize("case", ["no distances", "weight 0", "all strangers"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_hierarchy_it_is_sapberts_loss(case, dtype):
    for seed in range(5):
        vectors, ids, distances = drawn(seed, names=40, size=16)
        vectors = vectors.detach().to(dtype).requires_grad_()
        options = {
            "no distances": {},
            "weight 0": {"distances": distances, "hierarchy_weight": 0.0},
            "all strangers": {"distances": 100 * (distances > 0)},
        }[case]
        expected, found = sapbert_loss(vectors, ids), hsap_loss(vectors, ids, **options)
        assert found.item() == expected.item() != 0
        gradients = [torch.autograd.grad(loss, vectors)[0] for loss in (expected, found)]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("concepts", [2, 9, 1000])
@pytest.mark.parametrize("margin", [0.0, 0.2, 3.0])
def test_mined_pairs_are_those_of_the_miner(concepts, margin):
    for seed in range(5):
        vectors, ids, _ = drawn(seed, concepts=concepts)
        unit = torch.nn.functional.normalize(vectors.detach(), dim=1)
        anchors, positives, negatives = TripletMarginMiner(margin=margin, type_of_triplets="all")(unit, ids)
        expected = torch.zeros(2, len(ids), len(ids), dtype=torch.bool)
        expected[0, anchors, positives] = True
        expected[1, anchors, negatives] = True
        found = mined_pairs(torch.cdist(unit, unit), ids[:, None] == ids, margin)
        assert torch.equal(torch.stack(found), expected)


@pytest.mark.parametrize("ids", [[0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_nothing_to_learn_gives_zero_and_no_nan(ids):
    vectors = torch.eye(3)
    vectors[1, 0] = 3.0
    vectors.requires_grad_()
    ids = torch.tensor(ids)
    loss = hsap_loss(vectors, ids, 100 * (ids[:, None] != ids).long())
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, vectors)[0], torch.zeros(3, 3))


def test_gradient_is_finite_where_nobody_is_farther_away():
    vectors, ids, _ = drawn(3)
    distances = 5 * (ids[:, None] != ids).long()
    loss = hsap_loss(vectors, ids, distances)
    assert loss.isfinite() and torch.autograd.grad(loss, vectors)[0].isfinite().all()


def at_angles(*degrees):
    radians = torch.tensor([math.radians(degree) for degree in degrees])
    return torch.stack([radians.cos(), radians.sin()], dim=1).requires_grad_()


def test_siblings_are_pushed_apart_less_than_strangers():
    """Two concepts of two names each, not much farther from each other than the names of one are."""
    ids = torch.tensor([0, 0, 1, 1])
    pushes = []
    for distance in (1, 2, 4, 5, 100):
        vectors = at_angles(0, 55, -57, -112)
        distances = distance * (ids[:, None] != ids).long()
        (gradient,) = torch.autograd.grad(hsap_loss(vectors, ids, distances, margin=0.1), vectors)
        # Against the gradient, names turn to each other (positive) or from each other.
        pushes.append(gradient[0, 1].item())
    assert pushes == sorted(pushes, reverse=True) and pushes[0] > pushes[-1] + 0.05


def test_children_stay_nearer_to_parents_than_to_cousins():
    """A child, its parent and its cousin, with the cousin nearer: the child is drawn to the parent."""
    child, parent, cousin = 0, 50, -30
    distances = torch.tensor([[0, 1, 4], [1, 0, 3], [4, 3, 0]])
    for angle, is_right in ((parent, False), (5, True)):
        vectors = at_angles(child, angle, cousin)
        loss = hsap_loss(vectors, torch.arange(3), distances)
        (gradient,) = torch.autograd.grad(loss, vectors)
        # A step against the gradient turns the child towards greater angles.
        assert -gradient[0, 1].item() > (0.01 if not is_right else -1e-3)
        assert (loss.item() < 0.05) == is_right
    assert hsap_loss(at_angles(child, parent, cousin), torch.arange(3)).item() == 0, "to SapBERT all are strangers"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hierarchy_weight": 1.5}, "hierarchy_weight=1.5 is outside 0 to 1"),
        ({"hierarchy_weight": -0.1}, "hierarchy_weight=-0.1"),
        ({"max_distance": 1}, "max_distance=1 leaves no relatives; pass at least 2"),
        ({"distances": torch.zeros(2, 2)}, r"distances has shape \(2, 2\); pass \(3, 3\)"),
        ({"concepts": torch.zeros(2)}, r"embeddings has shape \(3, 3\) and concepts \(2,\)"),
    ],
)
def test_loss_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        hsap_loss(**{"embeddings": torch.eye(3), "concepts": torch.arange(3), **options})


def small_graph(has_hierarchy=True):
    """Twelve concepts in three families, each with two names."""
    ids = [f"{family}{child}" for family in "abc" for child in ("", "0", "1", "2")]
    names = [f"{id} {kind}" for id in ids for kind in ("name", "synonym")]
    children = [id for id in ids if len(id) == 2] if has_hierarchy else []
    return TermGraph.from_tables(
        [id for id in ids for _ in range(2)],
        names,
        ["preferred", "synonym"] * len(ids),
        children,
        [child[0] for child in children],
    )


def tiny_config(**fields):
    return KeptLongformerConfig(
        **{
            "vocab_size": 40,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "attention_window": 8,
            "max_position_embeddings": 34,
            "pad_token_id": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **fields,
        }
    )


def tiny_model(**options):
    model = randomize(KeptLongformerForHSAP(tiny_config(), **options), scale=0.2)
    with torch.no_grad():
        model.longformer.embeddings.position_embeddings.weight[1] = 0
    return model


def tiny_batch(number=12, seed=0):
    """Names of 2 to 9 tokens, padded on the right, in no order; two names a concept."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 10, (number,), generator=generator)
    input_ids = torch.randint(5, 40, (number, 9), generator=generator)
    mask = (torch.arange(9) < lengths[:, None]).long()
    return {
        "input_ids": input_ids.masked_fill(mask == 0, 1),
        "attention_mask": mask,
        "concepts": torch.arange(number) // 2,
    }


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("chunk_size", [None, 5, 1])
def test_embeddings_are_those_of_each_name_alone(pooling, chunk_size):
    model = tiny_model(pooling=pooling, chunk_size=chunk_size).eval()
    batch = tiny_batch()
    with torch.no_grad():
        output = model(**batch)
        assert output.loss.item() == 0 and output.embeddings.dtype == torch.float32
        for row, ids in enumerate(batch["input_ids"]):
            states = model.longformer(ids[None, ids != 1]).last_hidden_state[0]
            expected = states[0] if pooling == "cls" else states.mean(dim=0)
            torch.testing.assert_close(output.embeddings[row], expected, rtol=1e-4, atol=1e-5)
        whole = batch["input_ids"].clamp(min=5)
        torch.testing.assert_close(model(whole).embeddings, model.encode(whole, torch.ones_like(whole)))


def test_chunks_do_not_change_the_gradient():
    gradients = []
    for chunk_size in (None, 4):
        model = tiny_model(graph=small_graph(), chunk_size=chunk_size).train()
        model(**tiny_batch()).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6)


def test_loss_of_the_model_takes_distances_from_the_graph():
    graph = small_graph()
    model = tiny_model(graph=graph, hierarchy_weight=0.7, max_distance=3, margin=0.3).train()
    batch = tiny_batch()
    output = model(**batch)
    distances = torch.from_numpy(graph.tree_distance(batch["concepts"].numpy()))
    assert {1, 2} <= set(distances.unique().tolist())
    expected = hsap_loss(output.embeddings, batch["concepts"], distances, 0.7, 3, 0.3)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.loss.item() != pytest.approx(sapbert_loss(output.embeddings, batch["concepts"]).item(), rel=1e-2)


def test_loss_is_in_float32_under_autocast():
    model = tiny_model(graph=small_graph()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**tiny_batch())
    assert output.loss.dtype == output.embeddings.dtype == torch.float32
    expected = model.loss(output.embeddings, tiny_batch()["concepts"])
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_all_that_is_trained_has_a_gradient_and_the_rest_stays(tmp_path):
    model = tiny_model(graph=small_graph(), pooling="mean").train()
    model(**tiny_batch()).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert "longformer.encoder.layer.0.attention.self.query.weight" in trained
    assert "longformer.embeddings.word_embeddings.weight" in trained
    assert not [name for name in trained if "_global" in name or name.startswith("lm_head")]
    model.save_pretrained(tmp_path)
    again = KeptLongformerForHSAP.from_pretrained(tmp_path, graph=small_graph(), pooling="mean")
    again.freeze_unused()
    assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == trained
    assert again.pooling == "mean" and again.graph.num_concepts == 12


@pytest.mark.parametrize("as_masked_lm", [True, False])
def test_saved_folder_is_an_ordinary_checkpoint(tmp_path, as_masked_lm):
    model = tiny_model(graph=small_graph())
    model.config.yes_token_id, model.config.no_token_id, model.config.mask_token_id = 6, 7, 4
    (model.as_masked_lm() if as_masked_lm else model).save_pretrained(tmp_path)
    for kind in (KeptLongformerForICDPrompting, KeptLongformerForMaskedLM):
        loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
    if as_masked_lm:
        assert loaded.config.architectures == ["KeptLongformerForMaskedLM"]
        assert (tmp_path / "modeling_kept_longformer.py").exists() and not (tmp_path / "hsap.py").exists()


def test_graph_without_hierarchy_is_sapbert_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf.pretraining.hsap.model"):
        model = tiny_model(graph=small_graph(has_hierarchy=False)).train()
    assert "hierarchy_weight=1.0 has no effect: the term graph has no hierarchy" in caplog.text
    output = model(**tiny_batch())
    assert output.loss.item() == sapbert_loss(output.embeddings, tiny_batch()["concepts"]).item()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="kept_hf.pretraining.hsap.model"):
        tiny_model(graph=small_graph(has_hierarchy=False), hierarchy_weight=0.0)
        tiny_model(graph=small_graph())
    assert not caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling='max' is unknown; pass one of cls, mean"),
        ({"chunk_size": 0}, "chunk_size=0 is less than 1; pass None"),
        ({"hierarchy_weight": 2}, "hierarchy_weight=2 is outside 0 to 1"),
    ],
)
def test_model_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        KeptLongformerForHSAP(tiny_config(), **options)


def gradient_of_a_process(rank, folder):
    """Half of the batch in each of two processes."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    limit = timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    model = tiny_model(graph=small_graph(), pooling="mean").train()
    parallel = torch.nn.parallel.DistributedDataParallel(model)  # fails where a trained parameter is not used
    half = {name: value[rank::2].contiguous() for name, value in tiny_batch().items()}
    for _ in range(2):
        model.zero_grad()
        loss = parallel(**half).loss
        loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    torch.save((loss.item(), gradients), f"{folder}/{rank}.pt")
    distributed.barrier()
    # Without clearing up: torch can stand still when it ends DistributedDataParallel and gloo's threads (they wait for
    # the interpreter's lock, which the main thread holds while it waits for them).
    os._exit(0)


def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    # Neither is pytest's own process, whose threads and settings are those of all tests before.
    processes = multiprocessing.spawn(gradient_of_a_process, (str(tmp_path),), nprocs=2, join=False)
    ends = time.monotonic() + 200
    while not processes.join(timeout=5):
        if time.monotonic() > ends:
            for process in processes.processes:
                process.kill()
            pytest.fail("The two processes took more than 200 s.")
    model = tiny_model(graph=small_graph(), pooling="mean").train()
    # Pairs are split among the processes: each finds its positives in the other only.
    loss = model(**tiny_batch()).loss
    loss.backward()
    for rank in range(2):
        found, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert found == pytest.approx(loss.item(), rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
    assert np.isfinite(loss.item()) and loss.item() > 0
