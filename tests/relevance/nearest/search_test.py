from __future__ import annotations

import numpy as np

from dsirm_jax.relevance.nearest.search import Neighbours


def test_weights_are_a_softmax_and_leave_out_what_is_not_there():
    near = Neighbours(
        row=np.zeros((2, 3), np.int32),
        cosine=np.array([[0.9, 0.8, -np.inf], [-np.inf] * 3], np.float32),
    )
    expected = np.exp([9.0, 8.0]) / np.exp([9.0, 8.0]).sum()
    np.testing.assert_allclose(near.weights()[0], [*expected, 0], rtol=1e-5)
    np.testing.assert_array_equal(near.weights()[1], 0)
