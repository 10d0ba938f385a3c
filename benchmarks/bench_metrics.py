"""Time and memory of `kept_hf.metrics` beside a plain reading of the public definitions.

    python benchmarks/bench_metrics.py --notes 3372 --codes 8692 --repeat 1

The two take turns in one process, on made-up scores: codes with Zipf frequencies, about 16 a note, a gold code scored 4
(standard deviation 2) above the others, as single-precision numbers. Memory is the peak that numpy reports to
tracemalloc above the inputs, measured in a run of its own.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from provenance import RESULTS, keep, provenance
from reference_metrics import reference_metrics, reference_threshold

from kept_hf.metrics import best_micro_f1_threshold, icd_metrics


def make_run(notes: int, codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float32) and labels (int64, as the public code has them) of shape (notes, codes)."""
    generator = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, codes + 1)
    frequency /= frequency.sum()
    labels = np.zeros((notes, codes), dtype=np.int64)
    per_note = min(16, codes // 2)
    for row in labels:
        row[generator.choice(codes, per_note, replace=False, p=frequency)] = 1
    scores = generator.standard_normal((notes, codes), dtype=np.float32)
    scores += np.log(frequency * per_note).astype(np.float32) - 1
    scores[labels == 1] += generator.normal(4, 2, size=int(labels.sum())).astype(np.float32)
    return scores, labels


def peak_memory(function, *arrays) -> int:
    """Peak of the bytes allocated while `function` runs."""
    tracemalloc.start()
    function(*arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=3372)
    parser.add_argument("--codes", type=int, default=8692)
    parser.add_argument("--repeat", type=int, default=1, help="turns of each; the best time counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=str(RESULTS / "metrics.json"))
    options = parser.parse_args(arguments)

    scores, labels = make_run(options.notes, options.codes, options.seed)
    functions = {
        ("metrics", "reference"): reference_metrics,
        ("metrics", "kept_hf"): icd_metrics,
        ("threshold", "reference"): reference_threshold,
        ("threshold", "kept_hf"): best_micro_f1_threshold,
    }
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in functions}
    results = {}
    for _ in range(options.repeat):
        for name, function in functions.items():
            start = time.perf_counter()
            results[name] = function(scores, labels)
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = results["metrics", "kept_hf"], results["metrics", "reference"]
    difference = max(abs(ours[name] - theirs[name]) for name in theirs)
    published = best_micro_f1_threshold(scores, labels, published=True)

    report = {
        **provenance("benchmarks/bench_metrics.py", arguments, ["numpy", "scikit-learn"]),
        "notes": options.notes,
        "codes": options.codes,
        "seconds": {
            task: {who: min(seconds[task, who]) for who in ("reference", "kept_hf")}
            for task in ("metrics", "threshold")
        },
        "all_seconds": {"/".join(name): values for name, values in seconds.items()},
        "score_bytes": scores.nbytes,
        "peak_bytes": {"/".join(name): peak_memory(function, scores, labels) for name, function in functions.items()},
        "largest_difference": difference,
        "threshold": {
            "kept_hf": results["threshold", "kept_hf"],
            "kept_hf, published": published,
            "reference": float(results["threshold", "reference"]),
        },
    }
    print(
        f"{options.notes} notes, {options.codes} codes; best of {options.repeat}; largest difference {difference:.1e}"
    )
    print(f"{'':12}{'reference':>12}{'kept_hf':>12}{'ratio':>9}{'peak / scores':>22}")
    for task, times in report["seconds"].items():
        memory = [report["peak_bytes"][f"{task}/{who}"] / scores.nbytes for who in times]
        print(
            f"{task:12}{times['reference']:10.2f} s{times['kept_hf']:10.2f} s"
            f"{times['reference'] / times['kept_hf']:9.1f}{memory[0]:13.1f} ->{memory[1]:6.1f}"
        )
    keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
