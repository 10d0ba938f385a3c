"""The demo's recipes with several seeds: figures of the test split, the README's note, time and memory.

    python benchmarks/bench_demo.py --recipe demo --seeds 1 2 3 4 5
    python benchmarks/bench_demo.py --recipe demo_published --seeds 1 2 3

Each seed is a `kept-hf train RECIPE --seed N` in a process of its own. Epoch and threshold are chosen on the validation
split. Runs that are kept already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import RESULTS, git_revision, keep

README_NOTE = (
    "Brief Hospital Course:\nTreated for a urinary tract infection. Afib, rate controlled. AKI resolved with fluids."
)
README_CODES = frozenset({"599.0", "427.31", "584.9"})
METRICS = ("f1_macro", "f1_micro", "auc_macro", "map")


def run(recipe: str, seed: int) -> dict:
    """Train and evaluate one seed.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["kept-hf", "train", recipe, "--seed", str(seed)]
        arguments = [*command[2:], "--output_dir", folder, "--disable_tqdm", "True"]
        subprocess.run([sys.executable, "-m", "kept_hf.commands.train", *arguments], check=True)
        results = json.loads(Path(folder, "all_results.json").read_text(encoding="utf-8"))
        answers = ask(folder)
    split = results["evaluated_on"]
    names = ("assigned_by_mention", "notes", "codes", "seconds", "peak_memory_gb", "cores")
    return {
        "command": " ".join(command),
        "seed": seed,
        **{name: results[f"{split}_{name}"] for name in METRICS},
        **{name: results[name] for name in names},
        "readme_note": answers,
        "versions": {**results["versions"], "git": git_revision()},
    }


def ask(folder: str) -> dict[str, float]:
    """Probabilities of the right codes for the README's note, and of the most probable wrong one ("wrong")."""
    from transformers import pipeline

    import kept_hf  # noqa: F401 (registers the pipeline)

    answers = {code["code"]: code["probability"] for code in pipeline("icd-coding", model=folder)(README_NOTE)}
    wrong = max(probability for code, probability in answers.items() if code not in README_CODES)
    return {**{code: round(answers[code], 4) for code in sorted(README_CODES)}, "wrong": round(wrong, 4)}


def main() -> None:
    """Run what is missing, and keep it in `benchmarks/results/demo_seeds.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo", help="a packaged recipe of the demo corpus (default: demo)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--output", type=Path, default=RESULTS / "demo_seeds.json", help="the JSON file")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        kept = json.loads(arguments.output.read_text(encoding="utf-8")) if os.path.exists(arguments.output) else {}
        runs = kept.setdefault(arguments.recipe, [])
        if seed in [run["seed"] for run in runs]:
            continue
        runs.append(run(arguments.recipe, seed))
        runs.sort(key=lambda run: run["seed"])
        keep(kept, arguments.output)


if __name__ == "__main__":
    main()
