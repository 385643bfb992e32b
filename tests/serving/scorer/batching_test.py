from __future__ import annotations

import threading

import pytest

from dsirm_jax.serving.scorer.batching import Batcher, Overloaded


class Gate:
    """Answers with doubled numbers, once it is open; tells when it has been reached."""

    def __init__(self):
        self.batches, self.reached, self.open = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, requests):
        self.batches.append(list(requests))
        self.reached.release()
        self.open.acquire()
        if 13 in requests:
            raise ValueError("thirteen")
        return [2 * request for request in requests]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def batcher(gate):
    batcher = Batcher(gate, most=3, waiting=4)
    yield batcher
    for _ in range(10):
        gate.open.release()
    batcher.close()


def test_what_gathers_meanwhile_is_answered_together(gate, batcher):
    futures = [batcher.submit(1)]
    gate.reached.acquire()
    futures += [batcher.submit(number) for number in (2, 3, 4, 5)]
    assert len(batcher) == 4
    for _ in range(3):
        gate.open.release()
    assert [future.result(timeout=600) for future in futures] == [2, 4, 6, 8, 10]
    assert gate.batches == [[1], [2, 3, 4], [5]]


def test_one_more_than_may_wait_is_refused_at_once(gate, batcher):
    batcher.submit(0)
    gate.reached.acquire()
    waiting = [batcher.submit(number) for number in range(1, 5)]
    with pytest.raises(Overloaded, match="4 requests wait already"):
        batcher.submit(5)
    assert waiting[1].cancel()  # nobody waits for it any more: there is room for another
    assert len(batcher) == 3
    last = batcher.submit(6)
    for _ in range(3):
        gate.open.release()
    assert last.result(timeout=600) == 12
    assert gate.batches == [[0], [1, 3, 4], [6]]


def test_an_error_goes_to_those_of_its_batch_alone(gate, batcher):
    wrong = batcher.submit(13)
    gate.reached.acquire()
    right = batcher.submit(1)
    gate.open.release()
    gate.open.release()
    with pytest.raises(ValueError, match="thirteen"):
        wrong.result(timeout=600)
    assert right.result(timeout=600) == 2


def test_who_waits_when_it_closes_gets_no_result(gate):
    batcher = Batcher(gate, most=1, waiting=4)
    first = batcher.submit(1)
    gate.reached.acquire()
    second = batcher.submit(2)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.open.release()
    closing.join(timeout=600)
    assert first.result(timeout=600) == 2
    assert second.cancelled()
    assert gate.batches == [[1]]
    with pytest.raises(Overloaded):
        batcher.submit(3)
