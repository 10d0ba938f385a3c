"""Memory and time of a training step of MSMN, with its attention in chunks of codes and all at once.

    python benchmarks/bench_msmn.py                                      # all codes of MIMIC-III, a GPU
    python benchmarks/bench_msmn.py --notes 2 --words 200 --codes 500    # a CPU

A step is forward (R-Drop: every note twice) and backward; the optimizer's two copies of the parameters come on top.
Each side has a process of its own, so that one's freed memory does not hide the other's. Words and labels are random,
all notes have the full length, and terms from 1 to `--term_words` words. Peak memory is that of the process above what
the model takes: on a GPU what PyTorch allocated, on a CPU what the system gave (some tenths of a GB are libraries).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import torch
from provenance import RESULTS, keep, provenance

from kept_hf import MSMNConfig, MSMNForICDCoding
from kept_hf.training.hardware import peak_memory_gb

VOCAB = 50_000


def make_step(options: argparse.Namespace, chunk: int):
    """The model, and a function that runs a step of it."""
    torch.manual_seed(options.seed)
    config = MSMNConfig(
        vocab_size=VOCAB,
        num_synonyms=options.synonyms,
        num_labels=options.codes,
        max_words=options.words,
        code_chunk_size=chunk,
    )
    model = MSMNForICDCoding(config).to(options.device).train()
    terms = options.codes * options.synonyms
    lengths = torch.randint(1, options.term_words + 1, (terms, 1))
    term_ids = torch.randint(2, VOCAB, (terms, options.term_words))
    model.set_label_terms(term_ids, torch.arange(options.term_words) < lengths)
    batch = {
        "input_ids": torch.randint(2, VOCAB, (options.notes, options.words)),
        "labels": (torch.rand(options.notes, options.codes) < 16 / options.codes).long(),
    }
    batch = {name: values.to(options.device) for name, values in batch.items()}
    device_type = torch.device(options.device).type

    def step():
        model.zero_grad()
        with torch.autocast(device_type, dtype=torch.bfloat16) if options.bf16 else nullcontext():
            loss = model(**batch).loss
        loss.backward()
        return loss.item()

    return model, step


def measure(options: argparse.Namespace, chunk: int) -> dict:
    """Peak memory (GB) and time (s) of steps with chunks of so many codes; 0 for all at once."""
    on_gpu = torch.device(options.device).type == "cuda"
    model, step = make_step(options, chunk)
    if on_gpu:
        before = torch.cuda.memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    else:
        before = peak_memory_gb()
    seconds = []
    try:
        for _ in range(options.repeat + 1):
            start = time.perf_counter()
            loss = step()  # waits for the GPU
            seconds.append(time.perf_counter() - start)
    except torch.cuda.OutOfMemoryError:
        return {"chunk": chunk, "out_of_memory": True}
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else peak_memory_gb()
    return {
        "chunk": chunk,
        "loss": loss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_gb": peak - before,
        "seconds": min(seconds[1:]),  # the first step also warms up
        "all_seconds": seconds,
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=2, help="batch size")
    parser.add_argument("--words", type=int, default=4000, help="of a note")
    parser.add_argument("--codes", type=int, default=8900)
    parser.add_argument("--synonyms", type=int, default=4, help="of a code")
    parser.add_argument("--term_words", type=int, default=16, help="of the longest term")
    parser.add_argument("--chunks", default="0,256", help="numbers of codes at a time, separated by commas; 0 for all")
    parser.add_argument("--repeat", type=int, default=2, help="steps beyond the first; the best counts")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=str(RESULTS / "msmn.json"))
    options = parser.parse_args(arguments)

    runs = []
    for chunk in map(int, options.chunks.split(",")):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            runs.append(process.submit(measure, options, chunk).result())
    sizes = ("notes", "words", "codes", "synonyms", "term_words", "bf16", "device")
    report = {
        **provenance("benchmarks/bench_msmn.py", arguments, ["torch", "transformers"]),
        **{name: getattr(options, name) for name in sizes},
        "gpu": torch.cuda.get_device_name() if options.device.startswith("cuda") else None,
        "runs": runs,
    }
    print(", ".join(f"{getattr(options, name)} {name}" for name in sizes[:4]), "on", report["gpu"] or options.device)
    print(f"{'codes at a time':>16}{'peak, GB':>12}{'s a step':>12}")
    for run in runs:
        values = ("out of memory",) if "out_of_memory" in run else (f"{run['peak_gb']:.2f}", f"{run['seconds']:.2f}")
        print(f"{run['chunk'] or 'all':>16}" + "".join(f"{value:>12}" for value in values))
    keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
