import pytest

from kept_hf.corpora import physionet
from kept_hf.tables.csv_tables import stream_table
from kept_hf.tables.mimic_tables import MIMIC3, MIMIC4, read_titles

HEADER = "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE\n"


def admissions(folder, diagnoses=("0389",), procedures=()):
    for name, codes in (("DIAGNOSES_ICD", diagnoses), ("PROCEDURES_ICD", procedures)):
        rows = [f"{number},10,200,{number},{code}\n" for number, code in enumerate(codes, start=1)]
        (folder / f"{name}.csv").write_text(HEADER + "".join(rows))
    return physionet.read_admissions(folder)


def test_missing_values_are_no_codes(tmp_path):
    missing = ["NULL", "nan", "NaN", "None", "\\N", "NA", "<NA>", "#N/A", "", " "]
    assert admissions(tmp_path, ["0389", *missing], missing)["200"].codes == ["038.9"]


@pytest.mark.parametrize(
    ("table", "code", "message"),
    [
        ("procedures", "407.0", r"is no code of ICD-9-CM procedures .* read as a number, which loses zeros: export"),
        ("procedures", "40", "has two digits, as 0040 has where it was read as a number; export"),
        ("procedures", "7", "is no code of ICD-9-CM procedures .* read as a number"),
        ("procedures", "99213", "is no code of ICD-9-CM procedures"),
        ("procedures", "0042T", "is no code of .*; leave out what is no ICD code, such as CPT and HCPCS"),
        ("diagnoses", "4019.0", "is no code of ICD-9-CM diagnoses .* read as a number"),
        ("diagnoses", "31", "is no code of ICD-9-CM diagnoses .* read as a number"),
        ("diagnoses", "38.9", "is no code of ICD-9-CM diagnoses .* read as a number"),
        ("diagnoses", "A419", "is no code of ICD-9-CM diagnoses"),
    ],
)
def test_a_value_that_is_no_code(tmp_path, table, code, message):
    with pytest.raises(ValueError, match=rf"{table.upper()}_ICD\.csv: row 3: ICD9_CODE {message}"):
        admissions(tmp_path, **{table: ["0389" if table == "diagnoses" else "0407", code]})


def test_codes_with_their_dots_are_read(tmp_path):
    codes = admissions(tmp_path, ["038.9", "250.00", "E888.9", "v45.81", "311"], ["04.07", "40.0"])["200"].codes
    assert codes == ["038.9", "250.00", "E888.9", "V45.81", "311", "04.07", "40.0"]


@pytest.mark.parametrize("table", ["diagnoses", "procedures"])
def test_a_table_that_was_read_as_numbers(tmp_path, table):
    codes = [str(number) for number in range(1000, 1100)]
    zero = admissions(tmp_path, **{table: [*codes, "0407"]})["200"].codes
    assert len(zero) == 101 + (table == "procedures")
    message = rf"{table.upper()}_ICD\.csv: the codes in ICD9_CODE were read as numbers, since of 100 none starts with 0"
    with pytest.raises(ValueError, match=rf"{message}.*dtype=str"):
        admissions(tmp_path, **{table: codes})


def test_categories_that_were_read_as_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"DIAGNOSES_ICD\.csv: .* since 2 end with \.0"):
        admissions(tmp_path, ["486.0", "311.0"])


def test_ids_with_decimals(tmp_path):
    (tmp_path / "DIAGNOSES_ICD.csv").write_text(
        HEADER + "1,10.0,200.0,1,0389\n2, 10 ,200.00,2,4019\n3,10,NULL,3,4019\n4,10,nan,4,4019\n"
    )
    (tmp_path / "PROCEDURES_ICD.csv").write_text(HEADER)
    assert physionet.read_admissions(tmp_path) == {"200": physionet.Admission("10", ["038.9", "401.9"])}
    (tmp_path / "PROCEDURES_ICD.csv").write_text(HEADER + "1,10,200.5,1,0407\n")
    with pytest.raises(ValueError, match=r"row 2 has no whole number in HADM_ID"):
        physionet.read_admissions(tmp_path)
    ids = tmp_path / "ids.csv"
    ids.write_text("200.0\n 300\n")
    assert physionet.read_hadm_ids(ids) == ["200", "300"]


def mimic4(folder, diagnoses):
    (folder / "hosp").mkdir(exist_ok=True)
    for name, rows in (("diagnoses", diagnoses), ("procedures", [])):
        lines = [f"10,200,{number},{code},{version}\n" for number, (code, version) in enumerate(rows, start=1)]
        (folder / f"hosp/{name}_icd.csv").write_text(
            "subject_id,hadm_id,seq_num,icd_code,icd_version\n" + "".join(lines)
        )


def test_the_row_counts_those_of_the_other_version(tmp_path):
    mimic4(tmp_path, [("0389", 9), ("4019", 9), ("I10", "10.0"), ("4019", 10)])
    assert physionet.read_admissions(tmp_path, MIMIC4, 9)["200"].codes == ["038.9", "401.9"]
    with pytest.raises(ValueError, match=r"diagnoses_icd\.csv: row 5: ICD_CODE is no code of ICD-10-CM"):
        physionet.read_admissions(tmp_path, MIMIC4, 10)


def test_mimic4_as_numbers(tmp_path):
    mimic4(tmp_path, [(number, 9) for number in range(400, 500)])  # 0389 is 389
    with pytest.raises(ValueError, match="the codes in ICD_CODE were read as numbers"):
        physionet.read_admissions(tmp_path, MIMIC4, 9)


def titles(folder, rows):
    lines = [f"{number},{code},short,{title}\n" for number, (code, title) in enumerate(rows, start=1)]
    (folder / "D_ICD_PROCEDURES.csv").write_text("ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE\n" + "".join(lines))
    return read_titles(folder, MIMIC3)[1]


def test_titles(tmp_path):
    rows = [("0407", "Nerve"), ("NULL", "Nothing"), ("04", "Nerves"), ("section", "Words")]
    assert titles(tmp_path, rows) == {"04.07": "Nerve", "04": "Nerves", "section": "Words"}
    with pytest.raises(ValueError, match=r"D_ICD_PROCEDURES\.csv: row 2: ICD9_CODE is no code of ICD-9-CM procedures"):
        titles(tmp_path, [("407.0", "Nerve")])
    with pytest.raises(ValueError, match=r"D_ICD_PROCEDURES\.csv: the codes in ICD9_CODE were read as numbers"):
        titles(tmp_path, [(str(number), "Nerve") for number in range(1000, 1100)])


def test_version_as_a_number(tmp_path):
    mimic4(tmp_path, [("I10", "10.0")])
    (table,) = stream_table(tmp_path, "hosp/diagnoses_icd", ["ICD_VERSION"], ["ICD_VERSION"])
    assert table["ICD_VERSION"].to_pylist() == ["10"]
