import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.report.catalogue import (
    TITLE_LENGTH,
    category_prefixes,
    common_category,
    read_page_items,
    spread,
)


@pytest.fixture
def catalogue(layout):
    return read_page_items(layout, sizes=(2, 2, 3))


def test_category_prefixes_by_hand():
    paths = pa.chunked_array([[["a", "b"], None, ["a"]], [["c", "b", "d"]]])
    numbers, names = category_prefixes(paths, depth=2)
    named = [
        [names[depth][n] if n >= 0 else None for depth, n in enumerate(row)] for row in numbers
    ]
    assert named == [["a", "a › b"], [None, None], ["a", None], ["c", "c › b"]]


def test_a_catalogue_without_categories_has_none(catalogue):
    numbers, names = category_prefixes(
        pa.chunked_array([[None, None]], pa.list_(pa.string())), depth=2
    )
    assert numbers.tolist() == [[-1, -1], [-1, -1]]
    assert names == [[], []]
    assert common_category(catalogue, np.array([2])) is None


def test_the_common_category_is_the_deepest_that_half_of_the_items_share(catalogue):
    assert common_category(catalogue, np.array([0, 1, 2])) == ("Shoes › Boots", 1.0)
    assert common_category(catalogue, np.array([3, 4])) == ("Kitchen › Kettles", 0.5)
    assert common_category(catalogue, np.array([4])) == ("Toys", 1.0)
    name, share = common_category(catalogue, np.arange(5))
    assert (name, share) == ("Shoes › Boots", 0.5)


def test_a_catalogue_without_a_common_category_names_the_most_frequent_of_the_first_depth(
    catalogue,
):
    name, share = common_category(catalogue, np.array([0, 3, 4]))
    assert name in ("Shoes", "Kitchen", "Toys")
    assert share == pytest.approx(1 / 3)


def test_items_are_found_by_their_sid(catalogue):
    assert sorted(catalogue.with_sid([0, 0, 0])) == [0, 1]
    assert catalogue.with_sid([1, 0, 2]).tolist() == [4]
    assert catalogue.with_sid([1, 1, 1]).tolist() == []


def test_rows_are_spread_from_end_to_end():
    assert spread(np.arange(10, 21), 3) == [10, 15, 20]
    assert spread(np.array([4, 5]), 3) == [4, 5]
    assert spread(np.array([7]), 3) == [7]


def test_long_titles_are_cut(catalogue):
    long = pa.chunked_array([["x" * 500, "short"]])
    titles = type(catalogue).titles_of(type("C", (), {"titles": long})(), [1, 0, 1])
    assert titles[1] == "short"
    assert len(titles[0]) == TITLE_LENGTH
    assert titles[0].endswith("…")
