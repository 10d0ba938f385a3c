"""A trained model of late interaction as the first of two stages."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from ..models.auto_map import AUTO_CLASSES
from ..models.caches import CodeCache
from ..models.code_set import ICDCodeSet
from ..models.loading import check_model_type
from ..models.processing_kept import KeptProcessor
from .candidates import Candidates
from .definition import TrainedStage
from .scoring import TruncationCount, check_notes, encoded_codes, evaluation, longest_first


def load_scorer(folder: str | os.PathLike) -> PreTrainedModel:
    """The model of a folder, or model id, that scores codes: `KeptLongformerForICDPrompting` or `…Matching`.

    Raises:
        ValueError: another model, which would get a classifier of random weights.
    """
    check_model_type(folder, AutoConfig.from_pretrained(folder).model_type, tuple(AUTO_CLASSES))
    return AutoModelForSequenceClassification.from_pretrained(folder)


class KeptFirstStage:
    """Proposes the codes with the best scores among all codes: a [`kept_hf.candidates.candidates.FirstStage`].

    The model knows codes by their descriptions, so that it also proposes codes without a training note.

    Args:
        model: a `KeptLongformerForICDMatching`.
        processor: its processor, with the codes to propose from.
        batch_size: notes at a time.
        code_cache: the encoded names of at least all codes. By default they are encoded in each call of
            `propose`: pass all notes at once.
        progress: show a bar.

    Examples:
        ```python
        stage = KeptFirstStage.from_pretrained("outputs/codiesp-late-interaction")
        candidates = stage.propose(["Admitted with sepsis."], top_k=300)
        ```
    """

    def __init__(
        self,
        model,
        processor: KeptProcessor,
        batch_size: int = 4,
        code_cache: CodeCache | None = None,
        progress: bool = False,
    ):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.code_cache, self.progress = code_cache, progress

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, code_set: ICDCodeSet | None = None, batch_size: int = 4
    ) -> KeptFirstStage:
        """The first stage of a folder, or model id, with model and processor.

        Args:
            folder: what `kept-hf train` wrote.
            code_set: the codes to propose from; by default those that the model was trained with.
            batch_size: notes at a time.
        """
        model = load_scorer(folder)
        return cls(model, KeptProcessor.from_pretrained(folder, code_set=code_set), batch_size)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in the order of the code set."""
        return self.processor.code_set.codes

    def propose(self, notes: Sequence[str], top_k: int) -> Candidates:
        """The `top_k` best codes of each note, in the order of the notes; all codes where there are fewer.

        Raises:
            TypeError: `notes` is one string.
            ValueError: a model of prompts, `top_k` or `batch_size` below 1, a `code_cache` of other names
                (`StaleCacheError`).
        """
        if self.processor.prompt_layout != "isolated":
            raise ValueError(
                f"prompt_layout={self.processor.prompt_layout!r}: each group of codes would take a pass over each "
                "note; pass candidates to rerank(...), or take a model of late interaction (scorer='matching')."
            )
        self.processor.check_model(self.model)
        check_notes(notes, batch_size=self.batch_size)
        order, parts = longest_first(notes), []
        if not order:
            return Candidates.from_scores(np.zeros((0, len(self.codes))), self.codes, top_k)
        with evaluation(self.model), TruncationCount(self.processor.max_length) as truncated:
            cache = encoded_codes(self.model, self.processor, self.codes, self.code_cache)
            for start in tqdm(range(0, len(order), self.batch_size), "Notes", disable=not self.progress):
                # The cache has all codes. Each row names only one, since its code indices are not used.
                texts = [notes[note] for note in order[start : start + self.batch_size]]
                codes = [self.codes[:1]] * len(texts)
                batch = self.processor(texts, codes=codes, return_tensors="pt", return_cut=True)
                truncated.add(batch["cut"].tolist())
                inputs = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
                scores = self.model.score(self.model.encode_note(**inputs), cache, self.codes)
                parts.append(Candidates.from_scores(scores.float().cpu().numpy(), self.codes, top_k))
        return Candidates.concatenate(parts).take(np.argsort(order))


STAGE = TrainedStage(KeptFirstStage.from_pretrained)
