"""Draw time and memory against length from `benchmarks/results/attention_*.json` into `docs/attention.png`.

python benchmarks/attention_figure.py
"""

from __future__ import annotations

import itertools
import json
from statistics import median

from results_table import RESULTS, ROOT

from kept_hf.reports.figures import COLORS, new_figure

NAMES = {"stock": "transformers", "kept_hf": "kept-hf"}
SIDE_COLORS = {"stock": COLORS[1], "kept_hf": COLORS[0]}
LINES = {"float32": "-o", "bfloat16": "--s"}


def main() -> None:
    """Two panels for the device measured last: training time for a token, and peak memory."""
    path = max(RESULTS.glob("attention_*.json"), key=lambda path: path.stat().st_mtime)
    report = json.loads(path.read_text(encoding="utf-8"))
    runs = [run for run in report["lengths"] if run["mode"] == "forward+backward" and run["allocator"] != "shipped"]
    figure, (time, memory) = new_figure(10, 3.8, panels=(1, 1))
    for dtype, side in itertools.product(LINES, NAMES):
        chosen = sorted((run for run in runs if run["dtype"] == dtype), key=lambda run: run["length"])
        lengths = [run["length"] for run in chosen]
        style = {"color": SIDE_COLORS[side], "label": f"{NAMES[side]}, {dtype}"}
        milliseconds = [1000 * median(run["seconds"][side]) / run["length"] for run in chosen]
        time.plot(lengths, milliseconds, LINES[dtype], **style)
        memory.plot(lengths, [run["peak_gb"][side] for run in chosen], LINES[dtype], **style)
    for axes, title in ((time, "training step, ms a token"), (memory, "peak memory of the step, GB")):
        axes.set(title=title, xlabel="tokens of the note", xscale="log", ylim=(0, None))
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths], minor=False)
        axes.minorticks_off()
    time.legend(frameon=False)
    figure.suptitle(f"{runs[0]['layers']} layers of base width, {runs[0]['globals']} global tokens, {report['device']}")
    figure.savefig(ROOT / "docs" / "attention.png", dpi=110)


if __name__ == "__main__":
    main()
