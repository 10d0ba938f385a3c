"""Splits of notes that must not become public by accident."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import ClassVar

import datasets

from ..models.publication import CREDENTIALED, UNSTATED, check_publication


class RestrictedDataset(datasets.Dataset):
    """Notes, or what `map`, `filter` and the like made of them, under the licence that their `info` names."""

    def push_to_hub(self, repo_id, *args, private=None, token=None, permitted_by=None, **kwargs):
        """As in datasets, but to a private repository only, unless `permitted_by` names what allows another.

        Raises:
            PermissionError: see [`kept_hf.models.publication.check_publication`].
        """
        check_publication("this dataset", self.info.license, repo_id, "dataset", private, token, permitted_by)
        return super().push_to_hub(repo_id, *args, private=private, token=token, **kwargs)


class RestrictedDatasetDict(datasets.DatasetDict):
    """Splits of notes under one of `kept_hf.models.publication.RESTRICTED`.

    Its splits, and what `map`, `filter`, `train_test_split` and the like make of them, are restricted too. What
    `datasets.concatenate_datasets` or `load_from_disk` give is a plain data set, which refuses nothing.
    """

    license: ClassVar[str]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for split, rows in self.items():
            self[split] = _restricted(rows, self.license)

    def push_to_hub(self, repo_id, *args, private=None, token=None, permitted_by=None, **kwargs):
        """As in datasets, but to a private repository only, unless `permitted_by` names what allows another.

        Raises:
            PermissionError: see [`kept_hf.models.publication.check_publication`].
        """
        check_publication("this dataset", self.license, repo_id, "dataset", private, token, permitted_by)
        return super().push_to_hub(repo_id, *args, private=private, token=token, **kwargs)


class CredentialedDatasetDict(RestrictedDatasetDict):
    """Splits of notes that only people with their own access may have."""

    license = CREDENTIALED


class UnstatedDatasetDict(RestrictedDatasetDict):
    """Splits of notes whose licence is not stated."""

    license = UNSTATED


_SPLITS = {CREDENTIALED: CredentialedDatasetDict, UNSTATED: UnstatedDatasetDict}


def _restricted(made: object, license: str) -> object:
    """The same data set, which refuses to become public; anything else as it is."""
    if isinstance(made, datasets.DatasetDict):
        return made if isinstance(made, RestrictedDatasetDict) else _SPLITS[license](made)
    if isinstance(made, datasets.Dataset) and not isinstance(made, RestrictedDataset):
        made = copy.copy(made)
        made.__class__ = RestrictedDataset
        made._info = made.info.copy()
        made.info.license = license
    return made


def _stays_restricted(method: Callable) -> Callable:
    """A method of `datasets`, which names its own classes where it makes a data set."""

    @functools.wraps(method)
    def made_by_method(self, *args, **kwargs):
        license = self.info.license if isinstance(self, datasets.Dataset) else self.license
        return _restricted(method(self, *args, **kwargs), license)

    return made_by_method


for _class in (RestrictedDataset, RestrictedDatasetDict):
    for _name, _method in vars(_class.__base__).items():
        _made = getattr(_method, "__annotations__", {}).get("return")
        if not _name.startswith("_") and callable(_method) and _made in ("Dataset", "DatasetDict"):
            setattr(_class, _name, _stays_restricted(_method))
