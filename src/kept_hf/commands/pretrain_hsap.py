"""Teach an encoder the names of medical concepts and their hierarchy (HSAP), before it is prompted.

    kept-hf pretrain hsap                                   # open terms, 10 minutes on a CPU
    kept-hf pretrain hsap --no_siblings --output_dir outputs/hsap-no-siblings
    kept-hf pretrain hsap hsap_umls --umls_folder path/to/META

Without a recipe file `hsap` is taken; the command line changes its values. What it writes to
`output_dir` is an ordinary checkpoint, for `--model_name_or_path` of the other commands.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase, Trainer

from ..candidates.pooling import POOLINGS
from ..candidates.stage_files import digest_of_model, digest_of_terms
from ..hub.hsap_card import make_hsap_card, terms_license
from ..knowledge import TermGraph
from ..knowledge.arguments import TermSourceArguments, read_terms
from ..pretraining.hsap.families import TermCollator, TermFamilies
from ..pretraining.hsap.linking import LinkingTask, linking_table, plot_linking
from ..pretraining.hsap.loss import MAX_DISTANCE
from ..pretraining.hsap.model import KeptLongformerForHSAP
from ..pretraining.run import write_run
from ..reports.tables import format_table
from ..training.base import EncoderArguments, load_base
from ..training.checkpoints import checkpoint_to_resume
from ..training.conversion import copy_local_to_global, has_own_global_projections
from ..training.run import (
    PretrainingArguments,
    process_group,
    run_inputs,
    run_record,
    run_settings,
    set_up,
    train_and_evaluate,
)
from ..training.time_limit import TimeLimit, fit_to_time
from ..training.weights import weights_path
from .recipe import argument_errors, command_parser, parse_recipe

logger = logging.getLogger("pretrain_hsap")
STAGE = RECIPE = "hsap"
COMMAND = f"pretrain {STAGE}"
PACKAGES = ("kept-hf", "torch", "transformers", "pytorch-metric-learning")
"""Whose versions are in the results."""


@dataclass
class ModelArguments(EncoderArguments):
    """The encoder."""

    pooling: str = field(
        default="cls",
        metadata={
            "help": f"What stands for a name: {' or '.join(POOLINGS)}. cls is published; mean suits encoders "
            "that were trained with it, as the packaged weights were."
        },
    )
    max_length: int = field(default=25, metadata={"help": "Tokens of a name."})
    hierarchy_weight: float = field(
        default=1.0, metadata={"help": "Of the hierarchy in the loss, 0 to 1. 0: SapBERT's loss."}
    )
    max_distance: int = field(default=MAX_DISTANCE, metadata={"help": "Edges from which concepts are strangers."})
    margin: float = field(default=0.2, metadata={"help": "Of the triplets that are learnt from."})


@dataclass
class TermArguments(TermSourceArguments):
    """The terms, how they are drawn, and which are held out."""

    names_per_family: int = field(
        default=8,
        metadata={
            "help": "Names of a concept and its siblings that are drawn together. A batch is "
            "per_device_train_batch_size families."
        },
    )
    synonym_rate: float = field(default=0.6, metadata={"help": "Families that begin with two full names."})
    abbreviation_rate: float = field(default=0.2, metadata={"help": "… with an abbreviation and a full name."})
    parent_rate: float = field(default=0.2, metadata={"help": "… with a name of a concept and one of its parent."})
    no_siblings: bool = field(default=False, metadata={"help": "Draw all concepts at random, as SapBERT does."})
    held_out_synonyms: int = field(default=2000, metadata={"help": "Synonyms held out of training, to be linked."})
    held_out_abbreviations: int = field(default=200, metadata={"help": "Likewise."})
    trained_abbreviations: int = field(default=1000, metadata={"help": "Abbreviations trained on and linked."})
    candidate_concepts: int = field(default=25_000, metadata={"help": "Concepts to whose names they are linked."})
    max_minutes: float | None = field(
        default=None,
        metadata={
            "help": "Train for so long, evaluation not counted; the learning rate falls to 0 by then. Without "
            "it, or with 0, num_train_epochs or max_steps counts."
        },
    )


@dataclass
class HSAPTrainingArguments(PretrainingArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/hsap", metadata={"help": "Where everything is written."})
    # The families are shuffled already, and drawn again in each epoch.
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "See transformers."})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, TermArguments, HSAPTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, TermArguments, HSAPTrainingArguments), __doc__)
    model, terms, training = parse_recipe(parser, argv, RECIPE)
    with argument_errors(COMMAND):
        training = fit_to_time(training, terms.max_minutes)
    # So that evaluation keeps the rows of the names.
    training = replace(training, label_names=["concepts"])
    return model, replace(terms, max_minutes=terms.max_minutes or None), training


def load_model(
    arguments: ModelArguments, graph: TermGraph, use_cpu: bool
) -> tuple[KeptLongformerForHSAP, PreTrainedTokenizerBase]:
    """The model to start from, and its tokenizer."""
    model, tokenizer = load_base(
        KeptLongformerForHSAP,
        arguments,
        arguments.model_max_length,
        graph=graph,
        pooling=arguments.pooling,
        hierarchy_weight=arguments.hierarchy_weight,
        max_distance=arguments.max_distance,
        margin=arguments.margin,
        # A GPU is better used by one padded batch.
        chunk_size=64 if use_cpu else None,
    )
    model.freeze_unused()
    return model, tokenizer


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Read the terms, evaluate, train, evaluate, write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, terms, training = parse_arguments(argv)
    with argument_errors(COMMAND):
        set_up(training)
    settings = run_settings(training, model_arguments, terms)
    with argument_errors(COMMAND):
        graph = read_terms(terms.sources, terms)
        weights = digest_of_model(weights_path(model_arguments.model_name_or_path))
        inputs = run_inputs(terms=digest_of_terms(graph), weights=weights)
        checkpoint = checkpoint_to_resume(training, settings, inputs)
        logger.info("%s", graph.describe())
        families, task = term_data(graph, terms, training.seed)
        model, tokenizer = load_model(model_arguments, graph, training.use_cpu)
        collator = TermCollator(tokenizer, model_arguments.max_length)
        limits = [] if terms.max_minutes is None else [TimeLimit(terms.max_minutes)]
    model.config.data_license = terms_license(graph.sources, model.config.data_license)
    has_own_global = has_own_global_projections(model)
    trainer = Trainer(
        model,
        training,
        data_collator=collator,
        train_dataset=families,
        eval_dataset=task.dataset(),
        compute_metrics=task.compute_metrics,
        callbacks=limits,
    )
    measured, seconds = train_and_evaluate(trainer, settings, inputs, checkpoint, chosen_metrics)
    if not trainer.is_world_process_zero():
        return
    result = model.as_masked_lm()
    if not has_own_global:
        copy_local_to_global(result)
    record = run_record(trainer, seconds, started, PACKAGES)
    results = {
        "stage": STAGE,
        **measured,
        "table": linking_table(task, measured),
        "candidates": len(task.candidates),
        "candidate_concepts": len(set(task.candidate_concepts.tolist())),
        "sources": list(graph.sources),
        "graph": graph.counts,
        "data_license": model.config.data_license,
        **record,
        "names_per_step": terms.names_per_family * record["rows_per_step"],
        "command": " ".join([f"kept-hf {COMMAND}", *argv]),
        "settings": settings,
    }
    folder = Path(training.output_dir)
    write_run(
        folder,
        result,
        tokenizer,
        results,
        make_hsap_card,
        draw_pictures=lambda folder: plot_linking(folder / "linking.png", measured),
    )
    print_summary(results)
    print(f"Wrote the encoder, its card and the report to {folder}. Its masked-LM head is that of the base: train it.")


def term_data(graph: TermGraph, arguments: TermArguments, seed: int) -> tuple[TermFamilies, LinkingTask]:
    """What is trained on, and what is measured on held-out names."""
    task = LinkingTask.from_graph(
        graph,
        arguments.held_out_synonyms,
        arguments.held_out_abbreviations,
        arguments.trained_abbreviations,
        arguments.candidate_concepts,
        seed=seed,
    )
    families = TermFamilies(
        graph,
        arguments.names_per_family,
        arguments.synonym_rate,
        arguments.abbreviation_rate,
        arguments.parent_rate,
        siblings=not arguments.no_siblings,
        held_out=task.held_out,
        seed=seed,
    )
    return families, task


def chosen_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Those of the task; not what the Trainer adds, such as run times."""
    return {name: value for name, value in metrics.items() if "_at_" in name or name == "tree_distance_correlation"}


def print_summary(results: dict) -> None:
    """The table, and how it came about."""
    print(
        f"\n{results['candidates']:,} names of {results['candidate_concepts']:,} concepts to link to; "
        f"{results['steps']} steps of {results['names_per_step']} names in {results['training_seconds']:.0f} s"
    )
    print(format_table(results["table"], digits=3))


if __name__ == "__main__":
    main()
