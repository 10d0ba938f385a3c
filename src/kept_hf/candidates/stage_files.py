"""The outputs of stages with the settings they were made with, so that nothing is made twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from ..knowledge import TermGraph
from ..models.whole_file import write_text
from .candidates import Candidates

logger = logging.getLogger(__name__)

MODEL_FILES = (
    "*.safetensors",
    "pytorch_model*.bin",
    "config.json",
    "processor_config.json",
    "code_set.json",
    "tokenizer.json",
    "vocab.txt",
)


def is_made(path: Path, settings: dict) -> bool:
    """Whether an output exists that was made with these settings, as `keep_settings` recorded them.

    If not, the record is deleted, since the output is about to be made again: a run that stops before `keep_settings`
    leaves nothing that looks complete.

    Args:
        path: the output, a file or a folder.
        settings: all that the output depends on, with digests of its inputs; as JSON keeps it.
    """
    record = _record_of(path)
    try:
        made = path.exists() and json.loads(record.read_text(encoding="utf-8")) == settings
    except (FileNotFoundError, ValueError, RecursionError):  # the others: no JSON, or nested too deeply
        made = False
    if made:
        logger.info("%s exists already.", path)
    else:
        record.unlink(missing_ok=True)
    return made


def keep_settings(path: Path, settings: dict) -> None:
    """Record the settings that an output was made with, once it is complete."""
    write_text(_record_of(path), json.dumps(settings, indent=1) + "\n")


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".settings.json")


def digest(*parts: object) -> str:
    """Short hash of texts, bytes and the content of files.

    Examples:
        >>> digest("ab", "c") == digest("a", "bc")
        False
    """
    result = hashlib.sha256()
    for part in parts:
        content = (
            part.read_bytes() if isinstance(part, Path) else part if isinstance(part, bytes) else str(part).encode()
        )
        result.update(len(content).to_bytes(8, "little") + content)
    return result.hexdigest()[:16]


def digest_of_notes(splits: Mapping[str, Dataset]) -> str:
    """Short hash of the texts, ids and codes of the notes of a corpus."""
    columns = [notes[name] for notes in splits.values() for name in ("text", "note_id", "codes")]
    return digest(*(value if isinstance(value, str) else ",".join(value) for column in columns for value in column))


def digest_of_terms(graph: TermGraph) -> str:
    """Short hash of the concepts, names and edges of a graph."""
    arrays = graph.arrays
    texts = ("\n".join(column.to_pylist()) for column in (arrays.concept_ids, arrays.names.texts))
    numbers = (arrays.names.concepts, arrays.names.kinds, arrays.children, arrays.parents)
    return digest(*texts, *(array.tobytes() for array in numbers))


def digest_of_candidates(candidates: Candidates) -> str:
    """Short hash of candidates: their codes, scores and notes."""
    return digest(candidates.codes, candidates.note_ids, candidates.indices.tobytes(), candidates.scores.tobytes())


def digest_of_model(path: str) -> str:
    """Short hash of the files of a model; for a model on the Hub its id."""
    if not Path(path).is_dir():
        return path
    files = sorted(file for pattern in MODEL_FILES for file in Path(path).glob(pattern))
    return digest(*(part for file in files for part in (file.name, file)))
