"""What a code of a system is: the shapes of ICD codes, the spellings of a missing value, codes read as numbers.

Only systems that are named, or implied by what is read, are enforced: a code set may hold codes of any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

MISSING = frozenset(
    # What pandas, R, SQL, spreadsheets, SAS and MIMIC write.
    ["NULL", "(NULL)", "[NULL]", "NAN", "-NAN", "NAT", "NONE", "NA", "<NA>", "N/A", "#N/A", "#NA", "\\N", ".", "NODX"]
) | {""}
"""The usual spellings of a missing value, in upper case."""

AS_TEXT = "export the table again with its codes as text (in pandas, read it with dtype=str)"
"""What to do about codes that were read as numbers."""

LONGEST_CODE = 100
"""Characters of a code, of whatever system: what is longer is none."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]\d+)?")
_MANY = 100
_MANY_LONG = 30
_DOTTED_DIAGNOSIS = re.compile(r"\d{3}(\.\d{1,2})?")


def is_missing(value: str) -> bool:
    """Whether a text is one of the usual spellings of a missing value.

    Examples:
        >>> is_missing(" NaN "), is_missing("\\\\N"), is_missing("401.9")
        (True, True, False)
    """
    return value.strip().upper() in MISSING


@dataclass(frozen=True)
class CodeSystem:
    """A system of codes.

    Attributes:
        name: with what its codes are about.
        shape: of a code in upper case without its dot.
        words: the shape in words.
        head: of the code as it stands before the dot; None where there are no dots.
    """

    name: str
    shape: re.Pattern
    words: str
    head: re.Pattern | None

    def dotted(self, code: str) -> str:
        """The code in upper case with its dot, from text with it or without, spaces around it removed.

        Raises:
            ValueError: it is no code of the system. The message starts with what the text is.

        Examples:
            >>> ICD9_DIAGNOSIS.dotted("0389"), ICD9_DIAGNOSIS.dotted("e029.9"), ICD9_PROCEDURE.dotted(" 0407 ")
            ('038.9', 'E029.9', '04.07')
        """
        dotted = self.parse(code)
        if dotted is None:
            raise ValueError(self._problem(code.strip().upper()))
        return dotted

    def parse(self, code: str) -> str | None:
        """As `dotted`, but None for what is no code of the system."""
        text = code.strip().upper()
        bare = text.replace(".", "", 1)
        if not self.shape.fullmatch(bare):
            return None
        dotted = bare
        if self.head is not None:
            end = self.head.match(bare).end()
            dotted = f"{bare[:end]}.{bare[end:]}".rstrip(".")
        return dotted if text in (bare, dotted, f"{dotted}.") else None

    def _problem(self, text: str) -> str:
        if is_missing(text):
            return "stands for no code; leave it out"
        problem = f"is no code of {self.name} ({self.words})"
        if _NUMBER.fullmatch(text):
            return f"{problem} and may have been read as a number, which loses zeros: {AS_TEXT}"
        return f"{problem}; leave out what is no ICD code, such as CPT and HCPCS"


ICD9_DIAGNOSIS = CodeSystem(
    "ICD-9-CM diagnoses",
    re.compile(r"\d{3,5}|V\d{2,4}|E\d{3,4}"),
    "three digits, V and two, or E and three, then up to two after the dot",
    re.compile(r"E?..."),
)
ICD9_PROCEDURE = CodeSystem(
    "ICD-9-CM procedures", re.compile(r"\d{2,4}"), "two digits, then up to two after the dot", re.compile("..")
)
ICD10_DIAGNOSIS = CodeSystem(
    "ICD-10-CM",
    re.compile(r"[A-Z]\d[0-9A-Z]{1,5}"),
    "a letter, a digit and a third character, then up to four after the dot",
    re.compile("..."),
)
ICD10_PROCEDURE = CodeSystem(
    "ICD-10-PCS", re.compile(r"[0-9B-DF-HX][0-9A-HJ-NP-Z]{6}"), "seven characters without I and O, no dot", None
)


def code_system(procedure: bool = False, icd_version: int = 9) -> CodeSystem:
    """The system of codes in an ICD table.

    Raises:
        ValueError: another `icd_version` than 9 and 10.
    """
    if icd_version not in (9, 10):
        raise ValueError(f"icd_version={icd_version!r}; pass 9 or 10.")
    if icd_version == 9:
        return ICD9_PROCEDURE if procedure else ICD9_DIAGNOSIS
    return ICD10_PROCEDURE if procedure else ICD10_DIAGNOSIS


ICD9_EXTERNAL_CATEGORY = re.compile(r"E([89]\d|0[0-3])\d")
"""E888 is a category of ICD-9. In ICD-10 it would be E88.8 without its dot."""
_UNDOTTED = re.compile(r"\d{4,5}|[A-Z]\d[0-9A-Z]{2,5}")


def lacks_dot(code: str) -> bool:
    """Whether a code in upper case is too long for a category and no ICD-10-PCS code: its dot must have been removed.

    Examples:
        >>> lacks_dot("0389"), lacks_dot("I10"), lacks_dot("E888"), lacks_dot("0DTJ4ZZ"), lacks_dot("038.9")
        (True, False, False, False, False)
    """
    return bool(_UNDOTTED.fullmatch(code)) and not (
        ICD9_EXTERNAL_CATEGORY.fullmatch(code) or ICD10_PROCEDURE.shape.fullmatch(code)
    )


def lost_dotted_zeros(codes: Iterable[str]) -> bool:
    """As [`lost_zeros`] for the diagnoses of ICD-9 among dotted codes, of whatever systems these are.

    Examples:
        >>> lost_dotted_zeros(f"{number}.{number % 9 + 1}5" for number in range(100, 210))
        True
    """
    diagnoses = {code for code in codes if _DOTTED_DIAGNOSIS.fullmatch(code)}
    # So many codes such as 250.01 do not go without one such as 250.00.
    return sum(len(code) == 6 for code in diagnoses) >= _MANY_LONG and lost_zeros(diagnoses, trailing=True)


def lost_zeros(codes: Iterable[str], trailing: bool = False) -> bool:
    """Whether codes of digits have visibly been read as numbers: none of many has a zero that a number loses.

    Args:
        codes: of one system; those with letters do not count.
        trailing: whether a zero at the end, as in 250.00, would be lost too: where codes had their dots before.

    Examples:
        >>> lost_zeros(str(number) for number in range(100, 300))
        True
        >>> lost_zeros(f"{number:04}" for number in range(900, 1200))
        False
    """
    digits = {code for code in codes if code.replace(".", "", 1).isdecimal()}
    kept = re.compile(r"0.*|\d+\.\d0" if trailing else r"0.*")
    return len(digits) >= _MANY and not any(map(kept.fullmatch, digits))


class Spellings:
    """Finds codes that are written in another way: other case, spaces, with or without their dot.

    Args:
        codes: to be found, in the spelling that is wanted.

    Examples:
        >>> spellings = Spellings(["A41.9", "401.9"])
        >>> [spellings.find(code) for code in (" a41.9", "A419", "4019", "I10")]
        ['A41.9', 'A41.9', '401.9', None]

        With procedures in the set, 4019 may be the diagnosis 401.9 or the procedure 40.19:

        >>> Spellings(["401.9", "38.93"]).find("4019") is None
        True
    """

    def __init__(self, codes: Collection[str]):
        self._known: dict[str, str] = {code: code for code in codes}
        self._upper = {_plain(code): code for code in codes}
        self._heads = _heads(self._upper)
        # Undotted digits are diagnoses for certain where one is too long for a procedure.
        self._undotted_diagnoses = any(re.fullmatch(r"\d{5}|V\d{3,4}", code) for code in self._upper)

    def find(self, code: str) -> str | None:
        """The code that is meant; None where there is none, or several may be."""
        if code in self._known:
            return self._known[code]
        upper = _plain(code)
        if upper not in self._upper:
            upper = self._with_other_dot(upper)
        return self._upper.get(upper)

    def _with_other_dot(self, code: str) -> str:
        if "." in code:
            head, _, tail = code.partition(".")
            # 40.19 and 401.9 are both 4019 without a dot.
            is_certain = not code.replace(".", "").isdecimal() or (self._undotted_diagnoses and len(head) == 3)
            return head + tail if is_certain else code
        heads = self._heads.get(_kind(code), ()) if code else ()
        # E888 is a category where the codes with E are of ICD-9.
        if not lacks_dot(code) and not (ICD9_EXTERNAL_CATEGORY.fullmatch(code) and heads == [3]):
            return code
        fitting = [head for head in heads if not code.isdecimal() or 1 <= len(code) - head <= 2]
        return f"{code[: fitting[0]]}.{code[fitting[0] :]}" if len(fitting) == 1 else code


def _plain(code: str) -> str:
    return "".join(code.split()).upper().removesuffix(".")


def _kind(code: str) -> str:
    """Codes of one kind have their dot at one place, in one system."""
    return "digits" if code[0].isdecimal() else "E" if code[0] == "E" else "letter"


def _heads(codes: Iterable[str]) -> dict[str, list[int]]:
    """Kind → how many characters stand before the dot."""
    heads: dict[str, set[int]] = {}
    for code in codes:
        if "." in code:
            heads.setdefault(_kind(code), set()).add(code.index("."))
    return {kind: sorted(positions) for kind, positions in heads.items()}
