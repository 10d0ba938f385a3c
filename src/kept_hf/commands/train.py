"""Fine-tune a KEPT Longformer for ICD coding, evaluate it and write its predictions and report.

    kept-hf train                                          # the demo: synthetic notes
    kept-hf train --corpus codiesp --codes rare50 --data_dir path/to/codiesp
    kept-hf train my_recipe.yaml --learning_rate 1e-5      # a recipe, with a change

    kept-hf train --peft lora --learning_rate 1e-3         # train an adapter on the notes

Without a recipe file the one of the corpus in `examples/configs` is taken; the command line changes its values.

With --peft the matching stage, if there is one, trains the whole model, and the notes train an adapter to it. Then
`output_dir` holds the merged model, so that whatever takes a trained model takes this one too; `output_dir/adapter` the
adapter; and `output_dir/base` its base, unless that is the very checkpoint of --model_name_or_path: an adapter is of no
use without the weights that it was trained beside.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from peft import LoraConfig, PeftConfig, PeftModel
from transformers import AutoTokenizer, Trainer

from ..candidates.candidates import Candidates
from ..corpora import Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..models.code_set import ICDCodeSet
from ..models.modeling_kept_longformer import KeptLongformerForICDPrompting, KeptLongformerPreTrainedModel
from ..models.modeling_kept_matching import KeptLongformerForICDMatching
from ..models.processing_kept import KeptProcessor
from ..models.prompting import PRESETS
from ..models.publication import joint_license
from ..pretraining.zero_shot.sentences import background_sentences
from ..pretraining.zero_shot.synthetic import synthetic_curriculum
from ..reports.run import EvaluatedSplit, write_report
from ..training.adapters import PEFT_METHODS, adapter_config, add_adapter, loads_by_name, merged_model
from ..training.base import BaseArguments, load_base
from ..training.callbacks import KeepEvaluationOrder
from ..training.collators import DataCollatorForICDPrompting
from ..training.evaluation import ICDMetrics, validation_threshold
from ..training.rows import CandidatePrompts, prompt_rows
from ..training.run import RunArguments, checkpoint_to_resume, run_settings, set_up, write_settings
from ..training.weights import fit_similarity_threshold, train_only, weights_path
from .recipe import RECIPES, command_parser, given_option, parse_recipe

logger = logging.getLogger("train")
SCORERS = {"prompting": KeptLongformerForICDPrompting, "matching": KeptLongformerForICDMatching}
COMMAND = "train"


@dataclass
class ModelArguments(BaseArguments):
    """The model and its prompts."""

    preset: str = field(default="kept-50", metadata={"help": f"Prompt preset: {', '.join(PRESETS)}."})
    max_length: int = field(default=8192, metadata={"help": "Tokens of prompt and note together."})
    global_attention_stride: int = field(default=1, metadata={"help": "Global attention on every n-th prompt token."})
    codes_per_prompt: int | None = field(default=None, metadata={"help": "Ask the codes in prompts of this many."})
    prompt_layout: str = field(
        default="joint",
        metadata={"help": "joint (published), or isolated: a note is read once for all codes, not for groups of them."},
    )
    prompt_loss: str = field(default="full_vocabulary", metadata={"help": "full_vocabulary (published) or two_way."})
    scorer: str = field(
        default="prompting",
        metadata={"help": "prompting, or matching: late interaction, with the isolated layout (docs/isolated.md)."},
    )
    similarity_prior: bool = field(
        default=False, metadata={"help": "Add late interaction to the masks' scores, in the isolated layout."}
    )
    threshold_metric: str = field(
        default="f1_micro", metadata={"help": "What the threshold maximises on validation: f1_micro or f1_macro."}
    )
    trainable: str | None = field(
        default=None,
        metadata={"help": "Train only parameters whose name contains one of these: bias,lm_head (BitFit). All stages."},
    )
    peft: str | None = field(
        default=None,
        metadata={
            "help": f"Train an adapter on the notes: {', '.join(PEFT_METHODS)} (which trains all biases too). Needs a "
            "greater learning rate than the whole model. Written to output_dir/adapter, merged to output_dir."
        },
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapter's matrices."})
    lora_alpha: int = field(default=16, metadata={"help": "Their product is scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before them."})


@dataclass
class DataArguments(CorpusArguments):
    """The notes and how they are asked about."""

    sampled_codes: int | None = field(
        default=None,
        metadata={"help": "Train on prompts of this many codes drawn at random, all gold ones among them."},
    )
    draws: int = field(default=1, metadata={"help": "With sampled_codes: prompts drawn for each training note."})
    proposals: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Files of Candidates.save, written split=file. train=...: with sampled_codes hard negatives "
            "come from them, else the candidates are asked in groups of codes_per_prompt. validation=..., test=...: "
            "notes are asked about these candidates only."
        },
    )
    hard_negatives: float = field(
        default=0.5,
        metadata={"help": "With sampled_codes and proposals: the share of the other codes drawn from the candidates."},
    )
    matching_examples: int = field(
        default=0,
        metadata={"help": "Before the notes, train on so many synthetic prompts made of ICD-10-CM names."},
    )
    matching_codes: list[int] = field(
        default_factory=lambda: [3, 12], metadata={"help": "Codes of a synthetic prompt, at first and at last."}
    )
    matching_sentences: list[int] = field(
        default_factory=lambda: [1, 8], metadata={"help": "Sentences of a synthetic text, at first and at last."}
    )
    matching_learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of that stage."})
    matching_batch_size: int = field(default=16, metadata={"help": "Batch size of that stage."})


@dataclass
class KeptTrainingArguments(RunArguments):
    """The Trainer's own arguments, with this task's defaults."""

    output_dir: str | None = field(default="outputs/run", metadata={"help": "Where everything is written."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch."})
    metric_for_best_model: str | None = field(default="f1_macro", metadata={"help": "What makes an epoch the best."})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "See transformers."})
    logging_steps: float = field(default=10, metadata={"help": "See transformers."})
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of an optimizer step over all processes: sets gradient_accumulation_steps, and divides "
            "matching_batch_size among the processes (docs/distributed.md)."
        },
    )


def default_recipe(argv: Sequence[str]) -> Path | None:
    """The recipe of the corpus that a command line names, which may have none."""
    path = RECIPES / f"{given_option(argv, 'corpus') or 'demo'}.yaml"
    return path if path.exists() else None


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, KeptTrainingArguments]:
    """Recipe and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, DataArguments, KeptTrainingArguments), __doc__)
    return parse_recipe(parser, argv, default_recipe(argv))


def read_proposals(data: DataArguments) -> dict[str, Candidates]:
    """Split → candidates of a first stage."""
    files = dict(option.partition("=")[::2] for option in data.proposals)
    if unknown := sorted(split for split in files if split not in ("train", "validation", "test") or not files[split]):
        raise SystemExit(f"proposals names {', '.join(unknown)}; write train=FILE, validation=FILE or test=FILE.")
    proposals = {split: Candidates.load(file) for split, file in files.items()}
    for split, proposed in proposals.items():
        if proposed.note_ids is None:
            raise SystemExit(f"proposals of {split} have no note_ids; make them with the ids of the notes.")
    return proposals


def keep_global_batch(training: KeptTrainingArguments, data: DataArguments) -> None:
    """With `global_batch_size`, let the same number of prompts make a step on any number of processes."""
    if training.global_batch_size is None:
        return
    at_once = training.train_batch_size * training.world_size
    training.gradient_accumulation_steps, rest = divmod(training.global_batch_size, at_once)
    if rest or training.gradient_accumulation_steps < 1:
        raise SystemExit(
            f"global_batch_size={training.global_batch_size} is not a multiple of the {at_once} prompts that are taken "
            f"at once: per_device_train_batch_size={training.per_device_train_batch_size} on "
            f"{at_once // training.per_device_train_batch_size} devices. Pass a smaller --per_device_train_batch_size, "
            f"take fewer processes, or pass --global_batch_size {at_once}, with a learning rate that fits it."
        )
    if data.matching_examples:
        whole = data.matching_batch_size
        data.matching_batch_size, rest = divmod(whole, training.world_size)
        if rest or data.matching_batch_size < 1:
            raise SystemExit(
                f"matching_batch_size={whole} cannot be divided among {training.world_size} processes; pass "
                f"--matching_batch_size {training.world_size}, or take fewer processes."
            )


def check_sharding(training: KeptTrainingArguments, arguments: ModelArguments) -> bool:
    """Whether the model is sharded (FSDP); an error where accelerate would leave it whole without a word."""
    if not training.fsdp and os.environ.get("ACCELERATE_USE_FSDP", "false") != "true":
        return False
    if training.distributed_state.distributed_type == "MULTI_CPU":
        raise SystemExit(
            "FSDP was asked for with use_cpu=True, but accelerate shards on GPUs only and would run DDP instead; pass "
            "examples/accelerate/ddp_cpu.yaml."
        )
    if arguments.peft:
        raise SystemExit(
            f"peft={arguments.peft!r} is not supported with FSDP; pass examples/accelerate/ddp_1node.yaml."
        )
    if arguments.prompt_layout == "isolated":
        # Processes call the layers as often as their notes need, and would wait for each other's shards for ever.
        raise SystemExit(
            "prompt_layout='isolated' is not supported with FSDP; pass examples/accelerate/ddp_1node.yaml."
        )
    return True


def check_peft(arguments: ModelArguments) -> LoraConfig | None:
    """The configuration of the adapter, if one is asked for."""
    if arguments.peft is None:
        return None
    if arguments.trainable:
        raise SystemExit(
            f"peft={arguments.peft!r} and trainable={arguments.trainable!r} exclude each other; pass --peft lora+bias "
            "alone to train an adapter and the biases."
        )
    return adapter_config(arguments.peft, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout)


def adapter_base(model, processor: KeptProcessor, training: KeptTrainingArguments, changed: bool) -> str:
    """Where the adapter's base is found: the checkpoint it was loaded from, or `output_dir/base`, written here."""
    if loads_by_name(model) and not changed:
        return model.name_or_path
    folder = Path(training.output_dir, "base")
    if training.should_save:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return str(folder)


def check_scorer(arguments: ModelArguments) -> None:
    """Stop at options that do not go together."""
    if arguments.scorer not in SCORERS:
        raise SystemExit(f"scorer={arguments.scorer!r} is unknown; pass one of {', '.join(SCORERS)}.")
    for name, wanted in (("scorer", arguments.scorer == "matching"), ("similarity_prior", arguments.similarity_prior)):
        if wanted and arguments.prompt_layout != "isolated":
            raise SystemExit(
                f"{name}={getattr(arguments, name)!r} compares descriptions and notes that are encoded apart; pass "
                "--prompt_layout isolated."
            )
    if arguments.scorer == "matching" and arguments.peft:
        raise SystemExit(f"peft={arguments.peft!r} is not supported with scorer='matching'; leave one of them out.")


def load_model(arguments: ModelArguments, code_set: ICDCodeSet) -> tuple[KeptLongformerPreTrainedModel, KeptProcessor]:
    """The model to start from, and the processor of this task."""
    settings = {"prompt_loss": arguments.prompt_loss, "similarity_prior": arguments.similarity_prior}
    processor = KeptProcessor(
        AutoTokenizer.from_pretrained(weights_path(arguments.model_name_or_path)),
        code_set,
        preset=arguments.preset,
        max_length=arguments.max_length,
        global_attention_stride=arguments.global_attention_stride,
        codes_per_prompt=None if arguments.prompt_layout == "isolated" else arguments.codes_per_prompt,
        prompt_layout=arguments.prompt_layout,
    )
    model, processor.tokenizer = load_base(
        SCORERS[arguments.scorer], arguments, arguments.max_length, **processor.config_overrides(), **settings
    )
    if arguments.max_length > model.config.max_sequence_length:
        raise SystemExit(
            f"max_length={arguments.max_length} is more than the {model.config.max_sequence_length} positions of "
            f"{arguments.model_name_or_path}; pass --max_length {model.config.max_sequence_length}."
        )
    return model, processor


def matching_rows(
    processor: KeptProcessor, data: DataArguments, texts: list[str], seed: int
) -> tuple[Dataset, KeptProcessor]:
    """Rows of synthetic prompts, from short to long, with sentences of the training notes between the mentions; and
    the processor that made them, which knows their codes."""
    concepts = ICDCodeSet.from_icd10cm()
    examples = synthetic_curriculum(
        concepts,
        data.matching_examples,
        tuple(data.matching_codes),
        tuple(data.matching_sentences),
        seed,
        background_sentences(texts),
    )
    asker = KeptProcessor(
        processor.tokenizer,
        concepts,
        processor.preset,
        processor.max_length,
        processor.global_attention_stride,
        prompt_layout=processor.prompt_layout,
    )
    prompts = [{"text": e.text, "codes": e.gold, "asked": e.concepts} for e in examples]
    return prompt_rows(Dataset.from_list(prompts), asker), asker


def match(model, rows: Dataset, data: DataArguments, training: KeptTrainingArguments, collator) -> None:
    """Teach the model to look from the mask to its description and on to the text."""
    folder = Path(training.output_dir, "matching")
    arguments = dataclasses.replace(
        training,
        output_dir=str(folder),
        num_train_epochs=1,
        max_steps=-1,  # it counts steps on the notes
        learning_rate=data.matching_learning_rate,
        per_device_train_batch_size=data.matching_batch_size,
        gradient_accumulation_steps=1,
        train_sampling_strategy="sequential",
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    Trainer(model, arguments, data_collator=collator, train_dataset=rows).train()


def main(argv: Sequence[str] | None = None) -> None:
    """Run all stages."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    model_arguments, data, training = parse_arguments(argv)
    keep_global_batch(training, data)
    sharded = check_sharding(training, model_arguments)
    set_up(training)
    settings = run_settings(training, model_arguments, data)
    check_scorer(model_arguments)
    lora = check_peft(model_arguments)
    checkpoint = checkpoint_to_resume(training.output_dir, settings)
    proposals = read_proposals(data)

    with training.main_process_first(desc="building the corpus"):
        corpus = read_corpus(data)
    missing = [split for split in ("train", "validation") if split not in corpus.dataset]
    if missing:
        raise SystemExit(
            f"corpus={data.corpus} with codes={data.codes} has the splits {', '.join(corpus.dataset)}; training also "
            f"needs {' and '.join(missing)}: add the folder, or choose other codes."
        )
    logger.info(
        "%s: %d codes; notes: %s",
        data.corpus,
        len(corpus.code_set),
        ", ".join(f"{len(notes)} {split}" for split, notes in corpus.dataset.items()),
    )
    if lora is not None:
        training.label_names = ["labels"]  # peft hides the argument from the Trainer
        if checkpoint is not None:
            base = PeftConfig.from_pretrained(checkpoint).base_model_name_or_path
            model_arguments = dataclasses.replace(model_arguments, model_name_or_path=base)
    model, processor = load_model(model_arguments, corpus.code_set)
    # Weights keep what they were made of.
    model.config.data_license = joint_license(model.config.data_license, corpus.card.license)
    # Neighbours of like length make full batches; the report restores the order.
    notes = {
        split: d if split == "train" else d.select(np.argsort([len(text) for text in d["text"]], kind="stable"))
        for split, d in corpus.dataset.items()
    }
    candidates = {
        split: CandidatePrompts(notes[split], processor, proposed)
        for split, proposed in proposals.items()
        if split in notes and split != "train"
    }
    # Before the training, so that a wrong name costs none.
    judge = ICDMetrics(processor, model_arguments.threshold_metric, candidates.get("validation"))
    drawing = (data.sampled_codes, data.draws, training.seed, proposals.get("train"), data.hard_negatives)
    with training.main_process_first(desc="writing the prompts"):
        rows = {
            split: prompt_rows(split_notes, processor, *drawing)
            if split == "train"
            else prompt_rows(candidates[split].notes if split in candidates else split_notes, processor)
            for split, split_notes in notes.items()
        }
    if sharded:
        # The same parameter as lm_head.decoder.bias; torch refuses it, since accelerate puts the decoder in a group.
        del model.lm_head.bias
    if model_arguments.trainable:
        train_only(model, model_arguments.trainable.split(","))
    if data.matching_examples and checkpoint is None:
        logger.info("Stage 1: %d synthetic prompts, from short to long", data.matching_examples)
        with training.main_process_first(desc="writing synthetic prompts"):
            synthetic, asker = matching_rows(processor, data, corpus.dataset["train"]["text"], training.seed)
        match(model, synthetic, data, training, DataCollatorForICDPrompting(asker))
        logger.info("Stage 2: notes")
    if getattr(model, "similarity", None) is not None and checkpoint is None:
        collator = DataCollatorForICDPrompting(processor)
        threshold = fit_similarity_threshold(model.to(training.device), rows["train"], collator)
        logger.info("Similarities above %.3f speak for a code, to begin with.", threshold)
    if lora is not None:
        base = adapter_base(model, processor, training, changed=bool(data.matching_examples) and checkpoint is None)
        model = add_adapter(model, lora, base)
    trainable = model.num_parameters(only_trainable=True)
    logger.info("Training %s parameters of %s.", f"{trainable:,}", f"{model.num_parameters():,}")

    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForICDPrompting(processor),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=processor.tokenizer,
        compute_metrics=judge,
        callbacks=[KeepEvaluationOrder()],
    )
    if training.should_save:
        write_settings(training, settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    report(trainer, processor, corpus, notes, rows, candidates, settings, trainable, started, argv)


def save_model(trainer: Trainer, folder: Path) -> None:
    """Save the model; a sharded one is gathered, and saved as if it had never been sharded. On all processes."""
    if not trainer.is_fsdp_enabled:
        trainer.save_model(folder)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        whole = KeptLongformerForICDPrompting(trainer.model.config)
        whole.load_state_dict({**state, "lm_head.bias": state["lm_head.decoder.bias"]})
        whole.save_pretrained(folder)


def report(trainer, processor, corpus: Corpus, notes, rows, candidates, settings, trainable, started, argv) -> None:
    """Evaluate, write the model and the report, print the closing table."""
    split = "test" if "test" in rows else "validation"
    threshold = validation_threshold(trainer)
    trainer.compute_metrics, judge = None, trainer.compute_metrics  # made for the validation split
    prediction = trainer.predict(rows[split])
    trainer.compute_metrics = judge
    scores, labels = ICDMetrics(processor, candidates=candidates.get(split)).scores_and_labels(prediction)
    folder = Path(trainer.args.output_dir)
    trainer.model.config.threshold = threshold
    adapted = isinstance(trainer.model, PeftModel)
    save_model(trainer, folder / "adapter" if adapted else folder)
    if not trainer.is_world_process_zero():
        return
    if adapted:
        processor.save_pretrained(folder / "adapter")
        merged_model(folder / "adapter", trainer.model.config).save_pretrained(folder)
        if Path(trainer.model.peft_config["default"].base_model_name_or_path) == folder / "base":
            trainer.model.config.save_pretrained(folder / "base")  # peft saves no threshold with the adapter
    processor.save_pretrained(folder)
    order = {note_id: row for row, note_id in enumerate(notes[split]["note_id"])}
    given = [order[note_id] for note_id in corpus.dataset[split]["note_id"]]
    record = {
        "trainable_parameters": trainable,
        "command": " ".join(["kept-hf train", *argv]),
        "settings": settings,
    }
    evaluated = EvaluatedSplit(split, scores[given], labels[given], threshold, judge.find_threshold)
    write_report(trainer.args, corpus, evaluated, record, started)


if __name__ == "__main__":
    main()
