"""Tensors as bytes: safetensors files that are written in parts, and hashes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}


def add_tensors(digest, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Add tensors with their names to a hash.

    Args:
        digest: of `hashlib`.
        tensors: such as `model.named_parameters()`.

    Examples:
        >>> import hashlib
        >>> one, other = hashlib.sha256(), hashlib.sha256()
        >>> add_tensors(one, [("weight", torch.zeros(2))])
        >>> add_tensors(other, [("weight", torch.zeros(2, 1))])
        >>> one.hexdigest() == other.hexdigest()
        False
    """
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


@contextmanager
def tensor_file(
    path: str | os.PathLike, tensors: Mapping[str, tuple[Sequence[int], torch.dtype]], metadata: Mapping[str, str]
) -> Iterator[dict[str, torch.Tensor]]:
    """Write a safetensors file of known shapes in parts.

    The tensors are mapped to a file beside `path`, so what is filled in takes no memory of its own. It becomes loadable
    and takes its place under `path` when the `with` block has ended; after an error nothing of it is left.

    Args:
        path: of the file.
        tensors: name → shape and precision.
        metadata: of the file.

    Yields:
        Name → tensor to fill, zero until then.

    Raises:
        TypeError: a precision other than float32, float16, bfloat16 and float64.

    Source: https://huggingface.co/docs/safetensors, "Format".

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.torch import load_file
        >>> with TemporaryDirectory() as folder:
        ...     with tensor_file(f"{folder}/a.safetensors", {"a": ((2, 2), torch.float32)}, {}) as tensors:
        ...         tensors["a"][1] = torch.tensor([3.0, 4.0])
        ...     load_file(f"{folder}/a.safetensors")["a"].tolist()
        [[0.0, 0.0], [3.0, 4.0]]
    """
    header, end = {"__metadata__": dict(metadata)}, 0
    # Larger elements first, so that each tensor begins at a multiple of its element's size.
    for name, (shape, dtype) in sorted(tensors.items(), key=lambda item: -item[1][1].itemsize):
        if dtype not in NAMES:
            raise TypeError(f"tensors has {name!r} in {dtype}; pass one of {', '.join(map(str, NAMES))}.")
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    start = 8 + len(encoded)
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        open(unfinished, "wb").close()  # with the permissions of other files, not of shared memory
        mapped = torch.from_file(unfinished, shared=True, size=start + end, dtype=torch.uint8)
        yield {
            name: mapped[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
            .view(tensors[name][1])
            .view(entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
        # The header last: until then the file begins with a length of zero, and is none.
        with open(unfinished, "r+b") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
