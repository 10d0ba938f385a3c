import gzip
import sys
from pathlib import Path

import pytest

from kept_hf.knowledge import load_term_graph, umls
from kept_hf.tables import rrf

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from bench_term_graph import TASKS, write_columns, write_meta

ROW = {
    "MRCONSO": {"LAT": "ENG", "TS": "S", "STT": "PF", "ISPREF": "Y", "SAB": "MTH", "TTY": "PT", "SUPPRESS": "N"},
    "MRREL": {"STYPE1": "AUI", "STYPE2": "AUI", "SAB": "MTH", "SUPPRESS": "N"},
}


def row(table, **values):
    return "|".join({**ROW[table], **values}.get(column, "") for column in rrf.COLUMNS[table]) + "|\n"


def conso(cui, name, **values):
    return row("MRCONSO", CUI=cui, STR=name, **values)


def rel(cui1, relation, cui2, **values):
    return row("MRREL", CUI1=cui1, REL=relation, CUI2=cui2, **values)


def write(folder, names, relations):
    folder.mkdir(exist_ok=True)
    (folder / "MRCONSO.RRF").write_text("".join(names), encoding="utf-8")
    (folder / "MRREL.RRF").write_text("".join(relations), encoding="utf-8")
    return folder


NAMES = [
    conso("C0000001", "Kidney injury, acute"),
    conso("C0000001", 'Acute kidney "injury"', TS="P"),
    conso("C0000001", "AKI", TTY="ACR", SAB="NCI"),
    conso("C0000001", "Ac kidny injry", TTY="AB", TS="P", SAB="ICD9CM"),
    conso("C0000001", "Lesión renal aguda", LAT="SPA"),
    conso("C0000001", "outdated name", SUPPRESS="O"),
    conso("C0000002", "Kidney disease", TS="P", SAB="SNOMEDCT_US"),
    conso("C0000003", "Kidney stone", TS="P", SAB="SNOMEDCT_US"),
    conso("C0000004", "Nur auf Deutsch", LAT="GER"),
]
RELATIONS = [
    rel("C0000001", "PAR", "C0000002"),
    rel("C0000002", "CHD", "C0000001"),
    rel("C0000003", "RB", "C0000002", SAB="SNOMEDCT_US"),
    rel("C0000002", "RN", "C0000003", SAB="SNOMEDCT_US"),
    rel("C0000001", "RO", "C0000003"),
    rel("C0000001", "SY", "C0000001"),
    rel("C0000004", "PAR", "C0000002"),
    rel("C0000001", "PAR", "C0000003", SUPPRESS="O"),
]


@pytest.fixture
def meta(tmp_path):
    return write(tmp_path / "META", NAMES, RELATIONS)


def test_columns_are_those_of_the_manual():
    assert len(rrf.COLUMNS["MRCONSO"]) == 18 and len(rrf.COLUMNS["MRREL"]) == 16


def test_names_and_hierarchy(meta):
    graph = umls.load(meta)
    assert graph.concept_ids.to_pylist() == ["C0000001", "C0000002", "C0000003"] and graph.sources == ("umls",)
    assert graph.names_of("C0000001", ["preferred"]) == ['Acute kidney "injury"'], "quotes are no CSV quotes"
    assert graph.names_of("C0000001", ["synonym"]) == ["Kidney injury, acute"]
    assert graph.names_of("C0000001", ["abbreviation"]) == ["AKI", "Ac kidny injry"]
    assert [graph.names_of(int(child))[0] for child in graph.children_of("C0000002")] == [
        'Acute kidney "injury"',
        "Kidney stone",
    ]
    assert not len(graph.parents_of("C0000002")) and graph.siblings_of("C0000001").tolist() == [2]
    assert graph.dropped == {
        "filtered_names": 3,
        "filtered_edges": 1,
        "names_without_concept": 0,
        "empty_names": 0,
        "long_names": 0,
        "duplicate_names": 0,
        "missing_parents": 0,
        "missing_children": 1,
        "self_loops": 0,
        "duplicate_edges": 2,
        "cycle_edges": 0,
    }


def test_filters(meta):
    graph = umls.load(meta, language="SPA")
    assert graph.names_of("C0000001") == ["Lesión renal aguda"] and graph.counts["missing_parents"] > 0
    graph = umls.load(meta, vocabularies=["SNOMEDCT_US"])
    assert graph.concept_ids.to_pylist() == ["C0000002", "C0000003"] and graph.num_edges == 1
    assert umls.load(meta, relations=["PAR", "CHD"]).num_edges == 1
    assert umls.load(meta, relations=[]).has_hierarchy is False
    graph = umls.load(meta, keep_suppressed=True)
    assert "outdated name" in graph.names_of("C0000001") and graph.num_edges == 3
    with pytest.raises(ValueError, match="relations has RO, XY; legal are: PAR, CHD, RB, RN"):
        umls.load(meta, relations=["RO", "PAR", "XY"])
    with pytest.raises(TypeError, match=r"vocabularies='MSH' is one string; pass a list: \['MSH'\]"):
        umls.load(meta, vocabularies="MSH")
    with pytest.raises(ValueError, match=r"term graph of umls is empty.*wider filters"):
        umls.load(meta, vocabularies=["NOPE"])


def test_each_relation_has_its_direction(tmp_path):
    """NLM's manual: REL is what the second concept is to the first."""
    names = [conso("C0000001", "child", TS="P"), conso("C0000002", "parent", TS="P")]
    for relation, first, second in (("PAR", 1, 2), ("RB", 1, 2), ("CHD", 2, 1), ("RN", 2, 1)):
        graph = umls.load(write(tmp_path / relation, names, [rel(f"C000000{first}", relation, f"C000000{second}")]))
        assert graph.parents_of("C0000001").tolist() == [1] and not len(graph.parents_of("C0000002")), relation


def test_gzip(meta, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in meta.iterdir():
        # Releases come in parts, which people join as they are.
        half = len(path.read_bytes()) // 2
        content = path.read_bytes()
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    graph, again = umls.load(meta), umls.load(packed)
    assert again.describe() == graph.describe() and again.name_texts == graph.name_texts
    whole = (packed / "MRREL.RRF.gz").read_bytes()
    (packed / "MRREL.RRF.gz").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"MRREL\.RRF\.gz: damaged after row \d+; copy the file again"):
        umls.load(packed)


@pytest.mark.parametrize("table", ["MRCONSO", "MRREL"])
def test_a_missing_table(meta, table):
    (meta / f"{table}.RRF").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"holds neither {table}\.RRF nor {table}\.RRF\.gz; pass the META folder"
    ):
        umls.load(meta)


@pytest.mark.parametrize("table,columns", [("MRCONSO", 18), ("MRREL", 16)])
def test_rows_of_another_width(meta, table, columns):
    path = meta / f"{table}.RRF"
    whole = path.read_text(encoding="utf-8")
    for change in ("C0000001|secret|\n", whole.splitlines()[0] + "secret|\n", "secret\n"):
        path.write_text(whole + "\n" + change + whole, encoding="utf-8")
        expected = rf"{table}\.RRF: row {whole.count(chr(10)) + 2} has {change.count('|')} columns.* has {columns}: CUI"
        with pytest.raises(ValueError, match=expected) as error:
            umls.load(meta)
        assert "secret" not in str(error.value)
    path.write_text("\n" + whole + "\n", encoding="utf-8")
    assert umls.load(meta).num_concepts == 3, "empty lines are no rows"
    path.write_text(whole[:-20], encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{table}\.RRF: row {whole.count(chr(10))} has \d+ columns"):
        umls.load(meta)


def test_rows_that_cannot_be(meta):
    write(meta, [*NAMES, conso("D0000001", "no CUI")], RELATIONS)
    with pytest.raises(ValueError, match=r"MRCONSO\.RRF: row 10 has no CUI \(C and seven digits\) in CUI"):
        umls.load(meta)
    write(meta, NAMES, [*RELATIONS, rel("C0000001", "PAR", "C12")])
    with pytest.raises(ValueError, match=r"MRREL\.RRF: row 9 has no CUI .* in CUI2"):
        umls.load(meta)
    (meta / "MRREL.RRF").write_bytes(b"")
    with pytest.raises(ValueError, match=r"MRREL\.RRF is empty"):
        umls.load(meta)
    write(meta, NAMES, RELATIONS)
    (meta / "MRCONSO.RRF").write_bytes("".join(NAMES).encode("latin-1"))
    with pytest.raises(ValueError, match=r"MRCONSO\.RRF: row 5 holds bytes that are not UTF-8"):
        umls.load(meta)


def test_long_names_and_limits(meta):
    write(meta, [*NAMES, conso("C0000002", "x" * 10_000), conso("C0000003", "y" * 600)], RELATIONS)
    assert umls.load(meta).counts["long_names"] == 2
    assert umls.load(meta, max_name_length=700).counts["long_names"] == 1


def test_generated_folders_have_the_real_layout(tmp_path):
    """What the benchmark writes: every count that a graph can have turns up, and a plain loop finds the same."""
    write_meta(tmp_path, 4000)
    graph = load_term_graph("umls", umls_folder=tmp_path)
    concepts, edges = {}, set()
    for line in (tmp_path / "MRCONSO.RRF").read_text(encoding="utf-8").splitlines():
        values = dict(zip(rrf.COLUMNS["MRCONSO"], line.split("|"), strict=False))
        if values["LAT"] == "ENG" and values["SUPPRESS"] == "N":
            concepts.setdefault(values["CUI"], set()).add(" ".join(values["STR"].split()).lower())
    for line in (tmp_path / "MRREL.RRF").read_text(encoding="utf-8").splitlines():
        values = dict(zip(rrf.COLUMNS["MRREL"], line.split("|"), strict=False))
        ends = values["CUI1"], values["CUI2"]
        if values["REL"] in umls.RELATIONS and values["SUPPRESS"] == "N" and {*ends} <= concepts.keys():
            edges.add(ends if values["REL"] in ("PAR", "RB") else ends[::-1])
    assert {cui: {name.lower() for name in graph.names_of(cui)} for cui in concepts} == concepts
    found = {
        (graph.concept_ids[child].as_py(), graph.concept_ids[parent].as_py())
        for child, parent in zip(graph.edge_children.tolist(), graph.parent_indices.tolist(), strict=True)
    }
    assert found <= edges and len(edges - found) == graph.counts["cycle_edges"] + graph.counts["self_loops"]
    for count in ("abbreviations", "duplicate_names", "filtered_names", "filtered_edges", "missing_parents"):
        assert graph.counts[count] > 0, count


def test_what_the_benchmark_measures(tmp_path):
    write_meta(tmp_path, 2000)
    write_columns(tmp_path, 3000)
    found = {name: task(str(tmp_path)) for name, task in TASKS.items()}
    assert found["plain loop"]["concepts"] == found["umls.load"]["concepts"]
    assert found["from_tables + save"]["names"] == found["load"]["names"] > 2500
    assert found["from_tables + save"]["edges"] == found["from_tables + save"]["concepts"] - 1
