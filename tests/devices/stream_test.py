import gc
import itertools
import threading
import time
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsirm_jax.devices.stream import (
    AHEAD,
    made_ahead,
    memory_limit,
    read_ahead,
    rows_per_chunk,
    stream,
    write_behind,
)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("made_ahead")]


def numbered(count, *, rows=3):
    for number in range(count):
        yield number, np.full((rows,), number, np.float32)


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_results_come_in_order_whichever_devices_are_slow(devices, depth):
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))

    @jax.jit
    def step(block):
        # The first blocks take the longest: whoever hands out what is ready first fails.
        rounds = 1 + jnp.int32(20_000 * (block[0] < 3))
        return block * 2, jax.lax.fori_loop(0, rounds, lambda _, x: jnp.sin(x) + 1, block)

    blocks = numbered(9, rows=2 * devices)
    found = list(
        stream(blocks, put=lambda block: jax.device_put(block, rows), step=step, depth=depth)
    )
    assert [key for key, _ in found] == list(range(9))
    for key, (twice, _) in found:
        assert isinstance(twice, np.ndarray) and twice.tolist() == [2 * key] * (2 * devices)
    assert readers() == []


@pytest.mark.parametrize("ahead", [0, AHEAD], ids=["read as they are sent", "read ahead"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_blocks_are_alive(depth, ahead):
    alive, most = weakref.WeakSet(), 0

    class Block:
        def __init__(self, number):
            self.number = number

    def blocks():
        nonlocal most
        for number in range(30):
            block = Block(number)
            alive.add(block)
            most = max(most, len(alive))
            yield block, block.number
            del block

    read = read_ahead(blocks()) if ahead else blocks()
    for block, result in stream(read, put=jnp.int32, step=lambda number: number, depth=depth):
        assert block.number == result
        time.sleep(0.001)  # the reader gets as far as it can
        most = max(most, len(alive))
        del block
    gc.collect()
    assert not alive
    assert depth <= most <= depth + ahead


def test_the_next_blocks_are_read_and_sent_while_one_is_worked_on():
    read, sent = [], []
    both_ahead = threading.Event()

    def blocks():
        for number in range(6):
            read.append(number)
            if number == 3:
                both_ahead.set()
            yield number, number

    def put(number):
        sent.append(number)
        return jnp.int32(number)

    results = stream(read_ahead(blocks()), put=put, step=lambda number: number, depth=2)
    assert next(results)[0] == 0
    assert both_ahead.wait(10)  # 0 is out, 1 is on the device, 2 and 3 are read
    assert sent == [0, 1] and read == [0, 1, 2, 3]
    assert [key for key, _ in results] == [1, 2, 3, 4, 5]


def test_a_fault_of_the_reader_comes_out_where_it_happened():
    def blocks():
        yield from numbered(2)
        raise OSError("disk")

    found = []
    with pytest.raises(OSError, match="disk") as fault:
        found.extend(
            stream(read_ahead(blocks()), put=jnp.asarray, step=lambda block: block, depth=1)
        )
    assert "blocks" in [frame.name for frame in traceback.extract_tb(fault.value.__traceback__)]
    assert readers() == []


def test_results_before_a_fault_of_the_reader_are_handed_out():
    def blocks():
        yield from numbered(3)
        raise OSError("disk")

    keys = []
    with pytest.raises(OSError, match="disk"):
        for key, _ in stream(
            read_ahead(blocks()), put=jnp.asarray, step=lambda block: block, depth=1
        ):
            keys.append(key)
    assert keys == [0, 1, 2]


def test_a_fault_of_the_step_ends_the_reader():
    def step(block):
        raise ValueError("step")

    with pytest.raises(ValueError, match="step"):
        list(stream(read_ahead(numbered(9)), put=jnp.asarray, step=step))
    assert readers() == []


@pytest.mark.parametrize("threads", [0, 1], ids=["read as they are sent", "read ahead"])
def test_closing_early_ends_the_reader_and_what_it_reads(threads):
    closed = threading.Event()

    def blocks():
        try:
            yield from numbered(10**9)
        finally:
            closed.set()

    read = read_ahead(blocks()) if threads else blocks()
    results = stream(read, put=jnp.asarray, step=lambda block: block)
    assert next(results)[0] == 0
    assert len(readers()) == threads
    results.close()
    assert closed.is_set() and readers() == []


def test_no_blocks_give_nothing():
    assert list(stream([], put=jnp.asarray, step=lambda block: block)) == []
    assert list(read_ahead([])) == []


def test_a_thread_reads_and_the_caller_sends():
    threads = {"read": set(), "put": set(), "step": set()}

    def blocks():
        for block in numbered(4):
            threads["read"].add(threading.get_ident())
            yield block

    def put(block):
        threads["put"].add(threading.get_ident())
        return jnp.asarray(block)

    def step(block):
        threads["step"].add(threading.get_ident())
        return block

    list(stream(read_ahead(blocks()), put=put, step=step))
    here = {threading.get_ident()}
    assert threads["put"] == threads["step"] == here and not threads["read"] & here


@pytest.mark.parametrize(
    ("sent", "held", "rows", "devices", "memory", "expected"),
    [
        (1024, 10_240, 10**7, 1, None, 4096),
        (1024, 10_240, 10**7, 3, None, 4098),
        (1024, 10_240, 2**24, 1, 104 << 30, 131_072),  # 128 MiB
        (1024, 10_240, 2**24, 8, 104 << 30, 1_048_576),
        (1024, 10_240, 10**6, 1, 104 << 30, 125_000),  # 8 of them
        (1024, 10_240, 131_073, 3, 104 << 30, 262_146),
        (1024, 40_960, 2**24, 1, 12 << 30, 32_768),  # 1.5 GiB are 39,321
        (1024, 10_240, 5_000, 1, 104 << 30, 8192),
        (1024, 10_240, 5, 1, 104 << 30, 4096),
        (1024, 10_240, 0, 1, 104 << 30, 4096),
        (1024, 1 << 31, 10**7, 1, 12 << 30, 4096),
    ],
    ids=[
        *("a CPU", "three CPUs", "an H200", "eight of them", "even chunks", "three devices"),
        *("16 GB", "few rows", "fewer", "none", "large rows"),
    ],
)
def test_chunks_are_as_large_as_devices_take(sent, held, rows, devices, memory, expected):
    chunk = rows_per_chunk(
        sent=sent, held=held, rows=rows, least=4096, devices=devices, memory=memory
    )
    assert chunk == expected


@given(
    sent=st.integers(1, 2**16),
    held=st.integers(1, 2**32),
    rows=st.integers(0, 2**34),
    least=st.integers(1, 2**14),
    devices=st.integers(1, 64),
    memory=st.integers(2**30, 2**38),
)
def test_chunks_divide_and_fit(sent, held, rows, least, devices, memory):
    chunk = rows_per_chunk(
        sent=sent, held=held, rows=rows, least=least, devices=devices, memory=memory
    )
    assert chunk % devices == 0 and chunk >= least
    if chunk >= least + devices:  # more than a CPU takes
        share = chunk // devices
        assert (share - 1) * held <= memory / 8 and (share - 1) * sent <= 2**27
        assert chunk < 2 * max(rows, 1) + devices


def test_a_write_is_behind_and_one_at_a_time():
    release, written = threading.Event(), []

    def slow(number):
        assert release.wait(10)
        written.append(number)

    with write_behind() as write:
        write(slow, 0)
        assert written == []  # it has not been waited for
        release.set()
        for number in range(1, 5):
            write(slow, number)
            assert written[:number] == list(range(number))
    assert written == list(range(5))


def test_a_write_that_fails_is_told_at_the_next_one_or_the_end():
    def fail():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), write_behind() as write:
        write(fail)
    reached = []
    with pytest.raises(OSError, match="disk"), write_behind() as write:
        write(fail)
        write(reached.append, 1)
    assert reached == []


def test_a_cpu_has_no_limit():
    assert memory_limit(jax.devices()) is None


def test_what_is_made_ahead_comes_in_order_and_no_further_than_the_depth():
    started, free = [], threading.Event()

    def make(number):
        started.append(number)
        if number == 2:
            free.wait()  # what follows is made meanwhile
        return number**2

    made = made_ahead(make, itertools.count(), depth=3, threads=2)
    assert [next(made), next(made)] == [0, 1]
    assert max(started) <= 4
    free.set()
    assert [next(made), next(made)] == [4, 9]
    made.close()
    assert max(started) <= 6 and not readers()


@pytest.mark.parametrize("threads", [1, 4])
def test_what_a_call_raises_comes_out_where_its_result_would_have(threads):
    made = made_ahead(lambda number: 6 // (3 - number), range(9), depth=4, threads=threads)
    assert [next(made) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert not readers()
