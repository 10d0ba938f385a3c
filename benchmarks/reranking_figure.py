"""Draw F1 by how often a code occurs in training, from `benchmarks/results/rerank_codiesp.json`.

python benchmarks/reranking_figure.py
"""

from __future__ import annotations

import json

from results_table import RESULTS, ROOT

from kept_hf.reports.comparison import plot_by_band


def main() -> None:
    """Write `docs/reranking.png`, the picture of `kept-hf rerank`."""
    report = json.loads((RESULTS / "rerank_codiesp.json").read_text(encoding="utf-8"))
    plot_by_band(ROOT / "docs" / "reranking.png", report["bands"])


if __name__ == "__main__":
    main()
