"""Notes and codes as options of the commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

from . import CORPORA, Corpus, load_corpus
from .selection import select_codes

_OPTIONS_OF_A_CORPUS = ("data_files", "codes_file", "data_license")
"""Fields that are options of `load_corpus` for a corpus that has them; others refuse them."""


@dataclass
class CorpusArguments:
    """The notes and their codes, for `transformers.HfArgumentParser`."""

    corpus: str = field(default="demo", metadata={"help": f"One of: {', '.join(CORPORA)}."})
    corpus_options: list[str] = field(
        default_factory=list,
        metadata={"help": "Further options of the corpus: config=rare50 (mimic3), config=icd9 (mimic4), language=es …"},
    )
    codes: str = field(
        default="all",
        metadata={"help": "all, top50, rare50 (rules that count in the corpus), or a file with one code a line."},
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the corpus."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where built corpora are kept."})
    data_files: list[str] = field(
        default_factory=list,
        metadata={
            "help": "With corpus=own: split=FILE for train, validation and test, or one file that is split: .csv, "
            ".jsonl, .parquet, or the name or folder of a data set (docs/own_notes.md)."
        },
    )
    codes_file: str | None = field(
        default=None, metadata={"help": "With corpus=own: CSV with the columns code, description, synonyms."}
    )
    data_license: str | None = field(
        default=None,
        metadata={"help": "With corpus=own: licence of the notes, such as cc-by-4.0. Without it models stay private."},
    )


def corpus_options(options: Sequence[str]) -> dict[str, object]:
    """`--corpus_options` as keyword arguments of `load_corpus`.

    Raises:
        ValueError: an option without "=", or whose value is no YAML.

    Examples:
        >>> corpus_options(["config=rare50", "seed=1"])
        {'config': 'rare50', 'seed': 1}
    """
    result = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:
            raise ValueError(f"corpus_options has {option!r}; write name=value, such as config=rare50.")
        try:
            result[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(
                f"corpus_options has {option!r}, whose value cannot be read; close its brackets and quotes, or put "
                "text into quotes."
            ) from None
    return result


@contextmanager
def named_option(argument: str, option: str) -> Iterator[None]:
    """Let an error about an argument of the library name the option of the command that it was given by, too.

    Args:
        argument: of the library function; errors that do not begin with it stay as they are.
        option: as the command line has it.

    Examples:
        >>> with named_option("rule", "--codes"):  # doctest: +SKIP
        ...     select_codes(corpus, "nope")
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(f"{argument}="):
            raise
        raise ValueError(f"{error} This is the option {option}.") from error


def read_corpus(arguments: CorpusArguments) -> Corpus:
    """The corpus that the arguments name, with the codes that they choose.

    Args:
        arguments: `CorpusArguments`, or anything with its fields.

    Raises:
        ValueError, FileNotFoundError: as `corpus_options`, `load_corpus` and `select_codes`.

    Examples:
        >>> read_corpus(CorpusArguments(codes="top50")).code_set.codes[:2]  # doctest: +SKIP
        ('038.9', '250.00')
    """
    options = corpus_options(arguments.corpus_options)
    for name in _OPTIONS_OF_A_CORPUS:
        if getattr(arguments, name):
            options[name] = getattr(arguments, name)
    with named_option("name", "--corpus"):
        corpus = load_corpus(arguments.corpus, arguments.data_dir, arguments.cache_dir, **options)
    with named_option("rule", "--codes"):
        return select_codes(corpus, arguments.codes)
