"""A corpus as a folder of parquet files that `load_dataset` reads, with its code sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..models.whole_file import whole_path, write_text
from . import Corpus
from .selection import RULES, select_codes
from .splits import SPLIT_SHARES

CODE_SET_FILE = "code_set.json"

# Names of configurations and splits are names of folders and files, and parts of the Hub's URLs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def select_configurations(corpus: Corpus, rules: Sequence[str], whole: str = "all") -> dict[str, Corpus]:
    """One configuration per rule of `select_codes`.

    Args:
        corpus: what `load_corpus` gave.
        rules: rules of `select_codes`. A configuration is named like its rule, or like the file without its suffix.
        whole: name of the configuration with all codes.

    Returns:
        Configuration → corpus restricted to its codes.

    Raises:
        ValueError: two rules with one name; a file whose name does not begin with a letter or digit; a rule that
            `select_codes` refuses.
    """
    configs: dict[str, Corpus] = {}
    for rule in rules:
        name = whole if rule == "all" else rule if rule in RULES else re.sub(r"[^A-Za-z0-9_.-]", "_", Path(rule).stem)
        _check_name(f"codes={rule!r} gives the configuration", name)
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
        out: created if need be. What an earlier call wrote for the same configurations is replaced: their
            `code_set.json`, `README.md`, and the files of the splits. No other file is changed or deleted.
        card: content of README.md.

    Raises:
        ValueError: no configuration; a configuration or a split whose name does not consist of letters, digits, "_",
            "." and "-", with a letter or digit first; files of others under the names of those to write. Nothing has
            been written then.
    """
    if not configs:
        raise ValueError("configs={} is empty; pass at least one configuration.")
    for config, corpus in configs.items():
        _check_name("configs has", config)
        for split in corpus.dataset:
            _check_name(f"configs[{config!r}] has the split", split)
    _check_files(configs, Path(out))
    for config, corpus in configs.items():
        folder = Path(out, config)
        folder.mkdir(parents=True, exist_ok=True)
        for split in {*SPLIT_SHARES} - {*corpus.dataset}:
            (folder / f"{split}.parquet").unlink(missing_ok=True)
        # First, since it marks the folder as one that was written here.
        corpus.code_set.to_json(folder / CODE_SET_FILE)
        for split, rows in corpus.dataset.items():
            with whole_path(folder / f"{split}.parquet") as path:
                rows.to_parquet(path)
    write_text(Path(out, "README.md"), card)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'{what} {name!r}, which can be no name of a folder; rename it: names have letters, digits, "_", "." and '
            '"-", a letter or digit first, and 100 of them at most.'
        )


def _check_files(configs: Mapping[str, Corpus], out: Path) -> None:
    """Refuse to replace files that were not written here: those of a folder without a code set."""
    taken = [out / "README.md"] if not any(out.glob(f"*/{CODE_SET_FILE}")) else []
    for config, corpus in configs.items():
        if not (out / config / CODE_SET_FILE).is_file():
            taken += [out / config / f"{split}.parquet" for split in {**SPLIT_SHARES, **corpus.dataset}]
    if found := [path for path in taken if path.exists()]:
        raise ValueError(
            f"out={os.fspath(out)!r} has {os.fspath(found[0])!r} already, of something else; pass another folder."
        )
