"""Words of MSMN: a vocabulary file and the public code's way to split text."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizer

from .auto_map_msmn import PUBLISHED_TOGETHER  # noqa: F401 (all files of MSMN travel together)
from .publication import PublicationMixin
from .whole_file import whole_file

VOCAB_NAME = "vocab.txt"
PAD, UNKNOWN = "**PAD**", "**UNK**"
"""As the public code writes them. No text can hold them: `*` stands in no word."""

WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    r"""The words of a text: `\w+`, lower-cased, without pure numbers.

    Source: `data_util.py` of https://github.com/GanjinZero/ICD-MSMN.

    Examples:
        >>> split_words("Pt. is 83 y/o; BP 120/80, s/p CABG_x3.")
        ['pt', 'is', 'y', 'o', 'bp', 's', 'p', 'cabg_x3']
    """
    return [word.lower() for word in WORD.findall(text) if not word.isnumeric()]


class MSMNTokenizer(PublicationMixin, PreTrainedTokenizer):
    """
    Words of notes and terms → ids of [`MSMNForICDCoding`].

    A slow tokenizer: transformers' fast ones have no rule that drops numbers. A text without a word becomes one unknown
    word, since the model cannot read nothing (the public code pads it, and what it scores then depends on the batch).

    Args:
        vocab_file (`str`, *optional*):
            One word a line, its number is its id. Only what stands before the first space counts, and a first line of
            two numbers does not, so word2vec's text format will do.
        vocab (sequence of `str`, *optional*):
            The words themselves, instead of the file.
        pad_token, unk_token (`str`):
            Padding and unknown words. New vocabularies have them at 0 and 1; the public code has `**UNK**`, `**PAD**`
            and `**MASK**` behind all words, in this order.
        model_max_length (`int`, defaults to 4000):
            Words of a note with `truncation=True`.
        data_license (`str`, *optional*):
            Licence of the notes whose words these are. Words of credentialed notes are not pushed to a public
            repository without an explicit permission.

    Raises:
        ValueError: neither or both of `vocab_file` and `vocab`; a word twice, an empty one, or one with spaces; no
            entry for padding or unknown words.

    Examples:
        >>> tokenizer = MSMNTokenizer.from_texts(["fever and cough", "Fever; 2 days"], min_count=2)
        >>> tokenizer.get_vocab()
        {'**PAD**': 0, '**UNK**': 1, 'fever': 2}
        >>> tokenizer(["Fever, sepsis.", "fever"], padding=True)
        {'input_ids': [[2, 1], [2, 0]], 'attention_mask': [[1, 1], [1, 0]]}
    """

    vocab_files_names = {"vocab_file": VOCAB_NAME}  # noqa: RUF012 (transformers' form)
    published_as = "this vocabulary"
    _auto_class = "AutoTokenizer"
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (transformers' form)

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        vocab: Sequence[str] | None = None,
        pad_token: str = PAD,
        unk_token: str = UNKNOWN,
        model_max_length: int = 4000,
        data_license: str | None = None,
        **kwargs,
    ):
        if (vocab_file is None) == (vocab is None):
            raise ValueError("Pass either vocab_file (one word a line) or vocab (a list of words).")
        words = _read_words(vocab_file) if vocab is None else list(vocab)
        for index, word in enumerate(words):
            if word.split() != [word]:
                source = f"vocab[{index}]" if vocab_file is None else f"Line {index + 1} of the words in vocab_file"
                raise ValueError(f"{source} is {word!r}; write one word, without spaces.")
        self._ids = {word: index for index, word in enumerate(words)}
        self._words = words
        if len(self._ids) < len(words):
            word, _ = Counter(words).most_common(1)[0]
            raise ValueError(f"The vocabulary has {word!r} more than once; pass each word once.")
        for name, token in (("pad_token", pad_token), ("unk_token", unk_token)):
            if str(token) not in self._ids:
                raise ValueError(f"{name}={str(token)!r} is not in the vocabulary; add it, or pass the one that is.")
        self._unknown = self._ids[str(unk_token)]
        # What is not said here, transformers would take from BERT.
        kwargs = {"split_special_tokens": True, "special_tokens_pattern": "none", **kwargs}
        super().__init__(
            pad_token=pad_token,
            unk_token=unk_token,
            model_max_length=model_max_length,
            data_license=data_license,  # so that it is saved
            **kwargs,
        )
        self.data_license = data_license

    @property
    def _data_license(self) -> str | None:
        return self.data_license

    @classmethod
    def from_texts(cls, texts: Iterable[str], min_count: int = 3, **kwargs) -> MSMNTokenizer:
        """A tokenizer for the words of some texts.

        Args:
            texts: notes of the training split.
            min_count: words that occur less often are unknown. Rare words of notes are often names.
            kwargs: of the class.

        Returns:
            A tokenizer with padding at 0, unknown words at 1, then the most frequent words first.

        Raises:
            ValueError: `min_count` below 1.
            TypeError: `texts` is one text.
        """
        if min_count < 1:
            raise ValueError(f"min_count={min_count}; pass 1 or more.")
        if isinstance(texts, str):
            raise TypeError("texts is one text; pass a list of texts.")
        counts = Counter(word for text in texts for word in split_words(text))
        words = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls(vocab=[PAD, UNKNOWN, *words], **kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of words, padding and unknown words included."""
        return len(self._words)

    def get_vocab(self) -> dict[str, int]:
        """Word → id, with the tokens that were added."""
        return {**self._ids, **self.added_tokens_encoder}

    def _tokenize(self, text, **kwargs):
        return split_words(text) or [str(self.unk_token)]

    def _convert_token_to_id(self, token):
        return self._ids.get(token, self._unknown)

    def _convert_id_to_token(self, index):
        return self._words[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The words with spaces between them."""
        return " ".join(tokens)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write the vocabulary, one word a line."""
        path = os.path.join(save_directory, (f"{filename_prefix}-" if filename_prefix else "") + VOCAB_NAME)
        with whole_file(path) as file:
            file.writelines(f"{word}\n" for word in self._words)
        return (path,)


def _read_words(path: str | os.PathLike) -> list[str]:
    """What stands before the first space of each line; the last may be empty, and the first word2vec's two sizes."""
    with open(path, encoding="utf-8-sig") as file:
        lines = file.read().split("\n")
    if not lines[-1]:
        lines.pop()
    if lines and re.fullmatch(r"\d+ \d+\s*", lines[0]):
        lines = lines[1:]
    return [line.split(maxsplit=1)[0] if line.strip() else "" for line in lines]
