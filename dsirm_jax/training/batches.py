"""The order of training rows: a pure function of the seed and the position."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from dsirm_jax.devices.stream import made_ahead

_Rows = TypeVar("_Rows")
"""An array, or a pytree of arrays, whose first axes are the same rows."""


def visits(
    *,
    sizes: Sequence[int],
    seed: int,
    start: int = 0,
    stream: tuple[int, int] = (0, 0),
    ahead: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what epoch after epoch visits: blocks in random order, each with its rows in such.

    Getting to `start` takes no work but the order of that block's rows.

    Args:
      sizes: rows of each block.
      seed: seed of the order.
      start: the first position of the concatenated epochs.
      stream: tells orders of the same seed apart.
      ahead: blocks whose rows are put in order meanwhile, each by a thread.

    Yields:
      A block's number and its rows from 0, int64 `[row]`: a permutation, or what `start` left of
      it. Source: this project.

    Raises:
      ValueError: no rows.
    """
    if not sum(sizes):
        raise ValueError("no rows to visit")

    def places() -> Iterator[tuple[int, int, int]]:
        """Yields epochs, their blocks, and how many rows of each are skipped."""
        first_epoch, skipped = divmod(start, sum(sizes))
        for epoch in itertools.count(first_epoch):
            for block in _permutation(len(sizes), seed, epoch, len(sizes), *stream).tolist():
                if skipped < sizes[block]:
                    yield epoch, block, skipped
                skipped = max(skipped - sizes[block], 0)

    def visit(place: tuple[int, int, int]) -> tuple[int, np.ndarray]:
        epoch, block, skipped = place
        return block, _permutation(sizes[block], seed, epoch, block, *stream)[skipped:]

    if ahead:
        yield from made_ahead(visit, places(), depth=ahead, threads=ahead)
    else:
        yield from map(visit, places())


def cut_batches(pieces: Iterator[_Rows], sizes: Iterable[int]) -> Iterator[_Rows]:
    """Yields the rows of endless pieces again, in their order, `sizes` of them at a time."""
    piece = next(pieces)
    for size in sizes:
        parts = []
        while size > _count(piece):
            parts.append(piece)
            size -= _count(piece)
            piece = next(pieces)
        parts.append(jax.tree.map(lambda values, stop=size: values[:stop], piece))
        piece = jax.tree.map(lambda values, start=size: values[start:], piece)
        yield concatenate(parts)


def concatenate(parts: Sequence[_Rows]) -> _Rows:
    """Returns the rows of all parts; those of an only part as they are, not copied."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def index_batches(*, rows: int, batch_size: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yields row numbers batch by batch, without end, from step `start` on.

    Step `s` covers positions `[s * batch_size, (s + 1) * batch_size)` of the concatenated epochs,
    so a resumed run continues the very stream that an uninterrupted one sees, at no cost but one
    permutation. Batches run across the border between epochs: every batch is full.

    Args:
      rows: number of training rows.
      batch_size: rows in a batch.
      seed: seed of the order.
      start: first step to yield.

    Returns:
      Batches, int64 `[batch_size]`. Source: this project.
    """
    visited = visits(sizes=[rows], seed=seed, start=start * batch_size)
    return cut_batches((order for _, order in visited), itertools.repeat(batch_size))


def in_stages(
    first: Callable[[int], Iterator[_Rows]], second: Callable[[int], Iterator[_Rows]], *, steps: int
) -> Callable[[int], Iterator[_Rows]]:
    """Returns the batches of a first stage and then those of a second one, from any step on.

    Args:
      first: `first(start)` yields the first stage's batches from its step `start` on.
      second: likewise; its step 0 is the step `steps` of what is returned.
      steps: of the first stage.
    """

    def batches(start: int) -> Iterator[_Rows]:
        if start < steps:
            yield from itertools.islice(first(start), steps - start)
        yield from second(max(start - steps, 0))

    return batches


def _permutation(size: int, seed: int, epoch: int, *stream: int) -> np.ndarray:
    """Returns a permutation of `range(size)`, int64; all numbers are words of Philox's state."""
    random = np.random.Philox(key=[seed, epoch], counter=[0, *stream])
    return np.random.Generator(random).permutation(size)


def _count(rows: _Rows) -> int:
    return len(jax.tree.leaves(rows)[0])
