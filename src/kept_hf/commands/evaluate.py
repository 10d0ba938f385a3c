"""Evaluate a trained model on a split of a corpus: the report that training ends with, for any notes.

    kept-hf evaluate outputs/demo
    kept-hf evaluate outputs/codiesp --split validation
    kept-hf evaluate outputs/codiesp --corpus own --data_files test=notes.csv

The folder is what `kept-hf train` or `kept-hf train-msmn` wrote, or a model id of the Hub. Without --corpus the notes
are those of the corpus of its training. Codes are assigned at the model's own threshold. By default the model is
evaluated on its own codes, with all notes of the split; labels of other codes are not counted. With the --codes and
split of its training the numbers are those of its own report.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoConfig, Trainer, TrainingArguments

from ..candidates.candidates import Candidates
from ..candidates.kept import load_scorer
from ..candidates.msmn import MSMNFirstStage
from ..candidates.registry import TRAINED_STAGES
from ..corpora import CORPORA, Corpus
from ..corpora.arguments import CorpusArguments, read_corpus
from ..models.code_set import ICDCodeSet
from ..models.loading import check_model_type
from ..models.processing_kept import CODE_SET_NAME, KeptProcessor
from ..reports.run import RESULTS_FILE, EvaluatedSplit, write_report
from ..reranking import in_code_set
from ..training.collators import LABEL_NAMES, DataCollatorForICDPrompting
from ..training.evaluation import ICDMetrics
from ..training.gold import respell_gold
from ..training.output_dir import check_output_dir
from ..training.run import RunResult, process_group, set_up
from ..training.task import SPLITS, EvaluationPrompts, read_candidates
from .recipe import argument_errors, plain_parser

logger = logging.getLogger("kept_hf.evaluate")  # "evaluate" is the library's, which keeps its messages to itself
COMMAND = "evaluate"
OWN_CODES = "model"
OWN_CANDIDATES = "model"
NO_CANDIDATES = "none"
CORPUS_SETTINGS = ("corpus_options", "data_dir", "data_files", "codes_file")
"""What is taken from the settings of the model's training, beside the corpus, where the command line has none."""
HOW_COMPUTED = ("batch_size", "use_cpu", "cache_dir", "output_dir", "model")
"""What two evaluations may differ in and be the same. The model is compared as a folder."""


@dataclass
class EvaluationArguments(CorpusArguments):
    """The model, the notes and how they are scored."""

    model: str = field(default="", metadata={"help": argparse.SUPPRESS})
    corpus: str | None = field(
        default=None,
        metadata={
            "help": f"One of: {', '.join(CORPORA)}. By default that of the model's training; its options, folder and "
            "files are then those of the training, too, where none are given."
        },
    )
    codes: str = field(
        default=OWN_CODES,
        metadata={
            "help": f"{OWN_CODES}: the codes of the model. Or as for kept-hf train: all, top50, rare50, or a file with "
            "one code a line; notes without any of them are left out, and KEPT is asked about them, known or not."
        },
    )
    split: str = field(default="test", metadata={"help": f"One of: {', '.join(SPLITS)}."})
    candidates: str = field(
        default=OWN_CANDIDATES,
        metadata={
            "help": f"{OWN_CANDIDATES}: the candidates that the split had in training, if any. Or {NO_CANDIDATES}: "
            "all codes are scored; or a file of a first stage's candidates for the split."
        },
    )
    codes_per_prompt: int | None = field(default=None, metadata={"help": "By default the model's."})
    batch_size: int = field(default=8, metadata={"help": "Prompts (isolated layout and MSMN: notes) at a time."})
    bf16: bool | None = field(default=None, metadata={"help": "Compute in bf16. By default as in training."})
    use_cpu: bool = field(default=not torch.cuda.is_available(), metadata={"help": "Compute on the CPU."})
    output_dir: str | None = field(default=None, metadata={"help": "By default MODEL/evaluation-CORPUS-SPLIT."})


@process_group()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parse_arguments(argv)
    with argument_errors(COMMAND):
        evaluation = prepare(arguments)
    evaluate(evaluation, " ".join([f"kept-hf {COMMAND}", *argv]))


def parse_arguments(argv: Sequence[str]) -> EvaluationArguments:
    """The command line; the model stands first, without an option's name."""
    parser = plain_parser(COMMAND, EvaluationArguments, __doc__, "%(prog)s MODEL [--option value ...]")
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        parser.exit()
    if not argv or argv[0].startswith("-"):
        parser.error("name a model first: kept-hf evaluate MODEL")
    arguments, unknown = parser.parse_args_into_dataclasses(
        list(argv[1:]), return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return replace(arguments, model=argv[0])


@dataclass
class PreparedEvaluation:
    """An evaluation whose arguments were checked, with everything that it reads.

    Attributes:
        arguments: of the command, completed by the settings of the model's training.
        training: for the Trainer, and for the report.
        training_settings: `settings.json` of the model's training.
        corpus: with the codes that are evaluated.
        scorer: of the split.
        threshold: of the model.
        started: `time.time()` when the command began.
    """

    arguments: EvaluationArguments
    training: TrainingArguments
    training_settings: Mapping[str, object]
    corpus: Corpus
    scorer: PromptedSplit | MSMNSplit
    threshold: float
    started: float


def prepare(arguments: EvaluationArguments) -> PreparedEvaluation:
    """Check the arguments, read model and notes, write the prompts.

    Raises:
        ValueError: an unknown split or one without notes, codes that do not fit the model or the notes, a folder that
            may not be written to; and as `complete`, `read_split` and `split_candidates`.
        OSError: files or a model that do not exist.
    """
    started = time.time()
    check_numbers(arguments)
    check_model(arguments.model)
    settings = read_training_settings(arguments.model)
    given, arguments = arguments, complete(arguments, settings)
    bf16 = bool(settings.get("bf16")) if arguments.bf16 is None else arguments.bf16
    candidates, arguments = split_candidates(arguments, settings)
    folder = output_folder(arguments, {**vars(arguments), "bf16": bf16})
    training = TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=arguments.batch_size,
        bf16=bf16,
        use_cpu=arguments.use_cpu,
        report_to="none",
        label_names=[*LABEL_NAMES],
    )
    set_up(training)
    log_corpus(given, arguments)
    config = AutoConfig.from_pretrained(arguments.model)
    check_model_type(arguments.model, config.model_type, tuple(TRAINED_STAGES))
    corpus = read_split(arguments, training)
    if config.model_type == "msmn":
        if candidates is not None:
            raise ValueError(f"candidates={arguments.candidates}: MSMN scores all codes; leave --candidates out.")
        scorer = MSMNSplit(arguments, corpus)
    else:
        scorer = PromptedSplit(arguments, corpus, candidates)
    notes = {split: respell_gold(notes, scorer.code_set) for split, notes in corpus.dataset.items()}
    corpus = replace(corpus, code_set=scorer.code_set, dataset=type(corpus.dataset)(notes))
    return PreparedEvaluation(arguments, training, settings, corpus, scorer, config.threshold, started)


def evaluate(evaluation: PreparedEvaluation, command: str) -> RunResult:
    """Score the notes of a split, and write the report.

    Args:
        evaluation: of [`prepare`].
        command: recorded in `all_results.json`.
    """
    arguments, training, corpus = evaluation.arguments, evaluation.training, evaluation.corpus
    folder, split, threshold = Path(training.output_dir), arguments.split, evaluation.threshold
    scores, labels = evaluation.scorer.scores_and_labels(training)
    if not training.should_save:
        return RunResult(folder, split, threshold, None)
    threshold_metric = evaluation.training_settings.get("threshold_metric", "f1_micro")
    find_threshold = ICDMetrics(threshold_metric=threshold_metric).find_threshold
    unknown = count_unknown(corpus, split)
    record = {
        "unknown_gold_codes": unknown,
        "command": command,
        "settings": {**vars(arguments), "bf16": training.bf16, "threshold_metric": threshold_metric},
    }
    folder.mkdir(parents=True, exist_ok=True)
    evaluated = EvaluatedSplit(split, scores, labels, threshold, find_threshold)
    results = write_report(training, corpus, evaluated, record, evaluation.started)
    if unknown["codes"]:
        print(
            f"Not counted: {unknown['assignments']} of {unknown['all_assignments']} gold codes of the notes, "
            f"{unknown['codes']} different ones, which are not among the {len(corpus.code_set)} evaluated codes."
        )
    return RunResult(folder, split, threshold, results)


def check_numbers(arguments: EvaluationArguments) -> None:
    """Numbers that have to be 1 or more.

    Raises:
        ValueError: one is less.
    """
    for name in ("batch_size", "codes_per_prompt"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is less than 1; pass 1 or more.")


def check_model(model: str) -> None:
    """Refuse the folder of an adapter.

    Raises:
        ValueError: it is one.
    """
    folder = Path(model)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{model} holds an adapter alone; pass the folder of its run, {folder.resolve().parent}, which holds the "
            "model with the adapter merged into it."
        )


def complete(arguments: EvaluationArguments, settings: Mapping[str, object]) -> EvaluationArguments:
    """The arguments with the corpus of the model's training where they name none, or the same one.

    Args:
        arguments: of the command.
        settings: of the model's training.

    Raises:
        ValueError: no corpus is named.

    Examples:
        >>> settings = {"corpus": "codiesp", "data_dir": "codiesp"}
        >>> complete(EvaluationArguments(model="run"), settings).data_dir
        'codiesp'
    """
    trained_on = settings.get("corpus")
    if arguments.corpus is None and not isinstance(trained_on, str):
        raise ValueError(
            f"{arguments.model} has no settings.json that names the corpus of its training; pass --corpus, one of "
            f"{', '.join(CORPORA)}."
        )
    if arguments.corpus not in (None, trained_on):
        return arguments
    # The licence is that of the notes, wherever they come from.
    names = CORPUS_SETTINGS if arguments.data_files else (*CORPUS_SETTINGS, "data_license")
    missing = {name: settings[name] for name in names if not getattr(arguments, name) and settings.get(name)}
    return replace(arguments, corpus=trained_on, **missing)


def log_corpus(given: EvaluationArguments, completed: EvaluationArguments) -> None:
    """Say which corpus is taken, and what of it was not given on the command line."""
    taken = [name for name in ("corpus", *CORPUS_SETTINGS) if getattr(given, name) != getattr(completed, name)]
    listed = ", ".join(f"{name}={getattr(completed, name)}" for name in taken)
    source = f"; from the settings of the model's training: {listed}" if taken else ""
    logger.info("Corpus %s, split %s%s", completed.corpus, completed.split, source)


def split_candidates(
    arguments: EvaluationArguments, settings: Mapping[str, object]
) -> tuple[Candidates | None, EvaluationArguments]:
    """The candidates that alone are scored, and the arguments with their file; None where all codes are scored.

    Raises:
        ValueError: candidates of the training that are not there, or for other notes; and as `read_candidates`.
        OSError: a file that does not exist.
    """
    file = arguments.candidates
    if file == OWN_CANDIDATES:
        of_training = dict(option.partition("=")[::2] for option in settings.get("candidates") or [])
        file = of_training.get(arguments.split, NO_CANDIDATES)
        remedy = (
            f"pass --candidates FILE with those of these notes, or --candidates {NO_CANDIDATES} to score all codes."
        )
        names = ("corpus", "corpus_options", "data_files")
        if file != NO_CANDIDATES and any(getattr(arguments, name) != settings.get(name) for name in names):
            raise ValueError(f"{arguments.model} was evaluated on candidates, which are for other notes; {remedy}")
        if file != NO_CANDIDATES and not Path(file).is_file():
            raise ValueError(
                f"{arguments.model} was evaluated on the candidates {file}, which is no file now; {remedy}"
            )
    arguments = replace(arguments, candidates=file)
    if file == NO_CANDIDATES:
        return None, arguments
    return read_candidates([f"{arguments.split}={file}"])[arguments.split], arguments


def output_folder(arguments: EvaluationArguments, settings: Mapping[str, object]) -> Path:
    """Where the report goes.

    Args:
        arguments: of the command.
        settings: that the report will have.

    Raises:
        ValueError: a folder whose report or model would be replaced, unless the report is that of the same evaluation;
            one that may not be written; or a model of the Hub without `output_dir`.
    """
    if arguments.output_dir is None and not Path(arguments.model).is_dir():
        raise ValueError(f"{arguments.model} is no folder to write to; pass --output_dir.")
    default = Path(arguments.model, f"evaluation-{arguments.corpus}-{arguments.split}")
    folder = default if arguments.output_dir is None else Path(arguments.output_dir)
    if folder.resolve() == Path(arguments.model).resolve():
        raise ValueError(f"output_dir={folder} holds the report of the model's training; pass another --output_dir.")
    check_output_dir(folder)
    for name in ("config.json", "settings.json"):
        if (folder / name).is_file():
            raise ValueError(f"output_dir={folder} holds a model or its run ({name}); pass another --output_dir.")
    if (folder / RESULTS_FILE).is_file() and not _is_report_of(folder / RESULTS_FILE, settings):
        raise ValueError(
            f"output_dir={folder} holds the report of another run ({RESULTS_FILE}); pass another --output_dir, or "
            "delete it."
        )
    return folder


def _is_report_of(path: Path, settings: Mapping[str, object]) -> bool:
    """Whether a file of results is of the evaluation with these settings."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        same_model = Path(before["model"]).resolve() == Path(settings["model"]).resolve()
    except (ValueError, LookupError, TypeError):
        return False
    names = [name for name in settings if name not in HOW_COMPUTED]
    return same_model and all(name in before and before[name] == settings[name] for name in names)


def read_training_settings(model: str) -> dict[str, object]:
    """`settings.json` of the model's training; nothing where the folder has none."""
    path = Path(model, "settings.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_split(arguments: EvaluationArguments, training: TrainingArguments) -> Corpus:
    """The corpus, with the codes that the arguments choose.

    Raises:
        ValueError: an unknown split, or one that the corpus does not have; and as `read_corpus`.
    """
    if arguments.split not in SPLITS:
        raise ValueError(f"split={arguments.split!r} is unknown; pass one of {', '.join(SPLITS)}.")
    rule = "all" if arguments.codes == OWN_CODES else arguments.codes
    described = Path(arguments.model, CODE_SET_NAME)
    if arguments.corpus == "own" and not arguments.codes_file and described.is_file():
        arguments = replace(arguments, codes_file=str(described))  # ICD-9 has no packaged descriptions
    with training.main_process_first(desc="building the corpus"):
        corpus = read_corpus(replace(arguments, codes=rule))
    if arguments.split not in corpus.dataset:
        raise ValueError(
            f"corpus={arguments.corpus} with codes={arguments.codes} has no split {arguments.split}; it has "
            f"{', '.join(corpus.dataset)}."
        )
    return corpus


class PromptedSplit:
    """A split and the prompted model (or late interaction) that scores it.

    Args:
        arguments: what to evaluate on what.
        corpus: with the split.
        candidates: that alone are scored, if any.

    Attributes:
        code_set: that is asked about: the model's own, or the one of the corpus where `codes` names one.

    Raises:
        ValueError: no codes, codes that no note has, or candidates that do not fit the notes.
    """

    def __init__(self, arguments: EvaluationArguments, corpus: Corpus, candidates: Candidates | None = None):
        code_set = None if arguments.codes == OWN_CODES else corpus.code_set
        self.processor = KeptProcessor.from_pretrained(arguments.model, code_set=code_set)
        if self.processor.code_set is None:
            raise ValueError(f"{arguments.model} has no codes of its own; pass --codes all, or a file of codes.")
        if arguments.codes_per_prompt is not None:
            self.processor.codes_per_prompt = arguments.codes_per_prompt
        self.code_set = self.processor.code_set
        notes = respell_gold(corpus.dataset[arguments.split], self.code_set)
        require_labels(arguments, notes, self.code_set)
        if candidates is not None:
            try:
                candidates = in_code_set(candidates.for_notes(notes["note_id"]), self.code_set)
            except ValueError as error:
                raise ValueError(
                    f"candidates={arguments.candidates}: {error} Pass --codes as for the candidates, or --candidates "
                    f"{NO_CANDIDATES} to score all codes."
                ) from error
        self.model = load_scorer(arguments.model)
        self.prompts = EvaluationPrompts(notes, self.processor, candidates)

    def scores_and_labels(self, training: TrainingArguments) -> tuple[np.ndarray, np.ndarray]:
        """`(notes, codes)` each, in the order of the split. On all processes."""
        trainer = Trainer(self.model, training, data_collator=DataCollatorForICDPrompting(self.processor))
        return self.prompts.scores_and_labels(trainer.predict(self.prompts.rows))


class MSMNSplit:
    """A split and the MSMN that scores it.

    Args:
        arguments: what to evaluate on what.
        corpus: with the split.

    Attributes:
        code_set: of the model; of the corpus where `codes` names one.

    Raises:
        ValueError: codes that the model does not know, or that no note has.
    """

    def __init__(self, arguments: EvaluationArguments, corpus: Corpus):
        self.scorer = MSMNFirstStage.from_pretrained(arguments.model, arguments.batch_size)
        known = {code: column for column, code in enumerate(self.scorer.codes)}
        described = {code: corpus.code_set.describe(found) for code in known if (found := corpus.code_set.find(code))}
        self.code_set = ICDCodeSet(list(known), described)
        if arguments.codes != OWN_CODES:
            self.code_set = corpus.code_set
        unknown = [code for code in self.code_set if code not in known]
        if unknown:
            raise ValueError(
                f"codes={arguments.codes} has {len(unknown)} codes that {arguments.model} was not trained on, such as "
                f"{unknown[0]}; leave --codes out to evaluate its own."
            )
        self.columns = [known[code] for code in self.code_set]
        self.notes: Dataset = respell_gold(corpus.dataset[arguments.split], self.code_set)
        require_labels(arguments, self.notes, self.code_set)

    def scores_and_labels(self, training: TrainingArguments) -> tuple[np.ndarray, np.ndarray]:
        """`(notes, codes)` each, in the order of the split."""
        self.scorer.model.to(training.device)
        # Notes of similar length make full batches.
        order = np.argsort([len(text) for text in self.notes["text"]], kind="stable")
        texts = self.notes.select(order)["text"][:]
        size = self.scorer.batch_size
        parts = [self.scorer.scores(texts[start : start + size]) for start in range(0, len(texts), size)]
        scores = np.concatenate(parts)[np.argsort(order)][:, self.columns]
        return scores, np.array([self.code_set.multi_hot(codes) for codes in self.notes["codes"]])


def require_labels(arguments: EvaluationArguments, notes: Dataset, code_set: ICDCodeSet) -> None:
    """Check that there is something to find, before anything is scored.

    Raises:
        ValueError: no note has any of the codes.
    """
    if not any(code in code_set for codes in notes["codes"] for code in codes):
        raise ValueError(
            f"corpus={arguments.corpus}: no note of the split {arguments.split} has any of the {len(code_set)} codes "
            f"(codes={arguments.codes}) of {arguments.model}; pass the --corpus of its training, or --codes all or a "
            "file of codes that the notes have."
        )


def count_unknown(corpus: Corpus, split: str) -> dict[str, int]:
    """How many gold codes of a split are not in the code set: different ones, and over all notes."""
    gold = [code for codes in corpus.dataset[split]["codes"] for code in set(codes)]
    unknown = [code for code in gold if code not in corpus.code_set]
    return {"codes": len(set(unknown)), "assignments": len(unknown), "all_assignments": len(gold)}


if __name__ == "__main__":
    main()
