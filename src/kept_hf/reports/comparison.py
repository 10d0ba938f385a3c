"""Several systems on the same notes: metrics at thresholds tuned elsewhere, and F1 by how often a code was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ..candidates.candidates import Candidates
from ..corpora import Corpus
from ..corpora.selection import training_counts
from ..metrics import best_micro_f1_threshold, icd_metrics, per_code_metrics
from ..models.whole_file import whole_path
from ..reranking import fuse, label_matrix, published_fill, tune_fusion
from .bands import f1_by_band
from .figures import COLORS, new_figure

Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Scores and labels of the notes on which a threshold is tuned, then of those that are evaluated with it."""


def halves(num_notes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of the notes. Without a test split, each is evaluated with what the other tuned.

    Returns:
        Positions of the notes, ascending; the first half has one more of an odd number.

    Examples:
        >>> [half.size for half in halves(5)]
        [3, 2]
    """
    order = np.random.default_rng(seed).permutation(num_notes)
    return np.sort(order[: (num_notes + 1) // 2]), np.sort(order[(num_notes + 1) // 2 :])


def evaluate_folds(
    folds: Sequence[Fold], ks: Sequence[int] = (5, 8, 15)
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Metrics of all evaluated notes, each at the threshold with the best micro-F1 on the other notes of its fold.

    Args:
        folds: one, validation and test; or two, whose evaluated notes are together all notes.
        ks: see `icd_metrics`.

    Returns:
        The metrics of [`kept_hf.metrics.icd_metrics`], and those of [`kept_hf.metrics.per_code_metrics`]. With several
        folds there is no AUC: it would compare scores across thresholds.

    Examples:
        >>> tuned, evaluated = np.array([[2.0, 0.0]]), np.array([[-0.5, 3.0]])
        >>> evaluate_folds([(tuned, np.array([[1, 0]]), evaluated, np.array([[0, 1]]))])[0]["f1_micro"]
        0.99...
    """
    scores, labels = [], []
    for tuned, tuned_labels, evaluated, evaluated_labels in folds:
        threshold = best_micro_f1_threshold(tuned, tuned_labels)
        # Scores above their threshold are above 0, in each fold.
        scores.append(evaluated - evaluated.dtype.type(threshold))
        labels.append(evaluated_labels)
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    metrics = icd_metrics(scores, labels, ks=ks, threshold=0.0)
    if len(folds) > 1:
        metrics = {name: value for name, value in metrics.items() if not name.startswith("auc")}
    return metrics, per_code_metrics(scores, labels, threshold=0.0)


class Evaluation:
    """Evaluates candidates of the notes of a corpus, with thresholds and weights of fusions that other notes tuned.

    Those are tuned on the validation split, and the test split is evaluated. Without a test split, each half of the
    validation notes is evaluated with what the other half tuned.

    Args:
        corpus: its notes and codes.
        fusion_metric: what the weight of a fusion maximises: one of `kept_hf.reranking.FUSION_METRICS`.

    Attributes:
        split: the split that is evaluated.
        tuned_on: which notes tune, in words.
        gold: for the split and validation, the codes of each note.
    """

    def __init__(self, corpus: Corpus, fusion_metric: str = "f1_micro"):
        self.corpus, self.fusion_metric = corpus, fusion_metric
        self.split = "test" if "test" in corpus.dataset else "validation"
        self.gold = {split: corpus.dataset[split]["codes"][:] for split in {"validation", self.split}}
        rows = {split: (split, np.arange(len(codes))) for split, codes in self.gold.items()}
        self._turns = [(rows["validation"], rows[self.split])]
        self.tuned_on = "validation"
        if self.split == "validation":
            one, other = ((self.split, half) for half in halves(len(self.gold["validation"])))
            self._turns = [(one, other), (other, one)]
            self.tuned_on = "the other half of the validation notes, in turn"

    def evaluate(self, first: Mapping[str, Candidates], second: Mapping[str, Candidates] | None = None) -> dict:
        """Evaluate one stage, or the fusion of two.

        Args:
            first: split → candidates, in the order of the corpus.
            second: the same candidates with the scores of another stage.

        Returns:
            `metrics` as [`evaluate_folds`], `f1` of each code, and `fusion_weights` of the second stage.
        """
        folds, weights = [], []
        for turn in self._turns:
            gold = [[self.gold[split][row] for row in rows] for split, rows in turn]
            stages = [first[split].take(rows) for split, rows in turn]
            if second is not None:
                rescored = [second[split].take(rows) for split, rows in turn]
                fusion = tune_fusion(stages[0], rescored[0], gold[0], self.fusion_metric)
                stages = [fuse(*pair, fusion) for pair in zip(stages, rescored, strict=True)]
                weights.append(round(fusion.weight, 4))
            tuned, evaluated = (stage.scores_matrix(published_fill(stage.scores)) for stage in stages)
            tuned_labels, evaluated_labels = (label_matrix(codes, self.corpus.code_set.codes) for codes in gold)
            folds.append((tuned, tuned_labels, evaluated, evaluated_labels))
        metrics, per_code = evaluate_folds(folds)
        return {"metrics": metrics, "f1": per_code["f1"], "fusion_weights": weights}

    def bands(
        self, f1_per_code: Mapping[str, Sequence[float]], first: Mapping[str, Candidates], name: str
    ) -> list[dict[str, str | int | float | None]]:
        """The rows of [`compare_by_band`], with the oracle that assigns exactly the gold codes among the candidates.

        Args:
            f1_per_code: system → the F1 of each code.
            first: the candidates.
            name: of their first stage.

        Returns:
            JSON has no NaN: it is None.
        """
        labels = label_matrix(self.gold[self.split], self.corpus.code_set.codes)
        is_candidate = first[self.split].scores_matrix(-np.inf) > -np.inf
        oracle = per_code_metrics(labels * is_candidate, labels, 0.5)["f1"]
        counts = list(training_counts(self.corpus).values())
        rows = compare_by_band({**f1_per_code, f"ceiling of {name}": oracle}, counts, labels.sum(axis=0))
        return [{column: None if value != value else value for column, value in row.items()} for row in rows]


def compare_by_band(
    f1_per_code: Mapping[str, Sequence[float]], train_counts: Sequence[int], support: Sequence[int]
) -> list[dict[str, str | int | float]]:
    """Mean F1 of each system by how often a code occurs in training: see [`kept_hf.reports.bands.f1_by_band`].

    Args:
        f1_per_code: system → (codes,) numbers.
        train_counts, support: as for `f1_by_band`.

    Returns:
        A row for each band that has codes: `train_notes` (the band), `codes`, `gold_notes`, and under each system's
        name the mean F1 of the codes with a gold note.

    Raises:
        ValueError: no systems, or as `f1_by_band`.

    Examples:
        >>> compare_by_band({"a": [0.5, 1.0], "b": [0.0, 0.5]}, [0, 3], [1, 2])[1]
        {'train_notes': '1–5', 'codes': 1, 'gold_notes': 2, 'a': 1.0, 'b': 0.5}
    """
    if not f1_per_code:
        raise ValueError("f1_per_code has no system; pass the F1 of each code for at least one.")
    bands = {system: f1_by_band(train_counts, support, f1) for system, f1 in f1_per_code.items()}
    return [
        {
            **{name: rows[0][name] for name in ("train_notes", "codes", "gold_notes")},
            **{system: row["f1"] for system, row in zip(bands, rows, strict=True)},
        }
        for rows in zip(*bands.values(), strict=True)
    ]


def plot_by_band(path: str | os.PathLike, bands: Sequence[Mapping[str, object]]) -> None:
    """Draw the rows of `compare_by_band`: a group of bars for each band, a bar for each system, and an outline for a
    system whose name begins with "ceiling".

    Args:
        path: the picture to write; its ending chooses the format (.png, .svg, .pdf).
        bands: the rows; a band without gold notes is omitted.

    Raises:
        ValueError: no band with gold notes.
    """
    bands = [row for row in bands if row["gold_notes"]]
    if not bands:
        raise ValueError("bands has no row with gold notes; pass what compare_by_band returned.")
    systems = [name for name in bands[0] if name not in ("train_notes", "codes", "gold_notes")]
    width = 0.8 / len(systems)
    figure, axes = new_figure(max(4.8, 1.2 + 0.35 * len(bands) * (len(systems) + 1)), 4.4)
    for number, system in enumerate(systems):
        positions = np.arange(len(bands)) + (number - (len(systems) - 1) / 2) * width
        values = [row[system] for row in bands]
        if system.startswith("ceiling"):  # an upper bound, not a system
            style = {"facecolor": "white", "edgecolor": "#7f7f7f", "linestyle": "--"}
        else:
            style = {"facecolor": COLORS[number % len(COLORS)], "hatch": "//" * (number // len(COLORS))}
        axes.bar(positions, values, width * 0.92, label=system, zorder=3, **style)
        for position, value in zip(positions, values, strict=True):
            axes.annotate(
                f"{100 * value:.0f}",
                (position, value),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
    names = [f"{row['train_notes']}\n({row['codes']} codes)" for row in bands]
    axes.set_xticks(range(len(bands)), names, fontsize=9)
    axes.set(xlabel="train notes with the code", ylabel="mean F1 of the codes with a gold note")
    axes.set_ylim(0, 1.1 * max(max(row[system] for system in systems) for row in bands) or 1)
    axes.set_title("F1 by how often a code occurs in training (figures in percent)", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    with whole_path(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
