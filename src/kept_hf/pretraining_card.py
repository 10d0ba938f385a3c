"""What the cards of the pretraining commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard


def read_results(folder: str | os.PathLike, command: str) -> dict:
    """A run's `all_results.json`.

    Raises:
        FileNotFoundError: none there; the message names the command that makes one.
    """
    path = Path(folder, "all_results.json")
    if not path.is_file():
        raise FileNotFoundError(f"folder={os.fspath(folder)!r} has no all_results.json; make the model with {command}.")
    return json.loads(path.read_text(encoding="utf-8"))


def render_card(template: Path, **values: object) -> ModelCard:
    """A card from a jinja2 template; a value that is missing is an error."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return ModelCard(environment.from_string(template.read_text(encoding="utf-8")).render(**values))


def settings_text(settings: Mapping[str, object], left_out: Collection[str]) -> str:
    """Options and their values in a line, without those that are off.

    Examples:
        >>> settings_text({"pooling": "cls", "no_siblings": False, "csv_file": "/home/me/a.csv"}, ["csv_file"])
        '`pooling` cls'
    """
    return "; ".join(
        f"`{key}` {value}"
        for key, value in settings.items()
        if key not in left_out and value is not None and value is not False and value != []
    )


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table, in the columns of the first; floats with three decimals, a dash for None.

    Examples:
        >>> print(markdown_table([{"": "loss", "before": 2.0, "after": None}]))
        |  | before | after |
        | --- | --- | --- |
        | loss | 2.000 | – |
    """
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        shown = {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in row.items()}
        lines.append(["–" if shown.get(name) is None else shown[name] for name in columns])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
