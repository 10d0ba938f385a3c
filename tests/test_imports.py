"""What imports what, read from the sources without running them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from published import PUBLISHED, PUBLISHED_MSMN

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "kept_hf"


def guarded(tree):
    """Nodes inside a `try` that catches a missing package: such imports are not demanded."""
    nodes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            caught = {
                name.id for h in node.handlers if h.type for name in ast.walk(h.type) if isinstance(name, ast.Name)
            }
            if caught & {"ImportError", "ModuleNotFoundError"}:
                nodes |= {inner for statement in node.body for inner in ast.walk(statement)}
    return nodes


def type_checking(tree):
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }


def imports(path, module_level_only=False):
    """Modules a file imports: with their leading dots, as written."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = guarded(tree) | type_checking(tree)
    if module_level_only:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                left_out |= set(ast.walk(node))
    found = []
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append("." * node.level + (node.module or ""))
    return found


def packages(names):
    return {name.split(".")[0] for name in names if not name.startswith(".")} - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "published"),
    [(module, published) for published in (PUBLISHED, PUBLISHED_MSMN) for module in published],
)
def test_published_modules(module, published):
    """They are copied to the Hub: transformers copies flat siblings named by `from .module import name` only."""
    names = imports(PACKAGE / "models" / f"{module}.py")
    assert packages(names) <= {"numpy", "torch", "transformers", "huggingface_hub", "safetensors"}
    assert all(
        name in ("huggingface_hub", "huggingface_hub.dataclasses", "huggingface_hub.errors")
        for name in names
        if "huggingface_hub" in name
    )
    relative = [name for name in names if name.startswith(".")]
    for name in relative:
        assert re.fullmatch(r"\.\w+", name), f"{name}: neither folders nor `from . import module` are copied"
        assert name[1:] in published, f"{name} is not published"


@pytest.mark.parametrize("path", sorted((PACKAGE / "metrics").glob("*.py")), ids=lambda path: path.stem)
def test_metrics_imports_numpy_only(path):
    names = imports(path)
    assert packages(names) <= {"numpy"}
    assert not [name for name in names if name.startswith("..")], "nothing else of the package"


@pytest.mark.parametrize("module", ["candidates", "fusion"])
def test_candidates_import_arrays_only(module):
    names = imports(PACKAGE / "candidates" / f"{module}.py")
    assert packages(names) == {"numpy"}
    light = {"..models.code_set", "..models.code_systems", "..models.whole_file", "..metrics", ".candidates"}
    light.add(".array_files")
    assert {name for name in names if name.startswith(".")} <= light


@pytest.mark.parametrize("module", ["prompting", "published", "code_set", "code_systems", "whole_file"])
def test_light_modules(module):
    names = imports(PACKAGE / "models" / f"{module}.py", module_level_only=True)
    assert not packages(names) and {name for name in names if name.startswith(".")} <= {
        *(".published", ".code_systems", ".whole_file")
    }


@pytest.mark.parametrize("path", sorted((PACKAGE / "knowledge").glob("*.py")), ids=lambda path: path.stem)
def test_knowledge_imports_arrays_and_columns_only(path):
    names = imports(path, module_level_only=True)
    assert packages(names) <= {"numpy", "pyarrow"}
    assert {name for name in names if name.startswith("..")} <= {
        *("..models.code_set", "..models.whole_file", "..tables")
    }, "no model, no corpus"


@pytest.mark.parametrize("module", ["models.prompting", "models.code_set", "metrics"])
def test_light_modules_load_light(module):
    command = (
        f"import sys; import kept_hf.{module};"
        "print(*sorted({'torch', 'transformers', 'datasets', 'simple_icd_10_cm', 'evaluate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


REGISTERED = """
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

for model_type in ("kept_longformer", "kept_longformer_matching", "msmn"):
    config = type(AutoConfig.for_model(model_type))
    assert config in AutoModel._model_mapping and config in AutoModelForSequenceClassification._model_mapping
assert "icd-coding" in PIPELINE_REGISTRY.get_supported_tasks()
"""


@pytest.mark.parametrize(
    "first",
    [
        "import kept_hf",
        "from transformers import AutoModel; import kept_hf",
        "import kept_hf, transformers.modeling_layers",  # it loads the Auto classes while it is half loaded itself
        "from kept_hf.models.processing_kept import KeptProcessor",
    ],
)
def test_the_auto_classes_know_the_models_in_any_order_of_imports(first):
    done = subprocess.run([sys.executable, "-c", f"{first}\n{REGISTERED}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_nothing_beside_it(path):
    names = imports(path)
    assert not packages(names) & {"examples", "benchmarks", "dataset_scripts", "tests", "conftest", "train", "predict"}
    depth = len(path.relative_to(PACKAGE).parts)
    assert all(len(name) - len(name.lstrip(".")) <= depth for name in names), "no import climbs out of the package"


def test_public_names():
    import kept_hf

    assert len(kept_hf.__all__) == len(set(kept_hf.__all__))
    promised = (
        "DataCollatorForICDPrompting",
        "ICDCodeSet",
        "ICD_METRIC_PATH",
        "KeptLongformerConfig",
        "KeptLongformerForICDPrompting",
        "KeptLongformerForMaskedLM",
        "KeptLongformerModel",
        "KeptProcessor",
        "MSMNConfig",
        "MSMNForICDCoding",
        "MSMNTokenizer",
    )
    for name in promised:
        assert hasattr(kept_hf, name) and name in kept_hf.__all__, name
