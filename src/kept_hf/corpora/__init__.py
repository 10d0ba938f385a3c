"""Corpora of clinical notes with ICD codes, as importable `datasets` builders.

`load_corpus` is the way in. Builders are instantiated directly, since dataset scripts no longer load, and each keys its
cache by the content of what it reads, its options and its own source: `datasets` itself looks at the folder's name
only, and would serve yesterday's rows after a file or the builder has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..models.code_set import ICDCodeSet

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusCard",
    "corpus_codes",
    "corpus_module",
    "fingerprint",
    "load_corpus",
    "load_unlabelled",
    "require_data_dir",
]

CORPORA = ("codiesp", "demo", "mimic3", "mimic4", "own")
"""The names `load_corpus` knows.

Each is a module here with two functions: `load(data_dir, cache_dir, **options)` gives a `Corpus`, and
`add_arguments(parser)` gives `kept-hf export` its options, the `dest` of each being a parameter of `load`. A third is
there where a corpus has further texts without codes: `load_unlabelled(data_dir, **options)`.
"""


@dataclass(frozen=True)
class CorpusCard:
    """What there is to know about a corpus, for the cards of datasets and models.

    Attributes:
        title: its name.
        summary: what it is, one paragraph.
        source: where it is from and how to cite it.
        license: identifier as the Hub writes it, such as "cc-by-4.0", or `kept_hf.models.publication.CREDENTIALED`.
        language: two-letter code.
        columns: column → meaning.
        caution: a sentence on why figures on other notes will differ.
    """

    title: str
    summary: str
    source: str
    license: str
    language: str
    columns: Mapping[str, str]
    caution: str = "All notes are from one source: others write and code differently."


@dataclass
class Corpus:
    """Notes and their code set.

    Attributes:
        dataset: splits out of "train", "validation" and "test", with the columns `note_id` (text), `text` and `codes`
            (list of dotted codes as text), and whatever further ones the corpus documents.
        code_set: every code of the corpus, in sorted order, with what is known of each.
        card: where it is from, and under which licence.
        mentions: (note_id, code) → how the note mentions the code, where that is known: of made-up notes.
    """

    dataset: DatasetDict
    code_set: ICDCodeSet
    card: CorpusCard
    mentions: Mapping[tuple[str, str], str] = field(default_factory=dict)


def corpus_module(name: str) -> ModuleType:
    """The module of a corpus; see `CORPORA`.

    Raises:
        ValueError: an unknown corpus.
    """
    if name not in CORPORA:
        raise ValueError(f"name={name!r} is no known corpus; pass one of: {', '.join(CORPORA)}.")
    return importlib.import_module(f"{__name__}.{name}")


def load_corpus(
    name: str, data_dir: str | os.PathLike | None = None, cache_dir: str | os.PathLike | None = None, **options: Any
) -> Corpus:
    """Read a corpus.

    Args:
        name: one of `CORPORA`.
        data_dir: the folder with the corpus in its published layout. "demo" needs none, and "own" has `data_files`.
        cache_dir: where the prepared dataset is kept; by default the cache of `datasets`.
        **options: further arguments of the corpus: `codes` ("diagnosis" or "procedure") and `language` ("en" or "es")
            for "codiesp", `seed` for "demo"; see `kept_hf.corpora.mimic3.load`, `kept_hf.corpora.mimic4.load` and, for
            notes of your own, `kept_hf.corpora.own.load`.

    Raises:
        ValueError: an unknown corpus, option or value of one; or files that are not as published.
        FileNotFoundError: no `data_dir` where one is needed, or it lacks something.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     corpus = load_corpus("demo", cache_dir=folder)
        >>> {split: len(rows) for split, rows in corpus.dataset.items()}, len(corpus.code_set)
        ({'train': 320, 'validation': 120, 'test': 160}, 60)
    """
    load = corpus_module(name).load
    legal = [option for option in inspect.signature(load).parameters if option not in ("data_dir", "cache_dir")]
    unknown = sorted(options.keys() - set(legal))
    if unknown:
        raise ValueError(f"The corpus {name!r} has no option {', '.join(unknown)}; it has: {', '.join(legal)}.")
    return load(data_dir=data_dir, cache_dir=cache_dir, **options)


def load_unlabelled(name: str, data_dir: str | os.PathLike | None = None, **options: Any) -> list[str]:
    """Further texts of a corpus, without codes, in a fixed order; none where it has none.

    Args:
        name, data_dir, options: as for `load_corpus`.

    Raises:
        ValueError, FileNotFoundError: as for `load_corpus`.

    Examples:
        >>> load_unlabelled("demo")
        []
    """
    load = getattr(corpus_module(name), "load_unlabelled", None)
    return [] if load is None else load(data_dir, **options)


def corpus_codes(dataset: DatasetDict) -> list[str]:
    """Every code of any split, sorted."""
    return sorted({code for rows in dataset.values() for codes in rows["codes"] for code in codes})


def require_data_dir(name: str, data_dir: str | os.PathLike | None, content: str) -> str:
    """The absolute path of an existing `data_dir`.

    Absolute, because `datasets` keys its cache by the string.

    Args:
        name: the corpus, for the message.
        data_dir: what the user passed.
        content: what must lie in the folder, for the message.

    Raises:
        FileNotFoundError: `data_dir` is missing or no folder.
    """
    if data_dir is None:
        raise FileNotFoundError(
            f"data_dir=None, but the corpus {name!r} is read from a folder; pass one with {content}."
        )
    path = os.path.abspath(os.path.expanduser(os.fspath(data_dir)))
    if not os.path.isdir(path):
        raise FileNotFoundError(f"data_dir={os.fspath(data_dir)!r} is no folder ({path}); pass one with {content}.")
    return path


def fingerprint(files: Iterable[str | os.PathLike], options: Iterable[object] = ()) -> str:
    """A key that changes with the name or content of any of `files` and with any of `options`.

    Args:
        files: data files and source files; the order counts.
        options: values whose `repr` is stable from run to run.
    """
    digest = hashlib.sha256(repr(tuple(options)).encode())
    for path in files:
        with open(path, "rb") as file:
            # The hash of each file has a fixed length, so no two lists of files run together to the same bytes.
            content = hashlib.sha256()
            while block := file.read(1 << 20):
                content.update(block)
        digest.update(hashlib.sha256(os.path.basename(os.fspath(path)).encode()).digest() + content.digest())
    return digest.hexdigest()[:32]
