"""What a wheel contains, read from setup.cfg without building one."""

import configparser
from pathlib import Path

import pytest

from kept_hf.commands.main import main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "kept_hf"
# Beside the modules of packages, which setuptools finds: data, and modules that are loaded by their path.
DATA = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*")
    if path.is_file()
    and "__pycache__" not in path.parts
    and (path.suffix != ".py" or not (path.parent / "__init__.py").exists())
)


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_there_are_data():
    """Types, recipes, templates of cards, the metric module."""
    assert {"py.typed", "__init__.pyi", "commands/recipes/codiesp_all.yaml", "hub/templates/model_card.md"} <= set(DATA)
    assert {f"metrics/evaluate_modules/icd_coding/{name}" for name in ("icd_coding.py", "README.md")} <= set(DATA)


@pytest.mark.parametrize("path", DATA)
def test_each_file_is_packaged(path, setup):
    patterns = setup["options.package_data"]["kept_hf"].split()
    assert any(PACKAGE / path in PACKAGE.glob(pattern) for pattern in patterns), f"package_data in setup.cfg: {path}"


def test_each_pattern_is_needed(setup):
    for pattern in setup["options.package_data"]["kept_hf"].split():
        assert any(PACKAGE.glob(pattern)), f"package_data in setup.cfg: {pattern} is no file's"


def test_each_folder_of_modules_is_a_package():
    loaded_by_path = {PACKAGE / "metrics" / "evaluate_modules" / "icd_coding"}
    folders = {path.parent for path in PACKAGE.rglob("*.py")} - loaded_by_path
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_command_is_installed(setup):
    assert setup["options.entry_points"]["console_scripts"].split() == ["kept-hf", "=", "kept_hf.commands.main:main"]
    assert callable(main)
