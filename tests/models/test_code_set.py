import csv
import json
import logging
import random
import re

import pytest

from kept_hf import ICDCodeSet
from kept_hf.models.code_set import add_dot, category_parents


def write_csv(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def full():
    return ICDCodeSet(
        ["038.9", "401.9", "38.9", "V45.81"],
        descriptions={"038.9": "Unspecified septicemia", "401.9": 'Hypertension, "essential"; naïve'},
        synonyms={"401.9": ["htn", "high blood pressure"], "V45.81": ["cabg"]},
        parents={"401.9": "401", "038.9": "038"},
    )


def test_json_round_trip(full, tmp_path):
    full.to_json(tmp_path / "codes.json")
    assert "naïve" in (tmp_path / "codes.json").read_text(encoding="utf-8")
    again = ICDCodeSet.from_json(tmp_path / "codes.json")
    assert again == full
    assert again.codes == ("038.9", "401.9", "38.9", "V45.81")
    assert ICDCodeSet.from_dict(json.loads(json.dumps(full.to_dict()))) == full


@pytest.mark.parametrize("content", [{}, {"codes": "401.9"}, ["401.9"], {"codes": None}])
def test_from_dict_refuses_other_content(content):
    with pytest.raises(ValueError, match="codes"):
        ICDCodeSet.from_dict(content)


def test_from_dict_with_odd_types(full):
    """Anything at any place: an error that names the field, or a code set of exactly this content."""
    generator = random.Random(0)
    odd = [
        None,
        True,
        0,
        38.9,
        "",
        "038.9",
        b"x",
        [],
        ["a"],
        [None],
        [1],
        [["a"]],
        {},
        {"038.9": "a"},
        {"038.9": 1},
        {1: "a"},
    ]
    odd += [{"038.9": ["a"]}, {"401.9": {"a": "b"}}, "NaN", "x" * 101, object(), ("a",), {"038.9"}, float("nan")]
    refused = 0
    for _ in range(2000):
        content = full.to_dict()
        for _ in range(generator.randint(1, 2)):
            field, value = generator.choice(sorted(content)), generator.choice(odd)
            inside = content[field] if generator.random() < 0.7 else None
            if isinstance(inside, list) and inside:
                inside[generator.randrange(len(inside))] = value
            elif isinstance(inside, dict) and inside:
                key = generator.choice(sorted(inside, key=str))
                if isinstance(inside[key], list) and inside[key] and generator.random() < 0.5:
                    inside[key][0] = value
                else:
                    inside[key] = value
            else:
                content[field] = value
        try:
            again = ICDCodeSet.from_dict(content)
        except (TypeError, ValueError) as error:
            assert re.match("codes|descriptions|synonyms|parents|A code set needs .*codes", str(error)), error
            refused += 1
            continue
        assert again.codes == tuple(content["codes"])
        for field in ("descriptions", "parents"):
            expected = {code: text for code, text in (content[field] or {}).items() if text}
            assert {code: getattr(again, field).get(code) for code in again} == {c: expected.get(c) for c in again}
        for code, names in (content["synonyms"] or {}).items():
            assert list(again.synonyms.get(code, ())) == [name for name in names if name] or code not in again
    assert 1000 < refused < 2000


@pytest.mark.parametrize(
    "content", [b"{", b'{"codes": ["\xff"]}', b"[" * 100_000, b'{"codes": [1]}', b"null", b"\xff\xfe{"]
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content):
    (tmp_path / "codes.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"path=.*codes\.json"):
        ICDCodeSet.from_json(tmp_path / "codes.json")


def test_csv_that_cannot_be_read_names_the_line(tmp_path):
    (tmp_path / "codes.csv").write_text("code,description\n401.9,a\n038.9," + "x" * 200_000)
    with pytest.raises(ValueError, match="line 3: field larger than"):
        ICDCodeSet.from_csv(tmp_path / "codes.csv")


@pytest.mark.parametrize("code", ["401.9\n402.0", "\ufeff401.9", "4\x1b[31m", "401\u202e.9", "401\u00a09"])
def test_codes_have_no_characters_that_do_not_show(code):
    with pytest.raises(ValueError, match=r"codes has .*with a character that does not show") as caught:
        ICDCodeSet([code])
    assert str(caught.value).isprintable()


def test_long_texts_are_no_codes():
    """Nor are they read: the categories above one of a million characters would be a million texts."""
    long = "A." + "1" * 1_000_000
    with pytest.raises(ValueError, match="codes has one of 1000002 characters"):
        ICDCodeSet([long])
    assert category_parents([long]) == {}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_csv_round_trip(full, tmp_path, bom):
    rows = [["parent", "code", "description", "synonyms", "more"]]
    for code in full:
        rows.append(
            [
                full.parents.get(code, ""),
                code,
                full.descriptions.get(code, ""),
                ";".join(full.synonyms.get(code, ())),
                "x",
            ]
        )
    path = write_csv(tmp_path / "codes.csv", rows)
    path.write_text(bom + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert ICDCodeSet.from_csv(path) == full


def test_csv_with_two_columns_and_short_rows(tmp_path):
    path = write_csv(tmp_path / "codes.csv", [["code", "description"], ["038.9", " Unspecified \n septicemia"], ["99"]])
    code_set = ICDCodeSet.from_csv(path)
    assert code_set.codes == ("038.9", "99")
    assert code_set.describe("038.9") == "Unspecified septicemia"
    assert code_set.undescribed == ("99",)


@pytest.mark.parametrize("header,missing", [(["code", "title"], "description"), (["icd", "description"], "code")])
def test_csv_missing_column(tmp_path, header, missing):
    path = write_csv(tmp_path / "codes.csv", [header, ["401.9", "Hypertension"]])
    with pytest.raises(ValueError, match=rf"codes\.csv has no column {missing}; its columns are .*{header[1]}"):
        ICDCodeSet.from_csv(path)


def test_csv_empty_file(tmp_path):
    (tmp_path / "codes.csv").write_text("")
    with pytest.raises(ValueError, match="no column code, description"):
        ICDCodeSet.from_csv(tmp_path / "codes.csv")


def test_csv_header_alone(tmp_path):
    path = write_csv(tmp_path / "codes.csv", [["code", "description"]])
    with pytest.raises(ValueError, match="empty"):
        ICDCodeSet.from_csv(path)


def test_csv_empty_code_names_the_line(tmp_path):
    path = write_csv(tmp_path / "codes.csv", [["code", "description"], ["401.9", "Hypertension"], [" ", "Sepsis"]])
    with pytest.raises(ValueError, match=r"codes\.csv, line 3: .*code is empty"):
        ICDCodeSet.from_csv(path)


def test_csv_duplicated_code(tmp_path):
    path = write_csv(tmp_path / "codes.csv", [["code", "description"], ["401.9", "a"], ["401.9", "b"]])
    with pytest.raises(ValueError, match=r"'401\.9'.*once"):
        ICDCodeSet.from_csv(path)


@pytest.mark.parametrize("codes", [["401.9", "038.9", "401.9"], ["a01.0", "A01.0"]])
def test_duplicates(codes):
    with pytest.raises(ValueError, match="pass each code once") as error:
        ICDCodeSet(codes)
    assert repr(codes[-1]) in str(error.value)


@pytest.mark.parametrize(
    "codes", [["401.9", "0389"], ["0389", "401.9"], ["038.9", "0389"], ["N17.9", "I10", "S72001A"], ["V45.81", "V4582"]]
)
def test_mixed_dotted_and_undotted(codes):
    with pytest.raises(ValueError, match="mixes dotted and undotted") as error:
        ICDCodeSet(codes)
    assert "add_dot" in str(error.value)


@pytest.mark.parametrize(
    "codes",
    [
        ["401.9", "311"],  # a category has no dot
        ["E888", "E888.9", "401.9"],
        ["N17.9", "I10", "0DTJ4ZZ"],  # ICD-10-PCS has no dots
        ["04.07", "401.9"],
        ["0389", "4019"],
    ],
)
def test_not_mixed(codes):
    assert ICDCodeSet(codes).codes == tuple(codes)


@pytest.mark.parametrize("code", [38.9, 389, None, b"401.9"])
def test_numbers_are_refused(code):
    with pytest.raises(TypeError, match="text"):
        ICDCodeSet(["401.9", code])
    with pytest.raises(TypeError, match="text"):
        add_dot(code)


@pytest.mark.parametrize("codes", [[], ["401.9", ""], ["401.9", " "], ["401.9", "\n"]])
def test_empty_codes(codes):
    with pytest.raises(ValueError, match="codes"):
        ICDCodeSet(codes)


def test_one_string_is_refused():
    with pytest.raises(TypeError, match=r"\['401\.9'\]"):
        ICDCodeSet("401.9")


def test_leading_zeros_stay(tmp_path):
    code_set = ICDCodeSet(["038.9", "38.9", "04.07", "0"])
    code_set.to_json(tmp_path / "codes.json")
    assert list(ICDCodeSet.from_json(tmp_path / "codes.json")) == ["038.9", "38.9", "04.07", "0"]
    path = write_csv(tmp_path / "codes.csv", [["code", "description"], ["038.9", "x"], ["38.9", "y"]])
    assert ICDCodeSet.from_csv(path).codes == ("038.9", "38.9")


def test_describe_falls_back():
    code_set = ICDCodeSet(
        ["A", "B", "C", "D", "E", "F", "G"],
        descriptions={"A": "title of a", "F": "title of f"},
        synonyms={"A": ["a again"], "B": ["first of b", "second of b"]},
        parents={"A": "F", "B": "F", "C": "D", "D": "F", "E": "G", "G": "E"},
    )
    assert code_set.describe("A") == "title of a"
    assert code_set.describe("B") == "first of b"
    assert code_set.describe("C") == "title of f", "the nearest code above that has a description"
    assert code_set.describe("E") == "E", "a circle of parents ends"
    assert code_set.undescribed == ("C", "D", "E", "G")
    with pytest.raises(KeyError, match="X99"):
        code_set.describe("X99")


def test_describe_takes_the_title_of_a_parent_outside_the_set():
    code_set = ICDCodeSet(["401", "401.9"], descriptions={"401": "Essential hypertension"}, parents={"401.9": "401"})
    assert code_set.describe("401.9") == "Essential hypertension"
    assert code_set.subset(["401.9"]).describe("401.9") == "Essential hypertension"


@pytest.mark.parametrize("description", ["", " ", "\n\t"])
def test_blank_description_is_none(description):
    code_set = ICDCodeSet(["401.9"], descriptions={"401.9": description}, synonyms={"401.9": ["htn"]})
    assert code_set.describe("401.9") == "htn"
    assert ICDCodeSet(["401.9"], descriptions={"401.9": description}).undescribed == ("401.9",)
    assert ICDCodeSet.from_dict(code_set.to_dict()) == code_set


@pytest.mark.parametrize("names", [[], [""], [" ", "\n"]])
def test_blank_synonyms_are_none(names):
    code_set = ICDCodeSet(["401.9"], synonyms={"401.9": names})
    assert code_set.describe("401.9") == "401.9"
    assert code_set.undescribed == ("401.9",)


def test_synonyms_are_cleaned():
    code_set = ICDCodeSet(["401.9"], synonyms={"401.9": ["htn", " htn", "", "high\nblood  pressure"], "x": ["y"]})
    assert code_set.synonyms == {"401.9": ("htn", "high blood pressure")}


def test_synonyms_given_as_one_text_are_not_taken_letter_by_letter():
    try:
        code_set = ICDCodeSet(["401.9"], synonyms={"401.9": "htn"})
    except TypeError:
        return
    assert code_set.synonyms["401.9"] == ("htn",)


def test_order_and_positions(full):
    assert list(full) == ["038.9", "401.9", "38.9", "V45.81"] and len(full) == 4
    assert full.label2id == {"038.9": 0, "401.9": 1, "38.9": 2, "V45.81": 3}
    assert full.id2label == {0: "038.9", 1: "401.9", 2: "38.9", 3: "V45.81"}
    assert full.index("38.9") == 2 and "38.9" in full and "389" not in full
    with pytest.raises(KeyError, match="389"):
        full.index("389")
    full.label2id["new"] = 9
    assert "new" not in full


def test_subset(full):
    part = full.subset(["V45.81", "401.9"])
    assert part.codes == ("V45.81", "401.9") and part.index("401.9") == 1
    assert part.describe("V45.81") == "cabg" and part.synonyms["401.9"] == ("htn", "high blood pressure")
    assert part.parents == {"401.9": "401"} and "038.9" not in part.descriptions
    with pytest.raises(KeyError, match="250"):
        full.subset(["401.9", "250.00"])
    with pytest.raises(ValueError, match="empty"):
        full.subset([])


def test_multi_hot(full):
    assert full.multi_hot(["38.9", "038.9", "999.9", "38.9"]) == [1, 0, 1, 0]
    assert full.multi_hot([]) == [0, 0, 0, 0]


def test_from_icd10cm(caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        code_set = ICDCodeSet.from_icd10cm(["I10", "N17.9", "A15.0"])
    assert not caplog.records
    assert code_set.codes == ("I10", "N17.9", "A15.0")
    assert code_set.describe("I10") == "Essential (primary) hypertension"
    assert code_set.synonyms["N17.9"] == ("Acute kidney injury (nontraumatic)",)
    assert code_set.parents == {"N17.9": "N17", "A15.0": "A15"}


def test_from_icd10cm_unknown_codes(caplog):
    with caplog.at_level(logging.WARNING, logger="kept_hf"):
        # N17.99 never was; Q99.99 neither; zzz is nothing.
        code_set = ICDCodeSet.from_icd10cm(["N17.9", "N17.99", "I10.123", "ZZZ.9", "ZZZ"])
    assert len(caplog.records) == 1 and "4 of 5" in caplog.text
    assert code_set.parents["N17.99"] == "N17.9" and code_set.parents["I10.123"] == "I10"
    assert code_set.describe("N17.99") == "Acute kidney failure, unspecified"
    assert code_set.describe("I10.123") == "Essential (primary) hypertension"
    assert code_set.undescribed == ("ZZZ.9", "ZZZ")
    assert code_set.describe("ZZZ.9") == "ZZZ.9"


def test_from_icd10cm_whole_list():
    code_set = ICDCodeSet.from_icd10cm()
    assert len(code_set) > 40_000 and not code_set.undescribed
    assert {"I10", "N17", "N17.9", "A15.0", "Z99.3"} <= set(code_set)
    assert not any("-" in code for code in code_set), "blocks and chapters are left out"
    assert all(parent in code_set for parent in code_set.parents.values())


@pytest.mark.parametrize(
    "code,procedure,version,dotted",
    [
        ("0389", False, 9, "038.9"),
        ("389", False, 9, "389"),
        ("38.9", True, 9, "38.9"),
        ("389", True, 9, "38.9"),
        ("0407", True, 9, "04.07"),
        ("12", True, 9, "12"),
        ("E8889", False, 9, "E888.9"),
        ("E888", False, 9, "E888"),
        ("V4581", False, 9, "V45.81"),
        ("V45.81", False, 9, "V45.81"),
        (" v4581 ", False, 9, "V45.81"),
        ("N179", False, 10, "N17.9"),
        ("E119", False, 10, "E11.9"),
        ("E1165", False, 10, "E11.65"),
        ("S72001A", False, 10, "S72.001A"),
        ("0DTJ4ZZ", True, 10, "0DTJ4ZZ"),
        ("I10", False, 10, "I10"),
        ("E871", False, 10, "E87.1"),
        ("E871", False, 9, "E871"),
    ],
)
def test_add_dot(code, procedure, version, dotted):
    assert add_dot(code, procedure, icd_version=version) == dotted
    assert add_dot(dotted, procedure, icd_version=version) == dotted


def test_add_dot_refuses_another_version():
    with pytest.raises(ValueError, match="icd_version=11"):
        add_dot("N179", icd_version=11)


def test_equality_and_repr(full):
    assert full == full.subset(full.codes) and full != full.subset(["401.9"]) and full != "401.9"
    assert full != full.subset(full.codes[::-1]), "the order counts"
    assert "4 codes" in repr(full) and "V45.81" in repr(full)
