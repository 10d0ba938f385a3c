"""A first stage without training: codes found by vectors of their names and of windows of the note."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..models.code_set import ICDCodeSet
from ..pretraining.hsap.model import POOLINGS
from .candidates import Candidates
from .windows import STEP, WINDOW, code_names, word_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DenseRetriever:
    """Proposes codes by the cosine of vectors of their names and of windows of the note; the best pair counts.

    Args:
        code_set: the codes with their names. `ICDCodeSet.with_synonyms` gives them more.
        model: any encoder that gives `last_hidden_state`: a sentence encoder, a model that HSAP was trained on. It is
            put into evaluation mode.
        tokenizer: of the model.
        pooling: "mean" of the states of all tokens, or "cls", the state of the first; as the model was trained.
        window, step: see `word_windows`.
        batch_size: names or windows at a time.
        max_length: tokens of a name or window; the rest is cut.
        cache_file: where to keep the vectors of the names. They are read from there if it holds those of the same
            names, weights and settings, else computed and written.

    Raises:
        ValueError: another pooling, or a `batch_size` below 1.
    """

    def __init__(
        self,
        code_set: ICDCodeSet,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        window: int = WINDOW,
        step: int = STEP,
        batch_size: int = 64,
        max_length: int = 64,
        cache_file: str | os.PathLike | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is less than 1; pass 1 or more.")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} is unknown; pass one of {', '.join(POOLINGS)}.")
        self.code_set, self.model, self.tokenizer = code_set, model.eval(), tokenizer
        self.pooling, self.window, self.step = pooling, window, step
        self.batch_size, self.max_length = batch_size, max_length
        names, self._starts = code_names(code_set)
        self._names = self._vectors_of_names(names, cache_file)

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The best codes of each note.

        Args:
            notes: texts.
            top_k: how many codes.

        Returns:
            Scores from -1 to 1.
        """
        return Candidates.from_scorer(self._score, notes, self.code_set.codes, top_k)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors of some texts, `(texts, hidden_size)` float32, on the device of the model."""
        # Texts of like length together, so that little padding is encoded.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = torch.empty(len(texts), self.model.config.hidden_size, device=self.model.device)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            inputs = self._tokens([texts[place] for place in places], padding=True, return_tensors="pt")
            inputs = inputs.to(self.model.device)
            states = self.model(**inputs).last_hidden_state.float()
            if self.pooling == "cls":
                pooled = states[:, 0]
            else:
                weights = inputs["attention_mask"][:, :, None].float()
                pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
            vectors[places] = torch.nn.functional.normalize(pooled, dim=1)
        return vectors

    def _tokens(self, texts: Sequence[str], **options: object):
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, **options)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        windows = [word_windows(note, self.window, self.step) for note in notes]
        vectors = self.encode([text for of_note in windows for text in of_note])
        best = [(part @ self._names.T).amax(dim=0) for part in vectors.split([len(of_note) for of_note in windows])]
        return np.maximum.reduceat(torch.stack(best).cpu().numpy(), self._starts, axis=1)

    def _vectors_of_names(self, names: list[str], cache_file: str | os.PathLike | None) -> torch.Tensor:
        if cache_file is None:
            return self.encode(names)
        fingerprint = self._fingerprint(names)
        if os.path.exists(cache_file):
            try:
                with safe_open(cache_file, framework="pt", device=str(self.model.device)) as file:
                    if (file.metadata() or {}).get("fingerprint") == fingerprint:
                        return file.get_tensor("names")
            except SafetensorError as error:
                raise ValueError(
                    f"cache_file={os.fspath(cache_file)!r} is something else, or damaged; delete it, or pass another "
                    "file."
                ) from error
        vectors = self.encode(names)
        save_file({"names": vectors.cpu()}, cache_file, metadata={"fingerprint": fingerprint})
        return vectors

    def _fingerprint(self, names: list[str]) -> str:
        """Of all that the vectors depend on: tokens, pooling, settings and weights of the model."""
        digest = hashlib.sha256(repr((self._tokens(names)["input_ids"], self.pooling)).encode())
        digest.update(self.model.config.to_json_string().encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()
