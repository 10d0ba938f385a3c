"""Draw time and memory against the number of notes, from `benchmarks/results/load.json`.

python benchmarks/load_figure.py
"""

from __future__ import annotations

import json

from results_table import RESULTS, ROOT

from kept_hf.reports.figures import COLORS, new_figure


def main() -> None:
    """Write `docs/load.png`: two panels with a line for each step."""
    measured = json.loads((RESULTS / "load.json").read_text(encoding="utf-8"))["notes"]
    numbers = [int(notes) for notes in measured]
    figure, (seconds, memory) = new_figure(9, 3.6, panels=(1, 1))
    for color, step in zip(COLORS, measured[str(numbers[0])], strict=False):
        found = [measured[str(notes)][step] for notes in numbers]
        seconds.plot(numbers, [one["seconds"] for one in found], "-o", color=color, label=step)
        memory.plot(numbers, [one["bytes"] / 1e6 for one in found], "-o", color=color, label=step)
    seconds.set(title="seconds", xlabel="notes", xscale="log", yscale="log")
    memory.set(title="peak memory of the step, MB", xlabel="notes", xscale="log")
    seconds.legend(frameon=False)
    figure.savefig(ROOT / "docs" / "load.png", dpi=110)


if __name__ == "__main__":
    main()
