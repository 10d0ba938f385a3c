"""A corpus as a folder of parquet files that `load_dataset` reads, with its code sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..models.whole_file import whole_path, write_text
from . import Corpus
from .selection import RULES, select_codes

CODE_SET_FILE = "code_set.json"


def select_configurations(corpus: Corpus, rules: Sequence[str], whole: str = "all") -> dict[str, Corpus]:
    """One configuration per rule of `select_codes`.

    Args:
        corpus: what `load_corpus` gave.
        rules: rules of `select_codes`. A configuration is named like its rule, or like the file without its suffix.
        whole: name of the configuration with all codes.

    Returns:
        Configuration → corpus restricted to its codes.

    Raises:
        ValueError: two rules with one name; a rule that `select_codes` refuses.
    """
    configs: dict[str, Corpus] = {}
    for rule in rules:
        # Names of configurations are names of folders, of the Hub's URLs too.
        name = whole if rule == "all" else rule if rule in RULES else re.sub(r"[^A-Za-z0-9_.-]", "_", Path(rule).stem)
        if name in configs:
            raise ValueError(f"codes={list(rules)!r} gives two configurations named {name!r}; rename a file.")
        configs[name] = select_codes(corpus, rule)
    return configs


def write_parquet_folder(configs: Mapping[str, Corpus], out: str | os.PathLike, card: str) -> None:
    """Write `{config}/{split}.parquet`, `{config}/code_set.json` and README.md.

    With a card of `kept_hf.hub.dataset_card`, `load_dataset(out, config)` then gives the splits. The codes are read by
    `ICDCodeSet.from_json(f"{out}/{config}/code_set.json")`.

    Args:
        configs: configuration → corpus, at least one.
        out: created if need be. Files of the same configurations are replaced.
        card: content of README.md.

    Raises:
        ValueError: no configuration.
    """
    if not configs:
        raise ValueError("configs={} is empty; pass at least one configuration.")
    for config, corpus in configs.items():
        folder = Path(out, config)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.parquet"):
            stale.unlink()
        for split, rows in corpus.dataset.items():
            with whole_path(folder / f"{split}.parquet") as path:
                rows.to_parquet(path)
        corpus.code_set.to_json(folder / CODE_SET_FILE)
    write_text(Path(out, "README.md"), card)
