"""Text for pretraining: notes of a corpus or of files, names of a term graph; and what is held out of it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..corpora import CORPORA, load_corpus, load_unlabelled
from ..corpora.arguments import corpus_options, named_option
from ..knowledge import SOURCES, TermGraph
from ..models.publication import UNSTATED
from ..tables.note_files import TABLES, read_texts

logger = logging.getLogger(__name__)


@dataclass
class NoteArguments:
    """The notes, as options of a command."""

    corpus: str | None = field(default=None, metadata={"help": f"One of: {', '.join(CORPORA)}."})
    corpus_options: list[str] = field(
        default_factory=list,
        metadata={"help": "Further options of the corpus: config=50 (mimic3), config=icd9 (mimic4), language=es …"},
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the corpus."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where built corpora are kept."})
    text_files: list[str] = field(
        default_factory=list,
        metadata={"help": f"Notes: text files, one each, folders of .txt files, tables ({', '.join(TABLES)})."},
    )
    text_column: str = field(default="text", metadata={"help": "Column of tables among them."})
    data_license: str | None = field(
        default=None,
        metadata={"help": "Licence of the text files, such as cc-by-4.0. Without it the weights stay private."},
    )


@dataclass
class TextSource:
    """Where text is from, for the card.

    Attributes:
        title: what it is.
        license: under which it may be used.
        notes: how many texts of it are trained on, and how many are held out, or how many concepts.
        credit: how to cite it.
        language: two-letter code, where it is known.
    """

    title: str
    license: str
    notes: dict[str, int] = field(default_factory=dict)
    credit: str | None = None
    language: str | None = None


def hold_out(notes: Iterable[str], most: int) -> tuple[list[str], list[str]]:
    """Keep up to `most` notes from training, and a tenth at most, whatever the order in which they come.

    Returns:
        Notes to train on and notes held out, without duplicates.

    Raises:
        ValueError: fewer than two different notes.

    Examples:
        >>> train, held_out = hold_out([f"note {number}" for number in range(30)], most=250)
        >>> len(train), len(held_out)
        (27, 3)
    """
    by_hash = {hashlib.sha256(note.encode()).digest(): note for note in notes}
    if len(by_hash) < 2:
        raise ValueError(
            f"There {'is one note' if by_hash else 'are no notes'}; training needs one at least, and another that is "
            "held out for evaluation."
        )
    chosen = sorted(by_hash)[: max(1, min(most, len(by_hash) // 10))]
    held_out = [by_hash.pop(key) for key in chosen]
    return list(by_hash.values()), held_out


def without_copies(notes: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """The notes that are not among those held out, whatever their case and white space.

    Examples:
        >>> without_copies(["A  fall.", "Sepsis."], ["a fall."])
        ['Sepsis.']
    """
    known = {" ".join(note.lower().split()) for note in held_out}
    return [note for note in notes if " ".join(note.lower().split()) not in known]


def corpus_notes(
    name: str,
    data_dir: str | os.PathLike | None,
    cache_dir: str | os.PathLike | None,
    options: dict[str, object],
    most_held_out: int,
) -> tuple[list[str], list[str], TextSource]:
    """Notes of the train split and texts without codes; held-out ones of the validation split. No other is used.

    Args:
        name, data_dir, cache_dir, options: of [`kept_hf.corpora.load_corpus`].
        most_held_out: of the validation split, chosen by a hash of the text. Where there is none: see `hold_out`.

    Returns:
        Notes to train on, notes held out, where they are from.

    Raises:
        ValueError: no train split, and what `load_corpus` raises.
    """
    corpus = load_corpus(name, data_dir, cache_dir, **options)
    if "train" not in corpus.dataset:
        raise ValueError(f"corpus={name!r} has the splits {', '.join(corpus.dataset)}; add the folder of train.")
    train = [*corpus.dataset["train"]["text"], *load_unlabelled(name, data_dir, **options)]
    if "validation" in corpus.dataset:
        held_out = sorted(corpus.dataset["validation"]["text"], key=lambda note: hashlib.sha256(note.encode()).digest())
        held_out = held_out[:most_held_out]
    else:
        train, held_out = hold_out(train, most_held_out)
    card = corpus.card
    return train, held_out, TextSource(card.title, card.license, credit=card.source, language=card.language)


def read_notes(arguments: NoteArguments, most_held_out: int) -> tuple[list[str], list[str], list[TextSource]]:
    """The notes that the options name, of a corpus, of files, or of both.

    Args:
        arguments: at least one of `corpus` and `text_files`.
        most_held_out: notes of each to keep from training.

    Returns:
        Notes to train on, none twice and none that is held out; notes held out; where they are from.

    Raises:
        ValueError: no notes are named, or none is left.
    """
    if arguments.corpus is None and not arguments.text_files:
        raise ValueError("corpus=None and no text_files: there are no notes; pass --corpus or --text_files, or both.")
    notes, held_out, sources = [], [], []
    if arguments.corpus is not None:
        options = corpus_options(arguments.corpus_options)
        with named_option("name", "--corpus"):
            train, held, source = corpus_notes(
                arguments.corpus, arguments.data_dir, arguments.cache_dir, options, most_held_out
            )
        source.notes = {"trained on": len(train), "held out": len(held)}
        notes, held_out, sources = train, held, [source]
    if arguments.text_files:
        texts = read_texts(arguments.text_files, arguments.text_column, "text_files")
        train, held = hold_out(texts, most_held_out)
        counts = {"trained on": len(train), "held out": len(held)}
        notes, held_out = notes + train, held_out + held
        sources.append(TextSource("Notes of one's own", arguments.data_license or UNSTATED, counts))
    unique = without_copies(dict.fromkeys(notes), held_out)
    if len(unique) < len(notes):
        logger.info("%d notes are not used: they are copies of others, or of held-out ones.", len(notes) - len(unique))
    if not unique:
        raise ValueError(f"corpus={arguments.corpus!r} has no note that is not held out, too; pass more notes.")
    return unique, held_out, sources


def hide_text_files(settings: dict, argv: Sequence[str], notes: Iterable[str]) -> tuple[dict, str]:
    """Settings and command without the names of the text files, which may be names of patients."""
    if not settings["text_files"]:
        return settings, " ".join(argv)
    content = hashlib.sha256("\0".join(notes).encode()).hexdigest()[:12]
    shown = [word for word in argv if word not in settings["text_files"]]
    shown = [word.partition("=")[0] if word.startswith("--text_files=") else word for word in shown]
    return {**settings, "text_files": f"{len(settings['text_files'])} paths, content {content}"}, " ".join(shown)


def concept_texts(graph: TermGraph, most: int | None = None) -> list[str]:
    """The names of each concept as a line of text, relatives near each other, as the sources have them.

    Args:
        graph: names and hierarchy.
        most: take the concepts in even steps, so that there are no more than this.

    Examples:
        >>> graph = TermGraph.from_tables(["a", "a", "b"], ["Sepsis", "Septicemia", "Shock"], ["preferred", "synonym",
        ...     "preferred"], [], [])
        >>> concept_texts(graph)
        ['Sepsis; Septicemia.', 'Shock.']
    """
    step = 1 if most is None else max(1, -(-graph.num_concepts // most))
    return ["; ".join(graph.names_of(concept)) + "." for concept in range(0, graph.num_concepts, step)]


def term_sources(graph: TermGraph) -> list[TextSource]:
    """Where the names of a graph are from."""
    known = [SOURCES.get(source, SOURCES["csv"]) for source in graph.sources]
    return [TextSource(source.title, source.license) for source in known]
