"""The isolated prompt layout: encoding of descriptions and notes apart from each other, and scoring."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import torch
from transformers.utils import logging

from .caches import CodeCache, NoteCache, weights_fingerprint
from .mask_attention import GlobalStates, default_chunk_size

logger = logging.get_logger(__name__)


class IsolatedScoring:
    """Encodes descriptions and notes apart from each other, each once, and scores pairs of them.

    What is encoded, and how a pair is scored, is the models' own: `_encode` and `_scored`.
    """

    _last_blocks: tuple | None = None
    """The blocks of the last evaluation batch: what they depend on, their tokens, and their states."""

    @torch.no_grad()
    def encode_codes(
        self, blocks: Mapping[str, Sequence[int]], batch_size: int = 128, path: str | os.PathLike | None = None
    ) -> CodeCache:
        """Encode descriptions for the isolated layout, once for all notes.

        Args:
            blocks: code → token ids of `<s> description`: `KeptProcessor.code_blocks()`.
            batch_size: so many at a time.
            path: a file to write them to as they are encoded, for more than the memory holds: at base size 8,900 of 13
                tokens are 8.5 GB. By default they stay on the model's device.

        Returns:
            [`CodeCache`], which can be saved, and to which codes can be added. With `path` it is that of the file,
            mapped into memory: `score` reads of it what it needs, to the notes' device.

        Raises:
            ValueError: no blocks, an empty or too long one, or a model in training mode.
        """
        self._check_encoding()
        empty = [code for code, block in blocks.items() if not len(block)]
        if not blocks or empty:
            raise ValueError(
                f"blocks has {len(blocks)} codes, {len(empty)} of them without tokens ({', '.join(empty[:5])}); pass "
                "KeptProcessor.code_blocks()."
            )
        rows = list(map(list, blocks.values()))
        return CodeCache.from_parts(
            self._block_parts(rows, batch_size),
            path,
            lengths=[len(row) for row in rows],
            token_ids=[token for row in rows for token in row],
            weights=self.weights_fingerprint(),
            codes=list(blocks),
            names=self._names_of(rows),
        )

    @torch.no_grad()
    def encode_note(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
    ) -> NoteCache:
        """Encode notes for the isolated layout, once for all codes.

        Args:
            input_ids (`(batch_size, sequence_length)`):
                `<s> note </s>`, as `KeptProcessor(..., prompt_layout="isolated")` makes it.
            attention_mask (`(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.
            global_attention_mask (`(batch_size, sequence_length)`, *optional*):
                By default 1 for the first token.

        Returns:
            [`NoteCache`] of the batch.

        Raises:
            ValueError: a note that is too long, or a model in training mode.
        """
        self._check_encoding()
        states = self._note_states(input_ids, attention_mask, global_attention_mask)
        tokens = input_ids if attention_mask is None else input_ids[attention_mask > 0]
        return NoteCache(
            keys=states.keys,
            values=states.values,
            lengths=states.lengths,
            token_ids=tokens.flatten().tolist(),
            weights=self.weights_fingerprint(),
            vectors=states.vectors,
        )

    @torch.no_grad()
    def score(
        self,
        notes: NoteCache,
        codes: CodeCache,
        asked: Sequence[str] | Mapping[str, Sequence[int]] | None = None,
        chunk_size: int | None = None,
    ) -> torch.Tensor:
        """Score codes for notes that are encoded already.

        Args:
            notes: from `encode_note`.
            codes: from `encode_codes`.
            asked: codes, or `KeptProcessor.code_blocks(codes)`, whose tokens are then compared with those cached. By
                default all of the cache.
            chunk_size: so many codes at a time. By default as many as use the memory and the processor's cache well.

        Returns:
            `(notes, codes)`, float32, as `logits` of [`ICDPromptingOutput`].

        Raises:
            StaleCacheError: a cache was made with other weights, or a description is another.
            ValueError: a code that is not in the cache, a `chunk_size` below 1, or a model in training mode.
        """
        self._check_encoding()
        weights = self.weights_fingerprint()
        for cache in (notes, codes):
            cache.check_weights(weights)
        rows = codes.rows_of(asked)
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size} is less than 1; pass 1 or more.")
        return torch.stack([self._scored(notes, note, codes, rows, chunk_size) for note in range(len(notes))])

    @torch.no_grad()
    def score_notes(
        self,
        codes: CodeCache,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode notes and score all codes of a cache, in a loop over notes.

        Unlike `score` it does not look whether the weights are still those of the cache, which takes time. Do that once
        before the loop: `codes.check_weights(model.weights_fingerprint())`.

        Args:
            codes: from `encode_codes`.
            input_ids, attention_mask, global_attention_mask: as for `encode_note`.

        Returns:
            `(notes, codes)`, float32, as `score` gives them.

        Raises:
            ValueError: a note that is too long, or a model in training mode.
        """
        self._check_encoding()
        notes = self._note_states(input_ids, attention_mask, global_attention_mask)
        rows = codes.rows_of(None)
        return torch.stack([self._scored(notes, note, codes, rows, None) for note in range(len(notes))])

    def weights_fingerprint(self) -> str:
        """See [`kept_hf.models.caches.weights_fingerprint`]."""
        return weights_fingerprint(self.longformer)

    def _check_encoding(self) -> None:
        if self.training:
            raise ValueError("The model is in training mode, whose dropout would be cached; call model.eval() first.")

    def _encode(self, input_ids, attention_mask, global_attention_mask=None, is_note: bool = False) -> GlobalStates:
        """States of notes, or of blocks."""
        raise NotImplementedError

    def _scored(self, notes: GlobalStates, note: int, codes: GlobalStates, rows, chunk_size) -> torch.Tensor:
        """Scores of a note, `(len(rows),)`."""
        raise NotImplementedError

    def _names_of(self, rows: Sequence[Sequence[int]]) -> list[int] | None:
        """How many names each block has, of a model that encodes them apart; None for one each."""
        return None

    def _note_states(self, input_ids, attention_mask, global_attention_mask) -> GlobalStates:
        if global_attention_mask is None:
            global_attention_mask = torch.zeros_like(input_ids)
            global_attention_mask[:, 0] = 1 if attention_mask is None else attention_mask[:, 0]
        return self._encode(input_ids, attention_mask, global_attention_mask, is_note=True)

    def _block_states(self, input_ids, attention_mask) -> GlobalStates:
        if input_ids.shape[1] >= self.config.max_sequence_length:
            raise ValueError(
                f"A block has {input_ids.shape[1]} tokens and a mask, the model positions for "
                f"{self.config.max_sequence_length}; shorten that description."
            )
        return self._encode(input_ids, attention_mask)

    def _block_parts(self, rows: Sequence[list[int]], batch_size: int) -> Iterator[GlobalStates]:
        """States of some blocks at a time."""
        padding = self.config.pad_token_id or 0
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            longest = max(map(len, batch))
            input_ids = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in batch], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=self.device)
            yield self._block_states(input_ids, mask)

    def _batch_block_states(self, input_ids, attention_mask) -> GlobalStates:
        """The blocks of a batch; in evaluation those of the last batch, if they are the same."""
        if self.training or torch.is_grad_enabled():
            self._last_blocks = None
            return self._block_states(input_ids, attention_mask)
        kind = input_ids.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        state = self.weights_fingerprint(), dtype, input_ids.device
        tokens = torch.where(attention_mask > 0, input_ids, -1)
        if self._last_blocks is None or self._last_blocks[0] != state or not torch.equal(self._last_blocks[1], tokens):
            self._last_blocks = state, tokens, self._block_states(input_ids, attention_mask)
        return self._last_blocks[2]

    def _pairs(
        self, inputs: tuple, blocks: tuple, labels: torch.Tensor | None
    ) -> tuple[GlobalStates, GlobalStates, list[list[int]], torch.Tensor]:
        """What a batch asks.

        Args:
            inputs: `input_ids`, `attention_mask` and `global_attention_mask` of the notes.
            blocks: `code_input_ids`, `code_attention_mask` and `code_indices`.
            labels: `(batch_size, num_labels)`, or None.

        Returns:
            The states of notes and of codes, the codes asked of each note, and which slots of
            `(batch_size, num_labels)` hold one.
        """
        input_ids, attention_mask, global_attention_mask = inputs
        code_input_ids, code_attention_mask, code_indices = blocks
        if code_attention_mask is None:
            code_attention_mask = torch.ones_like(code_input_ids)
        if code_indices is None:
            code_indices = torch.arange(len(code_input_ids), device=input_ids.device).expand(len(input_ids), -1)
        is_code = code_indices != -100
        self._check_indices(code_indices, is_code, len(input_ids), len(code_input_ids), labels)
        notes = self._note_states(input_ids, attention_mask, global_attention_mask)
        codes = self._batch_block_states(code_input_ids, code_attention_mask)
        asked = [[index for index in indices if index != -100] for indices in code_indices.tolist()]
        return notes, codes, asked, is_code

    @staticmethod
    def _check_indices(code_indices, is_code, num_notes: int, num_blocks: int, labels) -> None:
        if len(code_indices) != num_notes:
            raise ValueError(f"code_indices has {len(code_indices)} rows for {num_notes} notes; pass one row a note.")
        if not is_code.any():
            raise ValueError("code_indices asks about no code; pass the index of at least one block.")
        wrong = is_code & ((code_indices < 0) | (code_indices >= num_blocks))
        if wrong.any():
            raise ValueError(
                f"code_indices has {int(code_indices[wrong][0])}, code_input_ids {num_blocks} blocks; pass numbers of "
                "these from 0, and -100 beyond the codes of a row."
            )
        if labels is not None and (labels.shape != is_code.shape or ((labels != -100) != is_code).any()):
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} do not fit code_indices of shape {tuple(is_code.shape)}; pass "
                "one label for each code asked, and -100 in both beyond the codes of a row."
            )


def in_slots(flat: torch.Tensor, is_code: torch.Tensor) -> torch.Tensor:
    """`(codes of all notes, …)` → `(batch_size, num_labels, …)`, zero where no code stands.

    Examples:
        >>> in_slots(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[True, True], [True, False]])).tolist()
        [[1.0, 2.0], [3.0, 0.0]]
    """
    slots = flat.new_zeros(is_code.numel(), *flat.shape[1:])
    return slots.index_copy(0, is_code.flatten().nonzero()[:, 0], flat).unflatten(0, is_code.shape)


class IsolatedPrompting(IsolatedScoring):
    """The isolated layout of `KeptLongformerForICDPrompting`, which describes it."""

    def _check_encoding(self) -> None:
        self._check_token_ids()
        self._warn_of_layout("isolated")
        super()._check_encoding()

    def _warn_of_layout(self, asked: str) -> None:
        if asked != self.config.prompt_layout:
            logger.warning_once(
                f"The model was trained with prompt_layout={self.config.prompt_layout!r} and is asked in the layout "
                f"{asked!r}: its scores mean little. Pass KeptProcessor(..., prompt_layout="
                f"{self.config.prompt_layout!r}), or train it with config.prompt_layout={asked!r}."
            )

    def _encode(self, input_ids, attention_mask, global_attention_mask=None, is_note: bool = False) -> GlobalStates:
        states, last = self.longformer.global_states(
            input_ids, attention_mask, global_attention_mask, with_last=self.similarity is not None
        )
        if last is not None:
            states.vectors = self.similarity.vectors(last, states.lengths, is_note)
        return states

    def _scored(self, notes: GlobalStates, note: int, codes: GlobalStates, rows, chunk_size) -> torch.Tensor:
        scores = torch.cat([self._answers(states) for states in self._chunks(notes, note, codes, rows, chunk_size)])
        return scores if self.similarity is None else scores + self.similarity(notes, note, codes, rows)

    def _chunks(
        self, notes: GlobalStates, note: int, codes: GlobalStates, rows: Sequence[int], chunk_size=None
    ) -> Iterator[torch.Tensor]:
        """States at the masks of one note, `(codes, hidden_size)`, some codes at a time."""
        if chunk_size is None:
            num_keys = notes.lengths[note] + max((codes.lengths[row] for row in rows), default=0) + 1
            chunk_size = default_chunk_size(self.config.num_attention_heads, num_keys, self.device)
        for start in range(0, len(rows), chunk_size):
            wanted = rows[start : start + chunk_size]
            yield self.longformer.masks(notes, note, codes, wanted, self.config.mask_token_id)

    def _isolated_mask_states(self, inputs, blocks, labels) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """States at the masks of a batch.

        Args:
            inputs, blocks, labels: as for `_pairs`.

        Returns:
            The states `(batch_size, num_labels, hidden_size)`, the prior `(batch_size, num_labels)` or None, and which
            of these slots hold a code.
        """
        notes, codes, asked, is_code = self._pairs(inputs, blocks, labels)
        states = [chunk for note, rows in enumerate(asked) for chunk in self._chunks(notes, note, codes, rows)]
        prior = None
        if self.similarity is not None:
            prior = torch.cat([self.similarity(notes, note, codes, rows) for note, rows in enumerate(asked)])
            prior = in_slots(prior, is_code)
        return in_slots(torch.cat(states), is_code), prior, is_code

    def _answers(self, mask_states: torch.Tensor) -> torch.Tensor:
        """`(codes, hidden_size)` → scores `(codes,)`."""
        answers = self._yes_and_no(mask_states)
        return (answers[..., 0] - answers[..., 1]).float()
