"""The report that the training commands end with: `all_results.json`, files, pictures, the table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from transformers import TrainingArguments

from ..corpora import Corpus
from ..metrics import icd_metrics, per_code_metrics
from ..training.hardware import allowed_cores, peak_memory_gb
from .bands import f1_by_band
from .figures import plot_f1_by_frequency, plot_precision_recall
from .files import write_per_code, write_predictions
from .tables import format_table

TABLE_METRICS = ("f1_macro", "f1_macro_per_code", "f1_micro", "auc_macro", "auc_micro", "map", "precision_at_5")


def write_report(
    training: TrainingArguments,
    corpus: Corpus,
    train_counts: Mapping[str, int],
    split: str,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    find_threshold: Callable[[np.ndarray, np.ndarray], float],
    record: Mapping[str, object],
    started: float,
    max_codes: int | None = None,
    by_frequency: bool = False,
) -> dict[str, object]:
    """Judge the scores of a split, write the report into `training.output_dir` and print its table.

    Beside the model stands what the codes' frequencies in training alone would reach.

    Args:
        training: of the run.
        corpus: with the split's notes.
        train_counts: code → number of training notes.
        split: that is judged.
        scores, labels: `(notes, codes)`, in the order of the split and of the code set.
        threshold: found on the validation split.
        find_threshold: of scores and labels, for the frequencies.
        record: further entries of `all_results.json`.
        started: `time.time()` when the run began.
        max_codes: of a note in `predictions.jsonl`, beside those assigned and gold; all by default.
        by_frequency: also print F1 by how often a code occurs in training.

    Returns:
        The content of `all_results.json`.
    """
    folder, code_set = Path(training.output_dir), corpus.code_set
    metrics = icd_metrics(scores, labels, threshold=threshold)
    frequency = np.array([train_counts[code] for code in code_set], dtype=np.float32)
    validation_labels = np.array([code_set.multi_hot(codes) for codes in corpus.dataset["validation"]["codes"]])
    guess = icd_metrics(
        np.tile(frequency, (len(scores), 1)),
        labels,
        threshold=find_threshold(np.tile(frequency, (len(validation_labels), 1)), validation_labels),
    )
    results = {
        **{f"{split}_{name}": value for name, value in metrics.items()},
        **{f"frequency_{name}": value for name, value in guess.items()},
        "threshold": threshold,
        "evaluated_on": split,
        "threshold_and_epoch_chosen_on": "validation",
        "notes": {name: len(d) for name, d in corpus.dataset.items()},
        "codes": len(code_set),
        "corpus": {
            name: getattr(corpus.card, name)
            for name in ("title", "summary", "source", "license", "language", "caution")
        },
        "world_size": training.world_size,
        "seconds": round(time.time() - started, 1),
        "peak_memory_gb": peak_memory_gb(),
        "cores": allowed_cores(),
        "device": str(training.device),
        "versions": {package: version(package) for package in ("kept-hf", "torch", "transformers", "datasets")},
        **record,
    }
    (folder / "all_results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    note_ids = corpus.dataset[split]["note_id"]
    write_predictions(folder / "predictions.jsonl", note_ids, scores, labels, code_set, threshold, max_codes)
    write_per_code(folder / "per_code.csv", scores, labels, code_set, train_counts, threshold)
    plot_precision_recall(folder / "precision_recall.png", scores, labels, threshold)
    per_code = per_code_metrics(scores, labels, threshold)
    f1 = np.where(per_code["support"] > 0, per_code["f1"], np.nan)
    plot_f1_by_frequency(folder / "f1_by_frequency.png", f1, frequency.astype(int))
    table = [
        {"system": name, **{key: values[key] for key in TABLE_METRICS if key in values}}
        for name, values in (("training frequency", guess), ("this model", metrics))
    ]
    print(f"\n{split} split, {len(scores)} notes, {len(code_set)} codes, threshold {threshold:.3f} (validation)")
    if split == "validation":
        print("No test split: threshold and epoch were chosen on the notes they are judged on, so this is optimistic.")
    print(format_table(table))
    if by_frequency:
        print("\nF1 by how often a code occurs in training")
        print(format_table(f1_by_band(frequency.astype(int), per_code["support"], per_code["f1"])))
    print(f"Wrote the model, its predictions and the report to {folder} in {time.time() - started:.0f} s.")
    return results
