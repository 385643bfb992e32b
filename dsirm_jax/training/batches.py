"""The order of training rows: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the permutation of `range(rows)` that one epoch visits, int64 `[rows]`."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(rows)


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

    Yields:
      int64 `[batch_size]`. Source: this project.
    """
    if rows < 1:
        raise ValueError("index_batches needs at least one row")
    position = start * batch_size
    epoch, order = -1, np.empty(0, np.int64)
    while True:
        parts, wanted = [], batch_size
        while wanted:
            if position // rows != epoch:
                epoch = position // rows
                order = epoch_order(rows, seed=seed, epoch=epoch)
            offset = position - epoch * rows
            part = order[offset : offset + wanted]
            parts.append(part)
            position += len(part)
            wanted -= len(part)
        yield np.concatenate(parts)
