"""Programs of every version of JAX in range are read by every other, and by TensorFlow."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export
from scipy.special import erf, softmax

from dsirm_jax.serving.formats import portable
from tests.serving.formats.golden import make

GOLDEN = Path(__file__).parent / "golden"
PROGRAMS = sorted(path.name for path in GOLDEN.glob("*.stablehlo"))


def inputs(rows):
    random = np.random.default_rng(rows)
    weights, values = random.normal(size=(4, 6)), random.normal(size=(rows, 4))
    values[0] = 0  # all of its products are equal
    return weights.astype(np.float32), values.astype(np.float32)


def check(found, weights, values):
    """Compares with what NumPy and SciPy compute in double precision."""
    (best, index), shares = jax.tree.map(np.asarray, found)
    products = values.astype(np.float64) @ weights
    gelu = products * (1 + erf(products / np.sqrt(2))) / 2
    order = np.argsort(-gelu, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(best, np.take_along_axis(gelu, order, axis=1), atol=2e-6)
    np.testing.assert_allclose(shares, np.cumsum(softmax(gelu, axis=1), axis=1), atol=2e-6)


@pytest.fixture(scope="module")
def greatest():
    """A program of the four greatest values of rows of nine."""
    (rows,) = export.symbolic_shape("rows")
    shape = jax.ShapeDtypeStruct((rows, 9), np.float32)
    return jax.jit(portable.exported(lambda values: jax.lax.top_k(values, 4), shape).call)


def test_there_is_a_program_of_each_series_of_jax():
    assert {re.match(r"jax-(0\.\d+)\.", name)[1] for name in PROGRAMS} == {"0.10", "0.11", "0.12"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_of_other_versions_of_jax_run_here(name):
    program = export.deserialize(bytearray((GOLDEN / name).read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for rows in (1, 5):
        arrays = inputs(rows)
        check(jax.jit(program.call)(*arrays), *arrays)


@pytest.mark.parametrize("name", PROGRAMS)
def test_tensorflow_runs_the_programs_of_every_version_of_jax(name):
    import tensorflow as tf

    program = export.deserialize(bytearray((GOLDEN / name).read_bytes()))
    run = tf.function(portable.as_tensorflow(program), autograph=False)
    arrays = inputs(5)
    check(run(*map(tf.constant, arrays)), *arrays)


def test_a_program_written_here_is_of_the_version_that_all_read():
    program = make.program()
    arrays = inputs(3)
    check(program.call(*arrays), *arrays)
    code = program.mlir_module_serialized
    assert f"StableHLO_v{portable.VERSION}".encode() in code
    assert b"composite" not in code
    assert __file__.encode() not in code and make.__file__.encode() not in code


SOME = st.lists(st.sampled_from([-np.inf, -2.5, 0.0, 1.0, 3.0]), min_size=9, max_size=9)


@given(values=SOME)
def test_equal_values_keep_the_order_that_jax_gives_them(values, greatest):
    rows = np.array([values, values[::-1]], np.float32)
    for found, expected in zip(greatest(rows), jax.lax.top_k(rows, 4), strict=True):
        np.testing.assert_array_equal(found, expected)
