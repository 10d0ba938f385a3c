"""Keep the result of a training run, with the revision it was made from.

    python benchmarks/keep_run.py outputs/demo/all_results.json demo
    python benchmarks/results_table.py --write

Run it in the checkout that the run was made from, before anything in it changes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from provenance import RESULTS, git_revision, keep


def main() -> None:
    """Copy the file to `benchmarks/results/run_{name}.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="all_results.json of the run")
    parser.add_argument("name", help="of the run")
    parser.add_argument("--folder", default=RESULTS, help="where to keep it (default: benchmarks/results)")
    arguments = parser.parse_args()
    results = json.loads(Path(arguments.path).read_text(encoding="utf-8"))
    results["settings"]["data_dir"] = None  # a path of one machine
    results["settings"]["cache_dir"] = None
    results["versions"]["git"] = git_revision()
    keep(results, Path(arguments.folder, f"run_{arguments.name}.json"))
    print(f"Kept as run_{arguments.name}.json, revision {results['versions']['git']}.")


if __name__ == "__main__":
    main()
