from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsirm_jax.ingestion.validation import ids


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        pytest.param(" 00001", "00001", id="space"),
        pytest.param("\u00a000001\u00a0", "00001", id="no-break space"),
        pytest.param("\ufeff00001\u200b", "00001", id="invisible"),
        pytest.param("00001\u200d", "00001", id="joiner"),
        pytest.param("00\u00ad001", "00001", id="soft hyphen within"),
        pytest.param('="00002"', "00002", id="spreadsheet text"),
        pytest.param(' =" 00002 "', "00002", id="spreadsheet text and space"),
        pytest.param('="a ""b"""', 'a "b"', id="spreadsheet quotes"),
        pytest.param("=A1", "=A1", id="no text"),
        pytest.param("red 1", "red 1", id="space within"),
        pytest.param("100002.0", "100002.0", id="float"),
        pytest.param(" \u200b ", "", id="nothing"),
    ],
)
def test_an_id_is_what_stands_in_the_cell(cell, expected):
    assert ids.read_id(cell) == expected


@given(st.text(max_size=12))
def test_an_id_is_read_once(text):
    once = ids.read_id(text)
    if not once.startswith("="):
        assert ids.read_id(once) == once


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100002.0", "100002"),
        ("100002.000000", "100002"),
        ("100002,00", "100002"),
        ("100002.5", None),
        ("100.000", None),  # a hundred thousand where the mark parts thousands
        ("00012.0", None),
        ("0.0", "0"),
        ("1.00002E+05", "100002"),
        ("1,00002E+05", "100002"),
        ("1.00002e5", "100002"),
        ("1.00002E7", "10000200"),
        ("1.2346E+12", None),
        ("4.00638E+12", None),
        ("1E+05", None),
        ("2E5", None),
        ("12E4", None),
        ("1.5E0", None),
        ("9007199254740993.0", None),
        ("17", None),
        pytest.param("٣.0", None, id="other digits"),
    ],
)
def test_numbers_that_are_exact(text, number):
    assert ids.number_form(text) == number


@given(st.integers(1, 2**53 - 1))
@example(100_002)
@example(2**53 - 1)
def test_floats_of_whole_numbers_stand_for_them(number):
    assert ids.number_form(f"{number}.0") == str(number)
    shown = f"{number:.{len(str(number)) - 1}E}"
    assert shown.startswith(("1E", "2E", "3E", "4E", "5E", "6E", "7E", "8E", "9E")) or (
        ids.number_form(shown) == str(number)
    )


@given(st.integers(10**7, 2**53 - 1))
def test_what_a_spreadsheet_shows_of_a_long_number_is_no_id(number):
    shown = f"{number:.5E}"
    assert ids.number_form(shown) is None
    assert ids.is_rounded(shown)


@pytest.mark.parametrize(
    "type_", [pa.float16(), pa.float32(), pa.float64()], ids=["float16", "float32", "float64"]
)
def test_columns_of_floats(type_):
    import numpy as np

    column = pa.array(np.array([17, 2000], type_.to_pandas_dtype()), type_)
    assert ids.whole_numbers(column).cast(pa.string()).to_pylist() == ["17", "2000"]


def test_long_numbers_that_came_as_floats_keep_their_digits():
    column = pa.array([4006381333931.0, None, float("nan"), 9007199254740991.0])
    found = ids.whole_numbers(column).cast(pa.string()).to_pylist()
    assert found == ["4006381333931", None, None, "9007199254740991"]
    parts = ids.whole_numbers(pa.array([1.5, 2.0]))
    assert parts.to_pylist() == [1.5, 2.0]
    texts = pa.array(["1.0"])
    assert ids.whole_numbers(texts) is texts


def matched(unknown, known):
    return ids.match(unknown, known=lambda: iter(known))


def test_the_same_number_is_the_same_id():
    found = matched(["100002.0", "1.00003E+05", "100004.0"], ["100002", "100003", "A"])
    assert found.same == {"100002.0": "100002", "1.00003E+05": "100003"}
    assert found.unknown == ["100004.0"]
    assert matched(["100002"], ["100002.0"]).same == {"100002": "100002.0"}
    # Two items are that number: nothing says which.
    assert matched(["100002"], ["100002.0", "1.00002E+05"]).same == {}
    found = matched(["1.00002E+05"], ["100002.0", "100002"])
    assert found.same == {"1.00002E+05": "100002"}


def test_zeros_case_and_space_are_told_and_not_joined():
    found = matched(["2", "sku-a", "a b", "zz"], ["00002", "SKU-A", "ab", "y"])
    assert found.same == {}
    assert found.near == {"2": "00002", "sku-a": "SKU-A", "a b": "ab"}
    assert found.unknown == ["zz"]
    hint = found.hint()
    assert "'2': the catalogue has '00002'" in hint
    assert "3 of 4 unknown ids" in hint


def test_the_nearest_id_is_shown_where_nothing_else_is_known():
    found = matched(["gid://shop/Product/17"], ["banana", "Product/17", "kettle"])
    assert (
        found.hint() == "'gid://shop/Product/17': the nearest id of the catalogue is 'Product/17'"
    )
    assert matched(["a"], []).hint() == ""


def test_scientific_notation_is_named():
    found = matched(["1.2346E+12", "4.00638E+12"], ["1234612345678"])
    assert found.same == {}
    assert "2 of 2 unknown ids, such as '1.2346E+12', are in scientific notation" in found.hint()


def test_ids_that_all_but_agree(tmp_path):
    def alike(*texts):
        path = tmp_path / "items.parquet"
        pq.write_table(pa.table({"item_id": list(texts)}), path)
        return ids.alike(path)

    assert alike("00017", "17", "18", "Sku", "sku") == [["00017", "17"], ["Sku", "sku"]]
    assert alike("17", "17.0", "1.7E+01") == [["1.7E+01", "17", "17.0"]]
    assert alike("a b", "ab", "c") == [["a b", "ab"]]
    assert alike("Straße", "STRASSE") == []  # lower case, as a vector of a million ids has it
    assert alike("17", "18", "170") == []
