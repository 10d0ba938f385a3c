"""Ids, codes, descriptions and titles in the terminal, in CSV files and on cards, where they may not act."""

from __future__ import annotations

import re
import unicodedata

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_JOINERS = "\u200c\u200d"
"""Invisible, but part of words in Persian and in languages of India."""
_IN_ONE_LINE = str.maketrans(dict.fromkeys("\n\r\t\v\f\x85\u2028\u2029", " "))
# What begins a tag or a comment, and an entity; "BMI < 20" and "R & D" stay.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=[#A-Za-z])")


class Markdown(str):
    """Text that is Markdown already: it is not escaped again."""

    __slots__ = ()


def printable(text: object) -> str:
    r"""A text for the terminal, in one line: what cannot be seen, or acts on other text, is written as in Python.

    That are control characters (line breaks and the escapes of terminals among them), characters that turn the
    direction of writing, other invisible ones, lone surrogates, and those that Unicode does not define.

    Args:
        text: such as the id of a note or the description of a code; what is no text is taken by `str`.

    Examples:
        >>> print(printable("7\n8: 0 codes assigned"), printable("\x1b[31mfever\u202e"), printable("naïve 発熱"))
        7\n8: 0 codes assigned \x1b[31mfever\u202e naïve 発熱
    """
    text = str(text)
    if text.isprintable():
        return text
    return text.translate(_SHOWN)


def csv_text(text: object) -> str:
    """A text for a cell of a CSV file that may be opened as a spreadsheet: it is not taken for a formula.

    As is usual, an apostrophe is put before a text that begins with `=`, `+`, `-` or `@`, which spreadsheets take for
    the mark of text and mostly do not show. Other programs see it: `text.removeprefix("'")`. What cannot be seen is
    written as by [`printable`], so that a row stays a line and no text begins with a tab or a line break.

    Examples:
        >>> csv_text("-5 diopters"), csv_text("=cmd|'/c calc'!A1"), csv_text("Fever"), csv_text("\\t=1")
        ("'-5 diopters", "'=cmd|'/c calc'!A1", 'Fever', '\\\\t=1')
    """
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def markdown_text(text: object) -> Markdown:
    """A text for a card: its HTML shows instead of acting, and it stays in its line. Its Markdown stays.

    Args:
        text: such as the title of a corpus; [`Markdown`] is returned as it is.

    Examples:
        >>> markdown_text("Notes <script>alert(1)</script>, of R & D; BMI < 20")
        'Notes &lt;script>alert(1)&lt;/script>, of R & D; BMI < 20'
    """
    if isinstance(text, Markdown):
        return text
    line = printable(str(text).translate(_IN_ONE_LINE))
    return Markdown(_TAG.sub("&lt;", _ENTITY.sub("&amp;", line)))


class _Shown(dict):
    """The number of a character → how it is shown: a table for `str.translate` that is filled as characters come."""

    def __missing__(self, number: int) -> str:
        character = chr(number)
        is_shown = character.isprintable() or unicodedata.category(character) == "Zs" or character in _JOINERS
        self[number] = character if is_shown else character.encode("unicode_escape").decode("ascii")
        return self[number]


_SHOWN = _Shown()
