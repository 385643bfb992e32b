import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.training.batches import index_batches


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 20),
    batch_size=st.integers(1, 25),
    seed=st.integers(0, 5),
    start=st.integers(0, 30),
)
def test_a_resumed_stream_continues_the_uninterrupted_one(rows, batch_size, seed, start):
    def stream(first):
        return index_batches(rows=rows, batch_size=batch_size, seed=seed, start=first)

    whole = np.concatenate(list(itertools.islice(stream(0), start + 3)))
    resumed = np.concatenate(list(itertools.islice(stream(start), 3)))
    np.testing.assert_array_equal(whole[start * batch_size :], resumed)
    epochs = whole[: len(whole) // rows * rows].reshape(-1, rows)
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.tile(np.arange(rows), (len(epochs), 1))
    )


def test_epochs_and_seeds_differ_in_order():
    first, second = itertools.islice(index_batches(rows=100, batch_size=100, seed=0), 2)
    other = next(index_batches(rows=100, batch_size=100, seed=1))
    assert (first != second).any()
    assert (first != other).any()
