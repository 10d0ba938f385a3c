"""No text of 1 MB keeps a regular expression busy for longer than some seconds."""

import re
import sys
from pathlib import Path

import pytest
from adversarial import CASES, OTHERS
from processes import run_program

PACKAGE = Path(__file__).parents[2] / "src" / "kept_hf"


@pytest.mark.parametrize("module", sorted(CASES))
def test_long_texts_are_read_in_linear_time(module):
    """The program ends itself, with the place in the code, when one text takes too long."""
    run_program([sys.executable, Path(__file__).with_name("adversarial.py"), module])


def test_all_modules_with_regular_expressions_are_looked_at():
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import re|from re import .*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert found == {*CASES, *OTHERS}
