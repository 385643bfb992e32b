from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance import terms
from dsirm_jax.relevance.features.attributes import GROUP, attributes
from tests.relevance.contexts import text_context

NAMES = terms.names_in(
    brands=["Acme", "ACME", "North & South", None, "A very long name of a shop"],
    colours=["Navy Blue", "red", "", "Red, Green, Blue, Black and White"],
)
COLUMNS = tuple(GROUP.described())


def terms_of(text: str, *, title: str) -> terms.Terms:
    return terms.terms_in(text, title=title, names=NAMES, language="en")


def computed(queries, items, *, query_row, item_row, **settings):
    return attributes(
        text_context(
            query_row=query_row,
            item_row=item_row,
            queries={"terms": terms.digest_query_terms(queries)},
            items={"terms": terms.digest_item_terms(items)},
        ),
        **settings,
    )


def compared(query: str, text: str, *, title: str | None = None) -> dict[str, float]:
    values = computed(
        [terms_of(query, title=query)],
        [terms_of(text, title=title or text)],
        query_row=np.array([0]),
        item_row=np.array([0]),
    )
    return {
        name: value for name, value in zip(COLUMNS, values[0].tolist(), strict=True) if value != 0
    }


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        pytest.param("acme case", "Case by ACME", {"brand": 1}, id="brand"),
        pytest.param("north & south case", "Case, Acme", {"brand": -1}, id="another brand's title"),
        pytest.param("north case", "Case, Acme", {}, id="half a brand"),
        pytest.param("navy blue case", "Case, Navy  Blue", {"colour": 1}, id="two-word colour"),
        pytest.param(
            "red acme case",
            "Case, Navy Blue, acme",
            {"colour": -1, "brand": 1},
            id="another colour",
        ),
        pytest.param("case 64gb", "Case 64 GB", {"numbers": 1}, id="amount"),
        pytest.param(
            "case 64gb",
            "Case 128-GB",
            {"numbers_missing": 1, "other_amount": 1},
            id="another amount",
        ),
        pytest.param(
            "case 64gb 2 pack",
            "Case 64 oz",
            {"numbers": 0.5, "numbers_missing": 0.5},
            id="amount of another unit",
        ),
        pytest.param("size 7,5", "size 7.5 wide", {"numbers": 1}, id="decimal comma"),
        pytest.param('27" screen', "24 inch, 27 inches", {"numbers": 1}, id="one of two sizes"),
        pytest.param("model a64", "64 things", {}, id="number within a name"),
        pytest.param("phone without case", "Phone, case", {"unwanted": 1}, id="unwanted"),
        pytest.param("phone without case", "Phone, no case", {"without": 1}, id="without"),
        pytest.param("phone without case", "Phone", {}, id="neither"),
        pytest.param(
            "sugar-free gum non-stick",
            "gum, sugar free, sticks",
            {"without": 0.5},
            id="suffix and prefix",
        ),
        pytest.param(
            "zapatos sin cordones", "Zapatos con cordones", {"unwanted": 1}, id="another language"
        ),
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


@pytest.mark.parametrize("at_once", [1, 7, 20])
def test_pairs_have_the_numbers_that_they_have_alone(at_once):
    queries = ["red acme case 64gb", "", "phone without strap", "shoe cleaning spray"]
    items = [
        "Case 64 GB, Navy Blue",
        "Phone, strap",
        "",
        "Acme Running Shoes for Men",
        "red, no strap",
    ]
    query_row, item_row = (index.ravel() for index in np.mgrid[:4, :5])
    values = computed(
        [terms_of(text, title=text) for text in queries],
        [terms_of(text, title=text) for text in items],
        query_row=query_row,
        item_row=item_row,
        pairs_at_once=at_once,
    )
    for row, query, item in zip(values, query_row, item_row, strict=True):
        alone = compared(queries[query], items[item])
        assert {n: v for n, v in zip(COLUMNS, row.tolist(), strict=True) if v} == alone
    assert (values != 0).any(axis=0).sum() >= 7


def test_no_pairs_give_no_rows():
    nothing = np.empty(0, int)
    found = computed([], [], query_row=nothing, item_row=nothing)
    assert found.shape == (0, len(COLUMNS))
