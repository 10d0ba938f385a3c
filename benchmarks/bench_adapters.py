"""The demo's training command with all parameters, with LoRA, with LoRA and all biases, and with BitFit.

    python benchmarks/bench_adapters.py
    python benchmarks/bench_adapters.py --learning_rates lora=5e-4 --folder outputs/adapters -- --seed 1
    python benchmarks/results_table.py --write

What stands behind `--` goes to `examples/train.py` in every run. The matching stage takes place once: a first run with
it makes the base, which the others take as their --model_name_or_path, so that their seconds and peak memory are those
of training on the notes and of evaluation. That first run trains on no note (its learning rate is 0): its metrics are
those of the base. The runs are processes, one after the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import RESULTS, keep, provenance

TRAIN = Path(__file__).parent.parent / "examples" / "train.py"
METHODS = {
    "full": [],
    "lora": ["--peft", "lora"],
    "lora+bias": ["--peft", "lora+bias"],
    "bitfit": ["--trainable", "bias,lm_head"],
}
LEARNING_RATES = {"lora": 1e-3, "lora+bias": 1e-3, "bitfit": 1e-3}
METRICS = ("f1_macro", "f1_micro", "auc_macro")


def train(options: list[str], folder: Path) -> dict:
    """Run the training command into a folder; its results."""
    command = [sys.executable, str(TRAIN), *options, "--output_dir", str(folder)]
    subprocess.run(command, check=True)
    return json.loads((folder / "all_results.json").read_text(encoding="utf-8"))


def measured(method: str, results: dict, weights: Path | None) -> dict:
    """What is kept of a run. `weights` is the file that this task adds to the base, if one does."""
    split = results["evaluated_on"]
    return {
        "method": method,
        "learning_rate": results["settings"]["learning_rate"],
        "trainable_parameters": results["trainable_parameters"] if weights else 0,
        "stored_bytes": weights.stat().st_size if weights else 0,
        "peak_memory_gb": results["peak_memory_gb"],
        "seconds": results["seconds"],
        **{name: results[f"{split}_{name}"] for name in METRICS},
    }


def main(arguments: list[str] | None = None) -> dict:
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    extra = given[end + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--learning_rates",
        nargs="+",
        metavar="METHOD=RATE",
        default=[],
        help=f"by default the recipe's for full, and {LEARNING_RATES}",
    )
    parser.add_argument("--folder", help="an empty folder to keep the runs in (default: a temporary one)")
    parser.add_argument("--output", default=str(RESULTS / "adapters.json"))
    options = parser.parse_args(given[:end])
    rates = dict(LEARNING_RATES)
    for pair in options.learning_rates:
        method, _, rate = pair.partition("=")
        if method not in METHODS:
            parser.error(f"--learning_rates {pair}: write METHOD=RATE, with a method of {', '.join(METHODS)}")
        rates[method] = float(rate)

    origin = provenance("benchmarks/bench_adapters.py", arguments, ["torch", "transformers", "peft"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if folder.exists() and any(folder.iterdir()):
            parser.error(f"--folder {folder} is not empty: its runs would go on instead of being measured")
        results = train([*extra, "--peft", "lora", "--learning_rate", "0", "--max_steps", "1"], folder / "base")
        runs = [measured("base", results, None)]
        base = ["--model_name_or_path", str(folder / "base" / "base"), "--matching_examples", "0"]
        for method in options.methods:
            rate = ["--learning_rate", str(rates[method])] if method in rates else []
            results = train([*extra, *base, *METHODS[method], *rate], folder / method)
            adapter = folder / method / "adapter" / "adapter_model.safetensors"
            weights = adapter if adapter.exists() else folder / method / "model.safetensors"
            runs.append(measured(method, results, weights))

    report = {
        **origin,
        "device": results["device"],
        "evaluated_on": results["evaluated_on"],
        "notes": results["notes"],
        "codes": results["codes"],
        "seed": results["settings"]["seed"],
        "corpus": results["settings"]["corpus"],
        "runs": runs,
    }
    print(f"\n{'':12}{'rate':>9}{'parameters':>13}{'peak GB':>9}{'seconds':>9}" + "".join(f"{m:>11}" for m in METRICS))
    for run in runs:
        print(
            f"{run['method']:12}{run['learning_rate']:9g}{run['trainable_parameters']:13,}{run['peak_memory_gb']:9}"
            f"{run['seconds']:9.0f}" + "".join(f"{run[name]:11.4f}" for name in METRICS)
        )
    keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
