"""Train MSMN on all codes at once, evaluate it, and write candidates for a second stage.

    kept-hf train-msmn                                      # the demo: synthetic notes
    kept-hf train-msmn msmn_codiesp --data_dir path/to/codiesp
    kept-hf train-msmn msmn_mimic3 --data_dir path/to/mimic3

The vocabulary is made of the words of the training notes, word2vec is trained on them (or read: --word_vectors), and
the codes are called what the code set, or a term graph (--terms), calls them. Each split's candidates lie in
`{split}_candidates.npz`, for `Candidates.load`, and with --handover also in the published text format.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import Trainer

from ..candidates.stage_files import digest, digest_of_notes
from ..corpora import Corpus, load_unlabelled
from ..corpora.arguments import CorpusArguments, corpus_options, read_corpus
from ..knowledge import SOURCES
from ..knowledge.arguments import TermFolderArguments, read_terms
from ..models.modeling_msmn import MSMNForICDCoding
from ..models.tokenization_msmn import MSMNTokenizer
from ..reports.run import EvaluatedSplit, write_report
from ..reports.tables import format_table
from ..training.checkpoints import checkpoint_to_resume
from ..training.checks import check_best_metric, check_loss
from ..training.collators import DataCollatorForMSMN
from ..training.evaluation import ICDMetrics, predict_in_order, validation_threshold
from ..training.msmn import new_msmn, note_rows, set_initial_state, write_candidates
from ..training.run import (
    RunArguments,
    process_group,
    require_splits,
    run_inputs,
    run_settings,
    set_up,
    timed_training,
    write_settings,
)
from ..training.word_vectors import fill_word_embedding, read_word_vectors, train_word_vectors, write_word_vectors
from .recipe import argument_errors, command_parser, parse_recipe

logger = logging.getLogger("train_msmn")
COMMAND, RECIPE = "train-msmn", "msmn_demo"
NOT_OF_THE_MODEL = ("initialize_from_names", "threshold_metric")
"""Options among `ModelArguments` that are no fields of `MSMNConfig`."""


@dataclass
class ModelArguments:
    """The model; `MSMNConfig` says more."""

    num_synonyms: int = field(default=4, metadata={"help": "Terms of a code, each with an attention head."})
    lstm_size: int = field(default=256, metadata={"help": "Both directions together."})
    num_lstm_layers: int = field(default=2, metadata={"help": "Layers of the LSTM."})
    attention_size: int = field(default=512, metadata={"help": "Of words and codes in the attention."})
    embedding_size: int = field(default=100, metadata={"help": "Of word vectors."})
    embedding_dropout: float = field(default=0.2, metadata={"help": "On word vectors."})
    lstm_dropout: float = field(default=0.1, metadata={"help": "Between LSTM layers."})
    output_dropout: float = field(default=0.2, metadata={"help": "On what a code read in a note."})
    rdrop_alpha: float = field(
        default=5.0, metadata={"help": "Of R-Drop, which reads each note twice. 0: the cross entropy alone."}
    )
    max_words: int = field(default=4000, metadata={"help": "Words of a note that are read."})
    code_chunk_size: int = field(default=256, metadata={"help": "Codes scored at a time; 0: all, with more memory."})
    initialize_from_names: bool = field(
        default=False,
        metadata={
            "help": "Initial parameters with which a code's score is the similarity of its names to words of the note, "
            "in place of random ones: for few notes."
        },
    )
    threshold_metric: str = field(
        default="f1_micro", metadata={"help": "What the threshold maximises on validation: f1_micro or f1_macro."}
    )


@dataclass
class DataArguments(CorpusArguments, TermFolderArguments):
    """The notes, their words, and the names of the codes."""

    terms: str | None = field(
        default=None,
        metadata={
            "help": f"Of the term graph with further names of the codes, with + between: {', '.join(SOURCES)}; or a "
            "folder of `TermGraph.save`. By default only the code set's descriptions and synonyms."
        },
    )
    min_count: int = field(default=3, metadata={"help": "Words that the training texts have less often are unknown."})
    word_vectors: str | None = field(
        default=None, metadata={"help": "File in word2vec's text format. By default word2vec is trained."}
    )
    word_epochs: int = field(default=5, metadata={"help": "Passes of word2vec over the texts."})
    skip_gram: bool = field(default=False, metadata={"help": "word2vec by skip-gram, not continuous bag of words."})
    use_unlabelled: bool = field(
        default=False, metadata={"help": "Take words and word vectors also from the corpus's texts without codes."}
    )
    num_candidates: int = field(
        default=300, metadata={"help": "Candidates of a note in {split}_candidates.npz; 0: none."}
    )
    handover: int = field(
        default=0,
        metadata={
            "help": "Also write so many of them to {corpus}_{split}_predtop50.txt, as published (there it holds 300, "
            "whatever its name says)."
        },
    )


@dataclass
class MSMNTrainingArguments(RunArguments):
    """The Trainer's own arguments, with the published settings."""

    output_dir: str | None = field(default="outputs/msmn", metadata={"help": "Where everything is written."})
    learning_rate: float = field(default=5e-4, metadata={"help": "See transformers."})
    weight_decay: float = field(default=0.01, metadata={"help": "See transformers."})
    num_train_epochs: float = field(default=20, metadata={"help": "See transformers."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "See transformers."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "See transformers."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch."})
    metric_for_best_model: str | None = field(default="precision_at_8", metadata={"help": "Makes an epoch the best."})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "See transformers."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See transformers."})
    logging_steps: float = field(default=10, metadata={"help": "See transformers."})


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, MSMNTrainingArguments]:
    """Recipe file and command line; the latter wins."""
    parser = command_parser(COMMAND, (ModelArguments, DataArguments, MSMNTrainingArguments), __doc__)
    model, data, training = parse_recipe(parser, argv, RECIPE)
    for name in ("num_candidates", "handover"):
        if getattr(data, name) < 0:
            parser.error(f"{name}={getattr(data, name)}; pass a number of candidates, or 0 for none")
    if data.handover > data.num_candidates:
        parser.error(
            f"handover={data.handover} is more than num_candidates={data.num_candidates}; pass a greater "
            "--num_candidates"
        )
    return model, data, training


def read_texts(data: DataArguments) -> tuple[Corpus, list[str]]:
    """The corpus with the codes that the arguments choose, and the texts that tell the words."""
    corpus = read_corpus(data)
    require_splits(corpus.dataset, data.corpus, data.codes)
    texts = list(corpus.dataset["train"]["text"])
    if data.use_unlabelled:
        texts += load_unlabelled(data.corpus, data.data_dir, **corpus_options(data.corpus_options))
    return corpus, texts


def make_model(
    arguments: ModelArguments, data: DataArguments, corpus: Corpus, texts: list[str]
) -> tuple[MSMNForICDCoding, MSMNTokenizer]:
    """A new model that knows what the codes are called, and its tokenizer."""
    code_set = corpus.code_set
    if data.terms is not None:
        code_set = code_set.with_synonyms(read_terms(data.terms, data))
    settings = {name: value for name, value in vars(arguments).items() if name not in NOT_OF_THE_MODEL}
    return new_msmn(texts, code_set, data.min_count, corpus.card.license, **settings)


def given_word_vectors(data: DataArguments, width: int) -> dict[str, np.ndarray] | None:
    """The word vectors of a file; None without one.

    Raises:
        ValueError: no vectors, or of another width.
        OSError: a file that does not exist.
    """
    if data.word_vectors is None:
        return None
    vectors = read_word_vectors(data.word_vectors)
    widths = sorted({len(vector) for vector in vectors.values()})
    if widths != [width]:
        found = f"vectors of {widths[0]} numbers" if widths else "no vectors"
        remedy = f"--embedding_size {widths[0]}" if widths else "another file"
        raise ValueError(f"word_vectors={data.word_vectors} has {found}, embedding_size is {width}; pass {remedy}.")
    return vectors


def trained_word_vectors(
    data: DataArguments, texts: list[str], width: int, training: MSMNTrainingArguments
) -> dict[str, np.ndarray]:
    """Word vectors trained on the texts; the first process keeps them in `output_dir` for the others."""
    path = Path(training.output_dir, "word_vectors.txt")
    with training.main_process_first(desc="training the word vectors"):
        if training.should_save:
            trained = train_word_vectors(
                texts, width, data.min_count, data.word_epochs, skip_gram=data.skip_gram, seed=training.seed
            )
            write_word_vectors(trained, path)
    return read_word_vectors(path)


def fill_words(
    model: MSMNForICDCoding,
    tokenizer: MSMNTokenizer,
    corpus: Corpus,
    texts: list[str],
    arguments: ModelArguments,
    data: DataArguments,
    training: MSMNTrainingArguments,
    vectors: dict[str, np.ndarray] | None,
) -> None:
    """Give a new model word vectors, those given or new ones, and its initial state if it is not random."""
    if vectors is None:
        vectors = trained_word_vectors(data, texts, arguments.embedding_size, training)
    filled = fill_word_embedding(model, tokenizer, vectors)
    logger.info("%d words, %d of them with a vector of %d texts.", len(tokenizer), filled, len(texts))
    if arguments.initialize_from_names:
        set_initial_state(model, tokenizer, corpus.dataset["train"])


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Words, word vectors, training, evaluation, candidates."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    arguments, data, training = parse_arguments(argv)
    with argument_errors(COMMAND):
        set_up(training)
    logging.getLogger("gensim").setLevel(logging.WARNING)
    settings = run_settings(training, arguments, data)
    with argument_errors(COMMAND):
        check_loss(training)
        # Here, so that a wrong name costs no training.
        evaluation = ICDMetrics(threshold_metric=arguments.threshold_metric)
        with training.main_process_first(desc="building the corpus"):
            corpus, texts = read_texts(data)
        vectors = given_word_vectors(data, arguments.embedding_size)
        inputs = run_inputs(
            notes=digest_of_notes(corpus.dataset),
            text=digest(*texts),
            codes=digest(corpus.code_set.to_dict()),
            word_vectors=digest(Path(data.word_vectors)) if data.word_vectors else "",
        )
        checkpoint = checkpoint_to_resume(training, settings, inputs)
        check_best_metric(training, len(corpus.code_set))
        model, tokenizer = make_model(arguments, data, corpus, texts)
    logger.info(
        "%s: %d codes; notes: %s",
        data.corpus,
        len(corpus.code_set),
        ", ".join(f"{len(notes)} {split}" for split, notes in corpus.dataset.items()),
    )
    if training.should_save:
        write_settings(training, settings, inputs)
    if checkpoint is None:
        fill_words(model, tokenizer, corpus, texts, arguments, data, training, vectors)
    with training.main_process_first(desc="splitting the notes into words"):
        rows = {split: note_rows(notes, tokenizer, corpus.code_set) for split, notes in corpus.dataset.items()}
    logger.info("Training %s parameters.", f"{model.num_parameters():,}")
    trainer = Trainer(
        model,
        training,
        data_collator=DataCollatorForMSMN(tokenizer, model.config.num_labels),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        compute_metrics=evaluation,
    )
    seconds = timed_training(trainer, checkpoint)
    report(trainer, evaluation, corpus, rows, data, settings, seconds, started, argv)


def report(
    trainer: Trainer,
    evaluation: ICDMetrics,
    corpus: Corpus,
    rows: dict[str, Dataset],
    data: DataArguments,
    settings: dict[str, object],
    seconds: float,
    started: float,
    argv: Sequence[str],
) -> None:
    """Evaluate, write model, candidates and report. To be called on all processes."""
    split, model = "test" if "test" in rows else "validation", trainer.model
    model.config.threshold = validation_threshold(trainer)
    scores, labels = evaluation.scores_and_labels(predict_in_order(trainer, rows[split]))
    trainer.save_model()
    recall = {}
    if data.num_candidates:
        recall = write_candidates(trainer, corpus.dataset, data.num_candidates, data.handover, data.corpus)
    if not trainer.is_world_process_zero():
        return
    corpus.code_set.to_json(Path(trainer.args.output_dir, "code_set.json"))
    record = {
        **{f"{name}_{key}": value for name, metrics in recall.items() for key, value in metrics.items()},
        "trainable_parameters": model.num_parameters(only_trainable=True),
        "vocabulary": len(trainer.processing_class),
        "training_seconds": round(seconds, 1),
        "command": " ".join([f"kept-hf {COMMAND}", *argv]),
        "settings": settings,
    }
    evaluated = EvaluatedSplit(split, scores, labels, model.config.threshold, evaluation.find_threshold)
    write_report(trainer.args, corpus, evaluated, record, started, by_frequency=True)
    if recall:
        print("Candidates")
        print(format_table([{"split": name, **metrics} for name, metrics in recall.items()]))


if __name__ == "__main__":
    main()
