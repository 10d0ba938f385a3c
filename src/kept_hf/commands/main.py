"""The command `kept-hf`.

Several processes: `accelerate launch --multi_gpu -m kept_hf.commands.train …`, with the module of the command.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NoReturn

from ..pretraining import STAGES

COMMANDS = {
    "train": "fine-tune a model on coded notes, evaluate it, write its report",
    "evaluate": "evaluate a trained model on a split of a corpus, and write the report",
    "predict": "print the codes of notes, and write them as JSON lines",
    **{f"pretrain {stage}": summary for stage, summary in STAGES.items()},
    "propose": "candidates of first stages for the notes of a corpus",
    "rerank": "two stages: candidates of a first stage, scored by KEPT",
    "train-msmn": "train MSMN, a first stage for full code sets",
    "convert": "make a KEPT Longformer of another checkpoint",
    "export": "write a corpus as a folder of parquet files",
    "push": "publish a model, a corpus or the metric on the Hub",
}
"""Command → what it does. Each is a module of this folder with a function `main(argv)`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of `COMMANDS`.

    Args:
        argv: the command and its options; by default those of the command line.

    Raises:
        SystemExit: no command, or an unknown one (status 2, as for wrong options); or what the command raises.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-h", "--help"):
        print(_usage("kept-hf COMMAND", COMMANDS))
    elif words and words[0] == "--version":
        print(f"kept-hf {version('kept-hf')}")
    else:
        name, options = _split(words)
        module = importlib.import_module(f"{__package__}.{name.replace(' ', '_').replace('-', '_')}")
        module.main(options)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command, of one word or two, and its options; without a known command the program ends."""
    for number in (2, 1):
        name = " ".join(words[:number])
        if name in COMMANDS:
            return name, words[number:]
    usage = _usage("kept-hf COMMAND", COMMANDS)
    if not words:
        _stop("name a command", usage)
    first, *rest = words
    stages = {name: text for name, text in COMMANDS.items() if name.startswith(f"{first} ")}
    if not stages:
        names = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
        _stop(f"{first} is no command; {_advice(first, names)}", usage)
    usage = _usage(f"kept-hf {first} STAGE", stages)
    if rest[:1] in (["-h"], ["--help"]):
        print(usage)
        sys.exit(0)
    names = [name.split()[1] for name in stages]
    if not rest or rest[0].startswith("-"):
        _stop(f"name a stage of {first}: {', '.join(names)}", usage)
    _stop(f"{rest[0]} is no stage of {first}; {_advice(rest[0], names)}", usage)


def _advice(word: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"


def _usage(form: str, commands: Mapping[str, str]) -> str:
    lines = "\n".join(f"  {name:<20} {text}" for name, text in commands.items())
    return f"usage: {form} [options]\n\n{lines}\n\n{form} --help lists its options."


def _stop(problem: str, usage: str) -> NoReturn:
    """End the program with the status of wrong usage."""
    print(f"{usage}\n\nkept-hf: {problem}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
