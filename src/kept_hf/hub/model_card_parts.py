"""The parts of a fine-tuned model's card: tables, sentences and pictures, from what its run left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ..reports.bands import f1_by_band
from ..reports.escaping import Markdown
from ..reports.tables import markdown_table
from .rendering import without_folders

METRICS = {
    "f1_micro": "Micro-F1",
    "f1_macro": "Macro-F1 (harmonic mean of macro precision and recall, CAML)",
    "f1_macro_per_code": "Macro-F1 (mean of per-code F1s)",
    "auc_macro": "Macro ROC AUC",
    "auc_micro": "Micro ROC AUC",
    "map": "Mean average precision",
    "precision_at_5": "Precision at 5",
    "precision_at_8": "Precision at 8",
    "precision_at_15": "Precision at 15",
}
"""Metric of `kept_hf.metrics.icd_metrics` → its name on the card."""

LEAST_GOLD_NOTES = 10
"""Bands with fewer gold notes are hidden where the data are not openly licensed."""

_LEFT_OUT = (
    "data_dir",
    "cache_dir",
    "output_dir",
    "corpus",
    "corpus_options",
    "codes",
    "world_size",
    "umls_folder",
    "icd9_folder",
    "csv_file",
    "data_files",
    "codes_file",
    "data_license",
    "num_candidates",
    "propose",  # num_candidates in older runs
    "handover",
)
_MODEL_SETTINGS = (
    "num_synonyms",
    "lstm_size",
    "num_lstm_layers",
    "attention_size",
    "embedding_size",
    "max_words",
    "terms",
    "embedding_dropout",
    "lstm_dropout",
    "output_dropout",
    "rdrop_alpha",
    "word_vectors",
    "min_count",
    "model_name_or_path",
    "preset",
    "max_length",
    "global_attention_stride",
    "codes_per_prompt",
    "scorer",
    "names_per_code",
    "prompt_loss",
    "attention_window",
    "position_period",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)


def metric_value(results: Mapping, key: str) -> float | None:
    """None where it is missing or NaN, such as an AUC of a single note."""
    value = results.get(key)
    return value if value is not None and math.isfinite(value) else None


def percent(value: float | None, digits: int = 1) -> str | None:
    """A share in percent, without the sign; None for None."""
    return None if value is None else f"{100 * value:.{digits}f}"


def results_table(results: Mapping, split: str) -> str:
    """The metrics of the model beside those of the codes' frequencies in training, in percent."""
    rows = []
    for metric, title in METRICS.items():
        model, frequency = (percent(metric_value(results, f"{prefix}_{metric}")) for prefix in (split, "frequency"))
        if model is not None:
            rows.append([title, frequency, model])
    return markdown_table(rows, ["metric", "training frequency", "this model"])


def bands_table(per_code: Mapping[str, list], hide_small: bool) -> tuple[str, bool]:
    """F1 by how often a code occurs in training, and whether a band is hidden.

    Args:
        per_code: `train_notes`, `support` and `f1` of each code.
        hide_small: whether bands with fewer than `LEAST_GOLD_NOTES` gold notes are hidden.
    """
    rows, has_hidden = [], False
    for band in f1_by_band(per_code["train_notes"], per_code["support"], per_code["f1"]):
        name = "0 (unseen)" if band["train_notes"] == "0" else band["train_notes"]
        if hide_small and band["gold_notes"] < LEAST_GOLD_NOTES:
            has_hidden = True
            rows.append([name, band["codes"], f"<{LEAST_GOLD_NOTES}", None, None, None])
        else:
            f1 = None if math.isnan(band["f1"]) else percent(band["f1"])
            rows.append([name, band["codes"], band["gold_notes"], band["codes_with_gold"], band["codes_found"], f1])
    columns = ["training notes", "codes", "gold notes", "codes with gold notes", "F1 above 0", "mean F1"]
    return markdown_table(rows, columns), has_hidden


def settings_table(settings: Mapping, base: str | None) -> str:
    """The settings in groups, without those that name a path of the machine."""
    left_out = set(_LEFT_OUT)
    if not settings.get("sampled_codes"):
        left_out.add("draws")
    if not settings.get("peft"):
        left_out |= {name for name in settings if name.startswith("lora_")}
    groups: dict[str, list[str]] = {"model and prompts": [], "synthetic prompts": [], "training on notes": []}
    for name, value in settings.items():
        if name in left_out or value is None or value is False or value == [] or (name, value) == ("max_steps", -1):
            continue
        if name.startswith("matching_"):
            if not settings.get("matching_examples"):
                continue
            group = "synthetic prompts"
        else:
            group = "model and prompts" if name in _MODEL_SETTINGS else "training on notes"
        groups[group].append(f"`{name}` {_setting_text(base if name == 'model_name_or_path' else value, name)}")
    rows = [[group, "; ".join(entries)] for group, entries in groups.items() if entries]
    return markdown_table(rows, ["of", "settings"])


def _setting_text(value: object, name: str) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_setting_text(item, name) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_setting_text(item, name)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    # The base is a model id here, or has lost its folders already.
    return str(value) if name == "model_name_or_path" else without_folders(str(value))


def environment_text(results: Mapping) -> str:
    """The machine and what the training took of it, in a line."""
    parts = []
    for key, pattern in (
        ("trainable_parameters", "trainable parameters: {:,}"),
        ("device", "device: {}"),
        ("cores", "cores: {}"),
        ("world_size", "processes: {}"),
        ("seconds", "{:.0f} s"),
        ("peak_memory_gb", "at most {} GB of main memory"),
    ):
        if results.get(key) is not None:
            parts.append(pattern.format(results[key]))
    return ", ".join(parts)


def encoder_text(config: Mapping) -> str:
    """A sentence on the encoder, with a blank behind it; nothing for a configuration of another kind."""
    if not all(name in config for name in ("num_hidden_layers", "hidden_size", "attention_window")):
        return ""
    windows = config["attention_window"]
    windows = windows if isinstance(windows, list) else [windows]
    window = f"{min(windows)}" if min(windows) == max(windows) else f"{min(windows)} to {max(windows)}"
    return (
        f"Its encoder has {config['num_hidden_layers']} layers of width {config['hidden_size']} and local attention "
        f"over {window} tokens. "
    )


def pictures_text(folder: Path, is_open: bool) -> Markdown:
    """Links to the pictures that exist and may be shown: one of them has a dot for each code."""
    pictures = {"precision_recall.png": "Precision and recall over all thresholds"}
    if is_open:
        pictures["f1_by_frequency.png"] = "F1 of each code by its number of training notes"
    return Markdown("\n\n".join(f"![{text}]({name})" for name, text in pictures.items() if (folder / name).is_file()))
