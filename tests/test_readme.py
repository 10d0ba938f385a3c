"""The README tells the truth: its table is that of the kept results, its snippet runs."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_generated():
    tables = runpy.run_path(str(ROOT / "benchmarks" / "results_table.py"))["TABLES"]
    assert len(tables) > 1
    for (file, name), table in tables.items():
        expected = f"<!-- {name}: benchmarks/results_table.py --write -->\n{table()}\n<!-- end of {name} -->"
        assert expected in (ROOT / file).read_text(encoding="utf-8"), name


def test_tables_of_the_few_shot_benchmark_are_generated(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.few_shot import tables

    for (file, name), table in tables.tables().items():
        expected = f"<!-- {name}: {tables.COMMAND} -->\n{table}\n<!-- end of {name} -->"
        assert expected in (ROOT / file).read_text(encoding="utf-8"), name


def test_snippet_runs(tiny_model, processor, tmp_path, capsys):
    folder = tmp_path / "demo"
    tiny_model.config.threshold = -1e6  # so that every code is printed
    tiny_model.save_pretrained(folder)
    processor.save_pretrained(folder)
    snippet = re.search(r"## In Python\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    exec(snippet[1].replace("outputs/demo", str(folder)), {})
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(processor.code_set)
