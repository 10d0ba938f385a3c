"""The command `kept-hf`.

Several processes: `accelerate launch --multi_gpu -m kept_hf.commands.train …`, with the module of the command.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ..pretraining import STAGES

COMMANDS = {
    "train": "fine-tune a model on coded notes, evaluate it, write its report",
    **{f"pretrain {stage}": summary for stage, summary in STAGES.items()},
    "evaluate": "evaluate a trained model on a split of a corpus, and write the report",
    "train-msmn": "train MSMN, a first stage for full code sets",
    "propose": "candidates of first stages for the notes of a corpus",
    "rerank": "two stages: candidates of a first stage, scored by KEPT",
    "predict": "print the codes of notes, and write them as JSON lines",
    "convert": "make a KEPT Longformer of another checkpoint",
    "push": "publish a model, a corpus or the metric on the Hub",
    "export": "write a corpus as a folder of parquet files",
}
"""Command → what it does. Each is a module of this folder with a function `main(argv)`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of `COMMANDS`."""
    words = list(sys.argv[1:] if argv is None else argv)
    for number in (2, 1):
        name = " ".join(words[:number])
        if name in COMMANDS:
            module = importlib.import_module(f"{__package__}.{name.replace(' ', '_').replace('-', '_')}")
            module.main(words[number:])
            return
    shown = "\n".join(f"  {name:<20} {text}" for name, text in COMMANDS.items())
    usage = f"usage: kept-hf COMMAND [options]\n\n{shown}\n\nkept-hf COMMAND --help lists the options of a command.\n"
    if words and words[0] in ("-h", "--help"):
        print(usage, end="")
        return
    problem = f"{name} is no command" if words else "name a command"
    sys.exit(f"{usage}\nkept-hf: {problem}; choose one of {', '.join(COMMANDS)}.")


if __name__ == "__main__":
    main()
