"""Teach a model to answer prompts from the text, without a coded note (match pretraining), before it is fine-tuned.

    kept-hf pretrain zero-shot --corpus codiesp --data_dir path/to/codiesp
    kept-hf pretrain zero-shot --model_name_or_path outputs/mlm --text_files notes/*.txt

The prompts ask about concepts of a term graph; the texts are passages of notes that mention some of them, or are made
to. Without a recipe file `matching` is taken; the command line changes its values. What it writes
to `output_dir` is an ordinary checkpoint, for `--model_name_or_path` of `kept-hf train`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import Trainer

from ..corpora import Corpus, load_corpus
from ..corpora.arguments import corpus_options
from ..corpora.selection import RULES, select_codes
from ..hub.zero_shot_card import make_zero_shot_card
from ..knowledge import TermGraph
from ..knowledge.arguments import TermSourceArguments, read_terms
from ..knowledge.mentions import below
from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting
from ..models.processing_kept import KeptProcessor
from ..models.prompting import PRESETS, PROMPT_LAYOUTS
from ..models.publication import joint_license
from ..pretraining.notes import NoteArguments, name_text_files, read_notes, term_sources
from ..pretraining.zero_shot.evaluation import MatchingTask, matching_table
from ..pretraining.zero_shot.prompts import DataCollatorForMatching, MatchingPrompts, MatchingSource
from ..reports.tables import format_table
from ..training.base import EncoderArguments, load_base
from ..training.run import (
    PretrainingArguments,
    checkpoint_to_resume,
    run_record,
    run_settings,
    set_up,
    train_and_evaluate,
    write_results,
)
from .recipe import command_parser, parse_recipe

logger = logging.getLogger("pretrain_matching")
COMMAND, RECIPE = "pretrain zero-shot", "matching"
WITHHELD_NOTES = 250
"""Of the validation split: none of its texts is trained on, should the train split have a copy."""


@dataclass
class ModelArguments(EncoderArguments):
    """The model and its prompts."""

    model_max_length: int = field(default=2048, metadata={"help": "Positions of a converted model."})
    preset: str = field(default="kept-50", metadata={"help": f"Prompt preset: {', '.join(PRESETS)}."})
    global_attention_stride: int = field(default=1, metadata={"help": "Global attention on every n-th prompt token."})
    prompt_layout: str = field(default="joint", metadata={"help": f"One of: {', '.join(PROMPT_LAYOUTS)}."})
    similarity_prior: bool = field(
        default=False, metadata={"help": "Add the similarity of windows to the scores, in the isolated layout."}
    )
    prompt_loss: str = field(default="two_way", metadata={"help": "two_way or full_vocabulary (published)."})


@dataclass
class TermArguments(TermSourceArguments):
    """The concepts that are asked about."""

    left_out: list[str] = field(
        default_factory=list,
        metadata={"help": "Ids of concepts that are no matter of codes, left out with all below them."},
    )
    withheld_concepts: int = field(default=1500, metadata={"help": "Concepts kept from training, to be asked."})


@dataclass
class PromptArguments(NoteArguments):
    """The notes, the prompts from short to long, and what is asked before and after."""

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
            "help": f"Also ask the corpus' validation notes about these codes, {', '.join(RULES[1:])} or a file with a "
            "code a line, and withhold their concepts. Their labels are for judging only."
        },
    )
    zero_shot_codes_per_prompt: list[int] = field(
        default_factory=lambda: [10, 50],
        metadata={"help": "Ask them in prompts of so many; the isolated layout asks all at once."},
    )


@dataclass
class MatchingTrainingArguments(PretrainingArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/matching", metadata={"help": "Where everything is written."})
    learning_rate: float = field(default=3e-4, metadata={"help": "See transformers."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Items: see tokens_per_item."})
    max_steps: int = field(default=600, metadata={"help": "Steps; the prompts grow with them."})
    # The names that rows of the isolated layout ask by are for the collator.
    remove_unused_columns: bool = field(default=False, metadata={"help": "See transformers."})
    # From short to long.
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "See transformers."})


def parse_arguments(
    argv: list[str],
) -> tuple[ModelArguments, TermArguments, PromptArguments, MatchingTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(
        COMMAND, (ModelArguments, TermArguments, PromptArguments, MatchingTrainingArguments), __doc__
    )
    model, terms, prompts, training = parse_recipe(parser, argv, RECIPE)
    training.label_names = ["labels"]
    if training.max_steps < 1:
        parser.error(f"max_steps={training.max_steps}: the prompts grow with the steps; pass how many")
    for name in ("num_codes", "num_sentences"):
        if len(getattr(prompts, name)) != 2:
            parser.error(f"{name}={getattr(prompts, name)} is no range; pass two numbers, at first and at last")
    if prompts.zero_shot_codes and prompts.corpus is None:
        parser.error(f"zero_shot_codes={prompts.zero_shot_codes} are codes of a corpus; pass --corpus")
    return model, terms, prompts, training


def zero_shot_corpus(arguments: PromptArguments) -> Corpus | None:
    """The corpus with the codes to ask without training, if any."""
    if arguments.zero_shot_codes is None:
        return None
    options = corpus_options(arguments.corpus_options)
    corpus = load_corpus(arguments.corpus, arguments.data_dir, arguments.cache_dir, **options)
    corpus = select_codes(corpus, arguments.zero_shot_codes)
    if "validation" not in corpus.dataset:
        raise SystemExit(f"corpus={arguments.corpus} has no validation notes to ask; leave out --zero_shot_codes.")
    return corpus


def withhold(graph: TermGraph, number: int, left_out: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of concepts kept from training: at most a quarter of those that are asked about."""
    pool = MatchingSource(graph, left_out=left_out).pool
    return np.sort(np.random.default_rng(seed).permutation(pool)[: min(number, len(pool) // 4)])


def make_task(
    source: MatchingSource,
    concepts: np.ndarray,
    processor: KeptProcessor,
    arguments: PromptArguments,
    corpus: Corpus | None,
    seed: int,
) -> MatchingTask:
    """What is asked before and after: short and long prompts about withheld concepts, and validation notes."""
    task = MatchingTask()
    for name, share, number in (("withheld_short", 0.1, 100), ("withheld_long", 1.0, 40)):
        codes, sentences = (
            round(low + share * (high - low)) for low, high in (arguments.num_codes, arguments.num_sentences)
        )
        task.add_concepts(name, source, concepts, processor, number, min(codes, len(concepts)), sentences, seed)
    if corpus is not None:
        sizes = [None] if processor.prompt_layout == "isolated" else arguments.zero_shot_codes_per_prompt
        for codes_per_prompt in sizes:
            task.add_notes(corpus.dataset["validation"], processor, codes_per_prompt)
    return task


def main(argv: Sequence[str] | None = None) -> None:
    """Read terms and notes, evaluate, train, evaluate, write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, terms, prompts, training = parse_arguments(argv)
    set_up(training)
    with training.main_process_first(desc="reading the notes"):
        notes, _, sources = read_notes(prompts, most_withheld=WITHHELD_NOTES)
        corpus = zero_shot_corpus(prompts)
    settings = run_settings(training, model_arguments, terms, prompts)
    settings, command = name_text_files(settings, argv, notes)
    checkpoint = checkpoint_to_resume(training.output_dir, settings)
    graph = read_terms(terms.sources, terms)
    logger.info("%s", graph)
    sources += term_sources(graph)
    model, tokenizer = load_base(
        KeptLongformerForICDPrompting,
        model_arguments,
        model_arguments.model_max_length,
        similarity_prior=model_arguments.similarity_prior,
    )
    processor = KeptProcessor(
        tokenizer,
        None if corpus is None else corpus.code_set,
        model_arguments.preset,
        model.config.max_sequence_length,
        model_arguments.global_attention_stride,
        prompt_layout=model_arguments.prompt_layout,
    )
    overrides = processor.config_overrides() | {"prompt_loss": model_arguments.prompt_loss}
    for name in overrides.keys() - {"id2label", "label2id"}:  # the codes are for judging only
        setattr(model.config, name, overrides[name])
    base_license = model.config.data_license
    model.config.data_license = joint_license(base_license, *(source.license for source in sources))

    left_out = np.flatnonzero(below(graph, terms.left_out))
    concepts = withhold(graph, terms.withheld_concepts, left_out, training.seed)
    codes = [] if corpus is None else [graph.concept_index(code) for code in corpus.code_set if code in graph]
    source = MatchingSource(graph, notes, {*concepts.tolist(), *codes}, left_out)
    task = make_task(source, concepts, processor, prompts, corpus, training.seed)
    items = MatchingPrompts(
        source,
        processor,
        training.max_steps * training.gradient_accumulation_steps * training.train_batch_size * training.world_size,
        tuple(prompts.num_codes),
        tuple(prompts.num_sentences),
        prompts.tokens_per_item,
        seed=training.seed,
    )
    logger.info(
        "%d notes; %d concepts to ask, %d of them mentioned in the notes; %d withheld",
        len(notes),
        len(source.pool),
        len(source.mentioned),
        len(concepts) + len(codes),
    )
    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForMatching(processor),
        train_dataset=items,
        eval_dataset=task,
        compute_metrics=task.compute_metrics,
    )
    measured, seconds = train_and_evaluate(
        trainer, settings, checkpoint, lambda metrics: {name: metrics[name] for name in task.titles}
    )
    if not trainer.is_world_process_zero():
        return

    folder = Path(training.output_dir)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    table = matching_table(task, measured)
    results = {
        **measured,
        "table": table,
        "notes": len(notes),
        "concepts": len(source.pool),
        "concepts_mentioned_in_notes": len(source.mentioned),
        "withheld_concepts": len(concepts) + len(codes),
        "zero_shot_notes": None if corpus is None else len(corpus.dataset["validation"]),
        "zero_shot_codes": None if corpus is None else len(corpus.code_set),
        "sources": [vars(source) for source in sources],
        "base_data_license": base_license,
        "data_license": model.config.data_license,
        **run_record(trainer, seconds, started, ("kept-hf", "torch", "transformers", "datasets")),
        "command": f"kept-hf pretrain zero-shot {command}".rstrip(),
        "settings": settings,
    }
    write_results(folder, results)
    make_zero_shot_card(folder).save(folder / "README.md")
    print(f"\n{results['steps']} steps of {prompts.tokens_per_item:,} tokens in {seconds:.0f} s")
    print(format_table(table, digits=3))
    print(f"Wrote the model, its card and the report to {folder}.")


if __name__ == "__main__":
    main()
