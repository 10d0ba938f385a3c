"""What the cards of the pretraining stages share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from huggingface_hub import ModelCard, ModelCardData

from ..models.publication import RESTRICTED, UNSTATED
from ..reports.tables import markdown_table
from .licenses import SEVERAL_LICENSES, BaseWeights, base_weights, combine_licenses
from .rendering import card_name, check_model_ids, model_path, render_card, settings_text, versions_text
from .run_files import read_results

LEFT_OUT = (
    "data_dir",
    "cache_dir",
    "text_files",
    "text_column",
    "umls_folder",
    "icd9_folder",
    "csv_file",
    "corpus",
    "corpus_options",
    "data_license",
    "world_size",
    "model_name_or_path",
    "sources",
)
"""Settings that are said elsewhere on the card, or name a path of the machine."""


def pretraining_base(
    results: Mapping, repo_id: str | None, base_model: str | None, base_license: str | None
) -> BaseWeights:
    """The weights that a pretraining run began with.

    Args:
        results: the run's `all_results.json`.
        repo_id: where the model will be published; only checked.
        base_model, base_license: what the user says of those weights.

    Raises:
        ValueError: a `repo_id` or `base_model` that is no id of the Hub.
    """
    check_model_ids(repo_id, base_model)
    path = results["settings"]["model_name_or_path"]
    return base_weights(path, base_model, base_license, unknown="not known here")


def render_pretraining_card(
    template: str,
    folder: str | os.PathLike,
    repo_id: str | None,
    results: Mapping,
    base: BaseWeights,
    metadata: Mapping[str, object],
    **values: object,
) -> ModelCard:
    """The card of a pretraining stage, from its template.

    Args:
        template: file name.
        folder: the run's output folder, for the card's name.
        repo_id: where the model will be published.
        results: the run's `all_results.json`.
        base: the weights that it began with.
        metadata: of the header, beside what all these cards have: `language`, `license`, `tags`, `pipeline_tag`.
        values: what this template alone shows.
    """
    license, name = results["data_license"], card_name(folder, repo_id)
    data = ModelCardData(library_name="transformers", base_model=base.model_id, model_name=name, **metadata)
    return render_card(
        template,
        card_data=data.to_yaml(),
        name=name,
        model=model_path(repo_id),
        base=base.name,
        base_license=base.license,
        license=license,
        restricted=license in RESTRICTED,
        unstated=license == UNSTATED,
        table=markdown_table(results["table"]),
        settings=settings_text(results["settings"], LEFT_OUT),
        results=results,
        versions=versions_text(results["versions"]),
        **values,
    )


def make_notes_card(
    folder: str | os.PathLike,
    repo_id: str | None,
    base_model: str | None,
    base_license: str | None,
    results: Mapping | None,
    template: str,
    command: str,
    tags: Sequence[str],
    pipeline_tag: str | None = None,
) -> ModelCard:
    """The card of a model that was pretrained on notes.

    Nothing of a note gets into it, nor the name of a file.

    Args:
        folder, repo_id, base_model, base_license, results: see [`kept_hf.hub.masked_lm_card.make_masked_lm_card`].
        template: of the card.
        command: that made the model.
        tags: on the Hub, beside those of all these models.
        pipeline_tag: what the model does, in the Hub's words.

    Raises:
        FileNotFoundError: no results there.
        ValueError: results of an older version.
    """
    results = read_results(folder, command) if results is None else results
    base = pretraining_base(results, repo_id, base_model, base_license)
    if results["base_data_license"]:
        base = replace(base, license=f"{base.license}; what it was trained on: {results['base_data_license']}")
    license = combine_licenses(results["data_license"], base.license)
    metadata = {
        "language": next((source["language"] for source in results["sources"] if source["language"]), None),
        **(SEVERAL_LICENSES if license["license"] == "unknown" else license),
        "tags": ["medical", "icd-coding", "kept", "longformer", *tags],
        "pipeline_tag": pipeline_tag,
    }
    return render_pretraining_card(template, folder, repo_id, results, base, metadata)
