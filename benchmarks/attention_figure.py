"""Draw time and memory against length from `benchmarks/results/attention_*.json` into `docs/attention.png`.

python benchmarks/attention_figure.py
"""

from __future__ import annotations

import json
from statistics import median

import matplotlib
from results_table import RESULTS, ROOT

matplotlib.use("Agg")
from matplotlib import pyplot

NAMES = {"stock": "transformers", "kept_hf": "kept-hf"}
STYLES = {("stock", "float32"): "C1-o", ("kept_hf", "float32"): "C0-o"}
STYLES |= {("stock", "bfloat16"): "C1--s", ("kept_hf", "bfloat16"): "C0--s"}


def main() -> None:
    """Two panels for the device measured last: training time for a token, and peak memory."""
    path = max(RESULTS.glob("attention_*.json"), key=lambda path: path.stat().st_mtime)
    report = json.loads(path.read_text(encoding="utf-8"))
    runs = [run for run in report["lengths"] if run["mode"] == "forward+backward" and run["allocator"] != "shipped"]
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for (side, dtype), style in STYLES.items():
        chosen = sorted((run for run in runs if run["dtype"] == dtype), key=lambda run: run["length"])
        lengths = [run["length"] for run in chosen]
        label = f"{NAMES[side]}, {dtype}"
        time.plot(lengths, [1000 * median(r["seconds"][side]) / r["length"] for r in chosen], style, label=label)
        memory.plot(lengths, [run["peak_gb"][side] for run in chosen], style, label=label)
    for axes, title in ((time, "training step, ms a token"), (memory, "peak memory of the step, GB")):
        axes.set(title=title, xlabel="tokens of the note", xscale="log", ylim=(0, None))
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    time.legend(frameon=False)
    figure.suptitle(f"{runs[0]['layers']} layers of base width, {runs[0]['globals']} global tokens, {report['device']}")
    figure.savefig(ROOT / "docs" / "attention.png", dpi=110)


if __name__ == "__main__":
    main()
