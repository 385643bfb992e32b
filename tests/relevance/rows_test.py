from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.relevance.rows import (
    Ragged,
    bytes_in,
    bytes_of,
    joined,
    lengths_of,
    places,
    ragged,
    shared,
)

SETS = st.lists(st.sets(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)), min_size=1)


@settings(deadline=None)
@given(SETS, SETS, st.integers(0, 2**16), st.integers(1, 5))
def test_shared_values_by_sets(asked, has, seed, at_once):
    generator = np.random.default_rng(seed)
    query_row, item_row = (generator.integers(len(of), size=12) for of in (asked, has))
    twice = [[*values, *values] for values in map(sorted, asked)]
    asked_rows = ragged(twice, dtype=np.int64)
    has_rows = ragged([sorted(values) for values in has], dtype=np.int64)
    found = shared(
        asked_rows,
        has_rows,
        query_row=query_row,
        item_row=item_row,
        pairs_at_once=at_once,
        rows_at_once=at_once,
    )
    assert (np.diff(found.pair) >= 0).all()
    np.testing.assert_array_equal(asked_rows.values[found.in_query], has_rows.values[found.in_item])
    for pair, (query, item) in enumerate(zip(query_row, item_row, strict=True)):
        values = asked_rows.values[found.in_query[found.pair == pair]].tolist()
        assert sorted(values) == sorted(2 * list(asked[query] & has[item]))
        for side, row in ((found.in_query, query), (found.in_item, item)):
            starts = (asked_rows if side is found.in_query else has_rows).starts
            mine = side[found.pair == pair]
            assert ((starts[row] <= mine) & (mine < starts[row + 1])).all()


def test_places_and_lengths_of_rows_in_the_order_wanted():
    given = ragged([[1, 2], [], [3]], dtype=np.int32)
    assert given.starts.tolist() == [0, 2, 2, 3]
    wanted = np.array([2, 0, 1, 2])
    row, place = places(given.starts, wanted)
    assert (row.tolist(), place.tolist()) == ([0, 1, 1, 3], [2, 0, 1, 2])
    assert lengths_of(given, wanted).tolist() == [1, 2, 0, 1]


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=4), min_size=1))
def test_parts_are_joined_row_by_row(parts):
    found = joined([ragged(rows, dtype=np.int32) for rows in parts])
    rows = [row for part in parts for row in part]
    assert [of.tolist() for of in np.split(found.values, found.starts[1:-1])][: len(rows)] == rows
    assert (found.starts[0], found.starts[-1]) == (0, len(found.values))
    assert len(found.starts) == len(rows) + 1 and found.values.dtype == np.int32


def test_texts_are_spelt_in_the_order_wanted():
    given = bytes_of(["mug", "", "größe"])
    wanted = np.array([2, 0, 2, 1])
    assert [text.decode() for text in bytes_in(given, wanted)] == ["größe", "mug", "größe", ""]
    assert list(bytes_in(given, wanted[:0])) == []


def test_nothing_asked_is_nothing_shared():
    nothing, something = Ragged(np.zeros(2, int), np.empty(0, int)), ragged([[1]], dtype=np.int64)
    pair = {"query_row": np.array([0]), "item_row": np.array([0])}
    assert len(shared(nothing, something, **pair).pair) == 0
    assert len(shared(something, nothing, **pair).pair) == 0
    none = {name: np.empty(0, int) for name in pair}
    assert len(shared(something, something, **none).pair) == 0
