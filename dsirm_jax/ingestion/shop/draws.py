"""Repeatable draws of the simulated shop: every row and every block of queries has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")

LAYOUT_STREAM, FAMILY_STREAM, ATTRIBUTE_STREAM, TEXT_STREAM, QUERY_STREAM = range(5)


def generator(seed: int, stream: int, counter: Sequence[int] = (0, 0, 0, 0)) -> np.random.Generator:
    """Returns a generator of its own for a counter of a Philox stream."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=list(counter)))


def uniforms(seed: int, stream: int, rows: np.ndarray, *, width: int) -> np.ndarray:
    """Returns the draws of some rows, whatever the other rows are.

    Args:
      seed: of the shop.
      stream: number of the Philox stream.
      rows: int64 `[row]`, ascending. Row i owns the counters `i * width / 4` and on: four draws a
        counter.
      width: draws of a row, a multiple of four.

    Returns:
      float64 `[row, draw]` in [0, 1).
    """
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
    sizes = np.diff(starts, append=len(rows))
    skips = np.diff(rows[starts], prepend=0) - np.concatenate([[0], sizes[:-1]])
    philox = np.random.Philox(key=[seed, stream])
    runs = zip((skips * (width // 4)).tolist(), (sizes * width).tolist())
    pieces = [philox.advance(skip).random_raw(size) for skip, size in runs]
    raw = np.concatenate(pieces).reshape(len(rows), width)
    return (raw >> np.uint64(11)) * 2.0**-53


def apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Splits `total` into whole numbers close to the shares (largest remainder)."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def pick(choices: Sequence[Choice], uniform: float) -> Choice:
    """Returns one of the choices by a draw in [0, 1)."""
    return choices[int(uniform * len(choices))]


def misspell(text: str, uniform: float) -> str:
    """Drops, doubles or swaps letters of the longest word, where the draw says."""
    word = max(text.split(), key=len)
    at, kind = divmod(int(uniform * 3 * (len(word) - 1)), 3)
    typo = ("", word[at] * 2, word[at : at + 2][::-1])[kind]
    return text.replace(word, word[:at] + typo + word[at + (2 if kind == 2 else 1) :], 1)
