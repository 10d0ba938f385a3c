"""The model card of a finished match pretraining: which terms and notes it was made of, and what it answers.

Nothing of a note gets into it, nor the name of a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .data_access import RESTRICTED
from .model_card import KNOWN_BASES, combine_licenses, without_folders
from .pretraining_card import markdown_table, read_results, render_card, settings_text

TEMPLATE = Path(__file__).with_name("matching_card_template.md")

_SEVERAL = {"license": "other", "license_name": "several-named-in-the-card"}
_NOT_OF_THE_RECIPE = (
    *("data_dir", "cache_dir", "text_files", "text_column", "umls_folder", "icd9_folder", "csv_file", "corpus"),
    *("corpus_options", "data_license", "world_size", "model_name_or_path", "sources"),
)


def make_matching_card(folder: str | os.PathLike, repo_id: str | None = None) -> ModelCard:
    """The card of a model that `examples/pretrain_matching.py` made, from its folder's `all_results.json`.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.

    Raises:
        FileNotFoundError: no results there.

    Examples:
        >>> make_matching_card("outputs/matching").save("outputs/matching/README.md")  # doctest: +SKIP
    """
    results = read_results(folder, "examples/pretrain_matching.py")
    settings, license = results["settings"], results["data_license"]
    base, base_license = KNOWN_BASES.get(settings["model_name_or_path"], (None, "not known here"))
    if results["base_data_license"]:
        base_license = f"{base_license}; what it was trained on: {results['base_data_license']}"
    metadata = combine_licenses(license, base_license)
    name = repo_id.split("/")[-1] if repo_id else Path(folder).resolve().name
    data = ModelCardData(
        language="en",
        **(_SEVERAL if metadata["license"] == "unknown" else metadata),
        library_name="transformers",
        tags=["medical", "icd-coding", "kept", "longformer", "zero-shot", "prompting"],
        base_model=base,
        model_name=name,
    )
    return render_card(
        TEMPLATE,
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
