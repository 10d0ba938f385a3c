"""transformers' Longformer encoder and ours, side by side: time, memory, share of the matrix products' speed.

    python benchmarks/bench_attention.py
    python benchmarks/bench_attention.py --lengths 3072 --globals 400 --layers 12 --parts lengths
    python benchmarks/results_table.py --write && python benchmarks/attention_figure.py

Parts:
    lengths: one note without padding, of several lengths and numbers of global tokens; forward (evaluation), and
        forward and backward (training without dropout). On a CPU with the allocator as it is shipped, and tuned as
        `kept_hf.training.hardware.keep_freed_memory` does, for both.
    padding: a batch of which half is padding, against its notes one by one. Ours only.
    recipe: notes of lengths around 3,000 tokens, transformers' padded to 8,192 (the public recipe), ours not.

The two take turns in one process and have the same weights (base width, random); ratios are medians over the turns.
Peak memory is that of a process of its own, above what the model takes. Arithmetic is counted from the definition: what
a model needs, whatever an implementation does beyond it; a backward pass counts twice the forward pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from statistics import median

import numpy as np
import torch
from provenance import RESULTS, keep, provenance
from transformers import LongformerConfig, LongformerModel

from kept_hf import KeptLongformerConfig, KeptLongformerModel
from kept_hf.training.hardware import keep_freed_memory, peak_memory_gb, use_all_cores

HIDDEN, HEADS, INTERMEDIATE, WINDOW, LONGEST = 768, 12, 3072, 512, 16384
SIDES = ("stock", "kept_hf")
MODES = ("forward", "forward+backward")
PUBLISHED_STEPS = 47_723 * 6 * 4


def build(side: str, layers: int, device: str, backend: str = "auto") -> torch.nn.Module:
    """An encoder of base width with seeded random weights."""
    fields = {
        "vocab_size": 1000,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "intermediate_size": INTERMEDIATE,
        "attention_window": WINDOW,
        "max_position_embeddings": LONGEST + 2,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    if side == "stock":
        return LongformerModel(LongformerConfig(**fields), add_pooling_layer=False).to(device)
    return KeptLongformerModel(KeptLongformerConfig(**fields, attention_backend=backend)).to(device)


def make_batch(lengths: list[int], num_global: int, padded_to: int, device: str) -> dict[str, torch.Tensor]:
    """Random tokens; the first `num_global` of each row have global attention."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, 1000, (len(lengths), padded_to), generator=generator)
    attention_mask = (torch.arange(padded_to)[None] < torch.tensor(lengths)[:, None]).long()
    is_global = (torch.arange(padded_to)[None] < num_global).long() * attention_mask
    input_ids = input_ids.masked_fill(attention_mask == 0, 1)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "global_attention_mask": is_global}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step(model: torch.nn.Module, batch: dict, mode: str, dtype: str, **options) -> None:
    """One pass."""
    device = batch["input_ids"].device.type
    training = mode == "forward+backward"
    model.train(training)
    mixed = torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else nullcontext()
    with mixed, torch.set_grad_enabled(training):
        states = model(**batch, **options).last_hidden_state
    if training:
        states.float().square().mean().backward()
        model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function, *arguments, **options) -> float:
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def matmul_peak(dtype: str, device: str) -> float:
    """Floating-point operations a second of the best of two products of the encoder's shapes and a large square."""
    best = 0.0
    for rows, inner, columns in ((4096, HIDDEN, INTERMEDIATE), (4096, INTERMEDIATE, HIDDEN), (3072, 3072, 3072)):
        kind = getattr(torch, dtype)
        left, right = (torch.randn(shape, device=device, dtype=kind) for shape in ((rows, inner), (inner, columns)))
        times = []
        for _ in range(8):
            start = time.perf_counter()
            left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        best = max(best, 2 * rows * inner * columns / min(times))
    return best


def operations(length: int, num_global: int, layers: int) -> float:
    """Floating-point operations of a forward pass over one note, from the definition."""
    local = np.arange(num_global, length)
    one_sided = WINDOW // 2
    low, high = np.maximum(local - one_sided, 0), np.minimum(local + one_sided, length - 1)
    seen = high - low + 1 + num_global - np.maximum(num_global - low, 0)
    # Query and output of each token; keys and values of all, twice where there are global tokens; feed-forward.
    projections = length * HIDDEN * HIDDEN * (2 + 2 + (2 if num_global else 0)) + 2 * length * HIDDEN * INTERMEDIATE
    products = 2 * HIDDEN * (int(seen.sum()) + num_global * length)
    return 2.0 * layers * (projections + products)


def compare(lengths, num_global, layers, dtype, mode, repeat, device, allocator, backend) -> dict:
    """Both sides in turn, on one batch without padding, in this process."""
    if allocator == "tuned":
        keep_freed_memory()
    use_all_cores()
    models = {side: build(side, layers, device, backend) for side in SIDES}
    models["kept_hf"].load_state_dict(models["stock"].state_dict())
    batch = make_batch(lengths, num_global, max(lengths), device)
    with torch.no_grad():
        states = [model.eval()(**batch).last_hidden_state for model in models.values()]
    difference = (states[0] - states[1]).abs().max().item()
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(repeat + 1):
        for side, model in models.items():
            taken = seconds(step, model, batch, mode, dtype)
            if turn:
                times[side].append(taken)
    peak = matmul_peak(dtype, device)
    work = sum(operations(length, num_global, layers) for length in lengths) * (1 if mode == "forward" else 3)
    return {
        "length": max(lengths),
        "batch_size": len(lengths),
        "globals": num_global,
        "layers": layers,
        "dtype": dtype,
        "mode": mode,
        "allocator": allocator,
        "seconds": times,
        "ratio": median(a / b for a, b in zip(*times.values(), strict=True)),
        "largest_difference": difference,
        "operations": work,
        "matmul_peak": peak,
        "share_of_peak": {side: work / median(times[side]) / peak for side in SIDES},
        "real_tokens_per_second": {side: sum(lengths) / median(times[side]) for side in SIDES},
    }


def peak_of(side, length, num_global, layers, dtype, mode, device, backend) -> float:
    """GB above what the model takes, in this process."""
    use_all_cores()
    model = build(side, layers, device, backend)
    batch = make_batch([length], num_global, length, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(model, batch, mode, dtype)
        return (torch.cuda.max_memory_allocated() - before) / 1e9
    # The gradients' own memory is not what differs.
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = resident_gb()
    step(model, batch, mode, dtype)
    return peak_memory_gb() - before


def resident_gb() -> float:
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * 4096 / 1e9


def padding(layers, dtype, mode, repeat, device, backend) -> dict:
    """Ours: a batch of which half is padding, and its notes one by one."""
    keep_freed_memory()
    use_all_cores()
    model = build("kept_hf", layers, device, backend)
    lengths = [4096, 2048, 1024, 1024]
    together = make_batch(lengths, 256, max(lengths), device)
    alone = [make_batch([length], 256, length, device) for length in lengths]
    times: dict[str, list[float]] = {"one by one": [], "half padding": []}
    for turn in range(repeat + 1):
        one_by_one = sum(seconds(step, model, batch, mode, dtype) for batch in alone)
        half = seconds(step, model, together, mode, dtype)
        if turn:
            times["one by one"].append(one_by_one)
            times["half padding"].append(half)
    ratio = median(a / b for a, b in zip(*times.values(), strict=True))
    return {"lengths": lengths, "dtype": dtype, "mode": mode, "layers": layers, "seconds": times, "ratio": ratio}


def recipe(layers, dtype, mode, repeat, device, backend) -> dict:
    """The public recipe (padded to 8,192, one note a step) and ours, on notes of real lengths."""
    keep_freed_memory()
    use_all_cores()
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(2700), 0.45, size=repeat), 600, 8192).astype(int).tolist()
    models = {side: build(side, layers, device, backend) for side in SIDES}
    masks = torch.arange(6, 400, 8, device=device)[None]  # 50 masks in a prompt of 400 tokens
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn, length in enumerate([lengths[0], *lengths]):
        taken = [
            seconds(step, models["stock"], make_batch([length], 400, 8192, device), mode, dtype),
            seconds(
                step, models["kept_hf"], make_batch([length], 400, length, device), mode, dtype, output_positions=masks
            ),
        ]
        if turn:
            for side, value in zip(SIDES, taken, strict=True):
                times[side].append(value)
    sums = {side: sum(values) for side, values in times.items()}
    return {
        "lengths": lengths,
        "dtype": dtype,
        "mode": mode,
        "layers": layers,
        "seconds": times,
        "ratio": sums["stock"] / sums["kept_hf"],
        "projected_hours_of_the_published_training": {
            side: PUBLISHED_STEPS * value / repeat * 12 / layers / 3600 for side, value in sums.items()
        },
    }


def alone(function, *arguments):
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(arguments: list[str] | None = None) -> dict:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("lengths", "padding", "recipe"))
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--globals", nargs="+", type=int, default=[1, 400])
    parser.add_argument("--layers", type=int, default=12 if on_gpu else 2, help="time and memory grow in proportion")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--allocators", nargs="+", choices=("shipped", "tuned"), default=["shipped", "tuned"])
    parser.add_argument("--backend", default="auto", help="attention_backend of ours")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each, after one that does not count")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--output", help="by default benchmarks/results/attention_DEVICE.json")
    options = parser.parse_args(arguments)
    parts = options.parts or ["lengths", "padding", "recipe"]
    common = (options.repeat, options.device)
    report = {
        **provenance("benchmarks/bench_attention.py", arguments, ["torch", "transformers"]),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "lengths": [],
        "padding": [],
        "recipe": [],
    }
    for dtype in options.dtypes:
        for mode in options.modes:
            if "lengths" in parts:
                for length in options.lengths:
                    for num_global in [count for count in options.globals if count < length]:
                        for allocator in options.allocators if options.device == "cpu" else ["device"]:
                            run = alone(
                                compare, [length], num_global, options.layers, dtype, mode, *common, allocator,
                                options.backend,
                            )  # fmt: skip
                            run["peak_gb"] = {
                                side: alone(
                                    peak_of, side, length, num_global, options.layers, dtype, mode, options.device,
                                    options.backend,
                                )
                                for side in SIDES
                            } if allocator != "shipped" else None  # fmt: skip
                            report["lengths"].append(run)
                            print_run(run)
            for name, function in (("padding", padding), ("recipe", recipe)):
                if name in parts:
                    run = alone(function, options.layers, dtype, mode, *common, options.backend)
                    report[name].append(run)
                    print(f"{name:9}{dtype:10}{mode:18} ratio {run['ratio']:.2f}", flush=True)
    keep(report, options.output or RESULTS / f"attention_{options.device}.json")
    return report


def print_run(run: dict) -> None:
    theirs, ours = (median(run["seconds"][side]) for side in SIDES)
    shares = " -> ".join(f"{100 * run['share_of_peak'][side]:.0f}%" for side in SIDES)
    memory = "" if not run["peak_gb"] else " -> ".join(f"{run['peak_gb'][side]:.2f}" for side in SIDES) + " GB"
    print(
        f"{run['dtype']:9}{run['mode']:18}{run['allocator']:8}{run['length']:6} tokens, {run['globals']:4} global: "
        f"{theirs:7.2f} -> {ours:6.2f} s, ratio {run['ratio']:.2f}, of the peak {shares}, {memory}",
        flush=True,
    )


if __name__ == "__main__":
    main()
