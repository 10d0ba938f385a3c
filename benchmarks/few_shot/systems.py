"""The systems that a row can name: each learns from coded notes and scores all codes of other notes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModel, AutoTokenizer, Trainer, set_seed

from kept_hf import ICDCodeSet
from kept_hf.candidates.candidates import Candidates, in_code_set
from kept_hf.candidates.dense import DenseRetriever
from kept_hf.candidates.kept import KeptFirstStage
from kept_hf.candidates.msmn import MSMNFirstStage
from kept_hf.candidates.prior import CodePrior
from kept_hf.candidates.sparse import SparseRetriever, tfidf_vectorizer
from kept_hf.candidates.text_classifier import TextClassifier
from kept_hf.commands import train as train_kept
from kept_hf.commands import train_msmn
from kept_hf.corpora import Corpus
from kept_hf.pretraining.zero_shot.synthetic_stage import run_synthetic_stage
from kept_hf.reranking import rerank
from kept_hf.training.collators import DataCollatorForICDPrompting, DataCollatorForMSMN
from kept_hf.training.hardware import bf16_helps
from kept_hf.training.mined_negatives import MinedNegatives
from kept_hf.training.msmn import new_msmn, note_rows
from kept_hf.training.rows import prompt_rows
from kept_hf.training.task import load_task
from kept_hf.training.weights import PACKAGED_WEIGHTS, fit_similarity_threshold, train_only, weights_path

DEPTH = 3000
"""Codes of a note that keep their scores."""

Scorer = Callable[[Sequence[str]], Candidates]
"""Texts → the best codes of each."""

System = Callable[..., Scorer]
"""`system(train, code_set, seed, **options)`: coded notes and the codes to ask → a scorer."""


def prior(train: Dataset, code_set: ICDCodeSet, seed: int) -> Scorer:
    """The same codes for every note: the most frequent ones of the training notes."""
    model = CodePrior(code_set).fit(train["codes"])
    return lambda texts: model.propose(texts, DEPTH)


def logistic_regression(train: Dataset, code_set: ICDCodeSet, seed: int) -> Scorer:
    """tf-idf of words and pairs of words, a balanced logistic regression for each code of the training notes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    vectorizer = tfidf_vectorizer(ngram_range=(1, 2))
    labels = np.array([code_set.multi_hot(codes) for codes in train["codes"]])
    columns = np.flatnonzero((labels.sum(axis=0) > 0) & (labels.sum(axis=0) < len(labels)))
    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(vectorizer.fit_transform(train["text"][:]), labels[:, columns])

    def score(texts: Sequence[str]) -> Candidates:
        scores = np.full((len(texts), len(code_set)), -np.inf, dtype=np.float32)
        scores[:, columns] = model.decision_function(vectorizer.transform(texts))
        return Candidates.from_scores(scores, code_set.codes, DEPTH)

    return score


def classifier(train: Dataset, code_set: ICDCodeSet, seed: int) -> Scorer:
    """The ridge regression of `kept_hf.candidates.text_classifier`."""
    model = TextClassifier(code_set).fit(train["text"][:], train["codes"][:])
    return lambda texts: model.propose(texts, DEPTH)


def sparse_windows(train: Dataset, code_set: ICDCodeSet, seed: int, synonyms: bool = True) -> Scorer:
    """tf-idf of letters: windows of the note against the names of codes. No labels are read."""
    model = SparseRetriever(_named(code_set, synonyms), texts=train["text"][:])
    return lambda texts: model.propose(texts, DEPTH)


def dense_windows(train: Dataset, code_set: ICDCodeSet, seed: int, synonyms: bool = True) -> Scorer:
    """Vectors of an untrained encoder: windows of the note against the names of codes. No labels are read."""
    code_set = _named(code_set, synonyms)

    @cache
    def retriever() -> DenseRetriever:
        encoder, tokenizer = (
            auto.from_pretrained(weights_path(PACKAGED_WEIGHTS)) for auto in (AutoModel, AutoTokenizer)
        )
        return DenseRetriever(code_set, encoder, tokenizer)

    return lambda texts: retriever().propose(texts, DEPTH)


def kept(
    train: Dataset, code_set: ICDCodeSet, seed: int, recipe: str, options: Mapping[str, object] | None = None
) -> Scorer:
    """A recipe of `kept-hf train`, on all notes for all its epochs: nothing is chosen.

    Args:
        train: coded notes; their codes are those that training asks about.
        code_set: the codes that the scorer asks about.
        seed: of the initial values, the drawn codes and the order of the notes.
        recipe: name or file.
        options: that replace the recipe's.
    """
    with tempfile.TemporaryDirectory() as folder:
        argv = _command_line({**(options or {}), "seed": seed}, folder)
        arguments, data, training = train_kept.parse_arguments([recipe, *argv])
        training = replace(training, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
        trained = {code for codes in train["codes"] for code in codes}
        set_seed(seed)
        model, processor = load_task(arguments, code_set.subset([code for code in code_set if code in trained]))
        model.to(training.device)
        rows = prompt_rows(train, processor, data.sampled_codes, data.draws, training.seed)
        if data.matching_examples:
            run_synthetic_stage(model, processor, train["text"], data, training)
        if getattr(model, "similarity", None) is not None:
            fit_similarity_threshold(model, rows, DataCollatorForICDPrompting(processor))
        if arguments.trainable:
            train_only(model, arguments.trainable.split(","))
        mined = MinedNegatives(processor, rows, data.mined_negatives, seed) if data.mined_negatives else None
        Trainer(
            model,
            training,
            data_collator=DataCollatorForICDPrompting(
                processor, in_batch_negatives=data.in_batch_negatives, mined_negatives=mined
            ),
            train_dataset=rows,
            processing_class=processor.tokenizer,
            callbacks=[mined] if mined else None,
        ).train()
    asked = processor.for_codes(code_set)

    def score(texts: Sequence[str]) -> Candidates:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=training.bf16):
            if asked.prompt_layout == "isolated":
                return KeptFirstStage(model, asked).propose(texts, DEPTH)
            every = Candidates.from_scores(np.zeros((len(texts), len(code_set))), code_set.codes, len(code_set))
            return rerank(model, asked, texts, every, group_size=processor.codes_per_prompt or len(code_set))

    return score


def msmn(
    train: Dataset, code_set: ICDCodeSet, seed: int, recipe: str, options: Mapping[str, object] | None = None
) -> Scorer:
    """A recipe of `kept-hf train-msmn`, on all notes for all its epochs, for the codes of the training notes.

    Words and word vectors come from the training notes alone.

    Args:
        train: coded notes; their codes are those that it knows.
        code_set: the codes that every system is asked about.
        seed: of the initial values and the order of the notes.
        recipe: name or file.
        options: that replace the recipe's.
    """
    trained = {code for codes in train["codes"] for code in codes}
    known = code_set.subset([code for code in code_set if code in trained])
    texts = train["text"][:]
    with tempfile.TemporaryDirectory() as folder:
        argv = _command_line({**(options or {}), "seed": seed}, folder)
        arguments, data, training = train_msmn.parse_arguments([recipe, *argv])
        training = replace(training, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
        set_seed(seed)
        corpus = Corpus(DatasetDict(train=train), known, card=None)
        settings = {name: value for name, value in vars(arguments).items() if name not in train_msmn.NOT_OF_THE_MODEL}
        model, tokenizer = new_msmn(texts, known, data.min_count, **settings)
        train_msmn.fill_words(model, tokenizer, corpus, texts, arguments, data, training, vectors=None)
        Trainer(
            model,
            training,
            data_collator=DataCollatorForMSMN(tokenizer, model.config.num_labels),
            train_dataset=note_rows(train, tokenizer, known),
            processing_class=tokenizer,
        ).train()
    stage = MSMNFirstStage(model, tokenizer)
    return lambda texts: in_code_set(stage.propose(texts, DEPTH), code_set)


def multi_vector_encoder(
    train: Dataset, code_set: ICDCodeSet, seed: int, epochs: int, learning_rate: float, batch_size: int
) -> Scorer:
    """Late interaction of sentence-transformers, trained on pairs of a description and a note that has the code.

    The packaged MiniLM without a projection, whose initial values would be random; mean MaxSim, since notes are to
    compare descriptions of different lengths. The other notes of a batch are the negatives, as in its documentation.

    Args:
        train, code_set, seed: see [`System`].
        epochs, learning_rate, batch_size: of the training.

    Raises:
        ImportError: sentence-transformers is not installed.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores
    from sentence_transformers.multi_vector_encoder.trainer import MultiVectorEncoderTrainer
    from sentence_transformers.multi_vector_encoder.training_args import MultiVectorEncoderTrainingArguments

    set_seed(seed)
    modules = [
        Transformer(weights_path(PACKAGED_WEIGHTS)),
        MultiVectorMask(),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, similarity_fn_name="meanmaxsim")
    pairs = [
        (code_set.describe(code), text)
        for text, codes in zip(train["text"], train["codes"], strict=True)
        for code in codes
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = MultiVectorEncoderTrainingArguments(
            folder,
            num_train_epochs=epochs,
            learning_rate=learning_rate,
            warmup_steps=0.1,
            per_device_train_batch_size=batch_size,
            batch_sampler="no_duplicates",
            bf16=bf16_helps(),
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = MultiVectorMultipleNegativesRankingLoss(model, scale=10.0, similarity_fct=mean_colbert_scores)
        rows = Dataset.from_dict(dict(zip(("anchor", "positive"), zip(*pairs, strict=True), strict=True)))
        MultiVectorEncoderTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    model.eval()

    def score(texts: Sequence[str]) -> Candidates:
        queries = model.encode_query([code_set.describe(code) for code in code_set])
        scores = [model.similarity(queries, model.encode_document([text]))[:, 0].float().cpu() for text in texts]
        return Candidates.from_scores(torch.stack(scores).numpy(), code_set.codes, DEPTH)

    return score


SYSTEMS: dict[str, System] = {
    "prior": prior,
    "logistic_regression": logistic_regression,
    "classifier": classifier,
    "sparse_windows": sparse_windows,
    "dense_windows": dense_windows,
    "kept": kept,
    "msmn": msmn,
    "multi_vector_encoder": multi_vector_encoder,
}
"""What a row's `system` may be; "fused" joins the scores of other rows (`protocol.py`)."""

WITHOUT_LABELS = frozenset({"sparse_windows", "dense_windows"})
"""These score training notes as they score others: no notes have to be held out."""


def _command_line(options: Mapping[str, object], folder: str) -> list[str]:
    """Options, with a folder in place of those that the benchmark does not need."""
    given = {**options, "output_dir": folder, "data_dir": folder, "disable_tqdm": True, "report_to": "none"}
    return [part for name, value in given.items() for part in (f"--{name}", *str(value).split())]


def _named(code_set: ICDCodeSet, synonyms: bool) -> ICDCodeSet:
    if synonyms:
        return code_set
    return ICDCodeSet(code_set.codes, code_set.descriptions, parents=code_set.parents)
