"""MSMN: scores all codes of a note, each by the words of the note that are like its synonyms.

Source: Yuan et al., *Code Synonyms Do Matter: Multiple Synonyms Matching Network for Automatic ICD Coding*, ACL 2022
(https://aclanthology.org/2022.acl-short.91). Where the paper is silent, its public code decides
(https://github.com/GanjinZero/ICD-MSMN).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .auto_map_msmn import PUBLISHED_TOGETHER  # noqa: F401 (all files of MSMN travel together)
from .configuration_msmn import MSMNConfig
from .loading import CompleteLoadingMixin
from .lstm_msmn import in_chunks, read_both_ways, read_packed
from .publication import PublicationMixin


class MSMNForICDCoding(CompleteLoadingMixin, PublicationMixin, PreTrainedModel):
    """
    Multiple Synonyms Matching Network: a bidirectional LSTM reads notes and the synonyms of codes; each synonym of a
    code attends to the words of the note with a head of its own, and the code's own classifier decides.

    The parameters do not depend on the codes. Give the model its codes with [`~MSMNForICDCoding.set_label_terms`]; they
    are saved with it.

    Args:
        config: the configuration.

    Raises:
        ValueError: `config` has fields that do not fit each other.

    Examples:
        >>> import torch
        >>> from kept_hf import MSMNConfig, MSMNForICDCoding, MSMNTokenizer
        >>> tokenizer = MSMNTokenizer.from_texts(["admitted with fever and high blood pressure"], min_count=1)
        >>> config = MSMNConfig(vocab_size=len(tokenizer), num_synonyms=2, id2label={0: "I10", 1: "R50.9"})
        >>> model = MSMNForICDCoding(config).eval()
        >>> terms = tokenizer(["hypertension", "high blood pressure", "fever", "fever"], padding=True)
        >>> model.set_label_terms(torch.tensor(terms.input_ids), torch.tensor(terms.attention_mask))
        >>> notes = tokenizer(["Fever.", "High blood pressure and fever"], padding=True, return_tensors="pt")
        >>> output = model(**notes, labels=torch.tensor([[0, 1], [1, 1]]))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([2, 2]), torch.Size([]))
    """

    config_class = MSMNConfig
    _auto_class = "AutoModelForSequenceClassification"
    config: MSMNConfig
    base_model_prefix = ""
    accepts_loss_kwargs = False
    """The loss is a mean over the batch: the Trainer divides by the accumulation steps."""

    def __init__(self, config: MSMNConfig):
        config.validate_fields()
        super().__init__(config)
        width = config.attention_size
        self.word_embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.lstm_size // 2,
            config.num_lstm_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.lstm_dropout if config.num_lstm_layers > 1 else 0.0,
        )
        self.reduce = nn.Identity() if config.lstm_size == width else nn.Linear(config.lstm_size, width)
        self.attention = nn.Linear(width, width)
        self.query = nn.Linear(width, width // config.num_synonyms)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.code_weight = nn.Linear(width, width)
        self.code_bias = nn.Linear(width, 1)
        shape = (config.num_labels * config.num_synonyms, config.term_length)
        for name in ("term_input_ids", "term_attention_mask"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.long) if config.term_length else None)
        self._cached_codes = None
        self.post_init()

    def _init_weights(self, module):
        # PyTorch's own, but for W: `--xavier` of the published commands.
        if isinstance(module, (nn.Embedding, nn.LSTM, nn.Linear)):
            module.reset_parameters()
        if module is self.attention:
            nn.init.xavier_uniform_(module.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings."""
        return self.word_embedding

    def set_input_embeddings(self, value: nn.Embedding):
        """Replace the word embeddings."""
        self.word_embedding = value

    def train(self, mode: bool = True):
        """As in PyTorch. The features of the codes, kept while evaluating, are dropped."""
        self._cached_codes = None
        return super().train(mode)

    def set_label_terms(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None) -> None:
        """Say what the codes are called.

        The terms become buffers, are saved with the model, and come back with `from_pretrained`. A configuration that
        does not say how many codes there are takes their number from here.

        Args:
            input_ids (`(num_labels * num_synonyms, words)`):
                The terms of the first code, its description first, then those of the second, …: the lists of
                `ICDCodeSet.synonym_table`, one after the other, tokenized. Words beyond `config.max_term_words` are not
                read.
            attention_mask (`(num_labels * num_synonyms, words)`, *optional*):
                1 for words, 0 for the padding behind them. By default what is not `config.pad_token_id`.

        Raises:
            ValueError: another number of terms than `num_labels * num_synonyms`, a term without words, padding that is
                not behind the words, or ids outside the vocabulary.
        """
        synonyms, codes = self.config.num_synonyms, self.config.num_labels
        if input_ids.ndim != 2 or not len(input_ids) or len(input_ids) % synonyms:
            raise ValueError(
                f"input_ids has the shape {tuple(input_ids.shape)}; pass (codes * synonyms, words), with "
                f"config.num_synonyms={synonyms} terms for each code, shorter lists repeated."
            )
        if codes and len(input_ids) != codes * synonyms:
            raise ValueError(
                f"input_ids holds {len(input_ids)} terms; {codes} codes (config.num_labels) of {synonyms} synonyms "
                f"need {codes * synonyms}. For other codes, set config.id2label and config.label2id before."
            )
        input_ids, mask, _ = self._check_words("input_ids", input_ids, attention_mask, self.config.max_term_words)
        if not codes:
            self.config.num_labels = len(input_ids) // synonyms
        self.config.term_length = input_ids.shape[1]
        device = self.word_embedding.weight.device
        self.term_input_ids, self.term_attention_mask = input_ids.long().to(device), mask.long().to(device)
        self._cached_codes = None

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """
        Args:
            input_ids (`(batch_size, words)`):
                Notes as [`MSMNTokenizer`] makes them. Words beyond `config.max_words` are not read.
            attention_mask (`(batch_size, words)`, *optional*):
                1 for words, 0 for the padding behind them. By default what is not `config.pad_token_id`.
            labels (`(batch_size, num_labels)`, *optional*):
                1 for a code that applies, 0 for one that does not.

        Returns:
            [`SequenceClassifierOutput`](https://huggingface.co/docs/transformers/main_classes/output), or a tuple of
            its values with `return_dict=False`: `loss`, with `labels` only, and `logits` of shape
            `(batch_size, num_labels)`; `sigmoid` gives the probability.

            While training with `config.rdrop_alpha` the notes are read twice, with different dropout: the loss is that
            of [`rdrop_loss`], and `logits` are those of the first reading. As in the public code, the codes' features
            are computed once for both. Otherwise the loss is the binary cross entropy.

        Raises:
            ValueError: no `input_ids`; no terms of the codes; a note without words, padding that is not behind the
                words, ids outside the vocabulary; `labels` of another shape.
        """
        if self.term_input_ids is None:
            self._term_lengths()  # says so
        if input_ids is None or input_ids.ndim != 2 or not len(input_ids):
            shape = None if input_ids is None else f"of shape {tuple(input_ids.shape)}"
            raise ValueError(f"input_ids={shape}; pass word ids of shape (batch_size, words), as MSMNTokenizer makes.")
        if labels is not None and labels.shape != (len(input_ids), self.config.num_labels):
            raise ValueError(
                f"labels has the shape {tuple(labels.shape)}; pass {(len(input_ids), self.config.num_labels)}: 1 or 0 "
                "for each note and each code, in the order of config.id2label."
            )
        if labels is not None and ((labels < 0) | (labels > 1)).any():
            raise ValueError(
                f"labels has values from {labels.min().item()} to {labels.max().item()}; pass 1 for a code that "
                "applies and 0 for one that does not."
            )
        input_ids, mask, lengths = self._check_words("input_ids", input_ids, attention_mask, self.config.max_words)
        is_twice = self.training and labels is not None and self.config.rdrop_alpha > 0
        if is_twice:
            input_ids, mask, lengths = input_ids.repeat(2, 1), mask.repeat(2, 1), lengths.repeat(2)

        codes = self._codes()
        hidden = self.reduce(self._read(input_ids, lengths))
        heads = self._heads(hidden)

        def score(*chunk):
            return self._score(hidden, heads, mask.bool(), *chunk)

        logits = in_chunks(score, codes, self.config.code_chunk_size, dim=1)
        loss = None
        if is_twice:
            logits, other = logits.chunk(2)
            loss = rdrop_loss(logits, other, labels, self.config.rdrop_alpha)
        elif labels is not None:
            loss = binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _check_words(self, name, ids, mask, max_words):
        """Ids and mask without padding that no row needs, and the lengths, `(rows,)`, on the CPU."""
        if ids.is_floating_point():
            raise ValueError(f"{name} has the type {ids.dtype}; pass whole numbers, as MSMNTokenizer makes them.")
        if mask is None:
            padding = self.config.pad_token_id
            mask = torch.ones_like(ids, dtype=torch.bool) if padding is None else ids != padding
        mask = mask != 0
        if mask.shape != ids.shape:
            raise ValueError(f"attention_mask has the shape {tuple(mask.shape)}, {name} {tuple(ids.shape)}.")
        ids, mask = ids[:, :max_words], mask[:, :max_words]
        lengths = mask.sum(dim=1)
        is_wrong = (lengths == 0) | (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)
        is_outside = (mask & ((ids < 0) | (ids >= self.config.vocab_size))).any(dim=1)
        # One copy, not three: a GPU waits for each.
        lengths, is_wrong, is_outside = torch.stack([lengths, is_wrong, is_outside]).cpu()
        if is_wrong.any():
            row = int(is_wrong.nonzero()[0])
            raise ValueError(
                f"Row {row} of {name} has no words, or padding before its words; pad on the right, and pass at least "
                "one word (MSMNTokenizer gives the unknown word for an empty text)."
            )
        if is_outside.any():
            row = int(is_outside.nonzero()[0])
            raise ValueError(
                f"Row {row} of {name} has ids outside the vocabulary of vocab_size={self.config.vocab_size}; pass ids "
                "of the tokenizer that the model was made for."
            )
        longest = int(lengths.max())
        return ids[:, :longest], mask[:, :longest], lengths

    def _read(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """States of the LSTM, `(rows, words, lstm_size)`; each row is read alone, and zero behind its words."""
        embeddings = self.embedding_dropout(self.word_embedding(ids))
        read = read_both_ways if ids.device.type == "cpu" and isinstance(self.lstm, nn.LSTM) else read_packed
        return read(self.lstm, embeddings, lengths)

    def _codes(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries `(codes, M, head)`, weights `(codes, attention_size)`, biases `(codes,)`; kept while evaluating."""
        if self.training or torch.is_grad_enabled():
            # A step may follow, and a fused optimizer raises no version.
            self._cached_codes = None
            return self._read_codes()
        sources = [*self.parameters(), *self.buffers()]
        device_type = sources[0].device.type
        state = (
            torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type),
            self.config.pool_term_padding,
            # load_state_dict raises the version; a new tensor has another id or place.
            *((id(s), s.data_ptr(), s.dtype, 0 if s.is_inference() else s._version) for s in sources),
        )
        if self._cached_codes is None or self._cached_codes[0] != state:
            self._cached_codes = state, self._read_codes()
        return self._cached_codes[1]

    def _term_lengths(self) -> torch.Tensor:
        """Words of each term, `(num_labels * num_synonyms,)`."""
        lengths = None if self.term_attention_mask is None else self.term_attention_mask.sum(dim=1)
        # A new model of a configuration that knows how long terms were has room for terms, but none.
        if lengths is None or not lengths.all():
            raise ValueError(
                "The codes have no terms; call model.set_label_terms(input_ids, attention_mask) with "
                f"config.num_synonyms={self.config.num_synonyms} tokenized terms for each code."
            )
        return lengths

    def _read_codes(self):
        lengths = self._term_lengths()
        chunk_size = self.config.code_chunk_size * self.config.num_synonyms
        # What an LSTM keeps for its gradients is far more than its states, and there are tens of thousands of terms.
        terms = (self.term_input_ids, lengths.cpu(), lengths)
        synonyms = in_chunks(self._read_terms, terms, chunk_size, dim=0)
        synonyms = synonyms.unflatten(0, (-1, self.config.num_synonyms))
        code = synonyms.amax(dim=1)
        return self.query(synonyms), self.code_weight(code), self.code_bias(code).squeeze(-1)

    def _read_terms(self, ids: torch.Tensor, lengths_on_cpu: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Features of terms, `(terms, attention_size)`."""
        return self._pool(self._read(ids, lengths_on_cpu), lengths)

    def _pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Features of terms, `(terms, attention_size)`: the maximum over their words."""
        states = self.reduce(hidden)
        if not self.config.pool_term_padding:
            is_word = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
            states = states.masked_fill(~is_word[..., None], -torch.inf)
        return states.amax(dim=1)

    def _heads(self, hidden: torch.Tensor) -> torch.Tensor:
        """What queries are compared with, `(batch_size, M, words, head)`."""
        return torch.tanh(self.attention(hidden)).unflatten(-1, (self.config.num_synonyms, -1)).transpose(1, 2)

    def _find(self, hidden, heads, is_word, queries) -> torch.Tensor:
        """What some codes read in the notes, `(batch_size, codes, attention_size)`; arguments as for `_score`."""
        scores = queries.transpose(0, 1) @ heads.transpose(2, 3)
        scores = scores.masked_fill(~is_word[:, None, None], torch.finfo(scores.dtype).min)
        attention = scores.softmax(dim=-1).to(hidden.dtype)
        return (attention.flatten(1, 2) @ hidden).unflatten(1, scores.shape[1:3]).amax(dim=1)

    def _score(self, hidden, heads, is_word, queries, weights, biases) -> torch.Tensor:
        """Logits of some codes, `(batch_size, codes)`.

        Args:
            hidden: states of the words, `(batch_size, words, attention_size)`.
            heads: what the queries are compared with, `(batch_size, M, words, head)`.
            is_word: `(batch_size, words)`.
            queries: of the codes, `(codes, M, head)`.
            weights: of their classifiers, `(codes, attention_size)`.
            biases: `(codes,)`.
        """
        found = self._find(hidden, heads, is_word, queries)
        # In single precision also under autocast: a sum of 512 products decides.
        dtype = torch.promote_types(found.dtype, torch.float32)
        return (self.output_dropout(found).to(dtype) * weights.to(dtype)).sum(dim=-1) + biases.to(dtype)


def rdrop_loss(first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor, alpha: float) -> torch.Tensor:
    """Binary cross entropy of two dropout passes, and how much they differ.

    Args:
        first, second: logits, `(batch_size, num_labels)`.
        labels: 0 and 1, `(batch_size, num_labels)`.
        alpha: weight of the divergence.

    Returns:
        The mean of the two cross entropies, each a mean over notes and codes, plus `alpha` times half of
        KL(first ‖ second) + KL(second ‖ first) of the softmax **across codes**. As in the public code the divergence,
        too, is a mean over notes **and codes** (R-Drop itself sums over the classes), so its weight falls with the
        number of codes.

    Source: Liang et al., *R-Drop*, NeurIPS 2021 (arXiv 2106.14448); `compute_kl_loss` and `forward_rdrop` of the public
    code.

    Examples:
        >>> logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]])
        >>> rdrop_loss(logits, logits, labels, alpha=5.0)
        tensor(0.4714)
        >>> rdrop_loss(logits, logits.flip(1), labels, alpha=5.0)
        tensor(2.2472)
    """
    targets = labels.to(first.dtype)
    cross_entropies = [binary_cross_entropy_with_logits(logits, targets) for logits in (first, second)]
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    divergence = ((p.exp() - q.exp()) * (p - q)).mean() / 2
    return sum(cross_entropies) / 2 + alpha * divergence
