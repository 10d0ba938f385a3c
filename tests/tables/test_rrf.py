"""Columns of UMLS's tables as text."""

import gzip
import re

import numpy as np
import pyarrow as pa
import pytest

from kept_hf.tables import rrf


def row(**values):
    return "|".join(values.get(column, "") for column in rrf.COLUMNS["MRCONSO"]) + "|\n"


ROWS = [row(CUI="C0000005", CODE="038.9", STR='Sepsis, "any"'), row(CUI="C0000007", CODE="38.9")]


@pytest.mark.parametrize("ending", [".RRF", ".RRF.gz"])
def test_values_are_text(tmp_path, ending):
    content = "".join(ROWS).encode()
    (tmp_path / f"MRCONSO{ending}").write_bytes(gzip.compress(content) if ending == ".RRF.gz" else content)
    path = rrf.find_table(tmp_path, "MRCONSO")
    (batch,) = rrf.stream_table(path, "MRCONSO", ["STR", "CODE", "CUI"])
    assert batch.to_pydict() == {
        "STR": ['Sepsis, "any"', ""],
        "CODE": ["038.9", "38.9"],
        "CUI": ["C0000005", "C0000007"],
    }
    numbers = rrf.cui_numbers(batch["CUI"])
    assert rrf.number_lookup(numbers)[numbers].tolist() == [0, 1]
    assert rrf.cui_texts(numbers).to_pylist() == batch["CUI"].to_pylist()


def test_identifiers_that_are_none():
    assert rrf.cui_numbers(pa.array(["C0000005", "5"])) is None
    assert rrf.cui_numbers(pa.array([], pa.string())).tolist() == []
    assert np.unique(rrf.number_lookup(np.zeros(0, np.int32))).tolist() == [-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (ROWS[0] + "C0000001|secret|\n", "row 2 has 2 columns, each followed by |, and MRCONSO has 18: CUI, LAT"),
        (ROWS[0] + row(CUI="C0000001", STR="secret é"), "row 2 holds bytes that are not UTF-8"),
    ],
)
def test_errors_name_the_row_and_quote_nothing(tmp_path, content, message):
    path = tmp_path / "MRCONSO.RRF"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        list(rrf.stream_table(str(path), "MRCONSO", ["CUI", "STR"]))
    assert "secret" not in str(caught.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds neither MRREL\.RRF nor MRREL\.RRF\.gz; pass the META folder"):
        rrf.find_table(tmp_path, "MRREL")
