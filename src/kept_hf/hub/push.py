"""Publishing of trained models, corpora and the metric module: what goes to the Hub, and what never does."""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi

from ..metrics import ICD_METRIC_PATH
from ..models.publication import check_publication, restricted_license
from ..models.whole_file import write_text
from .cards import make_card
from .run_files import RESULTS_FILE

_MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "processor_config.json",
    "code_set.json",
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "README.md",
    "*.py",
)
_PICTURES = ("f1_by_frequency.png", "precision_recall.png", "linking.png")


def push_model(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    token: str | bool | None = None,
    permitted_by: str | None = None,
    base_model: str | None = None,
    base_license: str | None = None,
) -> str:
    """Publish the folder of a run of `kept-hf train`, `train-msmn` or `pretrain`: weights, configuration, processor or
    tokenizer, code and a card.

    The card is written to the folder's README.md. Predictions, checkpoints and settings stay where they are. A push
    that was interrupted goes on where it stopped when it is started again: files that arrived are not sent twice.

    Args:
        folder: what the training command wrote.
        repo_id: "owner/name" on the Hub; created if need be.
        private: whether a new repository is private.
        token: of the Hub; by default the one that `hf auth login` keeps.
        permitted_by: see [`kept_hf.models.publication.check_publication`].
        base_model, base_license: see [`kept_hf.hub.model_card.make_model_card`].

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: `folder` is no folder, or holds no finished run.
        PermissionError: the weights, the notes or the terms come from data under a licence that restricts publication,
            and the repository is public; or it is public, and `private` was asked for.
    """
    folder = _existing(folder)
    card = make_card(folder, repo_id, base_model, base_license)
    for license in _licenses(folder):
        check_publication("this model", license, repo_id, "model", private, token, permitted_by)
    write_text(folder / "README.md", str(card))
    pictures = [name for name in _PICTURES if f"({name})" in card.text]
    return _upload(folder, (*_MODEL_FILES, *pictures), repo_id, "model", private, token)


def push_dataset(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    token: str | bool | None = None,
    permitted_by: str | None = None,
) -> str:
    """Publish a folder that `kept-hf export` wrote: parquet files, code sets and the card.

    Args:
        folder: what the command wrote.
        repo_id, private, token, permitted_by: see [`push_model`].

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: `folder` is no folder, or has no README.md.
        PermissionError: the notes are credentialed, or of unstated licence, and the repository is public.
    """
    folder = _existing(folder)
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(f"folder={os.fspath(folder)!r} has no README.md; kept-hf export writes one.")
    header = DatasetCard.load(folder / "README.md").data.to_dict()
    license = restricted_license(header)
    check_publication("this dataset", license, repo_id, "dataset", private, token, permitted_by)
    # Nothing but what this card is about: the folder may hold configurations of another corpus.
    files = {data["path"] for config in header.get("configs", ()) for data in config["data_files"]}
    code_sets = {f"{Path(path).parent.as_posix()}/code_set.json" for path in files}
    return _upload(folder, ("README.md", *files, *code_sets), repo_id, "dataset", private, token)


def push_metric(repo_id: str, private: bool | None = None, token: str | bool | None = None) -> str:
    """Publish the metric module as a Space, for `evaluate.load(repo_id)`.

    Args:
        repo_id: "owner/icd_coding": `evaluate` looks for a module of the Space's name.
        private, token: see [`push_model`].

    Returns:
        The address of the commit.

    Raises:
        ValueError: the name is another.
    """
    if repo_id.rpartition("/")[2] != "icd_coding":
        raise ValueError(f"repo_id={repo_id!r}: the Space must be called icd_coding, like the module that it holds.")
    return _upload(Path(ICD_METRIC_PATH), ("README.md", "*.py"), repo_id, "space", private, token)


def _licenses(folder: Path) -> set[str | None]:
    """Of the data that a model was made of: those that its configuration and its run's results name."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"folder={os.fspath(folder)!r} has no config.json, so it holds no finished model.")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    corpus = results.get("corpus") or {}
    named = [config.get("data_license"), results.get("data_license"), results.get("base_data_license")]
    return {*named, corpus.get("license")}


def _existing(folder: str | os.PathLike) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"folder={os.fspath(folder)!r} is no folder.")
    return Path(folder)


def _upload(folder: Path, patterns: tuple[str, ...], repo_id: str, repo_type: str, private, token) -> str:
    api = HfApi(token=token)
    # Its answer has the owner, where the caller left that out.
    repo_id = api.create_repo(
        repo_id,
        repo_type=repo_type,
        private=private,
        exist_ok=True,
        space_sdk="static" if repo_type == "space" else None,
    ).repo_id
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise PermissionError(f"private=True, but the repository {repo_id!r} exists and is public; choose another.")
    # By name: to the Hub's patterns "*" also means files in folders, those of checkpoints too.
    files = sorted(
        {
            path.relative_to(folder).as_posix()
            for pattern in patterns
            for path in folder.glob(pattern)
            if path.name[0] != "."
        }
    )
    return str(
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type=repo_type,
            allow_patterns=files,
            commit_message="Push with kept-hf",
        )
    )
