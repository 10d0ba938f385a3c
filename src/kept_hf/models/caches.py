"""Reusable encodings of descriptions and notes for the isolated prompt layout, and how they are known to be stale."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from .mask_attention import GlobalStates
from .tensor_file import add_tensors, tensor_file

FORMAT = "kept-hf 1"


class StaleCacheError(ValueError):
    """A cache that was made with other weights or other descriptions."""


def weights_fingerprint(encoder: nn.Module) -> str:
    """Hash of an encoder's parameters and of what else its states depend on, computed once for their present values.

    Args:
        encoder: a `KeptLongformerModel`.

    Returns:
        64 hexadecimal digits.
    """
    config = encoder.config
    settings = [config.attention_window, config.layer_norm_eps, config.hidden_act, config.num_attention_heads]
    settings += [config.similarity_prior, config.similarity_window, config.similarity_step]
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


@dataclass
class NoteCache(GlobalStates):
    """Notes as the masks of codes see them: `KeptLongformerForICDPrompting.encode_note`.

    It holds the notes' words: keep its files as you keep the notes.

    Attributes:
        keys, values: for each layer `(num_heads, num_tokens, head_dim)`, one note's tokens after the other's.
        vectors: `(windows, hidden_size)`, with the similarity of windows.
        lengths: tokens of each note.
        token_ids: all of them.
        weights: fingerprint of the encoder that made it ([`weights_fingerprint`]).
    """

    token_ids: list[int]
    weights: str

    @property
    def fingerprint(self) -> str:
        """Hash of weights and tokens: caches that are equal in it hold the same."""
        return hashlib.sha256(json.dumps(self._description()).encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Size of the keys and values, and of the vectors."""
        return sum(states.nbytes for states in _tensors(self).values())

    def to(self, device=None, dtype: torch.dtype | None = None):
        """Move this cache to a device, or to less memory: `torch.bfloat16` halves it and costs some accuracy."""
        self.keys, self.values = (
            [states.to(device=device, dtype=dtype) for states in both] for both in (self.keys, self.values)
        )
        if self.vectors is not None:
            self.vectors = self.vectors.to(device=device)  # small, and differences between them are, too
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
        save_file({name: states.contiguous() for name, states in _tensors(self).items()}, path, self._metadata())

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu"):
        """Read what `save` wrote. On a CPU the file is mapped: what is not being read takes no memory of its own.

        Raises:
            ValueError: the file holds something else.
        """
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("kind")) != (FORMAT, cls.__name__):
                raise ValueError(
                    f"path={os.fspath(path)!r} holds {metadata.get('kind', 'something else')!r} in the format "
                    f"{metadata.get('format')!r}, not {cls.__name__!r} in {FORMAT!r}; pass a file that "
                    f"{cls.__name__}.save wrote."
                )
            description = json.loads(metadata["about"])
            layers, fingerprint = range(description.pop("num_layers")), description.pop("fingerprint")
            keys, values = ([file.get_tensor(f"{name}.{layer}") for layer in layers] for name in ("keys", "values"))
            vectors = file.get_tensor("vectors") if "vectors" in file.keys() else None  # noqa: SIM118 (no mapping)
        cache = cls(keys=keys, values=values, vectors=vectors, **description)
        if cache.fingerprint != fingerprint:
            raise ValueError(f"path={os.fspath(path)!r}: its tokens are not those it was made of; {cls._remedy()}")
        return cache

    def _metadata(self) -> dict[str, str]:
        description = {**self._description(), "num_layers": len(self.keys), "fingerprint": self.fingerprint}
        return {"format": FORMAT, "kind": type(self).__name__, "about": json.dumps(description)}

    def _description(self) -> dict:
        return {"weights": self.weights, "lengths": self.lengths, "token_ids": self.token_ids}

    _maker = "model.encode_note(...)"

    @classmethod
    def _remedy(cls) -> str:
        return f"make it again with {cls._maker}."


@dataclass
class CodeCache(NoteCache):
    """Descriptions as the masks of their codes see them: `KeptLongformerForICDPrompting.encode_codes`.

    Attributes:
        keys, values, lengths, token_ids, weights: as in [`NoteCache`], of the blocks `<s> description`.
        codes: in their order.
        names: vectors of each code, where some have several; otherwise None.
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

    @classmethod
    def from_parts(cls, parts: Iterable[GlobalStates], path: str | os.PathLike | None = None, **fields) -> CodeCache:
        """Put together what was encoded in parts, each of which is in memory once.

        Args:
            parts: of the descriptions, in the order of the codes.
            path: a safetensors file to write them to. By default they stay in memory.
            fields: `lengths`, `token_ids`, `weights`, `codes` and `names`.

        Returns:
            The cache; with `path` that of the file, mapped into memory.
        """
        parts = iter(parts)
        first = next(parts)
        # Tensors of this shape without memory of their own.
        keys, values = (
            [states.new_empty(1).expand(states.shape[0], sum(fields["lengths"]), states.shape[2]) for states in both]
            for both in (first.keys, first.values)
        )
        vectors = first.vectors
        if vectors is not None:
            vectors = vectors.new_empty(1).expand(
                sum(fields.get("names") or [1] * len(fields["lengths"])), vectors.shape[1]
            )
        cache, parts = cls(keys=keys, values=values, vectors=vectors, **fields), itertools.chain([first], parts)
        del first
        if path is None:
            cache.keys, cache.values = (list(map(torch.empty_like, both)) for both in (keys, values))
            cache.vectors = None if vectors is None else torch.empty_like(vectors)
            _fill(_tensors(cache), parts)
            return cache
        kinds = {name: (states.shape, states.dtype) for name, states in _tensors(cache).items()}
        with tensor_file(path, kinds, cache._metadata()) as tensors:
            _fill(tensors, parts)
        return cls.load(path)

    def rows_of(self, codes: Sequence[str] | Mapping[str, Sequence[int]] | None) -> list[int]:
        """Where some codes stand.

        Args:
            codes: codes, or a mapping to the token ids of their blocks, which are compared with those cached. All by
                default.

        Raises:
            ValueError: a code that is not in the cache.
            StaleCacheError: a code whose description is another.
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
        both = [code for code in other.codes if code in self._rows]
        blocks = other.blocks
        self.rows_of({code: blocks[code] for code in both})
        new = [row for row, code in enumerate(other.codes) if code not in self._rows]
        if not new:
            return self
        is_new_code = torch.tensor([code not in self._rows for code in other.codes])
        is_new = is_new_code.repeat_interleave(torch.tensor(other.lengths))
        for own, others in ((self.keys, other.keys), (self.values, other.values)):
            for layer, states in enumerate(others):
                chosen = states if is_new.all() else states[:, is_new.to(states.device)]
                chosen = chosen.to(own[layer])
                own[layer] = torch.cat([own[layer], chosen], dim=1)
        if self.vectors is not None:
            names, new_names = ([*(cache.names or [1] * len(cache))] for cache in (self, other))
            is_new = is_new_code.repeat_interleave(torch.tensor(new_names)).to(other.vectors.device)
            self.vectors = torch.cat([self.vectors, other.vectors[is_new].to(self.vectors)])
            names += [new_names[row] for row in new]
            self.names = names if max(names) > 1 else None
        self.token_ids = self.token_ids + [token for row in new for token in blocks[other.codes[row]]]
        self.lengths = self.lengths + [other.lengths[row] for row in new]
        self.codes = self.codes + [other.codes[row] for row in new]
        self.__post_init__()
        return self

    def _description(self) -> dict:
        names = {} if self.names is None else {"names": self.names}
        return {**super()._description(), "codes": self.codes, **names}


def _fill(tensors: Mapping[str, torch.Tensor], parts: Iterable[GlobalStates]) -> None:
    """Copy parts into the tensors of a cache, one after the other."""
    row = token = 0
    for part in parts:
        next_row = row + (len(part) if part.vectors is None else len(part.vectors))
        next_token = token + sum(part.lengths)
        for name, states in _tensors(part).items():
            if name == "vectors":
                tensors[name][row:next_row] = states
            else:
                tensors[name][:, token:next_token] = states
        row, token = next_row, next_token
        del part, states  # before the next one is encoded


def _tensors(states: GlobalStates) -> dict[str, torch.Tensor]:
    """What a file holds, by its names."""
    tensors = {} if states.vectors is None else {"vectors": states.vectors}
    for name in ("keys", "values"):
        tensors |= {f"{name}.{layer}": tensor for layer, tensor in enumerate(getattr(states, name))}
    return tensors
