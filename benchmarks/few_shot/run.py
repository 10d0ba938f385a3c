"""Measure rows of the benchmark.

    python -m benchmarks.few_shot.run --data_dir path/to/codiesp --sets rare50-1 all --rows late_interaction

Figures are kept in `benchmarks/results/few_shot/SET.json`; a row and seed that is there is not measured again. Scores
of systems, which fusions join, stay in `--work`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from kept_hf.candidates.candidates import Candidates
from kept_hf.training.hardware import peak_memory_gb, use_all_cores

from ..provenance import RESULTS, keep, provenance
from . import protocol
from .sets import SETS, BenchmarkSet
from .systems import SYSTEMS

ROWS = Path(__file__).parent / "rows"
FIRST_SEED = 0
"""Chooses thresholds and weights for the other seeds of a row, too."""
PACKAGES = ("kept-hf", "torch", "transformers", "datasets", "scikit-learn")


@dataclass(frozen=True)
class Row:
    """A file of `rows/`.

    Attributes:
        name: of the file.
        title: in the tables.
        sets: begin of a set's name → options of the system.
        system: one of `SYSTEMS`; None for a fusion.
        parts: the rows that a fusion joins.
        folds: parts of the training notes; or begin of a set's name → their number there.
        deterministic: one seed is enough.
        rival: not of this package's models: what they have to beat.
    """

    name: str
    title: str
    sets: Mapping[str, Mapping]
    system: str | None = None
    parts: Sequence[str] = field(default_factory=tuple)
    folds: int | Mapping[str, int] = 5
    deterministic: bool = False
    rival: bool = False

    def __post_init__(self):
        if (self.system in SYSTEMS) == bool(self.parts):
            raise ValueError(f"rows/{self.name}.yaml: give parts, or as system one of {', '.join(SYSTEMS)}.")

    def options(self, name: str) -> Mapping | None:
        """Of the system on a set; None if the row is not for this set."""
        return _for_set(self.sets, name)

    def folds_of(self, name: str) -> int:
        """Parts of the training notes of a set."""
        return self.folds if isinstance(self.folds, int) else _for_set(self.folds, name)


def _for_set(values: Mapping[str, object], name: str) -> object | None:
    """The value of the first key with which the name of a set begins."""
    return next((value for begin, value in values.items() if name.startswith(begin)), None)


def read_row(name: str) -> Row:
    """The row of this name.

    Raises:
        ValueError: there is none.
    """
    path = ROWS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"rows={name!r} is no row; pass some of {', '.join(row_names())}.")
    return Row(name, **yaml.safe_load(path.read_text(encoding="utf-8")))


def row_names() -> list[str]:
    """All rows, fusions last."""
    names = sorted(path.stem for path in ROWS.glob("*.yaml"))
    return sorted(names, key=lambda name: bool(read_row(name).parts))


def load_scores(folder: Path, data: BenchmarkSet) -> protocol.Scores:
    """What `save_scores` wrote."""
    parts = {name: Candidates.load(folder / f"{name}.npz") for name in ("train", *data.reported)}
    return protocol.Scores(parts.pop("train"), parts)


def save_scores(scores: protocol.Scores, folder: Path) -> None:
    """Write the scores of a system."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, candidates in scores.parts().items():
        candidates.save(folder / f"{name}.npz")


def measure(row: Row, name: str, data: BenchmarkSet, seed: int, work: Path) -> dict:
    """Scores and figures of a row.

    Raises:
        FileNotFoundError: a fusion whose parts were not measured with this seed, or a row without its first seed, in
            this `work`.
    """
    extra, of_row = {}, work / name / row.name
    if row.parts:
        seeds = [FIRST_SEED if read_row(part).deterministic else seed for part in row.parts]
        folders = [work / name / part / f"seed-{own}" for part, own in zip(row.parts, seeds, strict=True)]
        missing = [folder for folder in folders if not (folder / "train.npz").exists()]
        if missing:
            raise FileNotFoundError(f"{row.name}: run first the rows of {', '.join(map(str, missing))}.")
        parts = [load_scores(folder, data) for folder in folders]
        (scores, weights), seconds = protocol.timed(protocol.fuse, parts, data)
        extra = {"weights": dict(zip(row.parts, weights, strict=True))}
    else:
        first = of_row / f"seed-{FIRST_SEED}" / "train.npz"
        if seed != FIRST_SEED and not first.exists():
            raise FileNotFoundError(f"{row.name}: run first the seed {FIRST_SEED}, which chooses the threshold.")
        held_out = None if seed == FIRST_SEED else Candidates.load(first)
        arguments = (SYSTEMS[row.system], row.system, data, seed, row.options(name), row.folds_of(name), held_out)
        scores, seconds = protocol.timed(protocol.score_with, *arguments)
    save_scores(scores, of_row / f"seed-{seed}")
    return {"seed": seed, **extra, **protocol.evaluate(scores, data), "seconds": seconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="CodiEsp in its published layout")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", nargs="+", default=row_names(), help="names of rows/*.yaml (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of rows that are not deterministic")
    parser.add_argument("--work", type=Path, default=Path("outputs/few-shot"), help="folder of the scores")
    parser.add_argument("--results", type=Path, default=RESULTS / "few_shot", help="folder of the figures")
    arguments = parser.parse_args(argv)
    rows = [read_row(name) for name in arguments.rows]
    logging.getLogger("kept_hf").setLevel(logging.ERROR)
    use_all_cores()
    for name in arguments.sets:
        data, path = SETS[name](arguments.data_dir), arguments.results / f"{name}.json"
        for row in rows:
            if row.options(name) is None:
                continue
            for seed in [FIRST_SEED] if row.deterministic else arguments.seeds:
                run_once(row, name, data, seed, arguments.work, path)


def run_once(row: Row, name: str, data: BenchmarkSet, seed: int, work: Path, path: Path) -> None:
    """Measure a row with a seed, unless that is kept already, and keep it."""

    def read() -> dict:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found or {"set": describe(name, data), "rows": {}}

    if seed in [run["seed"] for run in read()["rows"].get(row.name, [])]:
        return
    run = measure(row, name, data, seed, work)
    kept = read()  # again: another process may have measured another row meanwhile
    runs = kept["rows"].setdefault(row.name, [])
    source = provenance("", [], PACKAGES)
    source["command"] = f"python -m benchmarks.few_shot.run --sets {name} --rows {row.name} --seeds {seed}"
    source["threads"] = torch.get_num_threads()
    runs.append({**run, "peak_memory_gb": peak_memory_gb(), **source})
    runs.sort(key=lambda run: run["seed"])
    keep(kept, path)
    shown = {key: round(100 * value, 1) for key, value in run["dev"]["codes"]["metrics"].items() if value is not None}
    print(f"{name}, {row.title}, seed {seed}, {run['seconds']:.0f} s: {shown}", flush=True)


def describe(name: str, data: BenchmarkSet) -> dict:
    """Name, title and numbers of a set."""
    notes = {"train": len(data.train), **{split: len(rows) for split, rows in data.reported.items()}}
    listed = {"listed_codes": len(data.listed)} if data.listed else {}
    return {"name": name, "title": data.title, "notes": notes, "codes": len(data.code_set), **listed}


if __name__ == "__main__":
    main()
