"""Resuming of interrupted runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.trainer_utils import get_last_checkpoint

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def checkpoint_to_resume(output_dir: str | os.PathLike, settings: Mapping[str, object]) -> str | None:
    """The last checkpoint of a run's folder, if there is one.

    Raises:
        SystemExit: the folder's `settings.json` is that of a run with other settings.
    """
    folder = Path(output_dir)
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if checkpoint is None:
        return None
    saved = folder / "settings.json"
    before = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        raise SystemExit(
            f"output_dir={folder} holds checkpoints of a run with other settings ("
            + ", ".join(f"{name}: {before.get(name)!r} before, {settings[name]!r} now" for name in changed[:5])
            + "). Pass another --output_dir, or delete them."
        )
    logger.info("Resuming from %s.", checkpoint)
    return checkpoint
