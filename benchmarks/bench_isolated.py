"""The isolated layout against the joint one: scoring many codes for one note, where the time goes, memory, training.

    python benchmarks/bench_isolated.py
    python benchmarks/bench_isolated.py --layers 12 --length 3000 --codes 50 300 1000 8900

Joint: each group of codes stands before the note, which is read again; the prompt's tokens have global attention. It is
computed by this package's encoder, or by that of transformers ("stock": attention_backend="eager"). Isolated: the note
is encoded once, and one token a code is computed; descriptions are encoded beforehand, into a file that is mapped.

All take turns in one process and have the same weights (base width, random, without dropout); ratios are medians over
the turns. Groups of the joint layout are alike: `--groups` are timed and multiplied; what was multiplied is marked "x".
Arithmetic is counted from the definition, a multiplication and an addition as two. The memory of encoding and scoring
all codes is measured in a process of its own, beyond that of the model: on a CPU its anonymous memory (RssAnon; pages
of the mapped file can be dropped at any time), read every 5 ms. On one CPU thread seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from unittest.mock import patch

import torch
from provenance import RESULTS, keep, provenance

from kept_hf import CodeCache, KeptLongformerConfig, KeptLongformerForICDPrompting
from kept_hf.models.mask_attention import mask_attention
from kept_hf.training.hardware import keep_freed_memory

HIDDEN, HEADS, INTERMEDIATE, WINDOW = 768, 12, 3072, 512
MASK, VOCABULARY = 4, 1000


def build(layers: int, longest: int, device: str) -> KeptLongformerForICDPrompting:
    """A model of base width with seeded random weights."""
    torch.manual_seed(0)
    config = KeptLongformerConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_hidden_layers=layers,
        intermediate_size=INTERMEDIATE,
        attention_window=WINDOW,
        max_position_embeddings=-(-longest // WINDOW) * WINDOW + 2,
        type_vocab_size=1,
        yes_token_id=5,
        no_token_id=6,
        mask_token_id=MASK,
    )
    return KeptLongformerForICDPrompting(config).eval().to(device)


def arithmetic(layers: int, note: int, description: int, group: int, codes: int) -> dict[str, float]:
    """Operations of the encoder: the isolated layout's note, codes and descriptions, and the joint layout.

    Of the last layer both layouts compute only what the masks read.
    """
    dense = 2 * HIDDEN * HIDDEN
    after = dense + 4 * HIDDEN * INTERMEDIATE  # output projection and the two layers behind it, of a token

    def seen(number: int) -> int:
        return 4 * HIDDEN * number  # scores and sums of a query over so many keys

    def alone(tokens: int, keys: int) -> int:
        """A row of tokens that sees itself: all layers but the last, and keys and values for masks of each."""
        return (layers - 1) * tokens * (3 * dense + after + seen(keys)) + layers * 2 * tokens * dense

    prompt = group * (description + 1) + 1
    total = prompt + note
    all_keys = 4 * total * dense  # both projections, of all tokens
    joint_layer = all_keys + note * (dense + after + seen(min(WINDOW + 1 + prompt, total)))
    joint_layer += prompt * (dense + after + seen(total))
    last = 2 * total * dense + group * (dense + after + seen(total))
    return {
        "note": float(alone(note, min(WINDOW + 2, note))),
        "codes: attention to the note": float(layers * codes * seen(note)),
        "codes: attention to the block": float(layers * codes * seen(description + 2)),
        "codes: dense layers": float(layers * codes * (3 * dense + after)),
        "descriptions": float(codes * alone(description + 1, description + 1)),
        "joint": float(-(-codes // group) * ((layers - 1) * joint_layer + last)),
    }


def inputs(note: int, description: int, group: int, codes: int) -> tuple[torch.Tensor, dict, torch.Tensor]:
    """Seeded random tokens: a note, blocks, and a joint prompt before the note."""
    generator = torch.Generator().manual_seed(1)

    def words(*shape):
        return torch.randint(7, VOCABULARY, shape, generator=generator)

    text = words(note - 2)
    blocks = {str(code): [0, *row] for code, row in enumerate(words(codes, description).tolist())}
    prompt = torch.cat([words(group, description), torch.full((group, 1), MASK)], dim=1).flatten()
    start, end = torch.tensor([0]), torch.tensor([2])
    return torch.cat([start, text, end])[None], blocks, torch.cat([start, prompt, text, end])[None]


def timed(device: str, function, *arguments, **settings):
    """Seconds and result."""
    clock = time.process_time if takes_processor_time(device) else time.perf_counter
    start = clock()
    result = function(*arguments, **settings)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def takes_processor_time(device: str) -> bool:
    """On one thread the time of the processor is counted, which other processes do not lengthen by taking turns."""
    return device == "cpu" and torch.get_num_threads() == 1


class PeakMemory:
    """The most memory of a kind, in bytes, since entering and beyond what there was then."""

    def __init__(self, device: str):
        self.device, self.bytes, self._done = device, 0, Event()

    def __enter__(self) -> PeakMemory:
        self._before = self._now()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, self._now() - self._before)

    def _now(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def encode_and_score(layers: int, longest: int, device: str, note: int, description: int, codes: int, path: str):
    """In a process of its own: seconds of encoding the descriptions into a file, and peak memory of all that."""
    torch.set_grad_enabled(False)
    model = build(layers, longest, device)
    note_ids, blocks, _ = inputs(note, description, 1, codes)
    report = {}
    with PeakMemory(device) as memory:
        report["seconds"], cache = timed(device, model.encode_codes, blocks, path=path)
    report["encoding_bytes"] = memory.bytes
    with PeakMemory(device) as memory:
        model.score(model.encode_note(note_ids.to(device)), cache)
    report["scoring_bytes"] = memory.bytes
    return {**report, "file_bytes": Path(path).stat().st_size}


@torch.no_grad()
def measure(model, tokens, cache: CodeCache, counts: list[int], repeat: int, groups: int, joint: list[str]) -> dict:
    """Seconds of each side, turn by turn: of the note, of the codes for each number of them, of a joint group."""
    device = model.device.type
    note_ids, together = (tokens[which].to(device) for which in (0, 2))
    seconds = {name: [] for name in ("note", *counts, *joint)}
    with patch.object(model, "_block_states", side_effect=AssertionError("a description was encoded")):
        for _ in range(1 + repeat):
            took, notes = timed(device, model.encode_note, note_ids)
            seconds["note"].append(took)
            for codes in counts:
                seconds[codes].append(timed(device, model.score, notes, cache, cache.codes[:codes])[0])
            for side in joint:
                model.config.attention_backend = "eager" if side == "stock" else "auto"
                took = [timed(device, model, together)[0] for _ in range(groups)]
                seconds[side].append(sum(took) / len(took))
            model.config.attention_backend = "auto"
    return {name: times[1:] if repeat else times for name, times in seconds.items()}  # the first turn does not count


@torch.no_grad()
def shares(model, note_ids, cache: CodeCache, codes: int) -> dict[str, float]:
    """Where the time of the masks goes, as parts of 1. Attention to the block is what is left without a note."""
    device = model.device.type
    took = {"all": 0.0, "block": 0.0}

    def watched(query, key, value, seen, dropout=0.0):
        without = replace(seen, note_key=seen.note_key[:, :0], note_value=seen.note_value[:, :0])
        took["block"] += timed(device, mask_attention, query, key, value, without)[0]
        seconds, context = timed(device, mask_attention, query, key, value, seen)
        took["all"] += seconds
        return context

    notes = model.encode_note(note_ids.to(device))
    with patch("kept_hf.models.longformer_layers.mask_attention", watched):
        total = timed(device, model.score, notes, cache, cache.codes[:codes])[0] - took["block"]
    return {
        "codes: attention to the note": (took["all"] - took["block"]) / total,
        "codes: attention to the block": took["block"] / total,
        "codes: dense layers": 1 - took["all"] / total,
    }


def training(model, tokens, counts: list[int], repeat: int) -> dict:
    """Seconds of a training step (forward, backward, AdamW) with so many codes for one note, turn by turn."""
    device, blocks = model.device.type, torch.tensor(list(tokens[1].values()))
    note_ids = tokens[0].to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model.train()

    def step(codes: int) -> None:
        labels = torch.arange(codes, device=device)[None] % 2
        model(input_ids=note_ids, code_input_ids=blocks[:codes].to(device), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = {codes: [] for codes in counts}
    for _ in range(repeat):
        for codes in counts:
            seconds[codes].append(timed(device, step, codes)[0])
    model.eval()
    return seconds


def ratio(over: list[float], under: list[float]) -> float:
    """Median over the turns."""
    return median(a / b for a, b in zip(over, under, strict=True))


def print_run(run: dict, note: int, joint: list[str]) -> None:
    seconds, operations = run["seconds"], run["operations"]
    isolated = [sum(turn) for turn in zip(seconds["note"], seconds["codes"], strict=True)]
    counted = {name: operations[name] for name in operations if name not in ("joint", "descriptions")}
    parts = ", ".join(f"{name} {number / 1e9:.1f}" for name, number in counted.items())
    print(
        f"{run['codes']} codes, note of {note} tokens: isolated {median(isolated):.3f} s (note "
        f"{median(seconds['note']):.3f}, codes {median(seconds['codes']):.3f}), {sum(counted.values()) / 1e9:.1f} GFLOP"
        f" ({parts}); descriptions once {operations['descriptions'] / 1e9:.1f} GFLOP",
        "; ".join(f"{name} {100 * share:.0f}%" for name, share in run["shares"].items()),
        sep="\n  ",
        flush=True,
    )
    for side in joint:
        print(
            f"  joint, {side}: {median(seconds[side]):.3f} s{' x' if run['joint_multiplied'] else ''}, "
            f"{operations['joint'] / 1e9:.1f} GFLOP; ratio of time {ratio(seconds[side], isolated):.1f}, of arithmetic "
            f"{operations['joint'] / sum(counted.values()):.1f}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> dict:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12 if on_gpu else 2)
    parser.add_argument("--length", type=int, default=3000, help="tokens of the note")
    parser.add_argument("--description", type=int, default=12, help="tokens of a description")
    parser.add_argument("--codes", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--train_codes", type=int, nargs="*", default=[50, 300], help="of a training step")
    parser.add_argument("--group", type=int, default=50, help="codes of a joint prompt")
    parser.add_argument("--groups", type=int, default=2, help="joint prompts measured a turn")
    parser.add_argument("--joint", nargs="+", choices=("kept_hf", "stock"), default=["kept_hf", "stock"])
    parser.add_argument("--repeat", type=int, default=3, help="turns of each, after one that does not count")
    parser.add_argument("--train_repeat", type=int, default=3, help="turns of the training steps")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--output", help="by default benchmarks/results/isolated_DEVICE.json; 'none' keeps nothing")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        keep_freed_memory()
    longest = options.length + options.group * (options.description + 1) + 1
    report = {
        **provenance("benchmarks/bench_isolated.py", arguments, ["torch", "transformers"]),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "settings": {name: getattr(options, name) for name in ("layers", "length", "description", "group", "groups")},
        "clock": "processor" if takes_processor_time(options.device) else "wall",
        "runs": [],
    }
    counts = sorted(options.codes)
    sizes = options.length, options.description
    tokens = inputs(*sizes, options.group, max([*counts, *options.train_codes]))
    with TemporaryDirectory() as folder:
        path = f"{folder}/codes.safetensors"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(encode_and_score, (options.layers, longest, options.device, *sizes, counts[-1], path))
        report["descriptions"] = {"codes": counts[-1], **memory}
        print(f"{counts[-1]} codes: {memory}", flush=True)
        model = build(options.layers, longest, options.device)
        cache = CodeCache.load(path)
        seconds = measure(model, tokens, cache, counts, options.repeat, options.groups, options.joint)
        for codes in counts:
            groups = -(-codes // options.group)
            run = {
                "codes": codes,
                "seconds": {
                    "note": seconds["note"],
                    "codes": seconds[codes],
                    **{side: [took * groups for took in seconds[side]] for side in options.joint},
                },
                "joint_multiplied": groups != options.groups,
                "shares": shares(model, tokens[0], cache, codes),
                "operations": arithmetic(options.layers, *sizes, options.group, codes),
            }
            report["runs"].append(run)
            print_run(run, options.length, options.joint)
        del cache
    output = None if options.output == "none" else options.output or RESULTS / f"isolated_{options.device}.json"
    if output:
        keep(report, output)  # also now: training may not fit into the memory
    if options.train_codes:
        report["training"] = training(model, tokens, options.train_codes, options.train_repeat)
        print("training step:", {codes: median(took) for codes, took in report["training"].items()}, flush=True)
    if output:
        keep(report, output)
    return report


if __name__ == "__main__":
    main()
