"""Two stages on a full code set: a first stage proposes codes, KEPT scores them anew, both are evaluated and fused.

    kept-hf rerank --corpus codiesp --data_dir path/to/codiesp --output_dir outputs/two-stages \\
        --proposals fused sparse dense msmn=outputs/msmn --seeds 42 43 44 --prompt_layout isolated

First stages are named as for `kept-hf propose`, which makes them; `outputs/msmn` is a folder of `train_msmn.py`.
The first one named is scored anew; the others stand beside it in the table. Options that are not listed here go to
`train.py`, a recipe file too. With `--model` nothing is trained: models are named, too, and those of one name are seeds
of one row of the table.

The stages leave files in `output_dir`: `first-stages/…`, `proposals/{split}.npz`, `model-{seed}/`, `reranked/…`,
`all_results.json`. What is there and was made with the same settings from the same files is not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import AutoModelForSequenceClassification, HfArgumentParser

from ..candidates.candidates import Candidates
from ..candidates.stage_files import digest, digest_of_model, digest_of_proposals, is_made, keep_settings
from ..corpora import Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..corpora.selection import training_counts
from ..metrics import per_code_metrics
from ..models.processing_kept import KeptProcessor
from ..reports.comparison import compare_by_band, halves, judge, plot_by_band
from ..reports.tables import format_table
from ..reranking import (
    FUSION_METRICS,
    GROUP_SIZE,
    fuse,
    label_matrix,
    published_fill,
    rerank,
    rerank_all,
    tune_fusion,
)
from ..training.weights import weights_path
from . import train
from .propose import FirstStages, add_retrieval_arguments, at_least, named_stages
from .recipe import recipe_path, split_recipe

logger = logging.getLogger("rerank")
KEPT = "KEPT"
"""The name of models that were given none."""
TABLE_METRICS = ("map", "f1_micro", "f1_macro", "f1_macro_per_code", "precision_at_8", "precision_at_15")


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of this command, and those for `train.py`."""
    parser = HfArgumentParser(
        CorpusArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_retrieval_arguments(parser)
    parser.add_argument(
        "--proposals", nargs="+", required=True, metavar="NAME[=FOLDER]", help="first stages; see above"
    )
    parser.add_argument(
        "--model",
        nargs="*",
        default=[],
        metavar="[NAME=]FOLDER",
        help=f"trained models with their processors: train none; NAME is {KEPT} if none is given",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="train a model with each")
    parser.add_argument(
        "--group_size", type=at_least(1), default=GROUP_SIZE, help="joint layout: candidates of a prompt"
    )
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="prompts (isolated: notes) at a time")
    parser.add_argument("--all_codes", action="store_true", help="isolated layout: score all codes, too")
    parser.add_argument(
        "--fusion_metric", choices=FUSION_METRICS, default=FUSION_METRICS[0], help="what the fusion's weight maximises"
    )
    parser.add_argument("--output_dir", default="outputs/rerank", help="where everything is written")
    arguments, for_train = parser.parse_known_args(argv)
    arguments.proposals = named_stages(parser, "--proposals", arguments.proposals)
    arguments.model = [named_model(parser, model) for model in arguments.model]
    if arguments.model and for_train:
        parser.error(f"--model was given, so nothing is trained, but there is {for_train[0]}: leave one of them out")
    if any(option.partition("=")[0] == "--seed" for option in for_train):
        parser.error("--seed: pass --seeds, with which a model each is trained")
    return arguments, for_train


def named_model(parser: argparse.ArgumentParser, model: str) -> tuple[str, str]:
    """Name and folder; of a model on the Hub its id."""
    name, given, folder = model.partition("=")
    if not given or Path(model).is_dir():
        name, folder = KEPT, model
    if not name or not folder:
        parser.error(f"--model {model}: write FOLDER, or NAME=FOLDER, such as joint=outputs/joint")
    if not Path(folder).is_dir() and (folder.startswith((".", "/", "~")) or folder.count("/") != 1):
        parser.error(f"--model {model}: there is no folder {folder}, and no model on the Hub is called so")
    return name, folder


def propose(proposals: dict[str, Candidates], top_k: int, folder: Path) -> dict[str, Path]:
    """Write the candidates that the next stages read."""
    proposals = {split: of_split.top(top_k) for split, of_split in proposals.items()}
    folder.mkdir(parents=True, exist_ok=True)
    files = {split: folder / f"{split}.npz" for split in proposals}
    for split, path in files.items():
        settings = {"proposals": digest_of_proposals(proposals[split])}
        if not is_made(path, settings):
            proposals[split].save(path)
            keep_settings(path, settings)
    return files


def train_model(
    arguments: argparse.Namespace, for_train: list[str], files: dict[str, Path], inputs: dict[str, str], seed: int
) -> str:
    """Train with `kept-hf train`, on prompts of the candidates; `inputs` are digests of the notes and codes."""
    if "train" not in files:
        raise SystemExit("Training needs proposals of the train split: write train_proposals.npz, or pass --model.")
    folder = Path(arguments.output_dir, f"model-{seed}")
    recipe, options = split_recipe(for_train)
    command = [recipe] if recipe else []
    command += ["--corpus", arguments.corpus, "--codes", arguments.codes]
    for name in ("data_dir", "cache_dir"):
        if getattr(arguments, name):
            command += [f"--{name}", getattr(arguments, name)]
    if arguments.corpus_options:
        command += ["--corpus_options", *arguments.corpus_options]
    command += ["--candidates", *(f"{split}={path}" for split, path in files.items())]
    command += ["--codes_per_prompt", str(arguments.group_size), *options]
    command += ["--seed", str(seed), "--output_dir", str(folder)]
    recipe = recipe_path(argparse.ArgumentParser(), recipe) if recipe else train.default_recipe(command)
    weights = weights_path(train.parse_arguments(command)[0].model_name_or_path)
    settings = {
        "command": command,
        "recipe": digest(recipe) if recipe else None,
        "weights": digest_of_model(str(weights)),
        "proposals": {split: digest(path) for split, path in files.items()},
        **inputs,
    }
    made = is_made(folder, settings)
    PartialState().wait_for_everyone()
    if not made:
        train.main(command)
        if PartialState().is_main_process:
            keep_settings(folder, settings)
    PartialState().wait_for_everyone()  # the main process writes the model
    return str(folder)


def predict(arguments: argparse.Namespace, path: str, run: int, corpus: Corpus, files: dict[str, Path]) -> dict:
    """Score the candidates, and all codes if asked and the layout lets it; the files by system and split."""
    found: dict[str, dict[str, Path]] = {}
    state, model, weights = PartialState(), None, digest_of_model(path)
    processor = KeptProcessor.from_pretrained(path, code_set=corpus.code_set)
    systems = ["reranked"]
    if arguments.all_codes and processor.prompt_layout == "isolated":
        systems.append("all_codes")
    elif arguments.all_codes:
        logger.warning("--all_codes: %s has the layout %r and is asked about the candidates only.", path, "joint")
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
                "proposals": digest(files[split]) if system == "reranked" else arguments.top_k,
                "group_size": arguments.group_size,
            }
            made = is_made(output, settings)
            state.wait_for_everyone()
            if made:
                continue
            if model is None:
                model = AutoModelForSequenceClassification.from_pretrained(path).to(state.device)
            places = list(range(state.process_index, len(notes), state.num_processes))
            texts, proposals = notes.select(places)["text"][:], Candidates.load(files[split])
            common = {"batch_size": arguments.batch_size, "progress": state.is_main_process}
            if system == "reranked":
                part = rerank(model, processor, texts, proposals.take(places), arguments.group_size, **common)
            else:
                part = rerank_all(model, processor, texts, arguments.top_k, **common)
            parts = gather_object([(places, part)])
            if state.is_main_process:
                order = np.argsort([place for of_one, _ in parts for place in of_one])
                scored = Candidates.concatenate(part for _, part in parts).take(order)
                output.parent.mkdir(parents=True, exist_ok=True)
                replace(scored, note_ids=notes["note_id"][:]).save(output)
                keep_settings(output, settings)
    return found


def matrix_of(proposals: Candidates) -> np.ndarray:
    """One matrix over all codes, with the published fill value."""
    return proposals.scores_matrix(published_fill(proposals.scores))


class Judge:
    """Judges systems on the test split by what was tuned on validation; without one, each half of validation by what
    was tuned on the other."""

    def __init__(self, corpus: Corpus, fusion_metric: str):
        self.split = "test" if "test" in corpus.dataset else "validation"
        self.codes, self.fusion_metric = corpus.code_set.codes, fusion_metric
        self.gold = {split: corpus.dataset[split]["codes"][:] for split in {"validation", self.split}}
        whole = {split: (split, np.arange(len(codes))) for split, codes in self.gold.items()}
        self.turns = [(whole["validation"], whole[self.split])]
        self.tuned_on = "validation"
        if self.split == "validation":
            one, other = ((self.split, half) for half in halves(len(self.gold["validation"])))
            self.turns = [(one, other), (other, one)]
            self.tuned_on = "the other half of the validation notes, in turn"

    def __call__(self, first: dict[str, Candidates], second: dict[str, Candidates] | None = None) -> dict:
        """Metrics of one stage, or of two that are fused."""
        folds, weights = [], []
        for turn in self.turns:
            gold = [[self.gold[split][row] for row in rows] for split, rows in turn]
            stages = [first[split].take(rows) for split, rows in turn]
            if second is not None:
                anew = [second[split].take(rows) for split, rows in turn]
                fusion = tune_fusion(stages[0], anew[0], gold[0], self.fusion_metric)
                stages = [fuse(*both, fusion) for both in zip(stages, anew, strict=True)]
                weights.append(round(fusion.weight, 4))
            (tuned, judged), labels = map(matrix_of, stages), [label_matrix(codes, self.codes) for codes in gold]
            folds.append((tuned, labels[0], judged, labels[1]))
        metrics, per_code = judge(folds)
        return {"metrics": metrics, "f1": per_code["f1"], "fusion_weights": weights}


def bands_of(
    judge_system: Judge, corpus: Corpus, results: dict[str, list[dict]], first: Candidates, name: str
) -> list[dict]:
    """F1 by code frequency of each system, and of an oracle that assigns exactly the proposed gold codes."""
    labels = label_matrix(judge_system.gold[judge_system.split], corpus.code_set.codes)
    ceiling = per_code_metrics(labels * (first.scores_matrix(-np.inf) > -np.inf), labels, 0.5)
    f1 = {system: np.mean([run["f1"] for run in runs], axis=0) for system, runs in results.items()}
    counts = list(training_counts(corpus).values())
    bands = compare_by_band({**f1, f"ceiling of {name}": ceiling["f1"]}, counts, labels.sum(axis=0))
    # JSON has no NaN.
    return [{column: None if value != value else value for column, value in row.items()} for row in bands]


def evaluate(
    arguments, corpus: Corpus, first_stages: dict[str, dict[str, Candidates]], predicted: list[tuple[str, dict]]
) -> None:
    """Write `all_results.json`, the tables and the picture; `predicted` are names of models and their files."""
    judge_system = Judge(corpus, arguments.fusion_metric)
    split, gold = judge_system.split, judge_system.gold[judge_system.split]
    candidates = [
        {"first stage": name, **proposals[split].candidate_metrics(gold)} for name, proposals in first_stages.items()
    ]
    asked = {
        name: {of_split: proposals.top(arguments.top_k) for of_split, proposals in stage.items()}
        for name, stage in first_stages.items()
    }
    runs: dict[str, list[dict]] = {}
    for model, of_run in predicted:
        loaded = {
            system: {split: Candidates.load(path) for split, path in files.items()} for system, files in of_run.items()
        }
        runs.setdefault(model, []).append(loaded)
    (name, first), *_ = asked.items()
    results = {stage: [judge_system(proposals)] for stage, proposals in asked.items()}
    for model, of_model in runs.items():
        results[f"{model} on {name}"] = [judge_system(run["reranked"]) for run in of_model]
        results[f"{name} + {model}"] = [judge_system(first, run["reranked"]) for run in of_model]
        if everything := [run["all_codes"] for run in of_model if "all_codes" in run]:
            results[f"{model} on all codes"] = [judge_system(run) for run in everything]
    bands = bands_of(judge_system, corpus, results, first[split], name)
    table = [
        {
            "system": system,
            "runs": len(of_system),
            # A code set of ten has no P@15.
            **{
                metric: mean(run["metrics"][metric] for run in of_system)
                for metric in TABLE_METRICS
                if metric in of_system[0]["metrics"]
            },
        }
        for system, of_system in results.items()
    ]
    content = {
        "evaluated_on": split,
        "thresholds_and_weights_tuned_on": judge_system.tuned_on,
        "notes": {split: len(notes) for split, notes in corpus.dataset.items()},
        "codes": len(corpus.code_set),
        "candidates": candidates,
        "systems": table,
        "runs": {
            system: [{key: run[key] for key in ("metrics", "fusion_weights")} for run in of_system]
            for system, of_system in results.items()
        },
        "bands": bands,
        "settings": vars(arguments),
        "command": " ".join(["kept-hf rerank", *sys.argv[1:]]),
        "versions": {package: version(package) for package in ("kept-hf", "torch", "transformers", "datasets")},
    }
    folder = Path(arguments.output_dir)
    (folder / "all_results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plot_by_band(folder / "f1_by_frequency.png", bands)
    print(f"\n{split} split, {len(gold)} notes, {len(corpus.code_set)} codes; tuned on {judge_system.tuned_on}")
    for rows in (candidates, table, bands):
        print("\n" + format_table(rows))
    print(f"\nWrote all_results.json and f1_by_frequency.png to {folder}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments, for_train = parse_arguments(argv)
    state = PartialState(cpu=not torch.cuda.is_available())
    logging.basicConfig(format="%(message)s", level=logging.INFO if state.is_main_process else logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with state.main_process_first():
        corpus = read_corpus(arguments)
        # The first to come here is the main process; the others find the files.
        made_here = FirstStages(corpus, Path(arguments.output_dir, "first-stages"), arguments)
        first_stages = {name: made_here.make(name, folder) for name, folder in arguments.proposals.items()}
        first = next(iter(first_stages.values()))
        files = propose(first, arguments.top_k, Path(arguments.output_dir, "proposals"))
    if arguments.model:
        models = [(name, run, folder) for run, (name, folder) in enumerate(arguments.model)]
    else:
        models = [
            (KEPT, seed, train_model(arguments, for_train, files, made_here.inputs, seed)) for seed in arguments.seeds
        ]
    predicted = [(name, predict(arguments, path, run, corpus, files)) for name, run, path in models]
    if PartialState().is_main_process:
        evaluate(arguments, corpus, first_stages, predicted)
    PartialState().wait_for_everyone()


if __name__ == "__main__":
    main()
