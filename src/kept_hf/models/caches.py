"""Encodings of names and notes for late interaction that can be kept, and how they are known to be stale or damaged."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .whole_file import whole_path
from .window_similarity import TextVectors

FORMAT = "kept-hf 2"


class StaleCacheError(ValueError):
    """A cache that was made with other weights or other names."""


def weights_fingerprint(encoder: nn.Module) -> str:
    """Hash of an encoder's parameters and of what else its vectors depend on, computed once for their present values.

    Args:
        encoder: a `KeptLongformerModel`.

    Returns:
        64 hexadecimal digits.
    """
    config = encoder.config
    settings = [config.attention_window, config.layer_norm_eps, config.hidden_act, config.num_attention_heads]
    settings += [config.similarity_window, config.similarity_step]
    # peft's layers, which can be switched without a change of parameters.
    adapted = (module for module in encoder.modules() if isinstance(getattr(module, "disable_adapters", None), bool))
    settings += [(module.disable_adapters, list(module.active_adapters)) for module in adapted]
    parameters = [part for name, parameter in encoder.named_parameters() for part in _parts(name, parameter.detach())]
    # Versions count changes in place. Some frameworks write around them (`.data`), so one number of each goes along.
    probes = torch.stack([parameter.flatten()[0].float() for _, parameter in parameters]).tolist()
    state = repr(settings), [(n, p.data_ptr(), p._version, p.dtype) for n, p in parameters], repr(probes)
    known = getattr(encoder, "_known_fingerprint", None)
    packed = [(name, module) for name, module in encoder.named_modules() if callable(getattr(module, "weight", None))]
    # Packed weights tell no version.
    if known is None or packed or known[0] != state:
        digest = hashlib.sha256(state[0].encode())
        add_tensors(digest, parameters)
        add_tensors(digest, ((name, module.weight().dequantize()) for name, module in packed))
        add_tensors(digest, ((name, module.bias()) for name, module in packed if module.bias() is not None))
        encoder._known_fingerprint = known = state, digest.hexdigest()
    return known[1]


def _parts(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """A tensor, or the ones that a quantized one consists of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [(name, tensor)]
    names, _ = tensor.__tensor_flatten__()
    return [part for inner in names for part in _parts(f"{name}.{inner}", getattr(tensor, inner))]


def add_tensors(digest, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Add tensors with their names to a hash.

    Args:
        digest: of `hashlib`.
        tensors: such as `model.named_parameters()`.

    Examples:
        >>> one, other = hashlib.sha256(), hashlib.sha256()
        >>> add_tensors(one, [("weight", torch.zeros(2))])
        >>> add_tensors(other, [("weight", torch.zeros(2, 1))])
        >>> one.hexdigest() == other.hexdigest()
        False
    """
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


@dataclass
class NoteCache(TextVectors):
    """Encoded notes: `KeptLongformerForICDMatching.encode_note`.

    It holds the notes' words: keep its files as you keep the notes.

    Attributes:
        vectors, counts: of the windows, see [`TextVectors`].
        lengths: tokens of each note.
        token_ids: all of them, one note's after the other's.
        weights: fingerprint of the encoder that made it ([`weights_fingerprint`]).
    """

    lengths: list[int]
    token_ids: list[int]
    weights: str

    @property
    def num_bytes(self) -> int:
        """Size of the vectors."""
        return self.vectors.nbytes

    def to(self, device: str | torch.device):
        """Move this cache to a device."""
        self.vectors = self.vectors.to(device)
        return self

    def check_weights(self, weights: str) -> None:
        """Refuse a cache of other weights.

        Raises:
            StaleCacheError: `weights` is not the fingerprint that it was made with.
        """
        if weights != self.weights:
            raise StaleCacheError(
                f"The {type(self).__name__} was made with other weights (fingerprint {self.weights[:12]}, now "
                f"{weights[:12]}); make it again with {self._maker}."
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file."""
        about = json.dumps(self._description())
        metadata = {"format": FORMAT, "kind": type(self).__name__, "about": about, "checksum": self._checksum(about)}
        with whole_path(path) as unfinished:
            save_file({"vectors": self.vectors.contiguous()}, unfinished, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu"):
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else, or is damaged.
            OSError: there is no such file.
        """
        named = f"path={os.fspath(path)!r}"
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata, vectors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise ValueError(f"{named} is no whole safetensors file ({error}); {cls._remedy()}") from None
        if (metadata.get("format"), metadata.get("kind")) != (FORMAT, cls.__name__):
            raise ValueError(
                f"{named} holds {metadata.get('kind', 'something else')!r} in the format "
                f"{metadata.get('format')!r}, not {cls.__name__!r} in {FORMAT!r}; pass a file that {cls.__name__}.save "
                "wrote."
            )
        try:
            cache = cls(**vectors, **json.loads(metadata["about"]))
            is_whole = cache._checksum(metadata["about"]) == metadata["checksum"]
        except (KeyError, TypeError, ValueError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"{named} is damaged: its content is not what was saved; {cls._remedy()}")
        return cache

    def _description(self) -> dict:
        return {name: getattr(self, name) for name in ("counts", "lengths", "token_ids", "weights")}

    def _checksum(self, about: str) -> str:
        """Of the vectors, and of the text that describes them."""
        digest = hashlib.sha256(about.encode())
        add_tensors(digest, [("vectors", self.vectors)])
        return digest.hexdigest()

    _maker = "model.encode_note(...)"

    @classmethod
    def _remedy(cls) -> str:
        return f"make it again with {cls._maker}."


@dataclass
class CodeCache(NoteCache):
    """Encoded names of codes: `KeptLongformerForICDMatching.encode_codes`.

    Attributes:
        vectors, counts: of the names, see [`TextVectors`].
        lengths, token_ids, weights: as in [`NoteCache`], of the blocks of names.
        codes: in their order.
    """

    codes: list[str]

    _maker = "model.encode_codes(processor.code_blocks())"

    def __post_init__(self):
        self._rows = {code: row for row, code in enumerate(self.codes)}

    @property
    def blocks(self) -> dict[str, list[int]]:
        """Code → token ids of its block."""
        ends = itertools.accumulate(self.lengths)
        return {
            code: self.token_ids[end - length : end]
            for code, length, end in zip(self.codes, self.lengths, ends, strict=True)
        }

    def rows_of(self, codes: Sequence[str] | Mapping[str, Sequence[int]] | None) -> list[int]:
        """Where some codes stand.

        Args:
            codes: codes, or a mapping to the token ids of their blocks, which are compared with those cached. All by
                default.

        Raises:
            ValueError: a code that is not in the cache.
            StaleCacheError: a code with other names.
        """
        if codes is None:
            return list(range(len(self)))
        if isinstance(codes, str):
            raise TypeError(f"codes={codes!r} is one string; pass a list of codes: [{codes!r}].")
        missing = [code for code in codes if code not in self._rows]
        if missing:
            raise ValueError(
                f"codes has {', '.join(map(repr, missing[:5]))} ({len(missing)} in all), not in the CodeCache; add "
                "them: cache.add(model.encode_codes(processor.code_blocks(codes)))."
            )
        if isinstance(codes, Mapping):
            blocks = self.blocks
            changed = [code for code, block in codes.items() if list(block) != blocks[code]]
            if changed:
                raise StaleCacheError(
                    f"The CodeCache has another description of {', '.join(map(repr, changed[:5]))} ({len(changed)} in "
                    f"all); {self._remedy()}"
                )
        return [self._rows[code] for code in codes]

    def add(self, other: CodeCache) -> CodeCache:
        """Append the codes of another cache that this one lacks.

        Returns:
            This cache.

        Raises:
            StaleCacheError: the other was made with other weights, or describes a code otherwise.
        """
        other.check_weights(self.weights)
        blocks = other.blocks
        self.rows_of({code: blocks[code] for code in other.codes if code in self._rows})
        new = [row for row, code in enumerate(other.codes) if code not in self._rows]
        is_new = torch.tensor([code not in self._rows for code in other.codes])
        is_new = is_new.repeat_interleave(torch.tensor(other.counts)).to(other.vectors.device)
        self.vectors = torch.cat([self.vectors, other.vectors[is_new].to(self.vectors)])
        self.counts = self.counts + [other.counts[row] for row in new]
        self.lengths = self.lengths + [other.lengths[row] for row in new]
        self.token_ids = self.token_ids + [token for row in new for token in blocks[other.codes[row]]]
        self.codes = self.codes + [other.codes[row] for row in new]
        self.__post_init__()
        return self

    def _description(self) -> dict:
        return {**super()._description(), "codes": self.codes}
