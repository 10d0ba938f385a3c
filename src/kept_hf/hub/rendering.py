"""How a card is written: the templates, and what several of them show in the same way."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from ..reports.escaping import Markdown, markdown_text

TEMPLATES = Path(__file__).parent / "templates"


def render_card(template: str, **values: object) -> ModelCard:
    """A card from a template of `TEMPLATES`; a name in it that has no value is an error.

    Args:
        template: file name.
        values: what the template shows, `card_data` (the header in YAML) among them. Texts are escaped
            ([`kept_hf.reports.escaping.markdown_text`]), but for the header and for what is `Markdown` already: only
            these may have several lines.

    Raises:
        jinja2.UndefinedError: a value is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=lambda value: markdown_text(value) if isinstance(value, str) else value,
    )
    environment.filters["without_folders"] = without_folders
    values["card_data"] = Markdown(values["card_data"])
    return ModelCard(environment.get_template(template).render(**values))


def check_model_ids(*ids: str | None) -> None:
    """Check that these are ids of the Hub, or None.

    Raises:
        ValueError: one is not.
    """
    for model_id in ids:
        if model_id is not None:
            validate_repo_id(model_id)


def card_name(folder: str | os.PathLike, repo_id: str | None) -> str:
    """The title of a card: the name of the repository, or else that of the folder."""
    return repo_id.split("/")[-1] if repo_id else Path(folder).resolve().name


def model_path(repo_id: str | None) -> str:
    """What the snippets of a card load."""
    return repo_id or "path/of/this/folder"


def versions_text(versions: Mapping[str, str]) -> str:
    """Packages with their versions, in a line."""
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def settings_text(settings: Mapping[str, object], left_out: Collection[str]) -> str:
    """Options and their values in a line, without those that are off, and without folders.

    Examples:
        >>> settings_text({"pooling": "cls", "no_siblings": False, "csv_file": "/home/me/a.csv"}, ["csv_file"])
        '`pooling` cls'
        >>> settings_text({"zero_shot_codes": "/home/me/codes.txt", "sizes": [1, 2]}, [])
        '`zero_shot_codes` codes.txt; `sizes` [1, 2]'
    """
    return "; ".join(
        f"`{key}` {_shown_value(value)}"
        for key, value in settings.items()
        if key not in left_out and value is not None and value is not False and value != []
    )


def _shown_value(value: object) -> object:
    if isinstance(value, (str, os.PathLike)):
        return without_folders(os.fspath(value))
    if isinstance(value, (list, tuple)):
        return [_shown_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _shown_value(item) for key, item in value.items()}
    return value


def without_folders(text: str) -> str:
    """The last name of a path; of `name=path` too. Text without a slash stays as it is.

    Examples:
        >>> without_folders("/home/me/my codes.txt"), without_folders("split_file=C:\\\\data\\\\a.csv")
        ('my codes.txt', 'split_file=a.csv')
        >>> without_folders("bias,lm_head")
        'bias,lm_head'
    """
    name, equals, value = text.partition("=")
    if not equals or re.search(r"[/\\]", name):
        name, equals, value = "", "", text
    return name + equals + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
