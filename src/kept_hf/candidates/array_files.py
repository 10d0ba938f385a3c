"""Arrays in an npz file with a checksum, so that a damaged one is noticed."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import BinaryIO

import numpy as np

from ..models.whole_file import whole_file

_CHECKSUM = "checksum"
# NotImplementedError: another compression; RuntimeError: a password; the others of what a damaged header says.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(OSError, ValueError, TypeError, LookupError, SyntaxError, OverflowError, MemoryError, tokenize.TokenError),
)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz file, which `numpy.load` reads too.

    Args:
        path: of the file.
        arrays: name → numbers or text.
    """
    members = {name: _npy_bytes(array) for name, array in arrays.items()}
    with whole_file(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # First, so that a list of members that has lost its end does not look like one without a checksum.
        for name, content in {_CHECKSUM: _npy_bytes(np.array(_checksum(members))), **members}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(content)


def read_arrays(
    path: str | os.PathLike,
    kinds: Mapping[str, tuple[str, int]],
    optional: Collection[str],
    what: str,
    saved_by: str,
) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote, or an npz file without a checksum.

    Args:
        path: of the file.
        kinds: name → kind of `numpy.dtype` and number of dimensions of each array.
        optional: those that may be missing.
        what: the content, for messages.
        saved_by: what writes such files, for messages.

    Raises:
        ValueError: the file holds something else, or is damaged. The message quotes nothing of it.
        OSError: there is no such file, or it cannot be read.

    Examples:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "arrays.npz")
        >>> write_arrays(path, {"counts": np.array([3, 4])})
        >>> read_arrays(path, {"counts": ("i", 1)}, (), "counts", "write_arrays")
        {'counts': array([3, 4])}
    """
    named = f"path={os.fspath(path)!r}"
    with open(path, "rb") as file:
        try:
            members = _read_members(file) if zipfile.is_zipfile(file) else {}
        except _DAMAGE:
            raise ValueError(f"{named} is damaged; make the {what} again.") from None
    if not kinds.keys() - optional <= members.keys() <= kinds.keys() | {_CHECKSUM}:
        raise ValueError(f"{named} holds no {what}; pass a file that {saved_by} wrote.")
    checksum = members.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _npy_bytes(np.array(_checksum(members))):
        raise ValueError(f"{named} is damaged: its content is not what was saved; make the {what} again.")
    try:
        return {name: _read_array(content, *kinds[name]) for name, content in members.items()}
    except _DAMAGE:
        raise ValueError(f"{named} holds other arrays than {what}, or is damaged; make them again.") from None


def _read_members(file: BinaryIO) -> dict[str, bytes]:
    """The content of an archive's members. numpy would not look at all of their names, nor behind their arrays."""
    with zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        if len(members) < len(archive.namelist()):
            raise zipfile.BadZipFile("a member twice")
        return members


def _npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _read_array(content: bytes, kind: str, dimensions: int) -> np.ndarray:
    file = io.BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1) or array.dtype.kind != kind or array.ndim != dimensions:
        raise ValueError("another type, shape or length")
    return array


def _checksum(members: Mapping[str, bytes]) -> str:
    """Of the names and the content of an archive's members."""
    digest = hashlib.sha256()
    for name, content in sorted(members.items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()
