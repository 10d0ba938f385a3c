"""Late interaction against joint prompts: scoring many codes for one note, memory, training.

    python benchmarks/bench_late_interaction.py
    python benchmarks/bench_late_interaction.py --layers 12 --length 3000 --codes 50 300 8900

Prompts: each group of codes stands before the note, which is read again; the prompt's tokens have global attention.
They are computed by this package's encoder, or by that of transformers ("stock": attention_backend="eager"). Late
interaction: the note is encoded once, and compared with the vectors of names, which were encoded beforehand.

All take turns in one process and have the same weights (base width, random, without dropout); ratios are medians over
the turns. Groups of prompts are alike: one is timed a turn and multiplied. The memory of encoding and scoring all codes
is measured in a process of its own, beyond that of the model: on a CPU its anonymous memory (RssAnon), read every 5 ms.
On one CPU thread seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from statistics import median
from unittest.mock import patch

import torch
from memory import PeakMemory
from provenance import RESULTS, keep, provenance

from kept_hf import (
    CodeCache,
    KeptLongformerConfig,
    KeptLongformerForICDMatching,
    KeptLongformerForICDPrompting,
    KeptLongformerMatchingConfig,
)
from kept_hf.training.hardware import keep_freed_memory

HIDDEN, HEADS, INTERMEDIATE, WINDOW = 768, 12, 3072, 512
MASK, VOCABULARY = 4, 1000
SIDES = ("late interaction", "prompts, ours", "prompts, stock")


def build(layers: int, longest: int, device: str) -> tuple[KeptLongformerForICDMatching, KeptLongformerForICDPrompting]:
    """Both models of base width, with the same seeded random weights."""
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "intermediate_size": INTERMEDIATE,
        "attention_window": WINDOW,
        "max_position_embeddings": -(-longest // WINDOW) * WINDOW + 2,
        "type_vocab_size": 1,
        "yes_token_id": 5,
        "no_token_id": 6,
        "mask_token_id": MASK,
    }
    torch.manual_seed(0)
    prompting = KeptLongformerForICDPrompting(KeptLongformerConfig(**fields)).eval().to(device)
    matching = KeptLongformerForICDMatching(KeptLongformerMatchingConfig(**fields)).eval().to(device)
    matching.longformer = prompting.longformer
    return matching, prompting


def inputs(note: int, name: int, group: int, codes: int) -> tuple[torch.Tensor, dict, torch.Tensor]:
    """Seeded random tokens: a note, blocks, and a joint prompt before the note."""
    generator = torch.Generator().manual_seed(1)

    def words(*shape):
        return torch.randint(7, VOCABULARY, shape, generator=generator)

    text = words(note - 2)
    blocks = {str(code): [0, *row] for code, row in enumerate(words(codes, name).tolist())}
    prompt = torch.cat([words(group, name), torch.full((group, 1), MASK)], dim=1).flatten()
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


def memory_of(layers: int, longest: int, device: str, note: int, name: int, codes: int) -> dict[str, float]:
    """In a process of its own: seconds of encoding all names, and peak memory of encoding and of scoring."""
    torch.set_grad_enabled(False)
    model, _ = build(layers, longest, device)
    note_ids, blocks, _ = inputs(note, name, 1, codes)
    with PeakMemory(device) as encoding:
        seconds, cache = timed(device, model.encode_codes, blocks)
    with PeakMemory(device) as scoring:
        model.score(model.encode_note(note_ids.to(device)), cache)
    return {
        "seconds": seconds,
        "encoding_bytes": encoding.bytes,
        "scoring_bytes": scoring.bytes,
        "cache_bytes": cache.num_bytes,
    }


@torch.no_grad()
def measure(models, tokens, cache: CodeCache, counts: list[int], repeat: int) -> dict:
    """Seconds turn by turn: of encoding the note, of comparing it with so many codes, of one joint group."""
    matching, prompting = models
    device = matching.device.type
    note_ids, together = (tokens[which].to(device) for which in (0, 2))
    seconds = {name: [] for name in ("note", *counts, *SIDES[1:])}
    with patch.object(matching, "_block_vectors", side_effect=AssertionError("a name was encoded")):
        for _ in range(1 + repeat):
            took, notes = timed(device, matching.encode_note, note_ids)
            seconds["note"].append(took)
            for codes in counts:
                seconds[codes].append(timed(device, matching.score, notes, cache, cache.codes[:codes])[0])
            for side in SIDES[1:]:
                prompting.config.attention_backend = "eager" if side == "prompts, stock" else "auto"
                seconds[side].append(timed(device, prompting, together)[0])
    return {name: times[1:] for name, times in seconds.items()}  # the first turn does not count


def training(model, tokens, counts: list[int], repeat: int) -> dict[int, list[float]]:
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
    return seconds


def main(arguments: list[str] | None = None) -> dict:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12 if on_gpu else 2)
    parser.add_argument("--length", type=int, default=3000, help="tokens of the note")
    parser.add_argument("--name", type=int, default=12, help="tokens of a name")
    parser.add_argument("--codes", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--train_codes", type=int, nargs="*", default=[50, 300], help="of a training step")
    parser.add_argument("--group", type=int, default=50, help="codes of a joint prompt")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each, after one that does not count")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--output", help="default: benchmarks/results/late_interaction_DEVICE.json; 'none': nothing")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        keep_freed_memory()
    longest, counts = options.length + options.group * (options.name + 1) + 1, sorted(options.codes)
    sizes = options.length, options.name
    report = {
        **provenance("benchmarks/bench_late_interaction.py", arguments, ["torch", "transformers"]),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "settings": {name: getattr(options, name) for name in ("layers", "length", "name", "group")},
        "clock": "processor" if takes_processor_time(options.device) else "wall",
    }
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(memory_of, (options.layers, longest, options.device, *sizes, counts[-1]))
    report["names"] = {"codes": counts[-1], **memory}
    print(f"{counts[-1]} codes: {memory}", flush=True)
    tokens = inputs(*sizes, options.group, max([*counts, *options.train_codes]))
    models = build(options.layers, longest, options.device)
    # What is compared does not change the time.
    one = models[0].encode_codes({"0": tokens[1]["0"]})
    cache = CodeCache(
        vectors=one.vectors.repeat(counts[-1], 1),
        counts=one.counts * counts[-1],
        lengths=one.lengths * counts[-1],
        token_ids=one.token_ids * counts[-1],
        weights=one.weights,
        codes=list(tokens[1])[: counts[-1]],
    )
    seconds = measure(models, tokens, cache, counts, options.repeat)
    report["seconds"] = {str(name): took for name, took in seconds.items()}
    for codes in counts:
        groups = -(-codes // options.group)
        ours = [note + compared for note, compared in zip(seconds["note"], seconds[codes], strict=True)]
        against = {
            side: median(groups * took / own for took, own in zip(seconds[side], ours, strict=True))
            for side in SIDES[1:]
        }
        print(f"{codes} codes: {median(ours):.2f} s; times as long: {against}", flush=True)
    if options.train_codes:
        report["training"] = training(models[0], tokens, options.train_codes, options.repeat)
        print("training step:", {codes: median(took) for codes, took in report["training"].items()}, flush=True)
    if options.output != "none":
        keep(report, options.output or RESULTS / f"late_interaction_{options.device}.json")
    return report


if __name__ == "__main__":
    main()
