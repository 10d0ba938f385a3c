"""The files that travel with a model: those of `kept_hf/models`."""

from pathlib import Path

MODELS = Path(__file__).parents[1] / "src" / "kept_hf" / "models"
FILES = sorted(path.stem for path in MODELS.glob("*.py") if path.stem != "__init__")

PUBLISHED_MSMN = tuple(
    name for name in FILES if name.endswith("_msmn") or name in ("loading", "publication", "whole_file")
)
"""A folder of one model holds nothing of the other."""
PUBLISHED = tuple(name for name in FILES if not name.endswith("_msmn"))
