import numpy as np

from dsirm_jax.data.pairs import NO_ITEM, positives_of


def test_positives_lists_every_relevant_item_of_each_query():
    pairs = np.array([[2, 5], [0, 1], [2, 3], [0, 9], [2, 8]])
    expected = [[1, 9, NO_ITEM], [NO_ITEM] * 3, [3, 5, 8], [NO_ITEM] * 3]
    positives = positives_of(pairs, queries=3)
    np.testing.assert_array_equal(positives, expected)
    assert (positives[-1] == NO_ITEM).all()
