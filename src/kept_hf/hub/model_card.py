"""The model card of a fine-tuned model: what it is, how it was made, how good it is, and what it is not for.

Nothing of a note gets into it: no text, no id. Nor does a path of the machine. Of data that are not openly licensed it
has no figures of single codes and none of bands with few notes.
"""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import replace

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..corpora import CorpusCard
from ..models.publication import CREDENTIALED, RESTRICTED, UNSTATED
from .licenses import OPEN_LICENSES, BaseWeights, base_weights, combine_licenses
from .model_card_parts import (
    LEAST_GOLD_NOTES,
    METRICS,
    bands_table,
    encoder_text,
    environment_text,
    metric_value,
    percent,
    pictures_text,
    results_table,
    settings_table,
)
from .rendering import card_name, check_model_ids, model_path, render_card, versions_text
from .run_files import FineTunedRun

_OF_THE_SCORER = ("codes_per_prompt", "scorer", "names_per_code")
_THRESHOLD_METRICS = {"f1_micro": "micro-F1", "f1_macro": "macro-F1 (CAML)"}


def make_model_card(
    folder: str | os.PathLike,
    repo_id: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
) -> ModelCard:
    """The card of a model that `kept-hf train` or `kept-hf train-msmn` made. It depends on the folder's files
    and these arguments only.

    Args:
        folder: the run's output folder; `all_results.json`, `per_code.csv` and `config.json` are read, and pictures
            linked that lie there.
        repo_id: where the model will be published. By default the card is named like the folder.
        base_model: model id on the Hub of the weights that training began with. `KNOWN_BASES` has some; others are to
            be passed, since a path such as "outputs/mimic3-50" looks like an id. Without it the card has the last name
            of `model_name_or_path`. MSMN begins with no weights, but it may with word vectors.
        base_license: their licence, as the Hub writes it. By default that of `KNOWN_BASES`, else "unknown". Where
            `config.json` says that they come from credentialed data, this stands.

    Returns:
        The card, with the metrics in its metadata. `card.save(f"{folder}/README.md")` writes it; `card.validate()` and
        `card.push_to_hub()` need a network.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: results of an older or another run, a `repo_id` or `base_model` that is none, an empty licence.

    Examples:
        >>> card = make_model_card("outputs/demo", "me/icd-demo")  # doctest: +SKIP
        >>> card.save("outputs/demo/README.md")  # doctest: +SKIP
    """
    check_model_ids(repo_id, base_model)
    run = FineTunedRun.read(folder)
    base = _base_of(run, base_model, base_license)
    license = combine_licenses(run.corpus["license"], base.license)
    return render_card(
        "msmn_card.md" if run.is_msmn else "model_card.md",
        card_data=_metadata(run, base, license, repo_id).to_yaml(),
        name=card_name(run.folder, repo_id),
        model=model_path(repo_id),
        **_model_values(run),
        **_license_values(run, base, license),
        **_training_values(run, base),
        **_result_values(run),
    )


def _base_of(run: FineTunedRun, base_model: str | None, base_license: str | None) -> BaseWeights:
    """The weights that training began with, or the word vectors; see `make_model_card`."""
    path = run.settings["word_vectors" if run.is_msmn else "model_name_or_path"]
    license = run.corpus["license"]
    if run.config.get("data_license") in RESTRICTED and run.config["data_license"] != license:
        base_license = run.config["data_license"]  # the model that training began with had seen such data
    # Without weights, the licence of the data is the only one.
    unknown = license if run.is_msmn and not (path or base_model) else "unknown"
    base = base_weights(path, base_model, base_license, unknown)
    return base if base.name or run.is_msmn else replace(base, name="a local model")


def _metadata(run: FineTunedRun, base: BaseWeights, license: dict[str, str], repo_id: str | None) -> ModelCardData:
    """The header of the card."""
    tags = ["icd-coding", "medical", "clinical-notes", "multi-label"]
    return ModelCardData(
        language=run.corpus["language"],
        **license,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=tags + (["msmn"] if run.is_msmn else ["few-shot", "kept", "longformer"]),
        base_model=base.model_id,
        model_name=card_name(run.folder, repo_id),
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="ICD coding",
                dataset_type=run.settings["corpus"],
                dataset_name=run.corpus["title"],
                dataset_config=run.configuration,
                dataset_split=run.split,
                metric_type=metric,
                metric_name=title,
                metric_value=round(value, 4),
            )
            for metric, title in METRICS.items()
            if (value := metric_value(run.results, f"{run.split}_{metric}")) is not None
        ],
    )


def _model_values(run: FineTunedRun) -> dict[str, object]:
    """What the model is and how it is used."""
    settings, threshold = run.settings, run.results["threshold"]
    return {
        "settings": settings,
        **{name: settings.get(name) for name in _OF_THE_SCORER},
        "max_length": settings["max_words" if run.is_msmn else "max_length"],
        "shape": encoder_text(run.config),
        "codes": run.results["codes"],
        "threshold": f"{threshold:.3g}",
        "threshold_probability": f"{0.5 * (1 + math.tanh(threshold / 2)):.2f}",
        "threshold_metric": _THRESHOLD_METRICS.get(settings.get("threshold_metric")),
        "kept_hf_version": run.results["versions"]["kept-hf"],
    }


def _license_values(run: FineTunedRun, base: BaseWeights, license: dict[str, str]) -> dict[str, object]:
    """Of which weights and data it was made, and what their licences allow."""
    base_link = f"[{base.model_id}](https://huggingface.co/{base.model_id})" if base.model_id else f"`{base.name}`"
    return {
        "base": base.name,
        "base_link": base_link,
        "base_license": base.license,
        "base_terms": "licence not known here" if base.license == "unknown" else base.license,
        "license": license["license"],
        "credentialed": bool(RESTRICTED.keys() & {run.corpus["license"], base.license}),
        "unstated": license.get("license_name") == RESTRICTED[UNSTATED],
        "data_credentialed": run.corpus["license"] == CREDENTIALED,
        "data_unstated": run.corpus["license"] == UNSTATED,
        "data_restricted": run.corpus["license"] in RESTRICTED,
        "base_unstated": base.license == UNSTATED,
    }


def _training_values(run: FineTunedRun, base: BaseWeights) -> dict[str, object]:
    """On which notes it was trained, and how."""
    notes, settings = run.results["notes"], run.settings
    return {
        "corpus": run.corpus,
        "caution": run.corpus.get("caution", CorpusCard.caution),
        "config": run.configuration,
        "notes": notes,
        "splits": ", ".join(f"{count} {name}" for name, count in notes.items()),
        "median": f"{statistics.median_low(run.per_code['train_notes'])}",
        "has_synthetic_stage": bool(settings.get("matching_examples")),
        "settings_table": settings_table(settings, base.name),
        "versions": versions_text(run.results["versions"]),
        "environment": environment_text(run.results),
        "seed": f" with seed {settings['seed']}" if settings.get("seed") is not None else "",
    }


def _result_values(run: FineTunedRun) -> dict[str, object]:
    """How good it is; of data that are not openly licensed without the figures of few notes."""
    is_open = run.corpus["license"] in OPEN_LICENSES
    bands, has_hidden_bands = bands_table(run.per_code, hide_small=not is_open)
    return {
        "split": run.split,
        "chosen_on": run.results["threshold_and_epoch_chosen_on"],
        "precision": percent(metric_value(run.results, f"{run.split}_precision_micro"), digits=0),
        "recall": percent(metric_value(run.results, f"{run.split}_recall_micro"), digits=0),
        "results_table": results_table(run.results, run.split),
        "bands_table": bands,
        "has_hidden_bands": has_hidden_bands,
        "least": LEAST_GOLD_NOTES,
        "pictures": pictures_text(run.folder, is_open),
    }
