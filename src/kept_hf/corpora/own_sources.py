"""Where notes of one's own are read from: tables, and data sets of the library `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets

from ..tables.note_files import TABLES, read_rows, table_kind
from .splits import SPLIT_NAMES

ASK_FOR_FILES = (
    "pass split=FILE for train, validation and test, or one file that is split: "
    f"{', '.join(TABLES)} with the columns text and codes, or the name or folder of a data set"
)


@dataclass
class Source:
    """Where notes are read from.

    Attributes:
        name: as the user wrote it, for messages.
        dataset: of the library `datasets`; None where `name` is a table.
    """

    name: str
    dataset: datasets.Dataset | None = None

    def rows(self, columns: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
        """As [`kept_hf.tables.note_files.read_rows`]."""
        if self.dataset is None:
            yield from read_rows(self.name, columns, optional, "data_files")
            return
        names = self.dataset.column_names
        missing = [column for column in columns if column not in names]
        if missing:
            raise ValueError(
                f"data_files has {self.name!r}, which has no column {', '.join(missing)}; it has: {', '.join(names)}."
            )
        wanted = self.dataset.select_columns([name for name in (*columns, *optional) if name in names])
        for number, row in enumerate(wanted, start=1):
            yield f"{self.name}, row {number}", row


def find_sources(data_files: object, cache_dir: str | os.PathLike | None = None) -> dict[str, Source]:
    """Split → its source; the split is "" where the notes are to be split.

    Raises:
        FileNotFoundError, ValueError: see `kept_hf.corpora.own.load`.
    """
    named = _split_names(data_files)
    if list(named) == [""]:
        loaded = _open_source(named[""], cache_dir)
        if not isinstance(loaded, Source) and len(loaded) > 1:
            return _splits_of(named[""], loaded)
        return {"": loaded if isinstance(loaded, Source) else Source(named[""], *loaded.values())}
    sources = {split: _source_of_split(split, path, cache_dir) for split, path in named.items()}
    return {"": sources["train"]} if list(sources) == ["train"] else sources


def _splits_of(name: str, loaded: datasets.DatasetDict) -> dict[str, Source]:
    """The splits that a data set has."""
    sources = {_split_name(split): Source(f"{name} ({split})", rows) for split, rows in loaded.items()}
    if len(sources) < len(loaded):
        raise ValueError(f"data_files has {name!r}, a data set with the splits {', '.join(loaded)}, two of one kind.")
    return sources


def _source_of_split(split: str, path: str, cache_dir: str | os.PathLike | None) -> Source:
    """A table, or the split of a data set with this name, or its only one."""
    loaded = _open_source(path, cache_dir)
    if isinstance(loaded, Source):
        return loaded
    if len(loaded) == 1:
        return Source(path, *loaded.values())
    sources = _splits_of(path, loaded)
    if split not in sources:
        raise ValueError(
            f"data_files has {split}={path!r}, a data set without a split {split}; it has: {', '.join(loaded)}."
        )
    return sources[split]


def _split_names(data_files: object) -> dict[str, str]:
    """Split → path or name; the split is "" where none is named."""
    if not data_files:
        raise ValueError(f"data_files={data_files!r}, but the corpus 'own' is read from files; {ASK_FOR_FILES}.")
    if isinstance(data_files, Mapping):
        pairs = [(str(split), os.fspath(path)) for split, path in data_files.items()]
    else:
        items = [data_files] if isinstance(data_files, (str, os.PathLike)) else data_files
        pairs = [_split_and_path(os.fspath(item)) for item in items]
    named: dict[str, str] = {}
    for split, path in pairs:
        split = _split_name(split) if split else ""
        if split in named:
            what = f"{split} twice" if split else "several files without a split"
            raise ValueError(f"data_files={shown(data_files)} has {what}; {ASK_FOR_FILES}.")
        if os.path.realpath(path) in map(os.path.realpath, named.values()):
            raise ValueError(f"data_files={shown(data_files)} has one file in two splits; {ASK_FOR_FILES}.")
        named[split] = path
    if "" in named and len(named) > 1:
        raise ValueError(f"data_files={shown(data_files)} has a file without a split; {ASK_FOR_FILES}.")
    return named


def _split_and_path(item: str) -> tuple[str, str]:
    split, equals, path = item.partition("=")
    return (split, path) if equals and not os.path.exists(item) else ("", item)


def _split_name(name: str) -> str:
    if name not in SPLIT_NAMES:
        raise ValueError(f"data_files has the split {name!r}; the splits are: {', '.join(SPLIT_NAMES)}.")
    return SPLIT_NAMES[name]


def _open_source(name: str, cache_dir: str | os.PathLike | None) -> Source | datasets.DatasetDict:
    """A table, or the splits of a data set."""
    path = Path(name).expanduser()
    if path.is_file():
        if table_kind(path) is None:
            raise ValueError(f"data_files has {name!r}, which is no table; pass one that ends in {', '.join(TABLES)}.")
        return Source(os.path.abspath(path))
    if not path.is_dir() and (table_kind(name) or name.count("/") > 1 or path.is_absolute() or name.startswith(".")):
        raise FileNotFoundError(f"data_files has {name!r}, which does not exist; {ASK_FOR_FILES}.")
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(path)
        else:
            loaded = datasets.load_dataset(str(path) if path.is_dir() else name, cache_dir=cache_dir)
    except Exception as error:  # of many kinds
        raise FileNotFoundError(
            f"data_files has {name!r}, which is no file, and cannot be loaded as a data set "
            f"({type(error).__name__}); {ASK_FOR_FILES}."
        ) from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict(train=loaded)


def shown(data_files: object) -> str:
    """As the command line has them."""
    if isinstance(data_files, Mapping):
        return " ".join(f"{split}={os.fspath(path)}" for split, path in data_files.items())
    items = [data_files] if isinstance(data_files, (str, os.PathLike)) else data_files
    return " ".join(os.fspath(item) for item in items)
