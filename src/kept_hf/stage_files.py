"""Outputs of stages, kept beside the settings that they were made with, so that nothing is made twice."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from .proposals import Proposals

logger = logging.getLogger(__name__)

MODEL_FILES = ("*.safetensors", "config.json", "processor_config.json", "tokenizer.json")


def is_made(path: Path, settings: dict) -> bool:
    """Whether an output is there that was made with these settings, by what `keep_settings` noted.

    Args:
        path: the output, a file or a folder.
        settings: whatever decides how it comes out, digests of its inputs among them; as JSON keeps it.
    """
    record = path.with_name(path.name + ".settings.json")
    made = path.exists() and record.exists() and json.loads(record.read_text(encoding="utf-8")) == settings
    if made:
        logger.info("%s is there already.", path)
    return made


def keep_settings(path: Path, settings: dict) -> None:
    """Note what an output was made with; once it is complete."""
    record = path.with_name(path.name + ".settings.json")
    record.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


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


def digest_of_proposals(proposals: Proposals) -> str:
    """Short hash of all that proposals hold."""
    return digest(proposals.codes, proposals.note_ids, proposals.indices.tobytes(), proposals.scores.tobytes())


def digest_of_model(path: str) -> str:
    """Short hash of a model's folder; the name of one on the Hub."""
    if not Path(path).is_dir():
        return path
    files = sorted(file for pattern in MODEL_FILES for file in Path(path).glob(pattern))
    return digest(*(part for file in files for part in (file.name, file)))
