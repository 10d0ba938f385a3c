import gzip
import sys
from pathlib import Path

import pytest

from kept_hf import ICDCodeSet
from kept_hf.knowledge import TermGraph, load_term_graph, umls
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


def code_row(system, code, cui, name, tty="PT", **values):
    return conso(cui, name, SAB=system, CODE=code, TTY=tty, **values)


CODED = [
    conso("C0000001", "Hypertensive disease", TS="P"),
    conso("C0000001", "High blood pressure"),
    conso("C0000001", "HBP", TTY="ACR"),
    code_row("ICD9CM", "401.9", "C0000001", "Unspecified essential hypertension"),
    code_row("ICD9CM", "401", "C0000001", "Essential hypertension", "HT"),
    code_row("ICD10CM", "I10", "C0000001", "Essential (primary) hypertension"),
    code_row("ICD10CM", "I10", "C0000002", "Malignant hypertension", "ET", TS="P"),
    code_row("ICD9CM", "V10.0", "C0000003", "Personal history of tumour", TS="P"),
    code_row("ICD10CM", "V10.0", "C0000004", "Cyclist injured", "HT", TS="P"),
    code_row("ICD10PCS", "0BW03ZZ", "C0000005", "Revision of trachea", "PT", TS="P", SUPPRESS="O"),
    conso("C0000005", "Tracheal revision"),
    code_row("CPT", "99213", "C0000002", "Office visit"),
]


def test_codes_find_their_concepts(tmp_path, caplog):
    """As MSMN maps them: MRCONSO's code → CUI → all its names."""
    graph = umls.load(write(tmp_path / "META", CODED, [rel("C0000002", "PAR", "C0000001")]))
    code_set = ICDCodeSet(["401.9", "V10.0"], {"401.9": "Unspecified essential hypertension"}).with_synonyms(graph)
    assert not caplog.records
    assert code_set.synonyms["401.9"] == (
        "Hypertensive disease",
        "High blood pressure",
        "Essential hypertension",
        "Essential (primary) hypertension",
        "HBP",
    )
    assert code_set.describe("V10.0") == "Personal history of tumour", "the other code is ICD-9"
    other = ICDCodeSet(["I10", "V10.0", "0BW03ZZ"]).with_synonyms(graph)
    assert other.describe("I10") == "Hypertensive disease", "an inclusion term is not what the code means"
    assert other.synonyms["I10"][0] == "High blood pressure"
    # Two systems of the same release.
    assert other.describe("0BW03ZZ") == "Tracheal revision", "its own title is suppressed, its code counts"


def test_codes_without_names_are_counted(tmp_path, caplog):
    graph = umls.load(write(tmp_path / "META", CODED, [rel("C0000002", "PAR", "C0000001")]))
    code_set = ICDCodeSet(["401.9", "I10", "V10.0", "R05"]).with_synonyms(graph)
    assert code_set.undescribed == ("V10.0", "R05")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "1 of 4 codes, such as V10.0, mean something else in ICD-9 and ICD-10, and the others do not tell which is "
        "meant",
        "2 of 4 codes, such as V10.0, have no names in this term graph (umls).",
    ]


def test_filters_leave_the_codes(tmp_path):
    folder = write(tmp_path / "META", CODED, [rel("C0000002", "PAR", "C0000001")])
    graph = umls.load(folder, vocabularies=["MTH"])
    assert ICDCodeSet(["401.9"]).with_synonyms(graph).synonyms["401.9"] == ("High blood pressure", "HBP")


def test_codes_survive_merging_and_saving(tmp_path):
    """401 takes UMLS's concept by its name; 401.9 has the same concept by its code, so that both get its names."""
    graph = umls.load(write(tmp_path / "META", CODED, [rel("C0000002", "PAR", "C0000001")]))
    icd9 = TermGraph.from_tables(
        ["401", "401.9"], ["essential hypertension", "Hypertension NOS"], ["preferred"] * 2, source="icd9"
    )
    for merged in (TermGraph.merge([icd9, graph]), TermGraph.merge([graph, icd9])):
        merged.save(tmp_path / "graph")
        for final in (merged, TermGraph.load(tmp_path / "graph")):
            names = final.names_of_codes(["401", "401.9"])
            assert "High blood pressure" in names["401"] and "High blood pressure" in names["401.9"]
            assert "Hypertension NOS" in names["401.9"] and "Hypertension NOS" not in names["401"]
