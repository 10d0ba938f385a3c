"""Names of concepts as columns of text: cleaning, repetitions, order, and the form in which sources compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .hierarchy import rows_to_offsets

NAME_KINDS = ("preferred", "synonym", "abbreviation")
"""What a name can be: the title of its concept, another name, or an abbreviation."""
PREFERRED, SYNONYM, ABBREVIATION = range(3)

# Two spaces, or one that is no plain space.
_ODD_SPACE = r"[\s\pZ]{2}|[^\S ]|[^ \PZ]"
# A name given both as a synonym and as an abbreviation is an abbreviation: sources differ in how much they tell.
_PRECEDENCE = np.array([0, 2, 1], np.uint8)


class Names(NamedTuple):
    """Names sorted by concept and kind.

    Attributes:
        concepts: (names,) int32.
        texts: (names,) arrow strings.
        kinds: (names,) uint8, numbers in `NAME_KINDS`.
    """

    concepts: np.ndarray
    texts: pa.LargeStringArray
    kinds: np.ndarray


def text_column(values: Sequence[str] | pa.Array | pa.ChunkedArray, argument: str) -> pa.LargeStringArray:
    """A column of text; "" for what is null.

    Raises:
        TypeError: numbers, or one string, for `argument`.
    """
    if isinstance(values, str):
        raise TypeError(f"{argument}={values!r} is one string; pass a list of them.")
    try:
        column = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(list(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise TypeError(f"{argument} is no column of text; pass strings only.") from None
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type)):
        raise TypeError(f"{argument} is of type {column.type}; pass text: as codes '038.9' and 38.9 differ.")
    column = column.cast(pa.large_string())
    return pc.fill_null(column, "") if column.null_count else column


def kind_numbers(kinds: Sequence[str] | np.ndarray) -> np.ndarray:
    """Numbers in `NAME_KINDS`, for names of kinds or for such numbers.

    Raises:
        ValueError: another kind.

    Examples:
        >>> kind_numbers(["synonym", "preferred"]).tolist()
        [1, 0]
    """
    if isinstance(kinds, np.ndarray) and kinds.dtype.kind in "iu":
        numbers = kinds.astype(np.int64)
        bad = np.flatnonzero((numbers < 0) | (numbers >= len(NAME_KINDS)))
    else:
        kinds = text_column(kinds, "kinds")
        found = pc.index_in(kinds, value_set=pa.array(NAME_KINDS, pa.large_string()))
        numbers = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(numbers < 0)
    if len(bad):
        value = kinds[int(bad[0])]
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        raise ValueError(f"kinds[{bad[0]}]={value!r} is no kind of name; legal are: {', '.join(NAME_KINDS)}.")
    return numbers.astype(np.uint8)


def clean_names(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Runs of white space become one space, none at the ends.

    Examples:
        >>> clean_names(pa.array([" kidney\\n  failure "], pa.large_string())).to_pylist()
        ['kidney failure']
    """
    # Few names need it, and to find them takes a tenth of the time.
    odd = pc.match_substring_regex(texts, _ODD_SPACE)
    cleaned = pc.replace_substring_regex(texts.filter(odd), r"[\s\pZ]+", " ")
    return pc.utf8_trim_whitespace(pc.replace_with_mask(texts, odd, cleaned) if len(cleaned) else texts)


def normalise_names(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Names as sources compare them: lower case, letters and digits, one space for all that stands between them.

    The signs + < > = ≤ ≥ % stay, since "HER2+" or "BMI < 20" say something by them.

    Examples:
        >>> normalise_names(pa.array(["Crohn's  disease (NOS)", "Crohn-S disease, NOS", "HER2+"])).to_pylist()
        ['crohn s disease nos', 'crohn s disease nos', 'her2+']
    """
    texts = pc.utf8_lower(pc.utf8_normalize(texts, "NFKC"))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[^\pL\pN\pM+<>=≤≥%]+", " "))


def text_numbers(texts: pa.LargeStringArray) -> np.ndarray:
    """(texts,) integers, equal for equal texts and not for others."""
    return pc.dictionary_encode(texts).indices.to_numpy(zero_copy_only=False).astype(np.int64)


def tidy_names(
    concepts: np.ndarray, texts: pa.LargeStringArray, kinds: np.ndarray, num_concepts: int, max_name_length: int
) -> tuple[Names, dict[str, int]]:
    """Names that are worth keeping, by concept: the preferred one, synonyms, abbreviations, each in the order given.

    A name repeats another of its concept if the two differ in case only. A concept has one preferred name, the first
    that was given as such, or else its first synonym; what else was given as preferred becomes a synonym.

    Args:
        concepts: (names,) concept numbers, -1 for a name without one.
        texts: (names,) names.
        kinds: (names,) numbers in `NAME_KINDS`.
        num_concepts: how many there are.
        max_name_length: longer names, in characters, are dropped.

    Returns:
        The names, and how many were dropped: `names_without_concept`, `empty_names`, `long_names`, `duplicate_names`.
    """
    texts = clean_names(texts)
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    without, empty, long = concepts < 0, lengths == 0, lengths > max_name_length
    counts = {
        "names_without_concept": int(without.sum()),
        "empty_names": int((empty & ~without).sum()),
        "long_names": int((long & ~without).sum()),
    }
    kept = np.flatnonzero(~(without | empty | long))
    kept = kept[np.lexsort((_PRECEDENCE[kinds[kept]], concepts[kept]))]
    numbers = text_numbers(pc.utf8_lower(texts))
    keys = concepts[kept].astype(np.int64) * (numbers.max(initial=0) + 1) + numbers[kept]
    del numbers
    _, first = np.unique(keys, return_index=True)
    counts["duplicate_names"] = len(kept) - len(first)
    kept = kept[np.sort(first)]
    kept = kept[np.lexsort((kept, kinds[kept], concepts[kept]))]

    concepts, kinds = concepts[kept].astype(np.int32), kinds[kept].copy()
    offsets = rows_to_offsets(concepts, num_concepts)
    leading = offsets[:-1][np.diff(offsets) > 0]
    titles = leading[kinds[leading] != ABBREVIATION]
    kinds[kinds == PREFERRED] = SYNONYM
    kinds[titles] = PREFERRED
    return Names(concepts, texts.take(pa.array(kept)), kinds), counts
