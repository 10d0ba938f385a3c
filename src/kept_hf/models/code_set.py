"""`ICDCodeSet`: the ordered codes of a task with their descriptions, synonyms and parents.

The order of the codes is the order of the labels, of the logits and, unless asked otherwise, of the prompt.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from .code_systems import (
    AS_TEXT,
    ICD10_DIAGNOSIS,
    LONGEST_CODE,
    Spellings,
    code_system,
    is_missing,
    lacks_dot,
    lost_dotted_zeros,
)
from .whole_file import whole_file

logger = logging.getLogger(__name__)

# What programs make of codes that they take for numbers: 1e+05, 38.900000000000006. 1E50 is a code of ICD-11.
_FLOAT = re.compile(r"\d+(\.\d+)?[eE][+-]\d+|\d+\.\d{6,}")
_LONG_NUMBER = re.compile(r"\d{4,}\.(\d+)")
_CSV_COLUMNS = ("code", "description", "synonyms", "parent")


def add_dot(code: str, procedure: bool = False, icd_version: int = 9) -> str:
    """Put the dot into an undotted code, as MIMIC's tables store them.

    Diagnosis codes have it after three characters (four for ICD-9's external causes, E000 to E999), ICD-9 procedure
    codes after two. ICD-10-PCS codes have none.

    Args:
        code: a code as text, dotted or not.
        procedure: whether `code` is a procedure code.
        icd_version: 9 or 10.

    Raises:
        TypeError: `code` is no string (a number has lost its leading zeros).
        ValueError: another `icd_version`, or no code of the system: of another shape, with its dot elsewhere (407.0 was
            a number), or a spelling of a missing value.

    Examples:
        >>> add_dot("0389"), add_dot("389"), add_dot("E0299"), add_dot("0407", procedure=True)
        ('038.9', '389', 'E029.9', '04.07')
        >>> add_dot("E8342", icd_version=10), add_dot("0BW03ZZ", procedure=True, icd_version=10)
        ('E83.42', '0BW03ZZ')
    """
    if not isinstance(code, str):
        raise TypeError(f"code={code!r} is of type {type(code).__name__}; pass text: '038.9' and '38.9' differ.")
    system = code_system(procedure, icd_version)
    try:
        return system.dotted(code)
    except ValueError as error:
        raise ValueError(f"code={code!r} {error}.") from None


def category_parents(codes: Iterable[str]) -> dict[str, str]:
    """Code → the category above it, up to the one without a dot: what the digits of dotted codes say.

    Examples:
        >>> category_parents(["250.01", "486"])
        {'250.01': '250.0', '250.0': '250'}
    """
    parents: dict[str, str] = {}
    for code in codes:
        while "." in code and code not in parents and len(code) <= LONGEST_CODE:
            parents[code] = above = code[:-1].rstrip(".")
            code = above
    return parents


def load_tabular_list() -> ModuleType:
    """The module `simple_icd_10_cm`, which reads the ICD-10-CM tabular list that it carries when it is first imported.

    Raises:
        ImportError: the package `simple-icd-10-cm` is missing.
    """
    try:
        import simple_icd_10_cm
    except ImportError as error:
        raise ImportError("The ICD-10-CM tabular list needs: pip install simple-icd-10-cm") from error
    return simple_icd_10_cm


def separator_hint(columns: Sequence[str]) -> str:
    """What to say of the header of a CSV that was read by commas and is of another separator; "" otherwise.

    Examples:
        >>> separator_hint(["code;description"]), separator_hint(["code", "title"])
        ('; they are separated by ";", so save the table with commas', '')
    """
    found = next((mark for mark in ";\t|" if len(columns) == 1 and mark in columns[0]), None)
    if found is None:
        return ""
    name = "tabs" if found == "\t" else f'"{found}"'
    return f"; they are separated by {name}, so save the table with commas"


class ICDCodeSet:
    """Ordered ICD codes with what is known about each.

    Args:
        codes: the codes, as text, dotted where their system has a dot, without duplicates. Spaces around them are
            removed. Codes of any system will do.
        descriptions: code → official title. Codes may be missing here: see `describe`.
        synonyms: code → further names.
        parents: code → the code above it.

    Raises:
        TypeError: a code is no string, or what is known of one is of another type.
        ValueError: no codes, a missing or duplicated code, one of more than 100 characters or with one that does not
            show, dotted and undotted codes, or codes that were read as numbers.

    Examples:
        >>> code_set = ICDCodeSet(["401.9", "038.9"], descriptions={"401.9": "Unspecified essential hypertension"})
        >>> len(code_set), code_set.codes, code_set.index("038.9")
        (2, ('401.9', '038.9'), 1)
        >>> code_set.label2id
        {'401.9': 0, '038.9': 1}
    """

    def __init__(
        self,
        codes: Sequence[str],
        descriptions: Mapping[str, str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        parents: Mapping[str, str] | None = None,
    ):
        if isinstance(codes, str):
            raise TypeError(f"codes={codes!r} is one string; pass a list of codes: [{codes!r}].")
        self.codes: tuple[str, ...] = tuple(code.strip() if isinstance(code, str) else code for code in codes)
        _check_codes(self.codes)
        self._spellings: Spellings | None = None
        self._index = {code: index for index, code in enumerate(self.codes)}
        descriptions, synonyms, parents = (
            _by_code(name, mapping)
            for name, mapping in (("descriptions", descriptions), ("synonyms", synonyms), ("parents", parents))
        )
        # The codes above those of the set are kept too: their titles stand in for missing ones.
        kept = set(self.codes)
        self.parents: dict[str, str] = {}
        for code in self.codes:
            while parents.get(code) and code not in self.parents:
                self.parents[code] = code = parents[code]
                kept.add(code)
        self.descriptions = {
            code: text.strip() for code, text in descriptions.items() if code in kept and _has_text(text)
        }
        self.synonyms = {
            code: tuple(dict.fromkeys(" ".join(name.split()) for name in names if _has_text(name)))
            for code, names in synonyms.items()
            if code in kept and any(map(_has_text, names))
        }

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.codes)

    def __contains__(self, code: object) -> bool:
        return code in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ICDCodeSet) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self) -> str:
        described = sum(code in self.descriptions for code in self.codes)
        return f"ICDCodeSet({len(self)} codes, {self.codes[0]} … {self.codes[-1]}, {described} described)"

    def index(self, code: str) -> int:
        """Position of `code`, which is its label id.

        Raises:
            KeyError: `code` is not in the set.
        """
        try:
            return self._index[code]
        except KeyError:
            raise KeyError(f"code={code!r} is not among the {len(self)} codes of this code set.") from None

    def find(self, code: str) -> str | None:
        """The code of this set that `code` means in another spelling: case, spaces, with or without its dot.

        Returns:
            None where there is none, or several may be meant.

        Examples:
            >>> ICDCodeSet(["A41.9"]).find(" a419"), ICDCodeSet(["A41.9"]).find("I10")
            ('A41.9', None)
        """
        if code in self._index:
            return code
        if self._spellings is None:
            self._spellings = Spellings(self.codes)
        return self._spellings.find(code)

    @property
    def label2id(self) -> dict[str, int]:
        """Code → position, as a transformers config wants it."""
        return dict(self._index)

    @property
    def id2label(self) -> dict[int, str]:
        """Position → code."""
        return dict(enumerate(self.codes))

    @property
    def undescribed(self) -> tuple[str, ...]:
        """The codes that have neither a description nor a synonym, in order."""
        return tuple(code for code in self.codes if code not in self.descriptions and code not in self.synonyms)

    def describe(self, code: str) -> str:
        """The name of `code` for prompts and reports.

        That is its description; without one its first synonym; else the description of the nearest parent that has
        one; else the code itself. Runs of spaces become one.

        Raises:
            KeyError: `code` is not in the set.

        Examples:
            >>> ICDCodeSet(["401.9", "V99"], synonyms={"401.9": ["htn"]}).describe("401.9")
            'htn'
            >>> ICDCodeSet(["V99"]).describe("V99")
            'V99'
        """
        self.index(code)
        if code in self.descriptions:
            return " ".join(self.descriptions[code].split())
        if code in self.synonyms:
            return self.synonyms[code][0]
        above, seen = self.parents.get(code), {code}
        while above and above not in seen:
            if above in self.descriptions:
                return " ".join(self.descriptions[above].split())
            seen.add(above)
            above = self.parents.get(above)
        return code

    def subset(self, codes: Iterable[str]) -> ICDCodeSet:
        """A code set of `codes`, in the order given, with what this one knows of them.

        Raises:
            KeyError: a code is not in this set.
        """
        codes = list(codes)
        for code in codes:
            self.index(code)
        return ICDCodeSet(codes, self.descriptions, self.synonyms, self.parents)

    def with_synonyms(self, graph: Any) -> ICDCodeSet:
        """This code set with the names that a term graph has for its codes.

        Args:
            graph: a `kept_hf.knowledge.TermGraph`; see its `names_of_codes`.

        Returns:
            A new code set. The graph's names come after the synonyms that are here already, none twice and none that
            differs from the description in case only. A code without a description gets its preferred name.

        Examples:
            >>> from kept_hf.knowledge import TermGraph
            >>> graph = TermGraph.from_tables(["I10", "I10"], ["Hypertension", "HTN"], ["preferred", "abbreviation"])
            >>> code_set = ICDCodeSet(["I10"]).with_synonyms(graph)
            >>> code_set.describe("I10"), code_set.synonyms
            ('Hypertension', {'I10': ('HTN',)})
        """
        descriptions, synonyms = dict(self.descriptions), dict(self.synonyms)
        for code, names in graph.names_of_codes(self.codes).items():
            if names and code not in descriptions:
                descriptions[code] = names[0]
            known = {name.lower() for name in (descriptions.get(code, ""), *self.synonyms.get(code, ()))}
            synonyms[code] = [*self.synonyms.get(code, ()), *(name for name in names if name.lower() not in known)]
        return ICDCodeSet(self.codes, descriptions, synonyms, self.parents)

    def synonym_table(self, max_synonyms: int) -> list[list[str]]:
        """The names of each code, as MSMN reads them.

        Args:
            max_synonyms: how many names a code.

        Returns:
            For each code, in order, `max_synonyms` names: what `describe` says, then its synonyms, none twice. Shorter
            lists are repeated from their start.

        Raises:
            ValueError: `max_synonyms` below 1.

        Source:
            Yuan et al., *Code Synonyms Do Matter*, ACL 2022.

        Examples:
            >>> ICDCodeSet(["I10", "R05"], {"I10": "Hypertension"}, {"I10": ["HTN"]}).synonym_table(3)
            [['Hypertension', 'HTN', 'Hypertension'], ['R05', 'R05', 'R05']]
        """
        if max_synonyms < 1:
            raise ValueError(f"max_synonyms={max_synonyms!r}; pass at least 1.")
        table = []
        for code in self.codes:
            names = [self.describe(code), *self.synonyms.get(code, ())]
            names = list({name.lower(): name for name in reversed(names)}.values())[::-1]
            table.append([names[place % len(names)] for place in range(max_synonyms)])
        return table

    def multi_hot(self, codes: Iterable[str]) -> list[int]:
        """0/1 labels in the order of this set; codes in another spelling are found, those not in it are left out.

        Examples:
            >>> ICDCodeSet(["401.9", "038.9"]).multi_hot(["038.9", "V99"])
            [0, 1]
        """
        wanted = {self.find(code) for code in codes}
        return [int(code in wanted) for code in self.codes]

    def to_dict(self) -> dict:
        """A plain dict that `from_dict` reads."""
        return {
            "codes": list(self.codes),
            "descriptions": dict(self.descriptions),
            "synonyms": {code: list(names) for code, names in self.synonyms.items()},
            "parents": dict(self.parents),
        }

    @classmethod
    def from_dict(cls, content: Mapping) -> ICDCodeSet:
        """The code set that `to_dict` wrote.

        Raises:
            TypeError, ValueError: no list `codes` in `content`, and as `ICDCodeSet`; the message names the field.
        """
        if not isinstance(content, Mapping) or not isinstance(content.get("codes"), list):
            raise ValueError('A code set needs {"codes": [...], "descriptions": {...}}; got no list under "codes".')
        return cls(content["codes"], content.get("descriptions"), content.get("synonyms"), content.get("parents"))

    def to_json(self, path: str | os.PathLike) -> None:
        """Write the code set as JSON."""
        with whole_file(path) as file:
            json.dump(self.to_dict(), file, ensure_ascii=False, indent=1)
            file.write("\n")

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> ICDCodeSet:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the file holds something else; the message names it.
        """
        named = f"path={os.fspath(path)!r}"
        with open(path, "rb") as file:
            content = file.read()
        try:
            return cls.from_dict(json.loads(content.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise ValueError(f"{named} is not UTF-8 at byte {error.start}; convert it.") from None
        except RecursionError:
            raise ValueError(f"{named} is no code set: its JSON is nested too deeply.") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{named} is no code set: {error}") from None

    @classmethod
    def from_csv(cls, path: str | os.PathLike) -> ICDCodeSet:
        """Read a CSV with the columns `code`, `description` and, if wanted, `synonyms` (";" between them) and `parent`.

        Raises:
            ValueError: a missing column, a row without a code, or a row that cannot be read; the message names the row.
        """
        codes, descriptions, synonyms, parents = [], {}, {}, {}
        rows = _read_csv(path)
        _, columns = next(rows, (0, []))
        missing = [name for name in _CSV_COLUMNS[:2] if name not in columns]
        if missing:
            raise ValueError(
                f"{os.fspath(path)} has no column {', '.join(missing)}; its columns are {columns}"
                f"{separator_hint(columns)}. "
                f"Required: code, description; optional: synonyms, parent."
            )
        for line, values in rows:
            if not values:
                continue
            row = dict(zip(columns, values, strict=False))
            code = row.get("code", "").strip()
            if is_missing(code):
                raise ValueError(
                    f"{os.fspath(path)}, line {line}: the column code is empty, or has a word that stands for no "
                    "code; leave the row out."
                )
            codes.append(code)
            descriptions[code] = row.get("description", "")
            synonyms[code] = [name for name in row.get("synonyms", "").split(";") if name.strip()]
            parents[code] = row.get("parent", "").strip()
        return cls(codes, descriptions, synonyms, parents)

    @classmethod
    def from_icd10cm(cls, codes: Sequence[str] | None = None) -> ICDCodeSet:
        """The ICD-10-CM tabular list as `simple-icd-10-cm` carries it: titles, inclusion terms as synonyms, parents.

        Args:
            codes: the codes wanted, in order; all categories and codes of the list by default (extended seventh
                characters left out). Codes that the list does not know (retired ones, say) take the title of the
                nearest code above them that it knows, or stay undescribed; one warning counts them.

        Raises:
            ImportError: the package `simple-icd-10-cm` is missing.

        Examples:
            >>> code_set = ICDCodeSet.from_icd10cm(["N17.9"])
            >>> code_set.describe("N17.9"), code_set.synonyms["N17.9"], code_set.parents["N17.9"]
            ('Acute kidney failure, unspecified', ('Acute kidney injury (nontraumatic)',), 'N17')
        """
        tabular_list = load_tabular_list()
        if codes is None:
            # The list names a block of a single category twice, as block and as category.
            codes = [
                code
                for code in dict.fromkeys(tabular_list.get_all_codes(True))
                if ICD10_DIAGNOSIS.shape.fullmatch(code.replace(".", "", 1))
                and not tabular_list.is_extended_subcategory(code)
            ]
        # Checked before the search for codes above them, which takes the square of their length.
        codes = cls(codes).codes
        descriptions, synonyms, parents, unknown = {}, {}, {}, 0
        for code in codes:
            above = code[:-1].rstrip(".")
            if tabular_list.is_valid_item(code):
                descriptions[code] = tabular_list.get_description(code)
                synonyms[code] = tabular_list.get_inclusion_term(code)
            else:
                unknown += 1
                while len(above) >= 3 and not tabular_list.is_valid_item(above):
                    above = above[:-1].rstrip(".")
                if len(above) >= 3:
                    # The category need not be in the set, so its title is taken here.
                    descriptions[code] = tabular_list.get_description(above)
            if len(above) >= 3:
                parents[code] = above
        if unknown:
            logger.warning(
                "%d of %d codes are not in the ICD-10-CM tabular list: they take the title of the nearest code above "
                "them, or stay undescribed.",
                unknown,
                len(codes),
            )
        return cls(codes, descriptions, synonyms, parents)


def _read_csv(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the first of which is the header, each with the number of its last line."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{os.fspath(path)}, line {reader.line_num}: {error}.") from None


def _by_code(name: str, mapping: object) -> dict[str, Any]:
    """Code → what is known of it, as the argument `name` says."""
    if not isinstance(mapping, Mapping | None):
        raise TypeError(f"{name} is of type {type(mapping).__name__}; pass a mapping from codes.")
    for code, value in (mapping or {}).items():
        if not isinstance(code, str):
            raise TypeError(f"{name} has {code!r} of type {type(code).__name__}; pass codes as text.")
        if name != "synonyms":
            if not isinstance(value, str | None):
                raise TypeError(f"{name}[{code!r}] is of type {type(value).__name__}; pass text.")
        elif isinstance(value, str):
            raise TypeError(f"{name}[{code!r}]={value!r} is one string; pass a list of names: [{value!r}].")
        elif not isinstance(value, Sequence) or not all(isinstance(item, str | None) for item in value):
            raise TypeError(f"{name}[{code!r}] is no list of text; pass a list of names.")
    return {code.strip(): value for code, value in (mapping or {}).items()}


def _has_text(text: str | None) -> bool:
    return bool(text and text.strip())


def _check_codes(codes: Sequence[str]) -> None:
    if not codes:
        raise ValueError("codes=[] is empty; pass at least one code.")
    spellings: dict[str, str] = {}
    dotted = undotted = None
    for code in codes:
        if not isinstance(code, str):
            raise TypeError(
                f"codes has {code!r} of type {type(code).__name__}; pass codes as text: '038.9' and '38.9' differ."
            )
        if len(code) > LONGEST_CODE:
            raise ValueError(f"codes has one of {len(code)} characters; pass codes, of {LONGEST_CODE} at most.")
        if not code.isprintable():
            raise ValueError(
                f"codes has {code!r}, with a character that does not show, such as a line break; remove it."
            )
        if is_missing(code):
            raise ValueError(f"codes has {code!r}, which stands for no code; leave it out.")
        upper = code.upper()
        if upper in spellings:
            raise ValueError(f"codes has {code!r} after {spellings[upper]!r}; pass each code once.")
        spellings[upper] = code
        if "." in code:
            dotted = dotted or code
        elif lacks_dot(upper):
            undotted = undotted or code
    _check_numbers(codes)
    if dotted and undotted:
        raise ValueError(
            f"codes mixes dotted and undotted codes, {dotted!r} and {undotted!r} for example. Leave it out if it is "
            "of CPT or HCPCS, which are no ICD codes; write all others with their dot: "
            "kept_hf.models.code_set.add_dot sets it."
        )


def _check_numbers(codes: Sequence[str]) -> None:
    """Refuse codes that were read as numbers before. A system of one's own may have codes such as 1000.1."""
    long = [match for match in map(_LONG_NUMBER.fullmatch, codes) if match]
    numbers = [code for code in codes if _FLOAT.fullmatch(code)]
    if long and all(match[1] == "0" for match in long):
        numbers += [match[0] for match in long]
    if numbers:
        raise ValueError(f"codes: {numbers[0]!r} was written as a number; {AS_TEXT}.")
    if lost_dotted_zeros(codes):
        raise ValueError(
            "codes were read as numbers: of those of ICD-9 none starts with 0 or ends with 0 after the dot, as 038.9 "
            f"and 250.00 do; {AS_TEXT}."
        )
