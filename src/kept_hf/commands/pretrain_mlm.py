"""Train the masked-language-model head, and the encoder with it, on notes (MLM), after HSAP and before prompting.

    kept-hf pretrain mlm --corpus codiesp --data_dir path/to/codiesp      # 10 minutes on a CPU
    kept-hf pretrain mlm --model_name_or_path outputs/hsap --text_files notes/*.txt
    kept-hf pretrain mlm mlm_published --data_dir path/to/mimic3    # a GPU

Without a recipe file `mlm` is taken; the command line changes its values. What it writes to
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

from ..candidates.stage_files import digest, digest_of_model
from ..hub.masked_lm_card import make_masked_lm_card
from ..knowledge import SOURCES
from ..knowledge.arguments import TermFolderArguments, read_terms
from ..models.modeling_kept_longformer import KeptLongformerForMaskedLM
from ..models.prompting import PRESETS, clean_note, get_preset, remove_deidentification_tags
from ..models.publication import RESTRICTED, joint_license
from ..pretraining.masked_lm.blocks import (
    METRICS,
    DataCollatorForBlocks,
    MaskedBlocks,
    MaskedLMTask,
    masked_lm_data,
    masked_lm_table,
)
from ..pretraining.masked_lm.model import KeptLongformerForBlocks, fit_to_blocks
from ..pretraining.notes import (
    NoteArguments,
    TextSource,
    concept_texts,
    hide_text_files,
    read_notes,
    term_sources,
)
from ..pretraining.run import write_run
from ..reports.tables import format_table
from ..training.base import EncoderArguments, load_base
from ..training.checkpoints import checkpoint_to_resume
from ..training.conversion import copy_local_to_global, has_own_global_projections
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
from ..training.time_limit import TimeLimit, fit_to_time
from ..training.weights import weights_path
from .recipe import argument_errors, command_parser, parse_recipe

logger = logging.getLogger("pretrain_mlm")
STAGE = RECIPE = "mlm"
COMMAND = f"pretrain {STAGE}"


@dataclass
class ModelArguments(EncoderArguments):
    """The model and its masks."""

    model_max_length: int | None = field(
        default=None,
        metadata={
            "help": "Positions of the result; the table is extended by repetition. By default those of the checkpoint, "
            "and 1024 of a converted model."
        },
    )
    block_size: int = field(
        default=1024, metadata={"help": "Tokens of a block of notes side by side, special tokens included."}
    )
    mlm_probability: float = field(default=0.3, metadata={"help": "Share of the tokens that is masked."})
    global_masks: int = field(
        default=0,
        metadata={
            "help": "Masked tokens of a block with global attention, which trains its projections as prompts use them. "
            "0, as published: none has it."
        },
    )


@dataclass
class TextArguments(NoteArguments, TermFolderArguments):
    """The text, and what is held out of it."""

    descriptions: str | None = field(
        default=None,
        metadata={"help": f"Names of medical concepts as further text: {', '.join(SOURCES)}, with + between."},
    )
    max_descriptions: int | None = field(default=None, metadata={"help": "Take so many concepts at most."})
    preset: str = field(
        default="kept-50", metadata={"help": f"Notes are cleaned as in the prompts of: {', '.join(PRESETS)}."}
    )
    held_out_notes: int = field(
        default=250,
        metadata={
            "help": "Notes held out for evaluation: of the validation split, or a tenth at most where there is none."
        },
    )
    max_minutes: float | None = field(
        default=None,
        metadata={
            "help": "Train for so long, evaluation not counted; the learning rate falls to 0 by then. Without "
            "it, or with 0, num_train_epochs or max_steps counts."
        },
    )


@dataclass
class MLMTrainingArguments(PretrainingArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/mlm", metadata={"help": "Where everything is written."})
    learning_rate: float = field(default=9e-6, metadata={"help": "See transformers."})
    max_grad_norm: float = field(default=5.0, metadata={"help": "See transformers."})
    # The blocks are shuffled already, and masked again in each epoch.
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "See transformers."})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, TextArguments, MLMTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, TextArguments, MLMTrainingArguments), __doc__)
    model, texts, training = parse_recipe(parser, argv, RECIPE)
    with argument_errors(COMMAND):
        training = fit_to_time(training, texts.max_minutes)
    if texts.held_out_notes < 1:
        parser.error(f"held_out_notes={texts.held_out_notes} leaves nothing to evaluate on; pass 1 or more")
    if texts.max_descriptions is not None and texts.max_descriptions < 1:
        parser.error(f"max_descriptions={texts.max_descriptions} is no concept; leave --descriptions out for none")
    # As the guard of publication knows it.
    known = {name: license for license, name in RESTRICTED.items()}
    license = known.get(texts.data_license, texts.data_license)
    return model, replace(texts, data_license=license, max_minutes=texts.max_minutes or None), training


@dataclass
class Text:
    """Cleaned text, and where it is from.

    Attributes:
        notes: to train on.
        held_out: notes to evaluate on.
        lines: descriptions of concepts.
        sources: of all of it.
    """

    notes: list[str]
    held_out: list[str]
    lines: list[str]
    sources: list[TextSource]


def read_text(arguments: TextArguments) -> Text:
    """The text that the options name."""
    notes, held_out, sources = read_notes(arguments, arguments.held_out_notes)
    lines = []
    if arguments.descriptions:
        graph = read_terms(arguments.descriptions, arguments)
        lines = concept_texts(graph, arguments.max_descriptions)
        sources += term_sources(graph)
        sources[-1].notes = {"concepts described": len(lines)}
    preset = get_preset(arguments.preset)
    notes, held_out = (
        [clean_note(remove_deidentification_tags(text, preset.removes_underscores), preset) for text in texts]
        for texts in (notes, held_out)
    )
    return Text(notes, held_out, [clean_note(line, preset) for line in lines], sources)


def load_model(arguments: ModelArguments) -> tuple[KeptLongformerForBlocks, PreTrainedTokenizerBase]:
    """The model to start from, with the positions that the options name, and its tokenizer."""
    model, tokenizer = load_base(KeptLongformerForBlocks, arguments, arguments.model_max_length)
    fit_to_blocks(
        model,
        tokenizer,
        arguments.block_size,
        arguments.model_max_length,
        arguments.position_period,
        trains_global_projections=arguments.global_masks > 0,
    )
    return model, tokenizer


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Read the text, evaluate, train, evaluate, write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, text_arguments, training = parse_arguments(argv)
    with argument_errors(COMMAND):
        set_up(training)
    with argument_errors(COMMAND):
        with training.main_process_first(desc="reading the text"):
            text = read_text(text_arguments)
        settings = run_settings(training, model_arguments, text_arguments)
        settings, command = hide_text_files(settings, argv, text.notes + text.held_out)
        weights = digest_of_model(weights_path(model_arguments.model_name_or_path))
        inputs = run_inputs(text=digest(*text.notes, *text.held_out, *text.lines), weights=weights)
        checkpoint = checkpoint_to_resume(training, settings, inputs)
        model, tokenizer = load_model(model_arguments)
        blocks, task = masked_lm_data(
            text.notes,
            text.held_out,
            text.lines,
            tokenizer,
            model_arguments.block_size,
            model_arguments.mlm_probability,
            model_arguments.global_masks,
            training.seed,
        )
        limits = [] if text_arguments.max_minutes is None else [TimeLimit(text_arguments.max_minutes)]
    log_sizes(text, blocks, task)
    base_license = model.config.data_license
    model.config.data_license = joint_license(base_license, *(source.license for source in text.sources))
    has_own_global = has_own_global_projections(model)
    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForBlocks(tokenizer),
        train_dataset=blocks,
        eval_dataset=task.rows,
        compute_metrics=task.compute_metrics,
        callbacks=limits,
    )
    measured, seconds = train_and_evaluate(trainer, settings, inputs, checkpoint, chosen_metrics)
    if not trainer.is_world_process_zero():
        return
    result, global_projections = to_publish(model, model_arguments, has_own_global)
    results = {
        "stage": STAGE,
        **measured,
        **text_results(text, blocks, task, measured),
        "base_data_license": base_license,
        "data_license": model.config.data_license,
        "global_projections": global_projections,
        **run_record(trainer, seconds, started, PACKAGES),
        "command": f"kept-hf {COMMAND} {command}".rstrip(),
        "settings": settings,
    }
    write_run(Path(training.output_dir), result, tokenizer, results, make_masked_lm_card)
    print_summary(results)
    print(f"Wrote the model, its card and the report to {training.output_dir}.")


def log_sizes(text: Text, blocks: MaskedBlocks, task: MaskedLMTask) -> None:
    """How much text there is."""
    logger.info(
        "%d notes and %d descriptions in %d blocks, %d tokens; %d notes held out, %d tokens masked in them",
        len(text.notes),
        len(text.lines),
        len(blocks),
        sum(map(len, blocks.blocks)),
        len(text.held_out),
        len(task.labels),
    )


def chosen_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Those of the task; not what the Trainer adds, such as run times."""
    return {name: value for name, value in metrics.items() if name in METRICS}


def to_publish(
    model: KeptLongformerForBlocks, arguments: ModelArguments, has_own_global: bool
) -> tuple[KeptLongformerForMaskedLM, str]:
    """The trained model as an ordinary one, and where its projections of global attention are from."""
    result = model.as_masked_lm()
    if arguments.global_masks:
        return result, "trained"
    if has_own_global:
        return result, "those of the base"
    copy_local_to_global(result)
    return result, "copied from the local ones"


def text_results(text: Text, blocks: MaskedBlocks, task: MaskedLMTask, measured: dict) -> dict[str, object]:
    """The text and the measurements on it, for `all_results.json`."""
    return {
        "table": masked_lm_table(task.counts, measured),
        "masked_tokens": task.counts,
        "notes": len(text.notes),
        "held_out_notes": len(text.held_out),
        "descriptions": len(text.lines),
        "blocks": len(blocks),
        "tokens": sum(map(len, blocks.blocks)),
        "sources": [vars(source) for source in text.sources],
    }


def print_summary(results: dict) -> None:
    """The table, and how it came about."""
    print(
        f"\n{results['held_out_notes']} held-out notes; {results['steps']} steps of {results['rows_per_step']} blocks "
        f"of up to {results['settings']['block_size']} tokens in {results['training_seconds']:.0f} s"
    )
    print(format_table(results["table"], digits=3))


if __name__ == "__main__":
    main()
