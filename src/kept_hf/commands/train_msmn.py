"""Train MSMN on all codes at once, evaluate it, and write the candidates that a second stage scores anew.

    kept-hf train-msmn                                      # the demo: synthetic notes
    kept-hf train-msmn msmn_codiesp --data_dir path/to/codiesp
    kept-hf train-msmn msmn_mimic3 --data_dir path/to/mimic3

The vocabulary is made of the words of the training notes, word2vec is trained on them (or read: --word_vectors), and
the codes are called what the code set, or a term graph (--terms), calls them. Each split's candidates lie in
`{split}_proposals.npz`, for `Candidates.load`, and with --handover also in the published text format.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Trainer

from ..candidates.candidates import Candidates, write_handover_file
from ..candidates.msmn import MSMNFirstStage
from ..corpora import Corpus, load_unlabelled
from ..corpora.arguments import CorpusArguments, corpus_options, read_corpus
from ..knowledge import SOURCES
from ..knowledge.arguments import TermFolderArguments, read_terms
from ..models.code_set import ICDCodeSet
from ..models.configuration_msmn import MSMNConfig
from ..models.modeling_msmn import MSMNForICDCoding
from ..models.tokenization_msmn import MSMNTokenizer
from ..reports.run import EvaluatedSplit, write_report
from ..reports.tables import format_table
from ..training.callbacks import KeepEvaluationOrder
from ..training.collators import DataCollatorForMSMN
from ..training.evaluation import ICDMetrics, validation_threshold
from ..training.msmn_start import start_as_matcher
from ..training.run import RunArguments, checkpoint_to_resume, require_splits, run_settings, set_up, write_settings
from ..training.word_vectors import fill_word_embedding, read_word_vectors, train_word_vectors, write_word_vectors
from .recipe import command_parser, parse_recipe

logger = logging.getLogger("train_msmn")
COMMAND, RECIPE = "train-msmn", "msmn_demo"
CANDIDATES = (50, 100, 300)
PUBLISHED_SPLITS = {"validation": "dev"}
NOT_OF_THE_MODEL = ("start_as_matcher", "threshold_metric")
START_NOTES = 64


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
    start_as_matcher: bool = field(
        default=False,
        metadata={
            "help": "Begin with codes that score by how like their names the likest words are, not with random layers: "
            "for few notes."
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
    propose: int = field(default=300, metadata={"help": "Candidates of a note in {split}_proposals.npz; 0: none."})
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
    for name in ("propose", "handover"):
        if getattr(data, name) < 0:
            parser.error(f"{name}={getattr(data, name)}; pass a number of candidates, or 0 for none")
    if data.handover > data.propose:
        parser.error(f"handover={data.handover} is more than propose={data.propose}; pass a greater --propose")
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
    license, code_set = corpus.card.license, corpus.code_set
    tokenizer = MSMNTokenizer.from_texts(
        texts, min_count=data.min_count, model_max_length=arguments.max_words, data_license=license
    )
    config = MSMNConfig(
        vocab_size=len(tokenizer),
        id2label=code_set.id2label,
        label2id=code_set.label2id,
        data_license=license,
        **{name: value for name, value in vars(arguments).items() if name not in NOT_OF_THE_MODEL},
    )
    model = MSMNForICDCoding(config)
    named = code_set if data.terms is None else code_set.with_synonyms(read_terms(data.terms, data))
    terms = [name for names in named.synonym_table(config.num_synonyms) for name in names]
    model.set_label_terms(**tokenizer(terms, padding=True, return_tensors="pt"))
    return model, tokenizer


def word_vectors(data: DataArguments, texts: list[str], width: int, training: MSMNTrainingArguments) -> dict:
    """Word vectors, read or trained; the first process keeps trained ones in `output_dir` for the others."""
    if data.word_vectors is not None:
        return read_word_vectors(data.word_vectors)
    path = Path(training.output_dir, "word_vectors.txt")
    with training.main_process_first(desc="training the word vectors"):
        if training.should_save:
            trained = train_word_vectors(
                texts, width, data.min_count, data.word_epochs, skip_gram=data.skip_gram, seed=training.seed
            )
            write_word_vectors(trained, path)
    return read_word_vectors(path)


def begin(model: MSMNForICDCoding, tokenizer: MSMNTokenizer, notes: Dataset) -> None:
    """Let the model begin as a matcher of words, with scores about the share of codes that a note has."""
    step = max(len(notes) // START_NOTES, 1)
    some = tokenizer(notes["text"][::step][:START_NOTES], padding=True, truncation=True, return_tensors="pt")
    share = sum(map(len, notes["codes"])) / (len(notes) * model.config.num_labels)
    start_as_matcher(model, some["input_ids"], some["attention_mask"], mean_logit=math.log(share / (1 - share)))


def note_rows(notes: Dataset, tokenizer: MSMNTokenizer, code_set: ICDCodeSet) -> Dataset:
    """Rows for the Trainer: words, the places of the gold codes, length."""

    def rows(batch: dict) -> dict:
        encoded = tokenizer(batch["text"], truncation=True)
        labels = [[code_set.index(code) for code in codes if code in code_set] for codes in batch["codes"]]
        return {**encoded, "labels": labels, "length": [len(ids) for ids in encoded["input_ids"]]}

    return notes.map(rows, batched=True, batch_size=100, remove_columns=notes.column_names, desc="Words")


def propose(proposer: MSMNFirstStage, notes: Dataset, top_k: int, trainer: Trainer) -> Candidates:
    """The candidates of a split, a share of its notes on each process."""
    with trainer.accelerator.split_between_processes(list(notes["text"])) as share:
        part = proposer.propose(share, top_k)
    proposals = Candidates.concatenate(gather_object([part]))
    return Candidates(proposals.codes, proposals.indices, proposals.scores, notes["note_id"])


def write_proposals(trainer: Trainer, corpus: Corpus, data: DataArguments) -> dict[str, dict[str, float]]:
    """Write each split's candidates; returns their recall and the ceiling that they set. On all processes."""
    metrics = {}
    proposer = MSMNFirstStage(trainer.model, trainer.processing_class, trainer.args.per_device_eval_batch_size)
    folder = Path(trainer.args.output_dir)
    for split, notes in corpus.dataset.items():
        proposals = propose(proposer, notes, data.propose, trainer)
        metrics[split] = proposals.candidate_metrics(notes["codes"], CANDIDATES)
        if trainer.is_world_process_zero():
            proposals.save(folder / f"{split}_proposals.npz")
            if data.handover:
                name = f"{data.corpus}_{PUBLISHED_SPLITS.get(split, split)}_predtop50.txt"
                write_handover_file(folder / name, proposals.top(data.handover))
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """Words, word vectors, training, evaluation, candidates."""
    argv = sys.argv[1:] if argv is None else list(argv)
    started = time.time()
    arguments, data, training = parse_arguments(argv)
    set_up(training)
    logging.getLogger("gensim").setLevel(logging.WARNING)
    settings = run_settings(training, arguments, data)
    checkpoint = checkpoint_to_resume(training.output_dir, settings)
    judge = ICDMetrics(threshold_metric=arguments.threshold_metric)  # here, so that a wrong name costs no training
    with training.main_process_first(desc="building the corpus"):
        corpus, texts = read_texts(data)
    logger.info(
        "%s: %d codes; notes: %s",
        data.corpus,
        len(corpus.code_set),
        ", ".join(f"{len(notes)} {split}" for split, notes in corpus.dataset.items()),
    )
    model, tokenizer = make_model(arguments, data, corpus, texts)
    if training.should_save:
        write_settings(training, settings)
    if checkpoint is None:
        vectors = word_vectors(data, texts, arguments.embedding_size, training)
        filled = fill_word_embedding(model, tokenizer, vectors)
        logger.info("%d words, %d of them with a vector of %d texts.", len(tokenizer), filled, len(texts))
        if arguments.start_as_matcher:
            begin(model, tokenizer, corpus.dataset["train"])
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
        compute_metrics=judge,
        callbacks=[KeepEvaluationOrder()],
    )
    clock = time.monotonic()
    trainer.train(resume_from_checkpoint=checkpoint)
    trained = round(time.monotonic() - clock, 1)

    split = "test" if "test" in rows else "validation"
    model.config.threshold = threshold = validation_threshold(trainer)
    scores, labels = judge.scores_and_labels(trainer.predict(rows[split]))
    trainer.save_model()
    candidates = write_proposals(trainer, corpus, data) if data.propose else {}
    if not trainer.is_world_process_zero():
        return
    corpus.code_set.to_json(Path(training.output_dir, "code_set.json"))
    record = {
        **{f"{name}_{key}": value for name, metrics in candidates.items() for key, value in metrics.items()},
        "trainable_parameters": model.num_parameters(only_trainable=True),
        "vocabulary": len(tokenizer),
        "training_seconds": trained,
        "command": " ".join(["kept-hf train-msmn", *argv]),
        "settings": settings,
    }
    evaluated = EvaluatedSplit(split, scores, labels, threshold, judge.find_threshold)
    write_report(training, corpus, evaluated, record, started, by_frequency=True)
    if candidates:
        print("Candidates")
        print(format_table([{"split": name, **metrics} for name, metrics in candidates.items()]))


if __name__ == "__main__":
    main()
