"""Many notes: what builder, rows, prediction and metrics take, and whether memory stays.

    python benchmarks/bench_load.py                       # 1,000, 10,000 and 100,000 notes
    python benchmarks/bench_load.py --notes 1000 5000 --matrix 5000 870

Notes are those of the demo, again and again under new ids, with its 60 codes; the model is of two small layers with
random weights, since it is the way of the notes that is measured. Each number of notes has a process of its own. Memory
is that beyond what the process had before the step. `--matrix` is the shape of a score matrix for the metrics alone.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import logging
import multiprocessing
import os
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from memory import PeakMemory
from provenance import RESULTS, keep, provenance
from transformers import AutoTokenizer

from kept_hf import KeptLongformerForICDMatching, KeptLongformerMatchingConfig, KeptProcessor
from kept_hf.commands import predict
from kept_hf.corpora import load_corpus
from kept_hf.metrics import icd_metrics
from kept_hf.training.rows import prompt_rows
from kept_hf.training.weights import PACKAGED_WEIGHTS, weights_path


def write_notes(path: Path, notes: int) -> None:
    """So many notes of the demo, as JSON lines."""
    rows = [row for split in load_corpus("demo").dataset.values() for row in split]
    with open(path, "w", encoding="utf-8") as file:
        for number, row in enumerate(islice(cycle(rows), notes)):
            text = f"Visit {number}. {row['text']}"
            file.write(json.dumps({"note_id": f"{number:07}", "text": text, "codes": row["codes"]}) + "\n")


def write_codes(path: Path) -> None:
    """The demo's codes and descriptions, as CSV."""
    code_set = load_corpus("demo").code_set
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("code", "description"), *((code, code_set.describe(code)) for code in code_set)])


def make_model(folder: Path) -> KeptProcessor:
    """A small model of late interaction with its processor, saved."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(weights_path(PACKAGED_WEIGHTS))
    processor = KeptProcessor(tokenizer, load_corpus("demo").code_set, max_length=512, prompt_layout="isolated")
    config = KeptLongformerMatchingConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=64,
        attention_window=16,
        max_position_embeddings=514,
        pad_token_id=tokenizer.pad_token_id,
        **processor.config_overrides(),
    )
    KeptLongformerForICDMatching(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor


def steps(notes: int) -> dict[str, dict[str, float]]:
    """Step → seconds and peak memory for so many notes."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    measured = {}

    @contextlib.contextmanager
    def step(name: str):
        start = time.perf_counter()
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            PeakMemory() as memory,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield
        measured[name] = {"seconds": time.perf_counter() - start, "bytes": memory.bytes}

    with TemporaryDirectory() as name:
        folder = Path(name)
        write_notes(folder / "notes.jsonl", notes)
        write_codes(folder / "codes.csv")
        processor = make_model(folder / "model")
        with step("builder"):
            files = {"data_files": [str(folder / "notes.jsonl")], "codes_file": str(folder / "codes.csv")}
            corpus = load_corpus("own", cache_dir=folder / "cache", **files)
        with step("rows"):
            prompt_rows(corpus.dataset["train"], processor)
        with step("prediction"):
            options = ["--model", str(folder / "model"), "--input", str(folder / "notes.jsonl"), "--batch_size", "32"]
            predict.main([*options, "--output", str(folder / "predictions.jsonl")])
        scores = np.random.default_rng(0).normal(size=(notes, len(processor.code_set))).astype(np.float32)
        with step("metrics"):
            icd_metrics(scores, scores > 1.5)
    return measured


def matrix_metrics(notes: int, codes: int) -> dict[str, float]:
    """Seconds and peak memory of the metrics for one score matrix, and its bytes."""
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((notes, codes), dtype=np.float32)
    labels = (scores + generator.standard_normal(scores.shape, dtype=np.float32) > 4).astype(np.int8)
    start = time.perf_counter()
    with PeakMemory() as memory:
        icd_metrics(scores, labels)
    return {"seconds": time.perf_counter() - start, "bytes": memory.bytes, "matrix_bytes": scores.nbytes}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--matrix", type=int, nargs=2, default=[50_000, 8_700], metavar=("NOTES", "CODES"))
    parser.add_argument("--output", default=RESULTS / "load.json", help="'none' keeps nothing")
    options = parser.parse_args(arguments)
    report = {**provenance("benchmarks/bench_load.py", arguments, ["torch", "transformers", "datasets", "numpy"])}
    context = multiprocessing.get_context("spawn")
    report["notes"] = {}
    for notes in options.notes:
        with context.Pool(1) as pool:
            report["notes"][str(notes)] = pool.apply(steps, (notes,))
        print(notes, report["notes"][str(notes)], flush=True)
    with context.Pool(1) as pool:
        report["matrix"] = {"shape": options.matrix, **pool.apply(matrix_metrics, tuple(options.matrix))}
    print(report["matrix"], flush=True)
    if options.output != "none":
        keep(report, options.output)
    return report


if __name__ == "__main__":
    main()
