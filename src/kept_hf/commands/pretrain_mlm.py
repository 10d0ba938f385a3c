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

import numpy as np
from transformers import PreTrainedTokenizerBase, Trainer

from ..hub.masked_lm_card import make_masked_lm_card
from ..knowledge import SOURCES
from ..knowledge.arguments import TermFolderArguments, read_terms
from ..models.prompting import PRESETS, clean_note, get_preset, remove_deidentification_tags
from ..models.publication import RESTRICTED, joint_license
from ..pretraining.masked_lm.blocks import (
    METRICS,
    MaskedBlocks,
    MaskedLMTask,
    common_tokens,
    masked_lm_table,
    pack_blocks,
    tokenize,
)
from ..pretraining.masked_lm.model import KeptLongformerForBlocks
from ..pretraining.notes import (
    NoteArguments,
    TextSource,
    concept_texts,
    name_text_files,
    read_notes,
    term_sources,
)
from ..reports.tables import format_table
from ..training.base import EncoderArguments, load_base
from ..training.collators import DataCollatorForICDPrompting
from ..training.conversion import copy_local_to_global, has_own_global_projections, resize_positions
from ..training.run import (
    PretrainingArguments,
    checkpoint_to_resume,
    run_record,
    run_settings,
    set_up,
    train_and_evaluate,
    write_results,
)
from ..training.time_limit import TimeLimit, fit_to_time
from .recipe import argument_errors, command_parser, parse_recipe

logger = logging.getLogger("pretrain_mlm")
COMMAND, RECIPE = "pretrain mlm", "mlm"


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
    """The text, and what is withheld of it."""

    descriptions: str | None = field(
        default=None,
        metadata={"help": f"Names of medical concepts as further text: {', '.join(SOURCES)}, with + between."},
    )
    max_descriptions: int | None = field(default=None, metadata={"help": "Take so many concepts at most."})
    preset: str = field(
        default="kept-50", metadata={"help": f"Notes are cleaned as in the prompts of: {', '.join(PRESETS)}."}
    )
    withheld_notes: int = field(
        default=250,
        metadata={
            "help": "Notes kept for evaluation: of the validation split, or a tenth at most where there is none."
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
    # The blocks are shuffled already, and masked anew each epoch.
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "See transformers."})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, TextArguments, MLMTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, TextArguments, MLMTrainingArguments), __doc__)
    model, texts, training = parse_recipe(parser, argv, RECIPE)
    with argument_errors(COMMAND):
        training = fit_to_time(training, texts.max_minutes)
    if texts.withheld_notes < 1:
        parser.error(f"withheld_notes={texts.withheld_notes} leaves nothing to evaluate on; pass 1 or more")
    if texts.max_descriptions is not None and texts.max_descriptions < 1:
        parser.error(f"max_descriptions={texts.max_descriptions} is no concept; leave --descriptions out for none")
    # As the guard of publication knows it.
    known = {name: license for license, name in RESTRICTED.items()}
    license = known.get(texts.data_license, texts.data_license)
    return model, replace(texts, data_license=license, max_minutes=texts.max_minutes or None), training


def read_text(arguments: TextArguments) -> tuple[list[str], list[str], list[str], list[TextSource]]:
    """Notes to train on, notes withheld, lines of descriptions, and where they are from."""
    notes, withheld, sources = read_notes(arguments, arguments.withheld_notes)
    lines = []
    if arguments.descriptions:
        graph = read_terms(arguments.descriptions, arguments)
        lines = concept_texts(graph, arguments.max_descriptions)
        sources += term_sources(graph)
        sources[-1].notes = {"concepts described": len(lines)}
    preset = get_preset(arguments.preset)
    cleaned = (
        [clean_note(remove_deidentification_tags(text), preset) for text in texts] for texts in (notes, withheld)
    )
    return *cleaned, [clean_note(line, preset) for line in lines], sources


def make_blocks(
    arguments: ModelArguments,
    notes: list[str],
    withheld: list[str],
    lines: list[str],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> tuple[MaskedBlocks, MaskedLMTask]:
    """What is trained on, and what is measured on withheld notes."""
    order = np.random.default_rng(seed).permutation(len(notes))
    blocks = pack_blocks(tokenize([notes[i] for i in order], tokenizer), arguments.block_size, tokenizer)
    common = common_tokens(blocks)
    # Apart from the notes, so that relatives stand side by side.
    blocks += pack_blocks(tokenize(lines, tokenizer), arguments.block_size, tokenizer)
    # One a row: what is repeated is repeated in the same note.
    judged = pack_blocks(tokenize(withheld, tokenizer), arguments.block_size, tokenizer, whole=True)
    options = (tokenizer, arguments.mlm_probability, arguments.global_masks, seed)
    return MaskedBlocks(blocks, *options), MaskedLMTask(MaskedBlocks(judged, *options, always_mask=True), common)


def load_model(arguments: ModelArguments) -> tuple[KeptLongformerForBlocks, PreTrainedTokenizerBase]:
    """The model to start from, with the positions that are asked for, and its tokenizer."""
    model, tokenizer = load_base(KeptLongformerForBlocks, arguments, arguments.model_max_length)
    if arguments.model_max_length not in (None, model.config.max_sequence_length):
        resize_positions(model, arguments.model_max_length, arguments.position_period)
        tokenizer.model_max_length = arguments.model_max_length
    if arguments.block_size > model.config.max_sequence_length:
        raise SystemExit(
            f"block_size={arguments.block_size} is more than the {model.config.max_sequence_length} positions of "
            f"{arguments.model_name_or_path}; pass --block_size {model.config.max_sequence_length}, or "
            f"--model_max_length {arguments.block_size}."
        )
    if not arguments.global_masks:
        model.freeze_global_projections()
    return model, tokenizer


def main(argv: Sequence[str] | None = None) -> None:
    """Read the text, evaluate, train, evaluate, write."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, texts, training = parse_arguments(argv)
    set_up(training)
    with training.main_process_first(desc="reading the text"):
        notes, withheld, lines, sources = read_text(texts)
    settings, command = name_text_files(run_settings(training, model_arguments, texts), argv, notes + withheld)
    checkpoint = checkpoint_to_resume(training.output_dir, settings)
    model, tokenizer = load_model(model_arguments)
    blocks, task = make_blocks(model_arguments, notes, withheld, lines, tokenizer, training.seed)
    logger.info(
        "%d notes and %d descriptions in %d blocks, %d tokens; %d notes withheld, %d tokens masked in them",
        len(notes),
        len(lines),
        len(blocks),
        sum(map(len, blocks.blocks)),
        len(withheld),
        len(task.labels),
    )
    base_license = model.config.data_license
    model.config.data_license = joint_license(base_license, *(source.license for source in sources))
    copies_global = not has_own_global_projections(model)
    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForICDPrompting(tokenizer),
        train_dataset=blocks,
        eval_dataset=task.rows,
        compute_metrics=task.compute_metrics,
        callbacks=[] if texts.max_minutes is None else [TimeLimit(texts.max_minutes)],
    )
    measured, seconds = train_and_evaluate(trainer, settings, checkpoint, judged)
    if not trainer.is_world_process_zero():
        return

    folder = Path(training.output_dir)
    result = model.as_masked_lm()
    if copies_global and not model_arguments.global_masks:
        copy_local_to_global(result)
    result.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    table = masked_lm_table(task.counts, measured)
    results = {
        **measured,
        "table": table,
        "masked_tokens": task.counts,
        "notes": len(notes),
        "withheld_notes": len(withheld),
        "descriptions": len(lines),
        "blocks": len(blocks),
        "tokens": sum(map(len, blocks.blocks)),
        "sources": [vars(source) for source in sources],
        "base_data_license": base_license,
        "data_license": model.config.data_license,
        "global_projections": "trained"
        if model_arguments.global_masks
        else "copied from the local ones"
        if copies_global
        else "those of the base",
        **run_record(trainer, seconds, started, ("kept-hf", "torch", "transformers", "datasets")),
        "command": f"kept-hf pretrain mlm {command}".rstrip(),
        "settings": settings,
    }
    write_results(folder, results)
    make_masked_lm_card(folder).save(folder / "README.md")
    print(
        f"\n{len(withheld)} withheld notes; {results['steps']} steps of {results['rows_per_step']} blocks "
        f"of up to {model_arguments.block_size} tokens in {seconds:.0f} s"
    )
    print(format_table(table, digits=3))
    print(f"Wrote the model, its card and the report to {folder}.")


def judged(metrics: dict[str, float]) -> dict[str, float]:
    """What the task judges; not what the Trainer adds, such as run times."""
    return {name: value for name, value in metrics.items() if name in METRICS}


if __name__ == "__main__":
    main()
