from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.relevance.grid import grid, grid_blocks


def test_a_query_of_many_pairs_has_several_rows():
    found = grid(np.array([2, 0, 2, 2, 0, 2, 2]), columns=2)
    assert found.query.tolist() == [0, 2, 2, 2]
    assert found.pair.tolist() == [[1, 4], [0, 2], [3, 5], [6, 6]]
    assert found.filled.tolist() == [[True, True]] * 3 + [[True, False]]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5)), st.integers(1, 4), st.integers(1, 3))
def test_every_pair_is_in_one_cell_of_its_query(query_row, columns, rows):
    query_row, seen = np.array(query_row, int), []
    for query, pair, filled in grid_blocks(query_row, columns=columns, rows=rows):
        assert len(query) <= rows and pair.shape == filled.shape == (len(query), columns)
        assert filled[:, 0].all()
        assert (query_row[pair] == query[:, None]).all()
        seen += pair[filled].tolist()
    assert sorted(seen) == list(range(len(query_row)))
