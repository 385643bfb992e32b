from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from dsirm_jax.relevance import lists as of_lists
from dsirm_jax.relevance.lists import list_names, named_by, with_list_columns
from dsirm_jax.relevance.schema import FeatureTable

columns = jax.jit(of_lists.list_columns)


def by_hand(values, lists):
    """Returns the columns list by list, with SciPy's ranks."""
    centred, ranks = np.zeros(values.shape), np.zeros(values.shape)
    for number in set(lists.tolist()):
        rows = lists == number
        of_list = values[rows].astype(float)
        centred[rows] = of_list - of_list.mean(axis=0)
        ranks[rows] = (rankdata(of_list, axis=0) - 0.5) / rows.sum()
    return np.concatenate([centred, ranks], axis=1)


def test_columns_by_hand():
    values = np.float32([[1], [5], [3], [8], [1]])
    found = np.asarray(columns(values, np.int32([0, 3, 0, 0, 0])))
    # Of 1, 3, 8, 1 the mean is 13 / 4; each 1 has half of two alike, 3 two below, 8 three.
    np.testing.assert_allclose(found[:, 0], [-2.25, 0, -0.25, 4.75, -2.25])
    np.testing.assert_allclose(found[:, 1], [0.25, 0.5, 0.625, 0.875, 0.25])


@given(st.integers(0, 10**6), st.sampled_from([1, 7, 40]), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_columns_are_those_of_each_list_in_any_order(seed, rows, most):
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal(size=(rows, 3)) * [1, 100, 0.01], 2).astype(np.float32)
    lists = generator.integers(0, min(most, rows), rows).astype(np.int32)
    found = np.asarray(columns(values, lists))
    # Sums of up to 40 values and differences from them, rounded to 24 bits.
    rounding = 40 * 2.0**-24 * np.abs(values).max() + 1e-6
    np.testing.assert_allclose(found, by_hand(values, lists), atol=rounding)
    order = generator.permutation(rows)
    moved = np.asarray(columns(values[order], lists[order]))
    np.testing.assert_allclose(moved, found[order], atol=rounding)


def test_a_pair_alone_is_in_the_middle_and_rounding_errors_have_no_ranks():
    values = np.float32([[-7e5], [0.3], [0.3 * (1 + 2e-7)], [0.3 * (1 - 2e-7)], [0.4]])
    found = np.asarray(columns(values, np.int32([4, 0, 0, 0, 0])))
    assert found[0].tolist() == [0, 0.5]
    np.testing.assert_allclose(found[1:, 1], [0.375, 0.375, 0.375, 0.875])
    same = np.full((9, 1), 0.1, np.float32)
    assert np.ptp(np.asarray(columns(same, np.zeros(9, np.int32))), axis=0).tolist() == [0, 0]
    assert not np.asarray(columns(same, np.zeros(9, np.int32)))[:, 0].any()


def test_a_value_moved_in_a_whole_list_changes_nothing():
    generator = np.random.default_rng(0)
    values, lists = generator.normal(size=(50, 2)).astype(np.float32), np.arange(50) // 7
    shift = generator.integers(-8, 9, 8)[lists][:, None].astype(np.float32)
    one, other = (np.asarray(columns(v, lists.astype(np.int32))) for v in (values, values + shift))
    np.testing.assert_allclose(one, other, atol=2e-6)


def test_other_lists_and_a_traced_number_of_pairs_do_not_matter():
    generator = np.random.default_rng(1)
    values, lists = generator.normal(size=(33, 4)).astype(np.float32), np.arange(33) // 10
    (pairs,) = jax.export.symbolic_shape("pair")
    program = jax.export.export(columns, platforms=("cpu", "tpu", "cuda"))(
        jax.ShapeDtypeStruct((pairs, 4), np.float32), jax.ShapeDtypeStruct((pairs,), np.int32)
    )
    whole = np.asarray(program.call(values, lists.astype(np.int32)))
    alone = np.asarray(columns(values[10:20], np.zeros(10, np.int32)))
    np.testing.assert_allclose(whole[10:20], alone, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 65])
def test_a_table_has_them_behind_its_own(rows):
    generator = np.random.default_rng(rows)
    values = generator.normal(size=(rows, 3)).astype(np.float32)
    table = FeatureTable(names=("a", "b", "c"), groups=("x", "y", "z"), values=values)
    lists = generator.integers(-5, 3, rows) * 10**9
    found = with_list_columns(table, lists, names=("c", "a"))
    assert found.names == ("a", "b", "c", "c@centred", "a@centred", "c@rank", "a@rank")
    assert found.groups == ("x", "y", "z", "z", "x", "z", "x")
    np.testing.assert_array_equal(found.values[:, :3], values)
    np.testing.assert_allclose(found.values[:, 3:], by_hand(values[:, [2, 0]], lists), atol=1e-6)
    assert with_list_columns(table, lists, names=()) is table


def test_names_by_patterns_keep_the_order_of_the_columns():
    names = ("cosine", "prefix_1", "prefix_2", "bm25")
    assert named_by(("prefix_*", "cosine"), names) == ("cosine", "prefix_1", "prefix_2")
    assert list_names(("a", "b")) == ("a@centred", "b@centred", "a@rank", "b@rank")
