import pytest

from kept_hf.models.code_set import ICDCodeSet, add_dot
from kept_hf.models.code_systems import Spellings, is_missing, lost_zeros


@pytest.mark.parametrize(
    "text", ["", " ", "NULL", "null", "nan", "NaN", "None", "NA", "N/A", "<NA>", "\\N", "#N/A", "NoDx"]
)
def test_the_usual_spellings_of_a_missing_value(text):
    assert is_missing(text)
    with pytest.raises(ValueError, match="stands for no code; leave it out"):
        add_dot(text)
    with pytest.raises(ValueError, match="stands for no code; leave it out"):
        ICDCodeSet(["401.9", text])


@pytest.mark.parametrize(
    ("code", "procedure", "version"),
    [
        ("407.0", True, 9),  # was 0407
        ("4019.0", False, 9),
        ("38.9", False, 9),  # was 038.9, or is a procedure
        ("89", False, 9),
        ("1e+05", False, 9),
        ("389.0", True, 10),
        ("40.7.0", True, 9),
    ],
)
def test_numbers_are_no_codes(code, procedure, version):
    with pytest.raises(ValueError, match=rf"code='{code.replace('+', '[+]')}' is no code of ICD-"):
        add_dot(code, procedure, version)


@pytest.mark.parametrize(
    ("code", "procedure", "version"),
    [
        ("99213", True, 9),
        ("J1100", False, 9),
        ("0042T", True, 9),
        ("0042T", False, 10),
        ("4019", False, 10),
        ("A419", False, 9),
        ("A41.9", True, 10),
        ("0DTJ4Z", True, 10),
        ("0DTJ4ZI", True, 10),
        ("401.9 x", False, 9),
    ],
)
def test_codes_of_other_systems(code, procedure, version):
    with pytest.raises(ValueError, match="is no code of"):
        add_dot(code, procedure, version)


def test_the_cause_is_named():
    with pytest.raises(ValueError, match=r"ICD-9-CM procedures.*read as a number.*dtype=str"):
        add_dot("407.0", procedure=True)
    with pytest.raises(ValueError, match="leave out what is no ICD code, such as CPT and HCPCS"):
        add_dot("0042T", procedure=True)


@pytest.mark.parametrize("codes", [["4019.0", "25000.0"], ["401.9", "1e+05"], ["38.900000000000006"]])
def test_code_sets_of_numbers(codes):
    with pytest.raises(ValueError, match=r"was written as a number.*dtype=str"):
        ICDCodeSet(codes)


def test_code_sets_that_lost_their_zeros():
    whole = [f"{number / 100:06.2f}" for number in range(1000, 30000, 97)]
    assert ICDCodeSet(whole).codes == tuple(whole)
    with pytest.raises(ValueError, match="codes were read as numbers: of those of ICD-9 none starts with 0"):
        ICDCodeSet([str(float(code)) for code in whole])


@pytest.mark.parametrize(
    "codes",
    [
        ["1000.0", "1000.1"],  # of one's own
        ["73211009", "38341003"],  # SNOMED
        ["1E50.0", "5A11", "1E32"],  # ICD-11
        ["G63.2*", "E11.4†", "I10"],  # ICD-10 of the WHO
        [str(number) for number in range(1000, 1200)],
        ["99213", "J1100", "0042T"],
        ["sepsis", "fever"],
    ],
)
def test_codes_of_any_system_make_a_code_set(codes):
    assert ICDCodeSet(codes).codes == tuple(codes)


def test_spaces_around_codes_are_removed():
    code_set = ICDCodeSet([" 401.9", "A41.9  "], {" 401.9": "Hypertension"}, {"A41.9  ": ["sepsis"]})
    assert code_set.codes == ("401.9", "A41.9")
    assert code_set.describe("401.9") == "Hypertension" and code_set.describe("A41.9") == "sepsis"
    with pytest.raises(ValueError, match="pass each code once"):
        ICDCodeSet(["401.9", "401.9 "])


def test_codes_of_cpt_beside_codes_with_dots():
    with pytest.raises(ValueError, match=r"'99213'.*CPT or HCPCS, which are no ICD codes"):
        ICDCodeSet(["401.9", "99213"])


@pytest.mark.parametrize(
    ("codes", "written", "found"),
    [
        (["A41.9"], "a41.9", "A41.9"),
        (["A41.9"], "A419", "A41.9"),
        (["A41.9"], " A41.9", "A41.9"),
        (["A41.9"], "A41.9 ", "A41.9"),
        (["a41.9"], "A419", "a41.9"),
        (["A419", "I10"], "A41.9", "A419"),
        (["I10"], "i10.", "I10"),
        (["401.9"], "4019", "401.9"),
        (["40.19", "38.93"], "4019", "40.19"),
        (["401.9", "38.93"], "4019", None),  # a diagnosis or a procedure
        (["401.9", "40.19"], "4019", None),
        (["250.00", "38.93"], "25000", "250.00"),  # too long for a procedure
        (["4019", "25000"], "401.9", "4019"),
        (["4019", "25000"], "40.19", None),
        (["4019"], "401.9", None),  # nothing says what the digits are
        (["31.1"], "311", None),  # a category of its own
        (["E88.01", "A41.9"], "E8801", "E88.01"),
        (["E880.1", "401.9"], "E8801", "E880.1"),
        (["E88.01", "E880.1"], "E8801", None),
        (["E88.8", "A41.9"], "E888", "E88.8"),
        (["E888.9", "401.9"], "E888", None),
        (["V45.81"], "v4581", "V45.81"),
        (["0DTJ4ZZ"], "0dtj4zz", "0DTJ4ZZ"),
        (["401.9"], "", None),
        (["401.9"], "038.9", None),
    ],
)
def test_other_spellings(codes, written, found):
    assert Spellings(codes).find(written) == found
    assert ICDCodeSet(codes).find(written) == found


def test_multi_hot_finds_other_spellings():
    assert ICDCodeSet(["401.9", "A41.9"]).multi_hot(["a419", "R05"]) == [0, 1]


def test_lost_zeros_needs_many_codes():
    codes = [str(number) for number in range(1000, 1100)]
    assert lost_zeros(codes) and not lost_zeros(codes[:-1]) and not lost_zeros([*codes, "0407"])
    assert not lost_zeros([f"V{code}" for code in codes])
    assert not lost_zeros([*codes, "250.00"], trailing=True) and lost_zeros([*codes, "250.00"])
