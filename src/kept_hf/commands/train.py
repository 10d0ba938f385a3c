"""Fine-tune a KEPT Longformer for ICD coding, evaluate it and write its predictions and report.

    kept-hf train                                          # the demo: synthetic notes
    kept-hf train --corpus codiesp --codes rare50 --data_dir path/to/codiesp
    kept-hf train my_recipe.yaml --learning_rate 1e-5      # a recipe, with a change

    kept-hf train --peft lora --learning_rate 1e-3         # train an adapter on the notes

A recipe is the name of a packaged one or a file; by default the one with the name of the corpus. Options of the command
line replace its values.

With --peft the synthetic stage, if there is one, trains the whole model, and the notes train an adapter to it. Then
`output_dir` holds the merged model, which is used like any other trained model; `output_dir/adapter` the adapter; and
`output_dir/base` its base, unless that is the unchanged checkpoint of --model_name_or_path: an adapter is useless
without the weights that it was trained with.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig, PeftConfig
from transformers import PreTrainedModel, Trainer

from ..candidates.candidates import Candidates
from ..candidates.stage_files import digest, digest_of_candidates, digest_of_model, digest_of_notes
from ..corpora import Corpus
from ..corpora.arguments import read_corpus
from ..models.processing_kept import KeptProcessor
from ..models.publication import joint_license
from ..pretraining.zero_shot.synthetic_stage import run_synthetic_stage
from ..reports.run import EvaluatedSplit, write_report
from ..training.adapters import add_adapter
from ..training.arguments import DataArguments, KeptTrainingArguments, ModelArguments
from ..training.checkpoints import checkpoint_to_resume
from ..training.checks import (
    check_adapter,
    check_best_metric,
    check_loss,
    check_negatives,
    check_prompts,
    check_scorer,
    check_sharding,
    keep_global_batch,
)
from ..training.collators import LABEL_NAMES, DataCollatorForICDPrompting
from ..training.evaluation import ICDMetrics, predict_without_metrics, validation_threshold
from ..training.mined_negatives import MinedNegatives
from ..training.rows import prompt_rows
from ..training.run import (
    PACKAGES,
    RunResult,
    process_group,
    require_splits,
    run_inputs,
    run_record,
    run_settings,
    set_up,
    timed_training,
    write_settings,
)
from ..training.saving import save_adapter_base, save_fine_tuned
from ..training.task import EvaluationPrompts, load_task, read_candidates
from ..training.weights import fit_similarity_threshold, train_only, weights_path
from .recipe import RECIPES, argument_errors, command_parser, given_option, parse_recipe

logger = logging.getLogger("train")
COMMAND = "train"


@dataclass
class PreparedRun:
    """A run whose arguments were checked, with everything that it reads.

    Attributes:
        arguments, data, training: of the run.
        settings, inputs: for `settings.json`.
        checkpoint: where to resume; None at the start of a run.
        lora: of the adapter; None without one.
        corpus: with the codes of the task.
        model: to train.
        processor: of the task.
        train_rows: for the Trainer.
        evaluation: split → its rows.
        started: `time.time()` when the run began.
    """

    arguments: ModelArguments
    data: DataArguments
    training: KeptTrainingArguments
    settings: dict[str, object]
    inputs: dict[str, str]
    checkpoint: str | None
    lora: LoraConfig | None
    corpus: Corpus
    model: PreTrainedModel
    processor: KeptProcessor
    train_rows: Dataset
    evaluation: dict[str, EvaluationPrompts]
    started: float


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    argv = sys.argv[1:] if argv is None else list(argv)
    with argument_errors(COMMAND):
        run = prepare(*parse_arguments(argv))
    fine_tune(run, " ".join([f"kept-hf {COMMAND}", *argv]))


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, KeptTrainingArguments]:
    """Recipe and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, DataArguments, KeptTrainingArguments), __doc__)
    return parse_recipe(parser, argv, default_recipe(argv))


def default_recipe(argv: Sequence[str]) -> Path | None:
    """The recipe of the corpus that a command line names, of all its codes if that is a recipe of its own; or none."""
    corpus = given_option(argv, "corpus") or "demo"
    paths = (RECIPES / f"{corpus}.yaml", RECIPES / f"{corpus}_all.yaml")
    return next((path for path in paths if path.exists()), None)


def train(
    model_arguments: ModelArguments, data: DataArguments, training: KeptTrainingArguments, command: str
) -> RunResult:
    """Fine-tune a model, evaluate it, write it and its report.

    Args:
        model_arguments: the model and its prompts.
        data: the notes.
        training: the Trainer's arguments. Like the others they stay as they are.
        command: recorded in `all_results.json`.

    Raises:
        ValueError: arguments that do not fit each other, the notes, or an earlier run in `output_dir`.
        OSError: a file or model that does not exist.
    """
    return fine_tune(prepare(model_arguments, data, training), command)


def prepare(model_arguments: ModelArguments, data: DataArguments, training: KeptTrainingArguments) -> PreparedRun:
    """Check the arguments, read notes and weights, write the prompts: all that can be wrong before training.

    Raises:
        ValueError, OSError: as [`train`].
    """
    started = time.time()
    training, data = keep_global_batch(training, data)
    is_sharded = check_sharding(training, model_arguments)
    check_scorer(model_arguments)
    lora = check_adapter(model_arguments)
    check_prompts(data)
    check_negatives(data, model_arguments.scorer)
    check_loss(training)
    ICDMetrics(threshold_metric=model_arguments.threshold_metric)  # checks the name
    set_up(training)
    settings = run_settings(training, model_arguments, data)
    candidates = read_candidates(data.candidates)
    corpus = read_notes(data, training)
    inputs = run_inputs(
        notes=digest_of_notes(corpus.dataset),
        codes=digest(corpus.code_set.to_dict()),
        weights=digest_of_model(weights_path(model_arguments.model_name_or_path)),
        candidates=digest(*map(digest_of_candidates, candidates.values())),
    )
    checkpoint = checkpoint_to_resume(training, settings, inputs)
    check_best_metric(training, len(corpus.code_set))
    # A copy, since the Trainer's callbacks change it; peft hides the labels from the Trainer.
    training = replace(training, label_names=training.label_names if lora is None else [*LABEL_NAMES])
    if lora is not None and checkpoint is not None:
        base = PeftConfig.from_pretrained(checkpoint).base_model_name_or_path
        model_arguments = replace(model_arguments, model_name_or_path=base)
    model, processor = load_task(model_arguments, corpus.code_set)
    # Weights keep the licences of everything that they were trained on.
    model.config.data_license = joint_license(model.config.data_license, corpus.card.license)
    train_rows, evaluation = write_prompts(corpus, processor, candidates, data, training)
    if is_sharded:
        # The same parameter as lm_head.decoder.bias; torch refuses it, since accelerate puts the decoder in a group.
        del model.lm_head.bias
    if model_arguments.trainable:
        train_only(model, model_arguments.trainable.split(","))
    return PreparedRun(
        model_arguments,
        data,
        training,
        settings,
        inputs,
        checkpoint,
        lora,
        corpus,
        model,
        processor,
        train_rows,
        evaluation,
        started,
    )


def read_notes(data: DataArguments, training: KeptTrainingArguments) -> Corpus:
    """The corpus with the codes of the task.

    Raises:
        ValueError: no train or validation notes; and as `read_corpus`.
    """
    with training.main_process_first(desc="building the corpus"):
        corpus = read_corpus(data)
    require_splits(corpus.dataset, data.corpus, data.codes)
    logger.info(
        "%s: %d codes; notes: %s",
        data.corpus,
        len(corpus.code_set),
        ", ".join(f"{len(notes)} {split}" for split, notes in corpus.dataset.items()),
    )
    return corpus


def write_prompts(
    corpus: Corpus,
    processor: KeptProcessor,
    candidates: Mapping[str, Candidates],
    data: DataArguments,
    training: KeptTrainingArguments,
) -> tuple[Dataset, dict[str, EvaluationPrompts]]:
    """Rows to train on, and those of the other splits."""
    with training.main_process_first(desc="writing the prompts"):
        train_rows = prompt_rows(
            corpus.dataset["train"],
            processor,
            data.sampled_codes,
            data.draws,
            training.seed,
            candidates.get("train"),
            data.hard_negatives,
        )
        evaluation = {
            split: EvaluationPrompts(notes, processor, candidates.get(split))
            for split, notes in corpus.dataset.items()
            if split != "train"
        }
    return train_rows, evaluation


def fine_tune(run: PreparedRun, command: str) -> RunResult:
    """Run the stages, write the model and its report."""
    model = run_first_stages(run)
    num_trainable = model.num_parameters(only_trainable=True)
    logger.info("Training %s parameters of %s.", f"{num_trainable:,}", f"{model.num_parameters():,}")
    mined = None
    if run.data.mined_negatives:
        mined = MinedNegatives(run.processor, run.train_rows, run.data.mined_negatives, run.training.seed)
    trainer = Trainer(
        model,
        run.training,
        data_collator=DataCollatorForICDPrompting(
            run.processor, in_batch_negatives=run.data.in_batch_negatives, mined_negatives=mined
        ),
        callbacks=[mined] if mined else None,
        train_dataset=run.train_rows,
        eval_dataset=run.evaluation["validation"].rows,
        processing_class=run.processor.tokenizer,
        compute_metrics=run.evaluation["validation"].metrics(run.arguments.threshold_metric),
    )
    if run.training.should_save:
        write_settings(run.training, run.settings, run.inputs)
    seconds = timed_training(trainer, run.checkpoint)
    record = {"trainable_parameters": num_trainable, "command": command, "settings": run.settings}
    return report(trainer, run, seconds, record)


def run_first_stages(run: PreparedRun) -> PreTrainedModel:
    """What comes before the notes: synthetic prompts, the similarities' threshold, the adapter.

    Returns:
        The model to train on the notes.
    """
    model, training = run.model, run.training
    has_synthetic_stage = bool(run.data.matching_examples) and run.checkpoint is None
    if has_synthetic_stage:
        logger.info("Stage 1: %d synthetic prompts, from short to long", run.data.matching_examples)
        run_synthetic_stage(model, run.processor, run.corpus.dataset["train"]["text"], run.data, training)
        logger.info("Stage 2: notes")
    if run.arguments.scorer == "matching" and run.checkpoint is None:
        collator = DataCollatorForICDPrompting(run.processor)
        threshold = fit_similarity_threshold(model.to(training.device), run.train_rows, collator)
        logger.info("Initial threshold of similarities: %.3f", threshold)
    elif run.arguments.scorer == "matching":
        model.config.similarity_threshold = type(model.config).from_pretrained(run.checkpoint).similarity_threshold
    if run.lora is not None:
        folder = Path(training.output_dir, "base")
        base = save_adapter_base(model, run.processor, folder, has_synthetic_stage, training.should_save)
        model = add_adapter(model, run.lora, base)
    return model


def report(trainer: Trainer, run: PreparedRun, seconds: float, record: dict[str, object]) -> RunResult:
    """Evaluate, write the model and the report, print the closing table. On all processes."""
    split = "test" if "test" in run.evaluation else "validation"
    threshold = validation_threshold(trainer)
    prediction = predict_without_metrics(trainer, run.evaluation[split].rows)
    scores, labels = run.evaluation[split].scores_and_labels(prediction)
    trainer.model.config.threshold = threshold
    save_fine_tuned(trainer, run.processor)
    folder = Path(run.training.output_dir)
    if not trainer.is_world_process_zero():
        return RunResult(folder, split, threshold, None)
    record = {**run_record(trainer, seconds, run.started, PACKAGES), **record}
    find_threshold = run.evaluation["validation"].metrics(run.arguments.threshold_metric).find_threshold
    evaluated = EvaluatedSplit(split, scores, labels, threshold, find_threshold)
    results = write_report(run.training, run.corpus, evaluated, record, run.started)
    return RunResult(folder, split, threshold, results)


if __name__ == "__main__":
    main()
