"""The model card of a finished HSAP run: which terms it learnt from, under which licences, and what it changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..knowledge import SOURCES
from ..models.publication import RESTRICTED, joint_license, license_metadata
from .model_card import KNOWN_BASES, without_folders
from .pretraining_card import SEVERAL_LICENSES, markdown_table, read_results, render_card, settings_text

TEMPLATE = Path(__file__).parent / "templates" / "hsap_card.md"

_NOT_OF_THE_RECIPE = ("umls_folder", "icd9_folder", "csv_file", "sources", "world_size", "model_name_or_path")


def terms_license(sources: Sequence[str], base_license: str | None = None) -> str:
    """`config.data_license` of weights trained on names of these sources: one that restricts publication comes first.

    Args:
        sources: of the term graph; those that `kept_hf.knowledge.SOURCES` lacks are left to their owner.
        base_license: `config.data_license` of the weights that training began with.

    Examples:
        >>> terms_license(["icd10cm", "umls"])
        'UMLS Metathesaurus License Agreement'
        >>> terms_license(["abbreviations"])
        'terms of abbreviations (MIT)'
    """
    licenses = {source: SOURCES.get(source, SOURCES["csv"]).license for source in sources}
    if (license := joint_license(base_license, *licenses.values())) in RESTRICTED:
        return license
    return "terms of " + "; ".join(f"{source} ({license})" for source, license in licenses.items())


def make_hsap_card(
    folder: str | os.PathLike, repo_id: str | None = None, results: Mapping[str, object] | None = None
) -> ModelCard:
    """The card of a model that `kept-hf pretrain hsap` made, from its results.

    Args:
        folder: the run's output folder.
        repo_id: where the model will be published. By default the card is named like the folder.
        results: of the run; by default those in the folder.

    Raises:
        FileNotFoundError: no results there.

    Examples:
        >>> make_hsap_card("outputs/hsap").save("outputs/hsap/README.md")  # doctest: +SKIP
    """
    folder = Path(folder)
    results = read_results(folder, "kept-hf pretrain hsap") if results is None else results
    settings, license = results["settings"], results["data_license"]
    base, base_license = KNOWN_BASES.get(settings["model_name_or_path"], (None, "not known here"))
    sources = [SOURCES.get(source, SOURCES["csv"]) for source in results["sources"]]
    name = repo_id.split("/")[-1] if repo_id else folder.resolve().name
    data = ModelCardData(
        language="en",
        **(license_metadata(license) if license in RESTRICTED else SEVERAL_LICENSES),
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["medical", "icd-coding", "kept", "hsap", "longformer", "knowledge-injection", "entity-linking"],
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
        sources=sources,
        graph=results["graph"],
        pooling=settings["pooling"],
        max_length=settings["max_length"],
        table=markdown_table(results["table"]),
        picture=(folder / "linking.png").is_file(),
        settings=settings_text(settings, _NOT_OF_THE_RECIPE),
        results=results,
        versions=", ".join(f"{package} {version}" for package, version in results["versions"].items()),
    )
