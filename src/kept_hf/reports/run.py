"""The report that the training commands end with: files, pictures, the table, and `all_results.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from transformers import TrainingArguments

from ..corpora import Corpus
from ..corpora.selection import training_counts
from ..metrics import icd_metrics, per_code_metrics
from ..models.whole_file import write_text
from ..training.hardware import allowed_cores, peak_memory_gb
from .bands import f1_by_band
from .figures import plot_f1_by_frequency, plot_precision_recall
from .files import write_per_code, write_predictions
from .mentions import assigned_by_mention
from .tables import format_table

RESULTS_FILE = "all_results.json"
CARD_FIELDS = ("title", "summary", "source", "license", "language", "caution")
TABLE_METRICS = ("f1_macro", "f1_macro_per_code", "f1_micro", "auc_macro", "auc_micro", "map", "precision_at_5")


@dataclass
class EvaluatedSplit:
    """A model's scores for the notes of a split, and the threshold that turns them into codes.

    Args:
        name: of the split.
        scores: (notes, codes) logits, in the order of the split's notes and of the code set.
        labels: (notes, codes) of 0 and 1.
        threshold: found on the validation split; a code is assigned where its score is above it.
        find_threshold: (notes, codes) scores and labels → threshold; how this one was found.
    """

    name: str
    scores: np.ndarray
    labels: np.ndarray
    threshold: float
    find_threshold: Callable[[np.ndarray, np.ndarray], float]


def write_report(
    training: TrainingArguments,
    corpus: Corpus,
    evaluated: EvaluatedSplit,
    record: Mapping[str, object],
    started: float,
    max_codes: int | None = 50,
    by_frequency: bool = False,
) -> dict[str, object]:
    """Evaluate the scores of a split, write the report into `training.output_dir` and print its table.

    Where the corpus has train and validation notes, the report also has what the codes' frequencies in training reach
    alone. `all_results.json` is written last: a folder that has it holds a finished run.

    Args:
        training: of the run.
        corpus: with the notes of the evaluated split.
        evaluated: the scores of that split.
        record: further entries of `all_results.json`.
        started: `time.time()` when the run began.
        max_codes: how many of the best-scored codes of a note `predictions.jsonl` has, beside the assigned and the
            gold ones; see [`kept_hf.reports.files.write_predictions`].
        by_frequency: also print F1 by how often a code occurs in training.

    Returns:
        The content of `all_results.json`.
    """
    folder = Path(training.output_dir)
    (folder / RESULTS_FILE).unlink(missing_ok=True)  # of an earlier run in this folder
    # A corpus of test notes alone does not say how frequent its codes are.
    counts = training_counts(corpus) if "train" in corpus.dataset else {}
    frequency = np.array([counts.get(code, 0) for code in corpus.code_set], dtype=np.float32)
    metrics = icd_metrics(evaluated.scores, evaluated.labels, threshold=evaluated.threshold)
    frequency_metrics = None
    if {"train", "validation"} <= set(corpus.dataset):
        frequency_metrics = _frequency_metrics(corpus, evaluated, frequency)
    per_code = per_code_metrics(evaluated.scores, evaluated.labels, evaluated.threshold)

    _write_files(folder, corpus, evaluated, counts, max_codes)
    _draw_pictures(folder, evaluated, per_code, frequency.astype(int))
    systems = {} if frequency_metrics is None else {"training frequency": frequency_metrics}
    _print_tables(corpus, evaluated, {**systems, "this model": metrics})
    if by_frequency:
        print("\nF1 by how often a code occurs in training")
        print(format_table(f1_by_band(frequency.astype(int), per_code["support"], per_code["f1"])))
    mentions = _assigned_by_mention(corpus, evaluated)
    if mentions:
        print("\nCodes assigned, by how the note mentions them")
        print(format_table(mentions))

    results = {
        **{f"{evaluated.name}_{name}": value for name, value in metrics.items()},
        **{f"frequency_{name}": value for name, value in (frequency_metrics or {}).items()},
        **({"assigned_by_mention": mentions} if mentions else {}),
        **_circumstances(training, corpus, evaluated, started),
        **record,
    }
    write_text(folder / RESULTS_FILE, json.dumps(results, indent=1) + "\n")
    print(f"Wrote predictions and report to {folder} in {time.time() - started:.0f} s.")
    return results


def _frequency_metrics(corpus: Corpus, evaluated: EvaluatedSplit, frequency: np.ndarray) -> dict[str, float]:
    """Metrics where every note gets the same scores: how often each code occurs in training, of shape (codes,)."""
    validation_labels = np.array([corpus.code_set.multi_hot(codes) for codes in corpus.dataset["validation"]["codes"]])
    threshold = evaluated.find_threshold(np.tile(frequency, (len(validation_labels), 1)), validation_labels)
    return icd_metrics(np.tile(frequency, (len(evaluated.scores), 1)), evaluated.labels, threshold=threshold)


def _assigned_by_mention(corpus: Corpus, evaluated: EvaluatedSplit) -> list[dict[str, object]]:
    """The table of `kept_hf.reports.mentions`; no rows where the corpus does not say how its notes mention codes."""
    if not corpus.mentions:
        return []
    note_ids = corpus.dataset[evaluated.name]["note_id"]
    scored = (evaluated.scores, evaluated.labels, evaluated.threshold)
    return assigned_by_mention(note_ids, corpus.code_set.codes, *scored, corpus.mentions)


def _write_files(
    folder: Path, corpus: Corpus, evaluated: EvaluatedSplit, counts: Mapping[str, int], max_codes: int | None
) -> None:
    note_ids = corpus.dataset[evaluated.name]["note_id"]
    scored = (evaluated.scores, evaluated.labels, corpus.code_set)
    write_predictions(folder / "predictions.jsonl", note_ids, *scored, evaluated.threshold, max_codes)
    write_per_code(folder / "per_code.csv", *scored, counts, evaluated.threshold)


def _draw_pictures(
    folder: Path, evaluated: EvaluatedSplit, per_code: Mapping[str, np.ndarray], train_counts: np.ndarray
) -> None:
    plot_precision_recall(
        folder / "precision_recall.png", evaluated.scores, evaluated.labels, threshold=evaluated.threshold
    )
    f1 = np.where(per_code["support"] > 0, per_code["f1"], np.nan)
    plot_f1_by_frequency(folder / "f1_by_frequency.png", f1, train_counts)


def _print_tables(corpus: Corpus, evaluated: EvaluatedSplit, systems: Mapping[str, Mapping[str, float]]) -> None:
    print(
        f"\n{evaluated.name} split, {len(evaluated.scores)} notes, {len(corpus.code_set)} codes, "
        f"threshold {evaluated.threshold:.3f} (validation)"
    )
    if evaluated.name == "validation":
        print("No test split: threshold and epoch were chosen on the notes evaluated here, so this is optimistic.")
    rows = [
        {"system": name, **{key: metrics[key] for key in TABLE_METRICS if key in metrics}}
        for name, metrics in systems.items()
    ]
    print(format_table(rows))


def _circumstances(
    training: TrainingArguments, corpus: Corpus, evaluated: EvaluatedSplit, started: float
) -> dict[str, object]:
    """What was evaluated, how and on which machine: for `all_results.json`."""
    return {
        "threshold": evaluated.threshold,
        "evaluated_on": evaluated.name,
        "threshold_and_epoch_chosen_on": "validation",
        "notes": {name: len(notes) for name, notes in corpus.dataset.items()},
        "codes": len(corpus.code_set),
        "corpus": {name: getattr(corpus.card, name) for name in CARD_FIELDS},
        "world_size": training.world_size,
        "seconds": round(time.time() - started, 1),
        "peak_memory_gb": peak_memory_gb(),
        "cores": allowed_cores(),
        "device": str(training.device),
        "versions": {package: version(package) for package in ("kept-hf", "torch", "transformers", "datasets")},
    }
