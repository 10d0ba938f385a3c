"""A corpus as a folder of parquet files that `load_dataset` reads, with a card and its code sets."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import DatasetCardData

from ..models.publication import CREDENTIALED, license_metadata
from . import Corpus
from .selection import RULES, select_codes

CODE_SET_FILE = "code_set.json"

NOT_TO_BE_SHARED = (
    " **Do not share**: this folder holds notes of patients. Each reader needs access of their own from PhysioNet; the "
    "folder must not be published, nor sent to a service that keeps what it is sent."
)


def export_parser(description: str, data_dir_help: str, data_dir_required: bool) -> argparse.ArgumentParser:
    """The arguments that all export commands share: `--data_dir`, `--out`, `--codes`, `--cache_dir`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data_dir", required=data_dir_required, help=data_dir_help)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--codes",
        nargs="+",
        default=["all"],
        metavar="RULE",
        help=f"one configuration per rule: {', '.join(RULES)}, or a file with one code a line (default: all)",
    )
    parser.add_argument("--cache_dir", help="where the prepared dataset is kept (default: the cache of datasets)")
    return parser


def export_corpus(
    corpus: Corpus, rules: Sequence[str], out: str | os.PathLike, whole: str = "all"
) -> dict[str, Corpus]:
    """Write one configuration per rule of `select_codes` and print their sizes.

    Args:
        corpus: what `load_corpus` gave.
        rules: rules of `select_codes`. A configuration is named like its rule, or like the file without its suffix.
        out: see `write_parquet_folder`.
        whole: name of the configuration with all codes.

    Returns:
        Configuration → selected corpus.

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
    write_parquet_folder(configs, out)
    for name, selected in configs.items():
        sizes = ", ".join(f"{len(rows)} {split}" for split, rows in selected.dataset.items())
        print(f"{name}: {len(selected.code_set)} codes; notes: {sizes}")
    print(f"Written to {os.fspath(out)}")
    return configs


def write_parquet_folder(configs: Mapping[str, Corpus], out: str | os.PathLike) -> None:
    """Write `{config}/{split}.parquet`, `{config}/code_set.json` and a README.md that `load_dataset` understands.

    `load_dataset(out, config)` then gives the splits, and `ICDCodeSet.from_json(f"{out}/{config}/code_set.json")` the
    codes. The first configuration is the default one.

    Args:
        configs: configuration → corpus, at least one. The first one's card is that of the folder.
        out: created if need be. Files of the same configurations are replaced.

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
            rows.to_parquet(folder / f"{split}.parquet")
        corpus.code_set.to_json(folder / CODE_SET_FILE)
    Path(out, "README.md").write_text(_readme(configs), encoding="utf-8")


def _readme(configs: Mapping[str, Corpus]) -> str:
    card = next(iter(configs.values())).card
    entries = []
    for config, corpus in configs.items():
        files = [{"split": split, "path": f"{config}/{split}.parquet"} for split in corpus.dataset]
        entries.append({"config_name": config, "data_files": files, **({} if entries else {"default": True})})
    metadata = DatasetCardData(
        pretty_name=card.title,
        language=[card.language],
        **license_metadata(card.license),
        task_categories=["text-classification"],
        tags=["medical", "icd-coding", "multi-label"],
        configs=entries,
    )
    splits = list(dict.fromkeys(split for corpus in configs.values() for split in corpus.dataset))
    sizes = [
        [config, len(corpus.code_set), *(len(corpus.dataset.get(split, ())) for split in splits)]
        for config, corpus in configs.items()
    ]
    first = next(iter(configs))
    return f"""---
{metadata.to_yaml()}
---

# {card.title}

{card.summary}

**Not for clinical use**: made for research and demonstration; no output of a model trained on it may guide the care or
the billing of a patient.

## Source and licence

{card.source}

Licence: {card.license}. Converted by kept-hf.{NOT_TO_BE_SHARED if card.license == CREDENTIALED else ""}

## Columns

{_table(["column", "content"], [[f"`{name}`", text] for name, text in card.columns.items()])}

## Configurations

Number of codes, and of notes per split. `{CODE_SET_FILE}` in a configuration's folder holds its codes in label order.

{_table(["configuration", "codes", *splits], sizes)}

```python
from datasets import load_dataset

dataset = load_dataset("path/of/this/folder", "{first}")
```
"""


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
