"""The model card of a finished HSAP run: which terms it learned from, under which licences, and what it changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import ModelCard

from ..knowledge import SOURCES
from ..models.publication import RESTRICTED, joint_license, license_metadata
from .licenses import SEVERAL_LICENSES
from .pretraining_card import pretraining_base, render_pretraining_card
from .run_files import read_results


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
    folder: str | os.PathLike,
    repo_id: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
    results: Mapping | None = None,
) -> ModelCard:
    """The card of a model that `kept-hf pretrain hsap` made.

    Args:
        folder: the run's output folder; its picture is linked, if there is one.
        repo_id, base_model, base_license, results: see [`kept_hf.hub.masked_lm_card.make_masked_lm_card`].

    Raises:
        FileNotFoundError: no results there.
        ValueError: a `repo_id` or `base_model` that is no id of the Hub.

    Examples:
        >>> make_hsap_card("outputs/hsap").save("outputs/hsap/README.md")  # doctest: +SKIP
    """
    results = read_results(folder, "kept-hf pretrain hsap") if results is None else results
    license = results["data_license"]
    metadata = {
        "language": "en",
        **(license_metadata(license) if license in RESTRICTED else SEVERAL_LICENSES),
        "tags": ["medical", "icd-coding", "kept", "hsap", "longformer", "knowledge-injection", "entity-linking"],
        "pipeline_tag": "fill-mask",
    }
    return render_pretraining_card(
        "hsap_card.md",
        folder,
        repo_id,
        results,
        pretraining_base(results, repo_id, base_model, base_license),
        metadata,
        sources=[SOURCES.get(source, SOURCES["csv"]) for source in results["sources"]],
        graph=results["graph"],
        pooling=results["settings"]["pooling"],
        max_length=results["settings"]["max_length"],
        picture=Path(folder, "linking.png").is_file(),
    )
