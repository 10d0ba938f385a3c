"""What the cards of the pretraining commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard, ModelCardData

from ..models.publication import RESTRICTED
from .model_card import KNOWN_BASES, combine_licenses, without_folders

SEVERAL_LICENSES = {"license": "other", "license_name": "several-named-in-the-card"}
"""In the header of a card whose text names the licences of its sources."""

_NOT_OF_THE_RECIPE = (
    *("data_dir", "cache_dir", "text_files", "text_column", "umls_folder", "icd9_folder", "csv_file", "corpus"),
    *("corpus_options", "data_license", "world_size", "model_name_or_path", "sources"),
)


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


def make_notes_card(
    folder: str | os.PathLike,
    repo_id: str | None,
    template: Path,
    command: str,
    tags: Sequence[str],
    pipeline_tag: str | None = None,
    results: Mapping[str, object] | None = None,
) -> ModelCard:
    """The card of a model that was pretrained on notes, from its results.

    Nothing of a note gets into it, nor the name of a file.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.
        template: of the card.
        command: that made the model.
        tags: on the Hub, beside those of all these models.
        pipeline_tag: what the model does, in the Hub's words.
        results: of the run; by default those in the folder.

    Raises:
        FileNotFoundError: no results there.
    """
    results = read_results(folder, command) if results is None else results
    settings, license = results["settings"], results["data_license"]
    base, base_license = KNOWN_BASES.get(settings["model_name_or_path"], (None, "not known here"))
    if results["base_data_license"]:
        base_license = f"{base_license}; what it was trained on: {results['base_data_license']}"
    metadata = combine_licenses(license, base_license)
    name = repo_id.split("/")[-1] if repo_id else Path(folder).resolve().name
    data = ModelCardData(
        language=next((source["language"] for source in results["sources"] if source["language"]), None),
        **(SEVERAL_LICENSES if metadata["license"] == "unknown" else metadata),
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=["medical", "icd-coding", "kept", "longformer", *tags],
        base_model=base,
        model_name=name,
    )
    return render_card(
        template,
        card_data=data.to_yaml(),
        name=name,
        model=repo_id or "path/of/this/folder",
        base=base or without_folders(settings["model_name_or_path"]),
        base_license=base_license,
        license=license,
        restricted=license in RESTRICTED,
        table=markdown_table(results["table"]),
        settings=settings_text(settings, _NOT_OF_THE_RECIPE),
        results=results,
        versions=", ".join(f"{package} {version}" for package, version in results["versions"].items()),
    )
