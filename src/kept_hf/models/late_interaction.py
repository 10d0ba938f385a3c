"""Late interaction: notes and names encoded apart from each other, each once, and the scores of their pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from .caches import CodeCache, NoteCache, weights_fingerprint
from .window_similarity import TextVectors


class LateInteractionMixin:
    """For a model with an encoder `longformer` and a [`WindowSimilarity`] `similarity`: encodings that can be kept."""

    _last_blocks: tuple | None = None
    """The blocks of the last evaluation batch: what they depend on, their tokens, and their vectors."""

    @torch.no_grad()
    def encode_codes(self, blocks: Mapping[str, Sequence[int]], batch_size: int = 128) -> CodeCache:
        """Encode the names of codes, once for all notes.

        Args:
            blocks: code → token ids of its names, each `<s> name`: `KeptProcessor.code_blocks()`.
            batch_size: so many codes at a time.

        Returns:
            [`CodeCache`] on the model's device, which can be saved, and to which codes can be added. At base size 8,900
            codes of one name take 27 MB.

        Raises:
            ValueError: no blocks, an empty one or a name that is too long, or a model in training mode.
        """
        self._check_encoding()
        empty = [code for code, block in blocks.items() if not len(block)]
        if not blocks or empty:
            raise ValueError(
                f"blocks has {len(blocks)} codes, {len(empty)} of them without tokens ({', '.join(empty[:5])}); pass "
                "KeptProcessor.code_blocks()."
            )
        rows = list(map(list, blocks.values()))
        parts = list(self._block_parts(rows, batch_size))
        return CodeCache(
            vectors=torch.cat([part.vectors for part in parts]),
            counts=[count for part in parts for count in part.counts],
            lengths=[len(row) for row in rows],
            token_ids=[token for row in rows for token in row],
            weights=self.weights_fingerprint(),
            codes=list(blocks),
        )

    @torch.no_grad()
    def encode_note(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
    ) -> NoteCache:
        """Encode notes, once for all codes.

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
        encoded = self._note_vectors(input_ids, attention_mask, global_attention_mask)
        is_token = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return NoteCache(
            vectors=encoded.vectors,
            counts=encoded.counts,
            lengths=(is_token > 0).sum(dim=1).tolist(),
            token_ids=input_ids[is_token > 0].tolist(),
            weights=self.weights_fingerprint(),
        )

    @torch.no_grad()
    def score(
        self, notes: NoteCache, codes: CodeCache, asked: Sequence[str] | Mapping[str, Sequence[int]] | None = None
    ) -> torch.Tensor:
        """Score codes for notes that are encoded already.

        Args:
            notes: from `encode_note`.
            codes: from `encode_codes`.
            asked: codes, or `KeptProcessor.code_blocks(codes)`, whose tokens are then compared with those cached. By
                default all of the cache.

        Returns:
            `(notes, codes)`, float32, as `logits` of [`ICDPromptingOutput`].

        Raises:
            StaleCacheError: a cache was made with other weights, or a name is another.
            ValueError: a code that is not in the cache, or a model in training mode.
        """
        self._check_encoding()
        weights = self.weights_fingerprint()
        for cache in (notes, codes):
            cache.check_weights(weights)
        rows = codes.rows_of(asked)
        return torch.stack([self.similarity(notes, note, codes, rows) for note in range(len(notes))])

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
        notes = self._note_vectors(input_ids, attention_mask, global_attention_mask)
        rows = codes.rows_of(None)
        return torch.stack([self.similarity(notes, note, codes, rows) for note in range(len(notes))])

    def weights_fingerprint(self) -> str:
        """See [`kept_hf.models.caches.weights_fingerprint`]."""
        return weights_fingerprint(self.longformer)

    def _check_encoding(self) -> None:
        if self.training:
            raise ValueError("The model is in training mode, whose dropout would be cached; call model.eval() first.")

    def _note_vectors(self, input_ids, attention_mask, global_attention_mask) -> TextVectors:
        if global_attention_mask is None:
            global_attention_mask = torch.zeros_like(input_ids)
            global_attention_mask[:, 0] = 1 if attention_mask is None else attention_mask[:, 0]
        return self.similarity.of_notes(*self.longformer.token_states(input_ids, attention_mask, global_attention_mask))

    def _block_vectors(self, input_ids, attention_mask) -> TextVectors:
        names, is_token, counts = names_of_blocks(input_ids, attention_mask)
        if names.shape[1] > self.config.max_sequence_length:
            raise ValueError(
                f"A name has {names.shape[1]} tokens, the model positions for {self.config.max_sequence_length}; "
                "shorten that description."
            )
        return self.similarity.of_names(*self.longformer.token_states(names, is_token), counts)

    def _block_parts(self, rows: Sequence[list[int]], batch_size: int) -> Iterator[TextVectors]:
        """The vectors of some blocks at a time."""
        for start in range(0, len(rows), batch_size):
            batch = [torch.tensor(row, device=self.device) for row in rows[start : start + batch_size]]
            yield self._block_vectors(padded(batch), padded([torch.ones_like(row) for row in batch]))

    def _batch_block_vectors(self, input_ids, attention_mask) -> TextVectors:
        """The blocks of a batch; in evaluation those of the last batch, if they are the same."""
        if self.training or torch.is_grad_enabled():
            self._last_blocks = None
            return self._block_vectors(input_ids, attention_mask)
        kind = input_ids.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        state = self.weights_fingerprint(), dtype, input_ids.device
        tokens = torch.where(attention_mask > 0, input_ids, -1)
        if self._last_blocks is None or self._last_blocks[0] != state or not torch.equal(self._last_blocks[1], tokens):
            self._last_blocks = state, tokens, self._block_vectors(input_ids, attention_mask)
        return self._last_blocks[2]


def names_of_blocks(
    input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The names of blocks as rows of their own: each begins with the token with which its block begins.

    Args:
        input_ids, attention_mask: `(blocks, block_length)`.

    Returns:
        Token ids of the names and their attention mask, `(names, longest)` each, and how many names each block has.

    Examples:
        >>> input_ids = torch.tensor([[0, 5, 0, 6, 7], [0, 8, 1, 1, 1]])
        >>> names, is_token, counts = names_of_blocks(input_ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]))
        >>> names.tolist(), is_token.tolist(), counts
        ([[0, 5, 0], [0, 6, 7], [0, 8, 0]], [[1, 1, 0], [1, 1, 1], [1, 1, 0]], [2, 1])
    """
    is_token = attention_mask > 0
    is_first = (input_ids == input_ids[:, :1]) & is_token
    tokens, starts = input_ids[is_token], is_first[is_token].nonzero()[:, 0].tolist()
    names = tokens.split([end - start for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)])
    return padded(names), padded([torch.ones_like(name) for name in names]), is_first.sum(dim=1).tolist()


def padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of one shape, with zeros behind the shorter ones."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def check_indices(code_indices, is_code, num_notes: int, num_blocks: int, labels) -> None:
    """Check which blocks the notes of a batch ask about.

    Args:
        code_indices, is_code: `(batch_size, num_labels)`, numbers of blocks, and which of these slots hold one.
        num_notes, num_blocks: of the batch.
        labels: `(batch_size, num_labels)`, or None.

    Raises:
        ValueError: another number of notes, no code, the number of no block, or labels that do not fit.
    """
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
    """`(codes of all notes,)` → `(batch_size, num_labels)`, zero where no code stands.

    Examples:
        >>> in_slots(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[True, True], [True, False]])).tolist()
        [[1.0, 2.0], [3.0, 0.0]]
    """
    slots = flat.new_zeros(is_code.numel())
    return slots.index_copy(0, is_code.flatten().nonzero()[:, 0], flat).unflatten(0, is_code.shape)
