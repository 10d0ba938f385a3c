"""What ids, codes and descriptions can do to a terminal, a spreadsheet and a card: nothing."""

import csv
import re
import sys
import unicodedata

import numpy as np
import pytest

from kept_hf.models.code_set import ICDCodeSet
from kept_hf.reports.escaping import Markdown, csv_text, markdown_text, printable
from kept_hf.reports.files import write_per_code
from kept_hf.reports.tables import format_table, markdown_table

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
FORMULAS = ("=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "-5 diopters")


def test_nothing_acts_in_the_terminal():
    for number in range(sys.maxunicode + 1):
        shown = printable(f"a{chr(number)}b")
        assert (
            not {unicodedata.category(character) for character in shown.replace("\u200c", "").replace("\u200d", "")}
            & ACTING
        )
        assert len(shown.splitlines()) == 1
        if chr(number).isprintable():
            assert shown == f"a{chr(number)}b"


@pytest.mark.parametrize("text", ["naïve 発熱", "\u00a05 °C", "می\u200cشود", "👩\u200d⚕️", "-5 diopters", "a\\nb"])
def test_what_can_be_read_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("7\n8: 0 codes assigned", r"7\n8: 0 codes assigned"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\u202eabc", r"\u202eabc"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
        ("\x9b31m", r"\x9b31m"),
        (7, "7"),
    ],
)
def test_what_acts_is_written_as_in_python(text, shown):
    assert printable(text) == shown
    assert shown.encode("utf-8")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    cell = csv_text(text)
    assert not cell.startswith(("=", "+", "-", "@", "＝", "\t", "\r", "\n", " =")) and len(cell.splitlines()) == 1
    assert cell.removeprefix("'") == printable(text), "it can be read afterwards"


@pytest.mark.parametrize("text", ["Fever", "401.9", "", "a=b", "'quoted'", 'with "quotes", and commas'])
def test_other_cells_stay(text):
    assert csv_text(text) == text


def test_the_table_per_code_has_no_formula(tmp_path):
    codes = [f"A{number:02}" for number in range(len(FORMULAS))] + ["-9", "=1"]
    code_set = ICDCodeSet(codes, dict(zip(codes, (*FORMULAS, "a\x1b[31m\nb", "\u202ex"), strict=True)))
    scores = np.zeros((2, len(codes)))
    write_per_code(tmp_path / "per_code.csv", scores, np.ones_like(scores), code_set, [1] * len(codes))
    text = (tmp_path / "per_code.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(codes) + 1
    with open(tmp_path / "per_code.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, code in zip(rows, codes, strict=True):
        for cell, text in ((row["code"], code), (row["description"], code_set.describe(code))):
            assert not cell.startswith(("=", "+", "-", "@", "＝")) and cell.isprintable()
            assert cell.removeprefix("'") == printable(text)
    assert rows[9]["description"] == "'-5 diopters" and rows[0]["support"] == "2"


def test_tables_have_a_line_for_each_row():
    rows = [{"code\n": "A\x1b[31m", "name": "a\nb\u202e"}, {"code\n": "B", "name": "<b>|x</b>"}]
    lines = format_table(rows).splitlines()
    assert len(lines) == 4 and all(line.isprintable() for line in lines) and r"a\nb\u202e" in lines[2]
    lines = markdown_table(rows).splitlines()
    assert len(lines) == 4 and all(line.isprintable() for line in lines)
    assert lines[3] == r"| B | &lt;b>\|x&lt;/b> |"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("<!-- a --><?x?><IMG src=x onerror=y>", "&lt;!-- a -->&lt;?x?>&lt;IMG src=x onerror=y>"),
        ("&lt;b&gt; &#60;", "&amp;lt;b&amp;gt; &amp;#60;"),
        ("title\n# Another heading\x1b[2J", r"title # Another heading\x1b[2J"),
        ("R & D, BMI < 20, <10, [a](https://b.org)", "R & D, BMI < 20, <10, [a](https://b.org)"),
    ],
)
def test_html_shows_on_a_card(text, shown):
    assert markdown_text(text) == shown
    assert markdown_text(markdown_text(text)) == shown, "once"
    assert markdown_text(Markdown(text)) == text
    assert not re.search(r"<[A-Za-z/!?]", markdown_text(text))
