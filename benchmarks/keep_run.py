"""Keep the result of a training run, with the revision it was made from.

    python benchmarks/keep_run.py outputs/demo/all_results.json demo
    python benchmarks/keep_run.py outputs/hsap/all_results.json hsap --kind hsap
    python benchmarks/keep_run.py outputs/mlm/all_results.json codiesp --kind mlm
    python benchmarks/keep_run.py outputs/zero-shot/all_results.json codiesp --kind zero_shot
    python benchmarks/keep_run.py outputs/two-stages/all_results.json codiesp --kind rerank
    python benchmarks/results_table.py --write

Run it in the checkout that the run was made from, before anything in it changes.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from provenance import RESULTS, git_revision, keep


def main() -> None:
    """Copy the file to `benchmarks/results/{kind}_{name}.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="all_results.json of the run")
    parser.add_argument("name", help="of the run")
    parser.add_argument(
        "--kind",
        choices=("run", "hsap", "mlm", "zero_shot", "rerank"),
        default="run",
        help="of kept-hf train or train-msmn, of which pretraining command, or of kept-hf rerank",
    )
    parser.add_argument("--folder", default=RESULTS, help="where to keep it (default: benchmarks/results)")
    arguments = parser.parse_args()
    results = json.loads(Path(arguments.path).read_text(encoding="utf-8"))
    for name in ("data_dir", "cache_dir", "output_dir"):  # paths of one machine
        if name in results["settings"]:
            results["settings"][name] = None
    if "command" in results:
        results["command"] = re.sub(r" --(output_dir|cache_dir)[ =]\S+", "", results["command"])
        results["command"] = re.sub(r"( --data_dir[ =])\S+/", r"\1path/to/", results["command"])
    results["versions"]["git"] = git_revision()
    file = f"{arguments.kind}_{arguments.name}.json"
    keep(results, Path(arguments.folder, file))
    print(f"Kept as {file}, revision {results['versions']['git']}.")


if __name__ == "__main__":
    main()
