"""Which data may be published, and with it what was made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

CREDENTIALED = "PhysioNet Credentialed Health Data License 1.5.0"
"""Licence of data that only people with their own access may have."""

UMLS = "UMLS Metathesaurus License Agreement"
"""Licence of terms that everyone who works with them must hold."""

UNSTATED = "unstated licence of notes of one's own"
"""Of notes whose licence was not told: they may be credentialed."""

RESTRICTED = {CREDENTIALED: "physionet-credentialed-1.5.0", UMLS: "umls-metathesaurus", UNSTATED: "unstated"}
"""Licences under which nothing is made public without a permission → their names in the header of a card."""


def joint_license(*licenses: str | None) -> str | None:
    """`config.data_license` of weights that were made from several sources, one after the other or together.

    Returns:
        The first of `RESTRICTED` among them, since such weights keep what they were made of; otherwise all of them,
        each once. None where there is none.

    Examples:
        >>> joint_license("cc-by-4.0", CREDENTIALED)
        'PhysioNet Credentialed Health Data License 1.5.0'
        >>> joint_license(None, "cc-by-4.0", "apache-2.0", "cc-by-4.0")
        'cc-by-4.0; apache-2.0'
        >>> joint_license("cc-by-4.0; apache-2.0", "apache-2.0")
        'cc-by-4.0; apache-2.0'
    """
    for license in RESTRICTED:
        if license in licenses:
            return license
    single = [part for license in licenses if license for part in license.split("; ")]
    return "; ".join(dict.fromkeys(single)) or None


def license_metadata(license: str) -> dict[str, str]:
    """How the header of a card on the Hub names a licence.

    Examples:
        >>> license_metadata("cc-by-4.0")
        {'license': 'cc-by-4.0'}
        >>> license_metadata(CREDENTIALED)
        {'license': 'other', 'license_name': 'physionet-credentialed-1.5.0'}
    """
    if license in RESTRICTED:
        return {"license": "other", "license_name": RESTRICTED[license]}
    return {"license": license}


def restricted_license(header: Mapping[str, object]) -> str | None:
    """The one of `RESTRICTED` that the header of a card names.

    Examples:
        >>> restricted_license({"license": "other", "license_name": "umls-metathesaurus", "tags": []})
        'UMLS Metathesaurus License Agreement'
    """
    return next((name for name in RESTRICTED if license_metadata(name).items() <= header.items()), None)


def check_publication(
    what: str,
    license: str | None,
    repo_id: str,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    permitted_by: str | None = None,
    remedy: str = "Pass private=True and a repository that is private, or name in permitted_by the licence or "
    "permission that allows it.",
) -> None:
    """Refuse to make public what comes from data that only people with their own access may have.

    Args:
        what: what is to be pushed, for the message.
        license: of the data it comes from.
        repo_id: where to; a repository that exists is asked whether it is private. Without an owner it is the user's.
        repo_type: "model", "dataset" or "space".
        private: what a repository that does not exist yet will be.
        token: of the Hub.
        permitted_by: the licence or permission that allows publication all the same.
        remedy: what to pass instead, for the message.

    Raises:
        PermissionError: the licence is one of `RESTRICTED`, the repository is public, and nothing permits it.
    """
    if license not in RESTRICTED or (permitted_by and permitted_by.strip()):
        return
    api = HfApi(token=token)
    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    try:
        is_private = api.repo_info(repo_id, repo_type=repo_type).private
    except RepositoryNotFoundError:
        is_private = private
    if not is_private:
        raise PermissionError(
            f"repo_id={repo_id!r} is a public repository, and {what} comes from data under the {license}: models and "
            "predictions can give away what they were made of, and whoever reads them needs access of their own. "
            f"{remedy}"
        )


class PublicationMixin:
    """For a class, before transformers' own: what was made of credentialed data does not go public unasked."""

    published_as = "this model"

    @property
    def _data_license(self) -> str | None:
        return self.config.data_license

    def save_pretrained(self, save_directory, push_to_hub=False, permitted_by=None, **kwargs):
        """As in transformers; with `push_to_hub` see there."""
        if push_to_hub:
            self._check_publication(kwargs.get("repo_id", os.path.basename(save_directory)), permitted_by, kwargs)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def push_to_hub(self, repo_id, *, permitted_by=None, **kwargs):
        """As in transformers, but what was made of credentialed data (`data_license`, of a model in its configuration)
        only goes public by an explicit permission.

        Args:
            repo_id: where to.
            permitted_by: the licence or permission that allows it.
            kwargs: `private`, `token`, `revision`, … as in transformers.

        Raises:
            PermissionError: see [`check_publication`].
        """
        self._check_publication(repo_id, permitted_by, kwargs)
        return super().push_to_hub(repo_id, **kwargs)

    def _check_publication(self, repo_id, permitted_by, options):
        check_publication(
            self.published_as,
            self._data_license,
            repo_id,
            private=options.get("private"),
            token=options.get("token"),
            permitted_by=permitted_by,
        )
