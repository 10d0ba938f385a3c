"""Print the results table of the README from the runs kept in `benchmarks/results`, or put it there.

cp outputs/demo/all_results.json benchmarks/results/run_demo.json
python benchmarks/results_table.py --write
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = {
    "f1_macro": "macro-F1 (CAML)",
    "f1_macro_per_code": "mean per-code F1",
    "f1_micro": "micro-F1",
    "auc_macro": "AUC macro",
    "auc_micro": "AUC micro",
}
BEGIN, END = "<!-- results: benchmarks/results_table.py --write -->", "<!-- end of results -->"


def results_table() -> str:
    """Markdown: for each run the model and the guess by training frequency, in percent."""
    lines = [
        "| data | system | " + " | ".join(COLUMNS.values()) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for path in sorted(RESULTS.glob("run_*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        split = run["evaluated_on"]
        data = f"{run['settings']['corpus']}, {run['settings']['codes']}: {run['codes']} codes, "
        data += f"{run['notes'][split]} {split} notes"
        for system, prefix in (("training frequency", "frequency"), ("kept-hf", split)):
            values = " | ".join(f"{100 * run[f'{prefix}_{name}']:.1f}" for name in COLUMNS)
            lines.append(f"| {data} | {system} | {values} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; with --write, replace the one in the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the table in README.md")
    table = results_table()
    print(table)
    if parser.parse_args().write:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
