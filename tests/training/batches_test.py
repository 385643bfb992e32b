import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.training.batches import cut_batches, index_batches, visits


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


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 5),
    start=st.integers(0, 60),
    stream=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_visits_go_to_every_row_once_an_epoch_and_on_from_anywhere(sizes, seed, start, stream):
    def positions(first):
        for block, order in visits(sizes=sizes, seed=seed, start=first, stream=stream):
            yield from ((block, row) for row in order.tolist())

    rows = [(block, row) for block, size in enumerate(sizes) for row in range(size)]
    whole = list(itertools.islice(positions(0), start + 2 * len(rows)))
    assert list(itertools.islice(positions(start), 2 * len(rows))) == whole[start:]
    for epoch in range(len(whole) // len(rows)):
        visited = whole[epoch * len(rows) : (epoch + 1) * len(rows)]
        assert sorted(visited) == rows
        blocks = [block for block, _ in visited]
        assert len(list(itertools.groupby(blocks))) == len(sizes)  # none is left and come back to


def test_streams_epochs_and_blocks_have_orders_of_their_own():
    def orders(stream):
        return itertools.islice(visits(sizes=[50, 50], seed=0, stream=stream), 4)

    streams = ((0, 0), (0, 1), (1, 0))
    found = [tuple(order) for stream in streams for _, order in orders(stream)]
    assert len(set(found)) == len(found)


def test_cut_deals_the_same_rows_out_in_other_portions():
    pieces = ({"a": np.arange(n, n + 3), "b": np.zeros((3, 2))} for n in itertools.count(0, 3))
    dealt = list(cut_batches(pieces, [2, 0, 5, 1, 1]))
    assert [part["a"].tolist() for part in dealt] == [[0, 1], [], [2, 3, 4, 5, 6], [7], [8]]
    assert [part["b"].shape for part in dealt] == [(2, 2), (0, 2), (5, 2), (1, 2), (1, 2)]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        next(index_batches(rows=0, batch_size=1, seed=0))


def test_the_order_of_rows_stays_what_it_was():
    """As earlier versions had it, whose checkpoints go on with it."""
    digest = hashlib.sha256()
    batches = index_batches(rows=1000, batch_size=64, seed=7, start=9)
    for batch in itertools.islice(batches, 50):
        digest.update(batch.tobytes())
    assert digest.hexdigest().startswith("533d929c88b97c23")


@pytest.mark.parametrize("ahead", [1, 3])
def test_orders_that_are_made_ahead_are_the_same(ahead):
    shared = {"sizes": [5, 0, 9], "seed": 3, "start": 17}
    orders = [visits(**shared), visits(**shared, ahead=ahead)]
    for (block, rows), (other, others) in itertools.islice(zip(*orders, strict=True), 12):
        assert block == other
        np.testing.assert_array_equal(rows, others)
