"""Teach a model to answer prompts from the text, without a coded note (zero-shot pretraining), before it is fine-tuned.

    kept-hf pretrain zero-shot --corpus codiesp --data_dir path/to/codiesp
    kept-hf pretrain zero-shot --model_name_or_path outputs/mlm --text_files notes/*.txt

The prompts ask about concepts of a term graph. The texts are passages of notes that mention some of them, or sentences
about them are put between those of the note. Without a recipe file `zero_shot` is taken; the command line changes its
values. What it writes to `output_dir` is an ordinary checkpoint, for `--model_name_or_path` of `kept-hf train`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase, Trainer

from ..candidates.stage_files import digest, digest_of_model, digest_of_terms
from ..corpora import Corpus, load_corpus
from ..corpora.arguments import corpus_options, named_option
from ..corpora.selection import RULES, select_codes
from ..hub.zero_shot_card import make_zero_shot_card
from ..knowledge import TermGraph
from ..knowledge.arguments import TermSourceArguments, read_terms
from ..knowledge.mentions import below
from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting
from ..models.processing_kept import KeptProcessor
from ..models.prompting import PRESETS
from ..models.publication import joint_license
from ..pretraining.notes import NoteArguments, TextSource, hide_text_files, read_notes, term_sources
from ..pretraining.run import write_run
from ..pretraining.zero_shot.evaluation import ZeroShotTask, zero_shot_table, zero_shot_task
from ..pretraining.zero_shot.passages import PassageSource, held_out_concepts
from ..pretraining.zero_shot.prompts import DataCollatorForZeroShot, ZeroShotPrompts
from ..reports.tables import format_table
from ..training.base import EncoderArguments, load_base
from ..training.checkpoints import checkpoint_to_resume
from ..training.collators import LABEL_NAMES
from ..training.run import (
    PACKAGES,
    PretrainingArguments,
    process_group,
    run_inputs,
    run_record,
    run_settings,
    set_up,
    train_and_evaluate,
)
from ..training.weights import weights_path
from .recipe import argument_errors, command_parser, parse_recipe

logger = logging.getLogger("pretrain_zero_shot")
STAGE, RECIPE = "zero-shot", "zero_shot"
COMMAND = f"pretrain {STAGE}"
HELD_OUT_NOTES = 250
"""Of the validation split: none of its texts is trained on, should the train split have a copy."""


@dataclass
class ModelArguments(EncoderArguments):
    """The model and its prompts."""

    model_max_length: int = field(default=2048, metadata={"help": "Positions of a converted model."})
    preset: str = field(default="kept-50", metadata={"help": f"Prompt preset: {', '.join(PRESETS)}."})
    global_attention_stride: int = field(default=1, metadata={"help": "Global attention on every n-th prompt token."})
    prompt_loss: str = field(default="two_way", metadata={"help": "two_way or full_vocabulary (published)."})


@dataclass
class TermArguments(TermSourceArguments):
    """The concepts of the prompts."""

    excluded_concepts: list[str] = field(
        default_factory=list,
        metadata={"help": "Ids of concepts that no code is about, excluded with all below them."},
    )
    held_out_concepts: int = field(default=1500, metadata={"help": "Concepts held out of training, for evaluation."})


@dataclass
class PromptArguments(NoteArguments):
    """The notes, the prompts from short to long, and the evaluation before and after."""

    num_codes: list[int] = field(
        default_factory=lambda: [5, 50], metadata={"help": "Concepts of a prompt, at first and at last."}
    )
    num_sentences: list[int] = field(
        default_factory=lambda: [2, 20], metadata={"help": "Sentences of a passage, at first and at last."}
    )
    tokens_per_item: int = field(
        default=4000,
        metadata={
            "help": "Tokens of an item, which has several prompts; a batch is per_device_train_batch_size items."
        },
    )
    zero_shot_codes: str | None = field(
        default=None,
        metadata={
            "help": "Also evaluate on the corpus' validation notes, with prompts about these codes: "
            f"{', '.join(RULES[1:])} or a file with a code a line; and hold out their concepts. Their labels are for "
            "evaluation only."
        },
    )
    zero_shot_codes_per_prompt: list[int] = field(
        default_factory=lambda: [10, 50],
        metadata={"help": "Codes of a prompt of that evaluation, one size or more."},
    )


@dataclass
class ZeroShotTrainingArguments(PretrainingArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/zero-shot", metadata={"help": "Where everything is written."})
    learning_rate: float = field(default=3e-4, metadata={"help": "See transformers."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Items: see tokens_per_item."})
    max_steps: int = field(default=600, metadata={"help": "Steps; the prompts grow with them."})
    # Items are lists of rows; the collator leaves out what the model does not take.
    remove_unused_columns: bool = field(default=False, metadata={"help": "See transformers."})
    # From short to long.
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "See transformers."})


def parse_arguments(
    argv: list[str],
) -> tuple[ModelArguments, TermArguments, PromptArguments, ZeroShotTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(
        COMMAND, (ModelArguments, TermArguments, PromptArguments, ZeroShotTrainingArguments), __doc__
    )
    model, terms, prompts, training = parse_recipe(parser, argv, RECIPE)
    if training.max_steps < 1:
        parser.error(f"max_steps={training.max_steps}: the prompts grow with the steps; pass how many")
    for name in ("num_codes", "num_sentences"):
        if len(getattr(prompts, name)) != 2:
            parser.error(f"{name}={getattr(prompts, name)} is no range; pass two numbers, at first and at last")
    if prompts.zero_shot_codes and prompts.corpus is None:
        parser.error(f"zero_shot_codes={prompts.zero_shot_codes} are codes of a corpus; pass --corpus")
    return model, terms, prompts, replace(training, label_names=[*LABEL_NAMES])


def zero_shot_corpus(arguments: PromptArguments) -> Corpus | None:
    """The corpus with the codes that are evaluated without training, if there are any."""
    if arguments.zero_shot_codes is None:
        return None
    options = corpus_options(arguments.corpus_options)
    with named_option("name", "--corpus"):
        corpus = load_corpus(arguments.corpus, arguments.data_dir, arguments.cache_dir, **options)
    with named_option("rule", "--zero_shot_codes"):
        corpus = select_codes(corpus, arguments.zero_shot_codes)
    if "validation" not in corpus.dataset:
        raise ValueError(
            f"corpus={arguments.corpus!r} has no validation notes to evaluate; leave out --zero_shot_codes."
        )
    return corpus


def load_model(
    arguments: ModelArguments, corpus: Corpus | None
) -> tuple[KeptLongformerForICDPrompting, PreTrainedTokenizerBase, KeptProcessor]:
    """The model to start from, its tokenizer, and the processor that writes the prompts."""
    model, tokenizer = load_base(KeptLongformerForICDPrompting, arguments, arguments.model_max_length)
    processor = KeptProcessor(
        tokenizer,
        None if corpus is None else corpus.code_set,
        arguments.preset,
        model.config.max_sequence_length,
        arguments.global_attention_stride,
    )
    overrides = processor.config_overrides() | {"prompt_loss": arguments.prompt_loss}
    for name in overrides.keys() - {"id2label", "label2id"}:  # the codes are for evaluation only
        setattr(model.config, name, overrides[name])
    return model, tokenizer, processor


@dataclass
class Data:
    """What is trained on, and what is evaluated on.

    Attributes:
        prompts: to train on.
        task: to evaluate on.
        counts: of notes, concepts and codes, for `all_results.json`.
        sources: of notes and terms.
    """

    prompts: ZeroShotPrompts
    task: ZeroShotTask
    counts: dict[str, int | None]
    sources: list[TextSource]


def make_data(
    graph: TermGraph,
    terms: TermArguments,
    notes: list[str],
    note_sources: list[TextSource],
    corpus: Corpus | None,
    processor: KeptProcessor,
    arguments: PromptArguments,
    training: ZeroShotTrainingArguments,
) -> Data:
    """Hold out concepts, and make prompts of the others."""
    unknown = [concept for concept in terms.excluded_concepts if concept not in graph]
    if unknown:
        raise ValueError(f"excluded_concepts has {unknown[0]!r}, which sources={terms.sources} do not have.")
    excluded = np.flatnonzero(below(graph, terms.excluded_concepts))
    concepts = held_out_concepts(graph, terms.held_out_concepts, excluded, training.seed)
    codes = [] if corpus is None else [graph.concept_index(code) for code in corpus.code_set if code in graph]
    source = PassageSource(graph, notes, {*concepts.tolist(), *codes}, excluded)
    validation = None if corpus is None else corpus.dataset["validation"]
    task = zero_shot_task(
        source,
        concepts,
        processor,
        arguments.num_codes,
        arguments.num_sentences,
        validation,
        arguments.zero_shot_codes_per_prompt,
        training.seed,
    )
    prompts = ZeroShotPrompts(
        source,
        processor,
        training.max_steps * training.gradient_accumulation_steps * training.train_batch_size * training.world_size,
        tuple(arguments.num_codes),
        tuple(arguments.num_sentences),
        arguments.tokens_per_item,
        seed=training.seed,
    )
    counts = {
        "notes": len(notes),
        "concepts": len(source.pool),
        "concepts_mentioned_in_notes": len(source.mentioned),
        "held_out_concepts": len(concepts) + len(codes),
        "zero_shot_notes": None if validation is None else len(validation),
        "zero_shot_codes": None if corpus is None else len(corpus.code_set),
    }
    return Data(prompts, task, counts, [*note_sources, *term_sources(graph)])


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Read terms and notes, evaluate, train, evaluate, write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, terms, prompts, training = parse_arguments(argv)
    with argument_errors(COMMAND):
        set_up(training)
    with argument_errors(COMMAND):
        with training.main_process_first(desc="reading the notes"):
            notes, _, sources = read_notes(prompts, most_held_out=HELD_OUT_NOTES)
            corpus = zero_shot_corpus(prompts)
        settings = run_settings(training, model_arguments, terms, prompts)
        settings, command = hide_text_files(settings, argv, notes)
        graph = read_terms(terms.sources, terms)
        weights = digest_of_model(weights_path(model_arguments.model_name_or_path))
        inputs = run_inputs(text=digest(*notes), terms=digest_of_terms(graph), weights=weights)
        checkpoint = checkpoint_to_resume(training, settings, inputs)
        logger.info("%s", graph)
        model, tokenizer, processor = load_model(model_arguments, corpus)
        data = make_data(graph, terms, notes, sources, corpus, processor, prompts, training)
    logger.info(
        "%(notes)d notes; %(concepts)d concepts for prompts, %(concepts_mentioned_in_notes)d of them mentioned in the "
        "notes; %(held_out_concepts)d held out",
        data.counts,
    )
    base_license = model.config.data_license
    model.config.data_license = joint_license(base_license, *(source.license for source in data.sources))
    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForZeroShot(processor),
        train_dataset=data.prompts,
        eval_dataset=data.task,
        compute_metrics=data.task.compute_metrics,
    )
    measured, seconds = train_and_evaluate(
        trainer, settings, inputs, checkpoint, lambda metrics: {name: metrics[name] for name in data.task.titles}
    )
    if not trainer.is_world_process_zero():
        return
    results = {
        "stage": STAGE,
        **measured,
        "table": zero_shot_table(data.task, measured),
        **data.counts,
        "sources": [vars(source) for source in data.sources],
        "base_data_license": base_license,
        "data_license": model.config.data_license,
        **run_record(trainer, seconds, started, PACKAGES),
        "command": f"kept-hf {COMMAND} {command}".rstrip(),
        "settings": settings,
    }
    write_run(Path(training.output_dir), model, tokenizer, results, make_zero_shot_card)
    print(f"\n{results['steps']} steps of {prompts.tokens_per_item:,} tokens in {seconds:.0f} s")
    print(format_table(results["table"], digits=3))
    print(f"Wrote the model, its card and the report to {training.output_dir}.")


if __name__ == "__main__":
    main()
