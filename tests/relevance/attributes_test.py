from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance import attributes, schema

NAMES = attributes.names_in(
    brands=["Acme", "ACME", "North & South", None, "A very long name of a shop"],
    colours=["Navy Blue", "red", "", "Red, Green, Blue, Black and White"],
)
COLUMNS = schema.COLUMNS_WITHOUT_SIDS["attributes"]


def compared(query: str, text: str, *, title: str | None = None) -> dict[str, float]:
    values = attributes.attributes(
        query_row=np.array([0]),
        item_row=np.array([0]),
        queries=[query],
        items=attributes.ItemTexts([text], [title or text], [None], [None]),
        names=NAMES,
        language="en",
    )
    return {
        name: value for name, value in zip(COLUMNS, values[0].tolist(), strict=True) if value != 0
    }


def test_names_of_a_catalogue():
    assert NAMES.brands == {"acme", "north south"}
    assert NAMES.colours == {"navy blue", "red"}


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("acme case", "Case by ACME", {"brand": 1}),
        ("north & south case", "Case, Acme", {"brand": -1}),
        ("north case", "Case, Acme", {}),
        ("navy blue case", "Case, Navy  Blue", {"colour": 1}),
        ("red acme case", "Case, Navy Blue, acme", {"colour": -1, "brand": 1}),
        ("case 64gb", "Case 64 GB", {"numbers": 1}),
        ("case 64gb", "Case 128-GB", {"numbers_missing": 1, "other_amount": 1}),
        ("case 64gb 2 pack", "Case 64 oz", {"numbers": 0.5, "numbers_missing": 0.5}),
        ("size 7,5", "size 7.5 wide", {"numbers": 1}),
        ('27" screen', "24 inch, 27 inches", {"numbers": 1}),
        ("model a64", "64 things", {}),
        ("phone without case", "Phone, case", {"unwanted": 1}),
        ("phone without case", "Phone, no case", {"without": 1}),
        ("phone without case", "Phone", {}),
        ("sugar-free gum non-stick", "gum, sugar free, sticks", {"without": 0.5}),
        ("zapatos sin cordones", "Zapatos con cordones", {"unwanted": 1}),
    ],
)
def test_attributes_by_hand(query, text, expected):
    found = compared(query, text)
    assert {k: v for k, v in found.items() if k not in ("same_type", "type_named")} == expected


def test_product_types():
    title = "Acme Running Shoes for Men, 2-Pack, Black (Size 9)"
    assert compared("red running shoes", title)["same_type"] == 1
    assert "type_named" not in compared("red running shoes", title)  # its plural alone
    found = compared("shoe cleaning spray", title)
    assert found["type_named"] == 1
    assert "same_type" not in found


def test_without_a_language_there_is_no_type():
    one = attributes.terms("Red Shoe", title="Red Shoe", names=NAMES, language=None)
    assert one.type == frozenset()


def test_no_pairs_give_no_rows():
    nothing = np.empty(0, int)
    items = attributes.ItemTexts([], [], [], [])
    found = attributes.attributes(
        query_row=nothing, item_row=nothing, queries=[], items=items, names=NAMES, language="en"
    )
    assert found.shape == (0, len(COLUMNS))
