"""A first stage without labels: codes whose names have vectors near those of windows of the note."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from ..models.caches import add_tensors
from ..models.code_set import ICDCodeSet
from ..models.loading import check_weights
from ..models.whole_file import whole_path
from .candidates import Candidates
from .definition import NotesStage, StageInputs, default_device
from .pooling import check_pooling, pool
from .stage_files import digest_of_model
from .windows import STEP, WINDOW, code_names, word_windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DenseRetriever:
    """Proposes codes by the cosine of vectors of their names and of windows of the note; the best pair counts.

    Args:
        code_set: the codes with their names. `ICDCodeSet.with_synonyms` gives them more.
        model: any encoder with a `last_hidden_state`, such as a sentence encoder or one trained with HSAP. It is set to
            evaluation mode.
        tokenizer: of the model.
        pooling: "mean" of the states of all tokens, or "cls", the state of the first; as the model was trained.
        window, step: see `word_windows`.
        batch_size: names or windows at a time.
        max_length: tokens of a name or window; longer ones are truncated.
        cache_file: a file for the vectors of the names. They are read from it if it has those of the same names,
            weights and settings; otherwise they are computed and written.

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
        check_pooling(pooling)
        self.code_set, self.model, self.tokenizer = code_set, model.eval(), tokenizer
        self.pooling, self.window, self.step = pooling, window, step
        self.batch_size, self.max_length = batch_size, max_length
        names, self._starts = code_names(code_set)
        self._names = self._vectors_of_names(names, cache_file)

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The best codes of each note.

        Args:
            notes: texts.
            top_k: number of codes.

        Returns:
            Scores from -1 to 1.
        """
        return Candidates.from_scorer(self._score, notes, self.code_set.codes, top_k)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors of some texts, `(texts, hidden_size)` float32, on the device of the model."""
        # Texts of similar length together, so that little padding is encoded.
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        vectors = torch.empty(len(texts), self.model.config.hidden_size, device=self.model.device)
        for start in range(0, len(order), self.batch_size):
            positions = order[start : start + self.batch_size]
            inputs = self._tokens([texts[position] for position in positions], padding=True, return_tensors="pt")
            inputs = inputs.to(self.model.device)
            pooled = pool(self.model(**inputs).last_hidden_state, inputs["attention_mask"], self.pooling)
            vectors[positions] = torch.nn.functional.normalize(pooled, dim=1)
        return vectors

    def _tokens(self, texts: Sequence[str], **options: object):
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, **options)

    def _score(self, notes: Sequence[str]) -> np.ndarray:
        windows = [word_windows(note, self.window, self.step) for note in notes]
        vectors = self.encode([window for note_windows in windows for window in note_windows])
        best = [(part @ self._names.T).amax(dim=0) for part in vectors.split(list(map(len, windows)))]
        return np.maximum.reduceat(torch.stack(best).cpu().numpy(), self._starts, axis=1)

    def _vectors_of_names(self, names: list[str], cache_file: str | os.PathLike | None) -> torch.Tensor:
        if cache_file is None:
            return self.encode(names)
        fingerprint = self._fingerprint(names)
        if os.path.exists(cache_file):
            try:
                with safe_open(cache_file, framework="pt", device="cpu") as file:
                    metadata = file.metadata() or {}
                    if metadata.get("fingerprint") == fingerprint:
                        vectors = file.get_tensor("names")
                        # Of an earlier version, or damaged: they are computed again.
                        if metadata.get("checksum") == _checksum(vectors):
                            # A copy, since products differ in the last digit with where in memory the vectors lie.
                            return vectors.clone().to(self.model.device)
            except SafetensorError as error:
                raise ValueError(
                    f"cache_file={os.fspath(cache_file)!r} is something else, or damaged; delete it, or pass another "
                    "file."
                ) from error
        vectors = self.encode(names)
        kept = vectors.cpu()
        with whole_path(cache_file) as path:
            save_file({"names": kept}, path, metadata={"fingerprint": fingerprint, "checksum": _checksum(kept)})
        return vectors

    def _fingerprint(self, names: list[str]) -> str:
        """Hash of all that the vectors depend on: tokens, pooling, settings and weights of the model."""
        digest = hashlib.sha256(repr((self._tokens(names)["input_ids"], self.pooling)).encode())
        digest.update(self.model.config.to_json_string().encode())
        add_tensors(digest, self.model.state_dict().items())
        return digest.hexdigest()


def _checksum(vectors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    add_tensors(digest, [("names", vectors)])
    return digest.hexdigest()


def _retriever(inputs: StageInputs) -> DenseRetriever:
    model, loaded = AutoModel.from_pretrained(inputs.encoder, output_loading_info=True)
    check_weights(inputs.encoder, model, loaded["missing_keys"], new=[r"\bpooler\."])
    return DenseRetriever(inputs.code_set, model.to(default_device()), AutoTokenizer.from_pretrained(inputs.encoder))


STAGE = NotesStage(
    _retriever,
    needs=frozenset({"encoder"}),
    own_settings=lambda inputs: {"encoder": digest_of_model(str(inputs.encoder))},
)
