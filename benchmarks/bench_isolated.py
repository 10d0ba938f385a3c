"""Scoring many codes for one note: the isolated layout with encoded descriptions, and the joint layout in groups.

    python benchmarks/bench_isolated.py
    python benchmarks/bench_isolated.py --layers 12 --length 3000 --codes 300 8900 --joint kept_hf stock

Joint: each group of codes stands before the note, which is read anew; the prompt's tokens have global attention. It is
computed by this package's encoder, or by that of transformers ("stock": attention_backend="eager"). Isolated: the note
is encoded once, and one token a code is computed; descriptions are encoded beforehand, which is timed apart.

All take turns in one process and have the same weights (base width, random, without dropout); ratios are medians over
the turns. The time of the joint layout is measured on at most `--groups` groups, which are alike, and multiplied; what
was multiplied is marked "x". Arithmetic is counted from the definition, a multiplication and an addition as two.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from provenance import RESULTS, keep, provenance

from kept_hf import KeptLongformerConfig, KeptLongformerForICDPrompting
from kept_hf.hardware import keep_freed_memory

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
    """Operations of the encoder: of the note and of all codes in the isolated layout, and of the joint layout.

    Of the last layer both layouts compute only what the masks read.
    """
    dense = 2 * HIDDEN * HIDDEN
    after = dense + 4 * HIDDEN * INTERMEDIATE  # output projection and the two layers behind it, of a token

    def seen(number: int) -> int:
        return 4 * HIDDEN * number  # scores and sums of a query over so many keys

    note_layer = note * (3 * dense + after + seen(min(WINDOW + 2, note))) + 2 * note * dense
    of_note = (layers - 1) * note_layer + 2 * note * dense
    of_codes = layers * codes * (3 * dense + after + seen(note + description + 2))
    prompt = group * (description + 1) + 1
    total = prompt + note
    all_keys = 4 * total * dense  # both projections, of all tokens
    joint_layer = all_keys + note * (dense + after + seen(min(WINDOW + 1 + prompt, total)))
    joint_layer += prompt * (dense + after + seen(total))
    last = 2 * total * dense + group * (dense + after + seen(total))
    of_joint = -(-codes // group) * ((layers - 1) * joint_layer + last)
    return {"note": float(of_note), "codes": float(of_codes), "joint": float(of_joint)}


def timed(device: str, function, *arguments):
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


@torch.no_grad()
def measure(model, note: int, description: int, group: int, codes: int, repeat: int, groups: int, joint: list[str]):
    """Seconds of each side, turn by turn."""
    device = model.device.type
    generator = torch.Generator().manual_seed(1)

    def words(*shape):
        return torch.randint(7, VOCABULARY, shape, generator=generator)

    note_ids = torch.cat([torch.zeros(1, dtype=torch.long), words(note - 2), torch.tensor([2])])[None].to(device)
    blocks = {str(code): [0, *words(description).tolist()] for code in range(codes)}
    prompt = torch.cat([words(group, description), torch.full((group, 1), MASK)], dim=1).flatten()
    together = torch.cat([torch.tensor([0]), prompt, words(note - 2), torch.tensor([2])])[None].to(device)
    encoding, cache = timed(device, model.encode_codes, blocks)
    seconds = {name: [] for name in ("note", "codes", *joint)}
    num_groups = -(-codes // group)
    for _ in range(1 + repeat):
        took, notes = timed(device, model.encode_note, note_ids)
        seconds["note"].append(took)
        seconds["codes"].append(timed(device, model.score, notes, cache)[0])
        for side in joint:
            model.config.attention_backend = "eager" if side == "stock" else "auto"
            took = [timed(device, model, together)[0] for _ in range(min(groups, num_groups))]
            seconds[side].append(sum(took) * num_groups / len(took))
        model.config.attention_backend = "auto"
    return {
        "codes": codes,
        "seconds": {name: times[1:] for name, times in seconds.items()},  # the first turn does not count
        "seconds_of_descriptions_once": encoding,
        "joint_multiplied": num_groups > groups,
        "cache_bytes": cache.num_bytes,
        "operations": arithmetic(len(model.longformer.encoder.layer), note, description, group, codes),
    }


def print_run(run: dict, note: int, joint: list[str]) -> None:
    seconds, operations = run["seconds"], run["operations"]
    isolated = [sum(turn) for turn in zip(seconds["note"], seconds["codes"], strict=True)]
    of_isolated = operations["note"] + operations["codes"]
    print(
        f"{run['codes']} codes, note of {note} tokens: isolated {median(isolated):.3f} s (note "
        f"{median(seconds['note']):.3f}, codes {median(seconds['codes']):.3f}), {of_isolated / 1e9:.1f} GFLOP (note "
        f"{operations['note'] / 1e9:.1f}, codes {operations['codes'] / 1e9:.1f}); descriptions once "
        f"{run['seconds_of_descriptions_once']:.2f} s, cache {run['cache_bytes'] / 1e6:.0f} MB",
        flush=True,
    )
    for side in joint:
        ratio = median(theirs / ours for theirs, ours in zip(seconds[side], isolated, strict=True))
        print(
            f"  joint, {side}: {median(seconds[side]):.3f} s{' x' if run['joint_multiplied'] else ''}, "
            f"{operations['joint'] / 1e9:.1f} GFLOP; ratio of time {ratio:.1f}, of arithmetic "
            f"{operations['joint'] / of_isolated:.1f}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> dict:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12 if on_gpu else 2)
    parser.add_argument("--length", type=int, default=3000, help="tokens of the note")
    parser.add_argument("--description", type=int, default=12, help="tokens of a description")
    parser.add_argument("--codes", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--group", type=int, default=50, help="codes of a joint prompt")
    parser.add_argument("--groups", type=int, default=2, help="joint prompts measured")
    parser.add_argument("--joint", nargs="+", choices=("kept_hf", "stock"), default=["kept_hf", "stock"])
    parser.add_argument("--repeat", type=int, default=3, help="turns of each, after one that does not count")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--output", help="by default benchmarks/results/isolated_DEVICE.json; 'none' keeps nothing")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        keep_freed_memory()
    longest = options.length + options.group * (options.description + 1) + 1
    model = build(options.layers, longest, options.device)
    report = {
        **provenance("benchmarks/bench_isolated.py", arguments, ["torch", "transformers"]),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "runs": [],
    }
    for codes in options.codes:
        run = measure(
            model, options.length, options.description, min(options.group, codes), codes, options.repeat,
            options.groups, options.joint,
        )  # fmt: skip
        report["runs"].append(run)
        print_run(run, options.length, options.joint)
    if options.output != "none":
        keep(report, options.output or RESULTS / f"isolated_{options.device}.json")
    return report


if __name__ == "__main__":
    main()
