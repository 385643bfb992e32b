"""Keeps devices busy: blocks are read, sent, worked on and fetched at once, and come out in order.

JAX's calls return at once: while the devices work on a block, the caller's thread reads the next
and sends it. What is fetched is on its way to the host before it is waited for. What comes of files
a thread reads further ahead, see `read_ahead`; of what lies in memory it would take more time than
it saves, as Python runs one thread at a time.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

DEPTH = 2
"""Blocks on the devices at once: one is worked on while the next is sent."""
AHEAD = 2
"""Blocks read before they are asked for."""
SENT_BYTES = 2**27
"""Of a chunk for each device: its transfer takes far longer than what Python does for it, and
the work on it begins soon."""
MEMORY_SHARE = 1 / 8
"""Of a device's memory for a chunk; parameters, other chunks and other programs are there too."""

_Key = TypeVar("_Key")
_Block = TypeVar("_Block")
_Work = TypeVar("_Work")
_Made = TypeVar("_Made")
_END: Any = object()


def stream(
    blocks: Iterable[tuple[_Key, _Block]],
    *,
    step: Callable[[Any], Any],
    put: Callable[[_Block], Any] | None = None,
    depth: int = DEPTH,
) -> Generator[tuple[_Key, Any]]:
    """Yields what a step makes of blocks, in their order; at most `depth` are alive when it does.

    Args:
      blocks: each with what its result is known by; closed in the end. A block's arrays stay as
        they are: a device may read them where they lie.
      step: starts the work on a block, does not wait for it, and returns a tree of `jax.Array`.
      put: sends a block to the devices before, and does not wait for it; when not given, the step
        gets it as it is, which takes least time where one device is to have small ones.
      depth: blocks on the devices at once.

    Yields:
      What a result is known by, and the result, a tree of NumPy arrays, read-only.

    Raises:
      Exception: what reading raises, after the results of all blocks before but those on their way.
    """
    running: collections.deque[tuple[_Key, Any]] = collections.deque()
    with _closed_in_the_end(blocks) as source:
        for key, block in source:
            result = step(put(block) if put else block)
            del block
            for array in jax.tree.leaves(result):
                array.copy_to_host_async()
            running.append((key, result))
            del key, result
            if len(running) == depth:
                yield _fetched(*running.popleft())
        while running:
            yield _fetched(*running.popleft())


@contextlib.contextmanager
def _closed_in_the_end(blocks: Iterable[_Block]) -> Iterator[Iterator[_Block]]:
    """Yields an iterator, which what comes after the block has no use for."""
    source = iter(blocks)
    try:
        yield source
    finally:
        if close := getattr(source, "close", None):
            close()


def _fetched(key: _Key, result: Any) -> tuple[_Key, Any]:
    return key, jax.tree.map(np.asarray, result)


def read_ahead(blocks: Iterable[_Block], *, count: int = AHEAD) -> Generator[_Block]:
    """Yields from `blocks`, which a thread reads `count` ahead; it ends with this iterator.

    Args:
      blocks: what to go through.
      count: blocks read, or being read, while one is in use.
    """
    with _closed_in_the_end(blocks) as source:
        read = made_ahead(lambda _: next(source, _END), itertools.count(), depth=count)
        with contextlib.closing(read):
            for block in read:
                if block is _END:
                    return
                yield block
                del block  # or one more would be alive while the next is asked for


def made_ahead(
    make: Callable[[_Work], _Made], work: Iterable[_Work], *, depth: int, threads: int = 1
) -> Generator[_Made]:
    """Yields what is made of each piece of work, in their order, while threads make the next.

    What a call raises comes out where its result would have. When the iterator ends or is closed,
    no thread is left.

    Args:
      make: makes one; with several threads it is called in several at once.
      work: what is made of; taken in the caller's thread.
      depth: most that are made, or in the making, beyond what has been yielded.
      threads: that make.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="made_ahead") as pool:
        waiting: collections.deque[Future[_Made]] = collections.deque()
        try:
            for piece in work:
                waiting.append(pool.submit(make, piece))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextlib.contextmanager
def write_behind() -> Iterator[Callable[..., None]]:
    """Yields `write(function, *arguments)`, which a thread calls while the caller goes on.

    One call is under way at a time: the next one waits for it, and so does the end of the block.

    Raises:
      Exception: what a call raises, at the next one or at the end of the block.
    """
    last: Future[Any] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write_behind") as writer:

        def write(function: Callable[..., object], *arguments: Any, **named: Any) -> None:
            nonlocal last
            if last is not None:
                last.result()
            last = writer.submit(function, *arguments, **named)

        yield write
        if last is not None:
            last.result()


def rows_per_chunk(
    *, sent: int, held: int, rows: int, least: int, devices: int, memory: int | None
) -> int:
    """Returns how many rows the devices take at a time, a multiple of their number.

    Args:
      sent: bytes of a row as it is sent.
      held: bytes that a device takes for a row while it works on it.
      rows: that there are: few are one chunk of a power of two, many are chunks of about one size.
      least: rows of a chunk on a CPU, whose caches hold few, and anywhere at least.
      devices: that share a chunk.
      memory: bytes of one device; None: as a CPU's.
    """
    most = least
    if memory is not None:
        fitting = min(int(memory * MEMORY_SHARE) // held, SENT_BYTES // sent)
        a_device = 1 << max(fitting, 1).bit_length() - 1
        most = max(min(a_device * devices, 1 << max(rows - 1, 1).bit_length()), least)
        chunks = -(-rows // most)
        if chunks > 1:  # all of about one size, so that the last one is hardly filled up
            most = max(-(-rows // chunks), least)
    return -(-most // devices) * devices


def memory_limit(devices: Sequence[jax.Device]) -> int | None:
    """Returns the bytes that each of some devices has; None of CPUs, and where none says."""
    if all(device.platform == "cpu" for device in devices):
        return None
    stats = [device.memory_stats() or {} for device in devices]
    return min((of["bytes_limit"] for of in stats if "bytes_limit" in of), default=None)
