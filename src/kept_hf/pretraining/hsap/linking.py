"""How well vectors of names find their concepts, and follow the hierarchy: what HSAP is evaluated by.

Names are held out of training, and each is linked to the concept of the most similar name among many, as in the
evaluation of SapBERT (Liu et al., NAACL 2021, section 3) and of BioSyn (Sung et al., ACL 2020).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from ...knowledge import NAME_KINDS
from ...knowledge.names import normalise_names, text_numbers
from ...models.whole_file import whole_path
from ...reports.figures import COLORS, LIGHT, new_figure

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from ...knowledge import TermGraph

QUERY_KINDS = ("held_out_synonym", "trained_abbreviation", "held_out_abbreviation")
"""What is linked. Held-out names are not trained on. Most abbreviations cannot be guessed."""
TOP = (1, 5)
FARTHEST = 6
"""Tree distances of the rank correlation are told up to this one; it also stands for strangers."""

# Edges up and then down from a concept to those that it is compared with: parent, sibling, grandparent, …
_WALKS = ((1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 2), (3, 3))


@dataclass
class LinkingTask:
    """Names to be linked, names to link them to, and pairs of relatives.

    Attributes:
        names: each text once, from short to long, so that batches are padded little.
        candidates: `(candidates,)` rows of `names`.
        candidate_concepts: `(candidates,)` the concept of each; a text that two concepts have is there twice.
        queries: kind → `(queries,)` rows of `names`.
        gold: kind → for each query its concepts; an abbreviation can have several.
        pairs: `(pairs, 2)` rows of `names`.
        distances: `(pairs,)` tree distances of their concepts, 1 to `FARTHEST`.
        held_out: `(graph.num_names,)`, bool: names that must not be trained on.
    """

    names: list[str]
    candidates: np.ndarray
    candidate_concepts: np.ndarray
    queries: dict[str, np.ndarray]
    gold: dict[str, list[frozenset[int]]]
    pairs: np.ndarray
    distances: np.ndarray
    held_out: np.ndarray

    @classmethod
    def from_graph(
        cls,
        graph: TermGraph,
        num_synonyms: int = 2000,
        num_abbreviations: int = 200,
        num_trained: int = 1000,
        num_concepts: int = 25_000,
        num_families: int = 500,
        seed: int = 0,
    ) -> LinkingTask:
        """Draw a task from a graph.

        A synonym can be held out if no other concept has the same text (compared by letters and digits) and its own
        keeps another full name; one synonym of a concept at most. An abbreviation is held out of all its concepts;
        those that also are the full name of one are left alone. Candidates are the full names of the gold concepts,
        then of concepts with several names, then of others. Whatever reads like a held-out name is held out, too.

        Args:
            graph: names and hierarchy.
            num_synonyms, num_abbreviations: how many names to hold out; at most a quarter of those that can be.
            num_trained: how many of the abbreviations left to link, too.
            num_concepts: of the candidates.
            num_families: concepts whose relatives are compared, those with a parent.
            seed: of the draws.

        Raises:
            ValueError: a graph with fewer than two concepts, or without a name to link.
        """
        if graph.num_concepts < 2:
            raise ValueError(f"graph has {graph.num_concepts} concepts; linking needs at least two to choose from.")
        generator = np.random.default_rng(seed)
        texts = text_numbers(normalise_names(graph.name_texts))
        synonyms = _held_out_synonyms(graph, texts, num_synonyms, generator)
        abbreviations, trained = _held_out_abbreviations(graph, texts, num_abbreviations, num_trained, generator)
        is_held_out = np.isin(texts, np.concatenate([texts[synonyms], texts[abbreviations]]))
        rows = dict(zip(QUERY_KINDS, (synonyms, trained, abbreviations), strict=True))
        if not any(len(kind) for kind in rows.values()):
            raise ValueError(
                "graph has no name to link: no concept with two full names, and no abbreviation. Add a source of names."
            )
        gold = {kind: _concepts_of(graph, texts, rows[kind]) for kind in QUERY_KINDS}
        is_full = (graph.name_kinds != NAME_KINDS.index("abbreviation")) & ~is_held_out
        wanted = np.array(sorted(set().union(*(g for kind in gold.values() for g in kind))), np.int64)
        candidates = _candidates(graph, is_full, wanted, num_concepts, generator)
        pairs, distances = _relatives(graph, is_full, num_families, generator)
        used = np.unique(np.concatenate([candidates, pairs.ravel(), *rows.values()]).astype(np.int64))
        taken = graph.name_texts.take(pa.array(used)).to_pylist()
        names = sorted(dict.fromkeys(taken), key=lambda name: (len(name), name))
        number = {name: row for row, name in enumerate(names)}
        row_of = np.full(graph.num_names, -1)
        row_of[used] = [number[name] for name in taken]
        return cls(
            names=names,
            candidates=row_of[candidates],
            candidate_concepts=graph.name_concepts[candidates],
            queries={kind: row_of[kind_rows] for kind, kind_rows in rows.items()},
            gold=gold,
            pairs=row_of[pairs],
            distances=distances,
            held_out=is_held_out,
        )

    def dataset(self) -> LinkingNames:
        """`eval_dataset` for the Trainer."""
        return LinkingNames(self.names)

    def metrics(self, vectors: np.ndarray) -> dict[str, float]:
        """Evaluate the vectors of `names`.

        Args:
            vectors: `(names, size)`.

        Returns:
            For each kind of `QUERY_KINDS` that has queries, `{kind}_accuracy_at_1` and `_at_5`: the share of queries
            with a concept of theirs among the 1 and 5 most similar candidate names. `tree_distance_correlation`:
            Spearman's, of cosine similarity and tree distance; -1 would be an order without fault, 0 is none.
            `similarity_at_distance_1` and so on: the mean cosine similarity of such pairs.
        """
        unit = torch.nn.functional.normalize(torch.as_tensor(vectors, dtype=torch.float32), dim=1)
        result = {}
        for kind, rows in self.queries.items():
            if not len(rows):
                continue
            found = nearest_concepts(unit[rows], unit[self.candidates], self.candidate_concepts, max(TOP))
            for top in TOP:
                hits = [not gold.isdisjoint(near[:top]) for gold, near in zip(self.gold[kind], found, strict=True)]
                result[f"{kind}_accuracy_at_{top}"] = float(np.mean(hits))
        if len(self.pairs):
            similarity = (unit[self.pairs[:, 0]] * unit[self.pairs[:, 1]]).sum(dim=1).numpy()
            result["tree_distance_correlation"] = rank_correlation(similarity, self.distances)
            for distance in np.unique(self.distances):
                mean = similarity[self.distances == distance].mean()
                result[f"similarity_at_distance_{distance}"] = float(mean)
        return result

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """`compute_metrics` for the Trainer, of a model that gives vectors: `label_ids` are the rows of `names`."""
        vectors = np.zeros((len(self.names), prediction.predictions.shape[1]), np.float32)
        vectors[prediction.label_ids] = prediction.predictions
        return self.metrics(vectors)


class LinkingNames(Dataset):
    """Names one by one, in the form of the families of training: `[(row, name)]`."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> list[tuple[int, str]]:
        return [(index, self.names[index])]


def nearest_concepts(
    queries: torch.Tensor, candidates: torch.Tensor, candidate_concepts: np.ndarray, top: int
) -> list[list[int]]:
    """For each query the concepts of the most similar candidates, best first; a concept counts once for each name.

    Args:
        queries, candidates: `(queries, size)` and `(candidates, size)`, unit vectors.
        candidate_concepts: `(candidates,)`.
        top: how many; fewer if there are fewer candidates.

    Examples:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> nearest_concepts(vectors[:1], vectors, np.array([7, 8, 9]), 2)
        [[7, 9]]
    """
    top = min(top, len(candidates))
    at_once = max(1, 2**24 // len(candidates))  # 64 MB of similarities
    found = [(part @ candidates.T).topk(top, dim=1).indices for part in queries.split(at_once)]
    return candidate_concepts[torch.cat(found).numpy()].tolist()


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of two `(n,)`; 0 where one of them does not vary.

    Examples:
        >>> round(rank_correlation(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 2, 6, 6])), 3)
        -0.833
    """
    ranks = []
    for values in (one, other):
        _, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[groups])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _held_out_synonyms(graph: TermGraph, texts: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of names: synonyms that can be held out, one of a concept."""
    # Each text of each concept, once.
    keys = np.unique(graph.name_concepts.astype(np.int64) * (texts.max() + 1) + texts)
    concepts_of_text = np.bincount(keys % (texts.max() + 1), minlength=texts.max() + 1)
    is_full = graph.name_kinds != NAME_KINDS.index("abbreviation")
    keys = np.unique((graph.name_concepts.astype(np.int64) * (texts.max() + 1) + texts)[is_full])
    full_names = np.bincount(keys // (texts.max() + 1), minlength=graph.num_concepts)
    is_eligible = graph.name_kinds == NAME_KINDS.index("synonym")
    is_eligible &= (concepts_of_text[texts] == 1) & (full_names[graph.name_concepts] >= 2)
    rows = generator.permutation(np.flatnonzero(is_eligible))
    _, first = np.unique(graph.name_concepts[rows], return_index=True)
    return rows[np.sort(first)][: min(number, len(first) // 4)]


def _held_out_abbreviations(
    graph: TermGraph, texts: np.ndarray, number: int, num_trained: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of names: abbreviations to hold out and others to be linked, each text once."""
    is_short = graph.name_kinds == NAME_KINDS.index("abbreviation")
    has_full = np.bincount(graph.name_concepts[~is_short], minlength=graph.num_concepts) > 0
    rows = np.flatnonzero(is_short & has_full[graph.name_concepts] & ~np.isin(texts, texts[~is_short]))
    _, first = np.unique(texts[rows], return_index=True)
    rows = generator.permutation(rows[first])
    number = min(number, len(rows) // 4)
    return rows[:number], rows[number : number + num_trained]


def _concepts_of(graph: TermGraph, texts: np.ndarray, rows: np.ndarray) -> list[frozenset[int]]:
    """For each of some names the concepts that have it."""
    same = np.flatnonzero(np.isin(texts, texts[rows]))
    concepts: dict[int, set[int]] = {}
    for text, concept in zip(texts[same].tolist(), graph.name_concepts[same].tolist(), strict=True):
        concepts.setdefault(text, set()).add(concept)
    return [frozenset(concepts[text]) for text in texts[rows].tolist()]


def _candidates(
    graph: TermGraph, is_full: np.ndarray, wanted: np.ndarray, num_concepts: int, generator: np.random.Generator
) -> np.ndarray:
    """Rows of names: the full ones of the concepts wanted, then of those with several, then of others."""
    counts = np.bincount(graph.name_concepts[is_full], minlength=graph.num_concepts)
    rank = np.select([counts > 1, counts == 1], [1, 2], 3)
    rank[wanted] = 0
    order = np.lexsort((generator.random(graph.num_concepts), rank))
    is_candidate = np.zeros(graph.num_concepts, bool)
    is_candidate[order[: max(num_concepts, len(wanted))]] = True
    return np.flatnonzero(is_full & is_candidate[graph.name_concepts])


def _relatives(
    graph: TermGraph, is_full: np.ndarray, number: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of names, and their concepts' tree distances: relatives found by walks, and strangers."""
    rows = np.flatnonzero(is_full)
    first = np.full(graph.num_concepts, -1)
    first[graph.name_concepts[rows[::-1]]] = rows[::-1]
    named = np.flatnonzero(first >= 0)
    anchors = generator.permutation(np.flatnonzero((np.diff(graph.parent_offsets) > 0) & (first >= 0)))[:number]
    pairs, distances = [], []
    for anchor in anchors.tolist():
        found = {_walk(graph, anchor, up, down, generator) for up, down in _WALKS} | {int(generator.choice(named))}
        others = [other for other in sorted(found - {anchor, -1}) if first[other] >= 0]
        among = graph.tree_distance([anchor, *others])[0, 1:]
        pairs += [(first[anchor], first[other]) for other in others]
        distances += np.minimum(among, FARTHEST).tolist()
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(distances, np.int64)


def _walk(graph: TermGraph, concept: int, up: int, down: int, generator: np.random.Generator) -> int:
    """Where so many random steps up and then down lead; -1 where there is no way."""
    for steps, neighbours in ((up, graph.parents_of), (down, graph.children_of)):
        for _ in range(steps):
            options = neighbours(concept)
            if not len(options):
                return -1
            concept = int(generator.choice(options))
    return concept


def _title(kind: str) -> str:
    """How a kind of `QUERY_KINDS` is called in tables and pictures."""
    return kind.replace("held_out", "held-out").replace("_", " ")


def linking_table(task: LinkingTask, results: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Rows for [`kept_hf.reports.tables.format_table`].

    Args:
        task: for the numbers of queries.
        results: name of a column ("before", "after") → what `LinkingTask.metrics` gave.
    """
    rows = []
    for kind in QUERY_KINDS:
        for top in TOP:
            key = f"{kind}_accuracy_at_{top}"
            if any(key in metrics for metrics in results.values()):
                row = {"": f"{_title(kind)}s, accuracy@{top}", "number": len(task.queries[kind])}
                rows.append(row | {name: metrics.get(key) for name, metrics in results.items()})
    if len(task.pairs):
        row = {"": "rank correlation of similarity and tree distance", "number": len(task.pairs)}
        rows.append(row | {name: metrics.get("tree_distance_correlation") for name, metrics in results.items()})
    return rows


def plot_linking(path: str | os.PathLike, results: Mapping[str, Mapping[str, float]]) -> None:
    """A picture of two panels: accuracy of linking, and similarity by tree distance; a colour for each result.

    Args:
        path: a file that ends in .png, .svg or .pdf.
        results: name ("before", "after") → what `LinkingTask.metrics` gave.
    """
    figure, (bars, lines) = new_figure(11, 3.6, panels=(3, 2))
    keys = [(kind, top) for kind in QUERY_KINDS for top in TOP]
    keys = [key for key in keys if any(f"{key[0]}_accuracy_at_{key[1]}" in metrics for metrics in results.values())]
    width = 0.8 / len(results)
    for number, (name, metrics) in enumerate(results.items()):
        color = (LIGHT, *COLORS)[number % (1 + len(COLORS))]
        heights = [100 * metrics.get(f"{kind}_accuracy_at_{top}", np.nan) for kind, top in keys]
        drawn = bars.bar(np.arange(len(keys)) + (number + 0.5) * width - 0.4, heights, width, color=color, label=name)
        bars.bar_label(drawn, fmt="%.0f", fontsize=8)
        distances = sorted(int(key.rsplit("_", 1)[1]) for key in metrics if key.startswith("similarity_at_distance_"))
        means = [metrics[f"similarity_at_distance_{distance}"] for distance in distances]
        lines.plot(distances, means, marker="o", color=color, label=name)
    bars.set_xticks(range(len(keys)), [f"{_title(kind)}\n@{top}".replace(" ", "\n") for kind, top in keys], fontsize=8)
    bars.set_ylabel("linked to their concept (%)")
    bars.legend(frameon=False, fontsize=8)
    lines.set_xlabel(f"edges between the concepts ({FARTHEST}: or more)")
    lines.set_ylabel("mean cosine similarity")
    with whole_path(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
