import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.generator.top_k import top_k, top_k_by_sorting


def largest(values, k):
    """By a stable sort of Python's, row by row."""
    flat = values.reshape(len(values), -1).tolist()
    places = [sorted(range(len(row)), key=lambda place: -row[place])[:k] for row in flat]
    return [[row[place] for place in best] for row, best in zip(flat, places, strict=True)], places


# Whole, by parts and by groups; groups that fill the last one, and that do not.
SHAPES = [(2, 1, 216, 70), (3, 5, 512, 5), (2, 40, 64, 40), (2, 70, 512, 70), (1, 37, 61, 37)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(deadline=None, max_examples=8)
@given(levels=st.sampled_from([1, 2, 7, 10**6]), missing=st.sampled_from([0.0, 0.5, 0.999, 1.0]))
def test_the_largest_are_those_of_a_stable_sort(shape, levels, missing):
    *dimensions, k = shape
    rng = np.random.default_rng(levels)
    values = rng.integers(0, levels, dimensions).astype(np.float32) - levels / 2
    values[rng.random(dimensions) < missing] = -np.inf
    best, places = largest(values, k)
    for function in (top_k, top_k_by_sorting):
        found, where = jax.jit(function, static_argnums=1)(values, k)
        np.testing.assert_array_equal(found, best)
        np.testing.assert_array_equal(where, places)
        assert where.dtype == np.int32


@pytest.mark.parametrize(
    ("platform", "rows"), [("cuda", [1630, 1540]), ("cpu", [35840]), ("tpu", [35840])], ids=str
)
def test_a_gpu_alone_sorts_in_pieces(platform, rows):
    values = jax.ShapeDtypeStruct((1, 70, 512), np.float32)
    traced = jax.jit(top_k, static_argnums=1).trace(values, 70)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert list(map(int, re.findall(r"chlo.top_k.*: tensor<1x(\d+)xf32>", text))) == rows


def test_few_of_each_part_are_sorted_where_few_are_sought():
    values = jax.ShapeDtypeStruct((1, 5, 512), np.float32)
    text = jax.jit(top_k_by_sorting, static_argnums=1).lower(values, 5).as_text()
    found = re.findall(r"chlo.top_k.*: tensor<(\w+)xf32>", text.replace("->", "\n"))
    assert found == ["1x5x512", "1x25"]
