"""What a finished run left in its folder, read for its card, and checked."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .rendering import without_folders

RESULTS_FILE = "all_results.json"

_REQUIRED = {
    "": (
        "corpus",
        "settings",
        "notes",
        "codes",
        "threshold",
        "evaluated_on",
        "threshold_and_epoch_chosen_on",
        "versions",
    ),
    "corpus": ("title", "summary", "source", "license", "language"),
    "settings": ("corpus", "codes"),
    "versions": ("kept-hf",),
}
_REQUIRED_SETTINGS = {
    "kept": ("model_name_or_path", "max_length"),
    "msmn": ("num_synonyms", "num_lstm_layers", "lstm_size", "max_words", "word_vectors"),
}


def read_results(folder: str | os.PathLike, command: str) -> dict:
    """A run's `all_results.json`.

    Args:
        folder: the run's output folder.
        command: that makes such a run, for the message.

    Raises:
        FileNotFoundError: none there.
    """
    path = Path(folder, RESULTS_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"folder={os.fspath(folder)!r} has no {RESULTS_FILE}; make the model with {command}.")
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class FineTunedRun:
    """A run of `kept-hf train` or `kept-hf train-msmn`.

    Args:
        folder: where its files lie.
        results: the content of `all_results.json`.
        config: that of the model's `config.json`.
        per_code: `train_notes`, `support` and `f1` of each code.
    """

    folder: Path
    results: Mapping
    config: Mapping
    per_code: Mapping[str, list]

    @classmethod
    def read(cls, folder: str | os.PathLike) -> FineTunedRun:
        """Read and check a run's output folder.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: results of an older or another run.
        """
        folder = Path(folder)
        missing = [name for name in (RESULTS_FILE, "per_code.csv", "config.json") if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"folder={os.fspath(folder)!r} has no {' and no '.join(missing)}; train with kept-hf train first and "
                "pass its output folder."
            )
        results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _check_results(folder, results, "msmn" if config.get("model_type") == "msmn" else "kept")
        return cls(folder, results, config, _read_per_code(folder, results["codes"]))

    @property
    def is_msmn(self) -> bool:
        return self.config.get("model_type") == "msmn"

    @property
    def settings(self) -> Mapping:
        return self.results["settings"]

    @property
    def corpus(self) -> Mapping:
        return self.results["corpus"]

    @property
    def split(self) -> str:
        """The evaluated one."""
        return self.results["evaluated_on"]

    @property
    def configuration(self) -> str:
        """The options of the corpus and the rule that chose the codes, without folders."""
        options = (*self.settings.get("corpus_options", ()), self.settings["codes"])
        return ", ".join(without_folders(str(option)) for option in options)


def _check_results(folder: Path, results: Mapping, kind: str) -> None:
    for part, names in (*_REQUIRED.items(), ("settings", _REQUIRED_SETTINGS[kind])):
        there = results[part] if part else results
        for name in names:
            if name not in there:
                key = f"{part}.{name}" if part else name
                raise ValueError(
                    f"folder={os.fspath(folder)!r}: {RESULTS_FILE} has no {key!r}, so it is of an older version; train "
                    f"again with this version's kept-hf {'train-msmn' if kind == 'msmn' else 'train'}."
                )
    split = results["evaluated_on"]
    needed = {split, results["threshold_and_epoch_chosen_on"], "train"}
    if not needed <= results["notes"].keys() or f"{split}_f1_micro" not in results:
        raise ValueError(
            f"folder={os.fspath(folder)!r}: {RESULTS_FILE} has evaluated_on={split!r}, but lacks {split}_f1_micro or "
            f"the number of notes of one of {', '.join(sorted(needed))}; train again."
        )


def _read_per_code(folder: Path, codes: int) -> dict[str, list]:
    columns: dict[str, list] = {"train_notes": [], "support": [], "f1": []}
    with open(folder / "per_code.csv", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"folder={os.fspath(folder)!r}: per_code.csv has no column {', '.join(lacking)}; train again."
            )
        for row in reader:
            for name, values in columns.items():
                values.append(float(row[name]) if name == "f1" else int(row[name]))
    if len(columns["f1"]) != codes:
        raise ValueError(
            f"folder={os.fspath(folder)!r}: per_code.csv has {len(columns['f1'])} codes and {RESULTS_FILE} {codes}: "
            "they are of two runs; train again."
        )
    return columns
