"""The folders are floors: what a module imports stands on its own floor or below, and no modules import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "kept_hf"
FLOORS = (
    "version",
    "models",
    "metrics",
    "tables",
    "corpora",
    "knowledge",
    "candidates",
    "reranking",
    "training",
    "reports",
    "pretraining",
    "hub",
    "commands",
)
"""From the ground up."""
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.stem not in ("__init__", "modeling_msmn")  # faces of the package
}


def imported(name: str, path: Path) -> set[str]:
    """The modules of the package that one imports: anywhere in it, for type checkers too."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            elif (node.module or "").split(".")[0] == "kept_hf":
                base = node.module.split(".")[1:]
            else:
                continue
            for alias in node.names:
                candidates = (".".join([*base, alias.name]), ".".join(base))
                found.add(next((module for module in candidates if module in MODULES), candidates[1]))
    return found - {name, ""}


IMPORTS = {name: imported(name, path) for name, path in MODULES.items()}


def test_every_folder_has_its_floor():
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_import_goes_up(name):
    floor = FLOORS.index(name.split(".")[0])
    assert [other for other in sorted(IMPORTS[name]) if FLOORS.index(other.split(".")[0]) > floor] == []


def test_no_modules_import_each_other():
    left = {name: set(others) & set(MODULES) for name, others in IMPORTS.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}
