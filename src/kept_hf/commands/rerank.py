"""Two stages on a full code set: a first stage proposes codes, KEPT scores them again, both are evaluated and fused.

    kept-hf rerank --corpus codiesp --data_dir path/to/codiesp --output_dir outputs/two-stages \\
        --first_stages fused sparse dense msmn=outputs/msmn --seeds 42 43 44 --scorer matching

First stages are named as for `kept-hf propose`, which makes them; `outputs/msmn` is a folder of `kept-hf train-msmn`.
KEPT scores the candidates of the first one; the others are rows of the table for comparison. A recipe, and options that
are not listed here, are passed to `kept-hf train`. With `--model` nothing is trained. Models can be named: those of one
name are seeds of one row of the table.

The stages write files to `output_dir`: `first-stages/…`, `candidates/{split}.npz`, `model-{seed}/`, `reranked/…`,
`all_results.json`. Files that were made from the same files with the same settings are not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from accelerate import PartialState
from transformers import HfArgumentParser

from ..candidates.candidates import Candidates
from ..candidates.kept import load_scorer
from ..candidates.processes import share_notes
from ..candidates.registry import FIRST_STAGES
from ..candidates.stage_files import digest, digest_of_candidates, digest_of_model, is_made, keep_settings
from ..corpora import Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..models.processing_kept import KeptProcessor
from ..models.whole_file import write_text
from ..reports.comparison import Evaluation, plot_by_band
from ..reports.tables import format_table
from ..reranking import FUSION_METRICS, GROUP_SIZE, rerank, rerank_all
from ..training.output_dir import check_output_dir
from ..training.output_lock import lock_output
from ..training.run import process_group
from ..training.weights import weights_path
from . import train
from .propose import add_first_stage_arguments, at_least, make_stages, named_stages
from .recipe import argument_errors, recipe_path, split_recipe

logger = logging.getLogger("rerank")
KEPT = "KEPT"
"""The name of models that were given none."""
TABLE_METRICS = ("map", "f1_micro", "f1_macro", "f1_macro_per_code", "precision_at_8", "precision_at_15")


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of this command, and those for `kept-hf train`."""
    parser = HfArgumentParser(
        CorpusArguments,
        prog="kept-hf rerank",
        usage="%(prog)s [RECIPE] --first_stages NAME[=FOLDER] ... [--option value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_first_stage_arguments(parser)
    parser.add_argument(
        "--first_stages",
        nargs="+",
        required=True,
        metavar="NAME[=FOLDER]",
        help=f"{', '.join(FIRST_STAGES)}, or NAME=FOLDER; see above",
    )
    parser.add_argument(
        "--model",
        nargs="*",
        default=[],
        metavar="[NAME=]FOLDER",
        help=f"trained models with their processors; none is trained then. The default NAME is {KEPT}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="train a model with each")
    parser.add_argument("--group_size", type=at_least(1), default=GROUP_SIZE, help="candidates of a prompt")
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="prompts at a time")
    parser.add_argument("--all_codes", action="store_true", help="late interaction: score all codes, too")
    parser.add_argument(
        "--fusion_metric", choices=FUSION_METRICS, default=FUSION_METRICS[0], help="what the fusion's weight maximises"
    )
    parser.add_argument("--output_dir", default="outputs/rerank", help="where everything is written")
    arguments, train_options = parser.parse_known_args(argv)
    arguments.first_stages = named_stages(parser, "--first_stages", arguments.first_stages)
    arguments.model = [named_model(parser, model) for model in arguments.model]
    if arguments.model and train_options:
        parser.error(f"--model was given, so nothing is trained, but there is {train_options[0]}: omit one of them")
    if any(option.partition("=")[0] == "--seed" for option in train_options):
        parser.error("--seed: pass --seeds, with which a model each is trained")
    return arguments, train_options


def named_model(parser: argparse.ArgumentParser, model: str) -> tuple[str, str]:
    """Name and folder, or model id on the Hub."""
    name, separator, folder = model.partition("=")
    if not separator or Path(model).is_dir():
        name, folder = KEPT, model
    if not name or not folder:
        parser.error(f"--model {model}: write FOLDER, or NAME=FOLDER, such as joint=outputs/joint")
    if not Path(folder).is_dir() and (folder.startswith((".", "/", "~")) or folder.count("/") != 1):
        parser.error(f"--model {model}: there is no folder {folder}, and no model on the Hub has this name")
    return name, folder


def write_candidates(candidates: Mapping[str, Candidates], top_k: int, folder: Path) -> dict[str, Path]:
    """Write the candidates that the next stages read; the files by split."""
    best = {split: part.top(top_k) for split, part in candidates.items()}
    folder.mkdir(parents=True, exist_ok=True)
    files = {split: folder / f"{split}.npz" for split in best}
    for split, path in files.items():
        settings = {"candidates": digest_of_candidates(best[split])}
        if not is_made(path, settings):
            best[split].save(path)
            keep_settings(path, settings)
    return files


def train_command(
    arguments: argparse.Namespace, train_options: Sequence[str], files: Mapping[str, Path], seed: int, folder: Path
) -> list[str]:
    """The command line of `kept-hf train` that trains on prompts of the candidates."""
    recipe, options = split_recipe(train_options)
    command = [recipe] if recipe else []
    for field in dataclasses.fields(CorpusArguments):
        value = getattr(arguments, field.name)
        if value not in (None, []):
            command += [f"--{field.name}", *map(str, value if isinstance(value, list) else [value])]
    command += ["--candidates", *(f"{split}={path}" for split, path in files.items())]
    command += ["--codes_per_prompt", str(arguments.group_size), *options]
    return [*command, "--seed", str(seed), "--output_dir", str(folder)]


def train_model(
    arguments: argparse.Namespace,
    train_options: Sequence[str],
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    seed: int,
) -> str:
    """Train a model, or find one that was trained so; its folder. `digests` are those of the notes and codes."""
    folder = Path(arguments.output_dir, f"model-{seed}")
    command = train_command(arguments, train_options, files, seed, folder)
    recipe, _ = split_recipe(command)
    recipe = recipe_path(argparse.ArgumentParser(), recipe) if recipe else train.default_recipe(command)
    train_arguments = train.parse_arguments(command)
    if train_arguments[1].in_batch_negatives:
        # Its epochs are compared on all codes, which cost little there: a batch asks about the codes of all its notes.
        files = {split: path for split, path in files.items() if split == "train"}
        command = train_command(arguments, train_options, files, seed, folder)
        train_arguments = train.parse_arguments(command)
    with argument_errors("rerank"):
        weights = weights_path(train_arguments[0].model_name_or_path)
    settings = {
        "command": command,
        "recipe": digest(recipe) if recipe else None,
        "weights": digest_of_model(str(weights)),
        "candidates": {split: digest(path) for split, path in files.items()},
        **digests,
    }
    made = is_made(folder, settings)
    PartialState().wait_for_everyone()
    if not made:
        with argument_errors("rerank"):
            run = train.prepare(*train_arguments)
        train.fine_tune(run, " ".join(["kept-hf train", *command]))
        if PartialState().is_main_process:
            keep_settings(folder, settings)
    PartialState().wait_for_everyone()  # the main process writes the model
    return str(folder)


def score_with_model(
    arguments: argparse.Namespace, path: str, run: int, corpus: Corpus, files: Mapping[str, Path]
) -> dict[str, dict[str, Path]]:
    """Score the candidates, and all codes if `--all_codes` is given and the model can; the files by system and split.
    On all processes."""
    found: dict[str, dict[str, Path]] = {}
    state, model, weights = PartialState(), None, digest_of_model(path)
    processor = KeptProcessor.from_pretrained(path, code_set=corpus.code_set)
    systems = ["reranked"]
    if arguments.all_codes and processor.prompt_layout == "isolated":
        systems.append("all_codes")
    elif arguments.all_codes:
        logger.warning("--all_codes: %s asks by prompts and scores the candidates only.", path)
    for split in (split for split in files if split != "train"):
        notes = corpus.dataset[split]
        for system in systems:
            output = Path(arguments.output_dir, "reranked", f"{system}-{run}-{split}.npz")
            found.setdefault(system, {})[split] = output
            settings = {
                "system": system,
                "model": weights,
                "notes": digest(*notes["text"]),
                "codes": digest(corpus.code_set.to_dict()),
                "candidates": digest(files[split]) if system == "reranked" else arguments.top_k,
                "group_size": arguments.group_size,
            }
            made = is_made(output, settings)
            state.wait_for_everyone()
            if made:
                continue
            if model is None:
                model = load_scorer(path).to(state.device)
            candidates = Candidates.load(files[split]) if system == "reranked" else None
            scored = score_notes(arguments, model, processor, notes["text"][:], candidates)
            if state.is_main_process:
                output.parent.mkdir(parents=True, exist_ok=True)
                replace(scored, note_ids=notes["note_id"][:]).save(output)
                keep_settings(output, settings)
    return found


def score_notes(
    arguments: argparse.Namespace,
    model,
    processor: KeptProcessor,
    texts: Sequence[str],
    candidates: Candidates | None,
) -> Candidates:
    """Score the candidates of the notes, all codes without them; a share of the notes on each process."""
    common = {"batch_size": arguments.batch_size, "progress": PartialState().is_main_process}

    def score(positions: list[int]) -> Candidates:
        share = [texts[position] for position in positions]
        if candidates is None:
            return rerank_all(model, processor, share, arguments.top_k, **common)
        return rerank(model, processor, share, candidates.take(positions), arguments.group_size, **common)

    return share_notes(score, len(texts))


def evaluate_systems(
    evaluation: Evaluation,
    first_stages: Mapping[str, Mapping[str, Candidates]],
    models: Sequence[tuple[str, Mapping[str, Mapping[str, Path]]]],
) -> dict[str, list[dict]]:
    """System → the results of its runs, one for each seed.

    Args:
        evaluation: evaluates them.
        first_stages: name → split → candidates; the models scored those of the first one.
        models: names, and files as `score_with_model` returns them.
    """
    runs: dict[str, list[dict]] = {}
    for name, systems in models:
        loaded = {
            system: {split: Candidates.load(path) for split, path in files.items()} for system, files in systems.items()
        }
        runs.setdefault(name, []).append(loaded)
    results = {name: [evaluation.evaluate(candidates)] for name, candidates in first_stages.items()}
    name, first = next(iter(first_stages.items()))
    for model, model_runs in runs.items():
        results[f"{model} on {name}"] = [evaluation.evaluate(run["reranked"]) for run in model_runs]
        results[f"{name} + {model}"] = [evaluation.evaluate(first, run["reranked"]) for run in model_runs]
        if on_all_codes := [run["all_codes"] for run in model_runs if "all_codes" in run]:
            results[f"{model} on all codes"] = [evaluation.evaluate(run) for run in on_all_codes]
    return results


def table_of_systems(results: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """A row for each system: the means of its runs. Metrics that there are not, such as P@15 of ten codes, are
    omitted."""
    return [
        {
            "system": system,
            "runs": len(runs),
            **{
                metric: mean(run["metrics"][metric] for run in runs)
                for metric in TABLE_METRICS
                if metric in runs[0]["metrics"]
            },
        }
        for system, runs in results.items()
    ]


def write_comparison(
    arguments: argparse.Namespace,
    argv: Sequence[str],
    corpus: Corpus,
    first_stages: Mapping[str, Mapping[str, Candidates]],
    models: Sequence[tuple[str, Mapping[str, Mapping[str, Path]]]],
) -> None:
    """Evaluate all systems; write the picture, `all_results.json` last, and print the tables."""
    evaluation = Evaluation(corpus, arguments.fusion_metric)
    split, gold = evaluation.split, evaluation.gold[evaluation.split]
    candidates = [{"first stage": name, **stage[split].candidate_metrics(gold)} for name, stage in first_stages.items()]
    best = {
        name: {split: part.top(arguments.top_k) for split, part in stage.items()}
        for name, stage in first_stages.items()
    }
    results = evaluate_systems(evaluation, best, models)
    table = table_of_systems(results)
    name, first = next(iter(best.items()))
    f1 = {system: np.mean([run["f1"] for run in runs], axis=0) for system, runs in results.items()}
    bands = evaluation.bands(f1, first, name)
    content = {
        "evaluated_on": split,
        "thresholds_and_weights_tuned_on": evaluation.tuned_on,
        "notes": {split: len(notes) for split, notes in corpus.dataset.items()},
        "codes": len(corpus.code_set),
        "candidates": candidates,
        "systems": table,
        "runs": {
            system: [{key: run[key] for key in ("metrics", "fusion_weights")} for run in runs]
            for system, runs in results.items()
        },
        "bands": bands,
        "settings": vars(arguments),
        "command": " ".join(["kept-hf rerank", *argv]),
        "versions": {package: version(package) for package in ("kept-hf", "torch", "transformers", "datasets")},
    }
    folder = Path(arguments.output_dir)
    plot_by_band(folder / "f1_by_frequency.png", bands)
    write_text(folder / "all_results.json", json.dumps(content, indent=1) + "\n")
    print(f"\n{split} split, {len(gold)} notes, {len(corpus.code_set)} codes; tuned on {evaluation.tuned_on}")
    for rows in (candidates, table, bands):
        print("\n" + format_table(rows))
    print(f"\nWrote all_results.json and f1_by_frequency.png to {folder}.")


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments, train_options = parse_arguments(argv)
    state = PartialState(cpu=not torch.cuda.is_available())
    logging.basicConfig(format="%(message)s", level=logging.INFO if state.is_main_process else logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    output_dir = Path(arguments.output_dir)
    with argument_errors("rerank"), state.main_process_first():
        check_output_dir(output_dir)
        if state.is_main_process:
            lock_output(output_dir)
        corpus = read_corpus(arguments)
        # The main process is the first to make them; the others find the files.
        maker, first_stages = make_stages(arguments, corpus, output_dir / "first-stages", arguments.first_stages)
        first = next(iter(first_stages.values()))
        files = write_candidates(first, arguments.top_k, output_dir / "candidates")
        if not arguments.model and "train" not in files:
            raise ValueError(
                "Training needs candidates of the train split: write train_candidates.npz, or pass --model."
            )
    if arguments.model:
        models = [(name, run, folder) for run, (name, folder) in enumerate(arguments.model)]
    else:
        models = [
            (KEPT, seed, train_model(arguments, train_options, files, maker.digests, seed)) for seed in arguments.seeds
        ]
    scored = [(name, score_with_model(arguments, path, run, corpus, files)) for name, run, path in models]
    if state.is_main_process:
        write_comparison(arguments, argv, corpus, first_stages, scored)
    PartialState().wait_for_everyone()


if __name__ == "__main__":
    main()
