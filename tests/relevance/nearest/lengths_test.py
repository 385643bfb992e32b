import numpy as np

from dsirm_jax.relevance.nearest.lengths import unit


def test_a_zero_vector_stays_zero():
    np.testing.assert_array_equal(unit(np.zeros((1, 3))), np.zeros((1, 3)))
