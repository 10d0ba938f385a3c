"""Draw cost against number of codes, from `benchmarks/results/isolated_*.json` into `docs/isolated.png`.

python benchmarks/isolated_figure.py
"""

from __future__ import annotations

import json
from statistics import median

from results_table import RESULTS, ROOT

from kept_hf.reports.figures import COLORS, new_figure

JOINT = {"stock": ("joint, transformers", COLORS[1]), "kept_hf": ("joint, kept-hf", COLORS[0])}


def main() -> None:
    """Two panels for the device measured last: seconds for one note, and the parts of the isolated layout's."""
    path = max(RESULTS.glob("isolated_*.json"), key=lambda path: path.stat().st_mtime)
    report = json.loads(path.read_text(encoding="utf-8"))
    runs, once = report["runs"], report["descriptions"]
    codes = [run["codes"] for run in runs]
    parts = {"the note": [median(run["seconds"]["note"]) for run in runs]}
    for name in runs[0]["shares"]:
        parts[name] = [run["shares"][name] * median(run["seconds"]["codes"]) for run in runs]
    isolated = [sum(run) for run in zip(*parts.values(), strict=True)]
    first = [total + once["seconds"] * number / once["codes"] for total, number in zip(isolated, codes, strict=True)]
    figure, (cost, spent) = new_figure(11, 4, panels=(1, 1))
    for side, (label, color) in JOINT.items():
        cost.plot(codes, [median(run["seconds"][side]) for run in runs], "-o", color=color, label=label)
    cost.plot(codes, first, "--s", color=COLORS[2], label="isolated, descriptions encoded too")
    cost.plot(codes, isolated, "-o", color=COLORS[2], label="isolated, one more note")
    cost.set(title="seconds for one note", xlabel="codes asked", xscale="log", yscale="log")
    cost.set_xticks(codes, [f"{number:,}" for number in codes], minor=False)
    cost.legend(fontsize="small", frameon=False)
    bottom = [0.0] * len(runs)
    for (name, seconds), color in zip(parts.items(), COLORS, strict=False):
        shares = [100 * part / total for part, total in zip(seconds, isolated, strict=True)]
        spent.bar([f"{number:,}" for number in codes], shares, bottom=bottom, color=color, label=name)
        bottom = [low + share for low, share in zip(bottom, shares, strict=True)]
    spent.set(title="isolated, one more note: percent of the time", xlabel="codes asked")
    spent.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for axes in (cost, spent):
        axes.minorticks_off()
    settings = report["settings"]
    figure.suptitle(
        f"{settings['layers']} layers of base width, note of {settings['length']:,} tokens, descriptions of "
        f"{settings['description']}, {report['device']}, threads: {report['threads'] or 'all'}"
    )
    figure.savefig(ROOT / "docs" / "isolated.png", dpi=110)


if __name__ == "__main__":
    main()
