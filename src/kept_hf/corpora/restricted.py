"""Splits of notes that must not become public by accident."""

from __future__ import annotations

from typing import ClassVar

import datasets

from ..models.publication import CREDENTIALED, UNSTATED, check_publication


class RestrictedDatasetDict(datasets.DatasetDict):
    """Splits of notes under one of `kept_hf.models.publication.RESTRICTED`.

    What `map`, `filter` and the like make of them is a plain `DatasetDict`, which refuses nothing.
    """

    license: ClassVar[str]

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
