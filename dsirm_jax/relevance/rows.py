"""Rows of different lengths in flat arrays, and the values that two rows share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

PAIRS_AT_ONCE = 1 << 16


class Rows(NamedTuple):
    """Values of several texts, one row a text.

    Attributes:
      starts: int64 `[row + 1]`, where the values of each row begin, and the number of all.
      values: of all rows, one after the other.
    """

    starts: Int[np.ndarray, " boundary"]
    values: Shaped[np.ndarray, " value"]


def rows_of(values: Sequence[Sequence], *, dtype: type) -> Rows:
    """Returns some sequences as rows."""
    starts = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return Rows(starts, np.fromiter(itertools.chain.from_iterable(values), dtype, starts[-1]))


def bytes_of(texts: Sequence[str]) -> Rows:
    """Returns texts as rows of bytes, UTF-8."""
    spelt = [text.encode(errors="surrogatepass") for text in texts]
    starts = np.cumsum([0, *map(len, spelt)], dtype=np.int64)
    return Rows(starts, np.frombuffer(b"".join(spelt), np.uint8))


def places(
    starts: Int[np.ndarray, " boundary"], wanted: Int[np.ndarray, " wanted"]
) -> tuple[Int[np.ndarray, " value"], Int[np.ndarray, " value"]]:
    """Returns the values of some rows: which of the rows wanted each is of, and its place."""
    first = starts[wanted]
    lengths = starts[wanted + 1] - first
    row = np.repeat(np.arange(len(wanted)), lengths)
    before = np.cumsum(lengths) - lengths
    return row, np.arange(len(row)) + (first - before)[row]


class Shared(NamedTuple):
    """Values that the rows of a pair share, one entry for each that the query asks for.

    Attributes:
      pair: which pair, rising.
      asked: place of the value in `asked.values`.
      has: its place in `has.values`.
    """

    pair: Int[np.ndarray, " shared"]
    asked: Int[np.ndarray, " shared"]
    has: Int[np.ndarray, " shared"]


def shared(
    asked: Rows,
    has: Rows,
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
) -> Shared:
    """Returns the values that queries ask for and items have.

    Args:
      asked: of the queries, in any order; what stands there twice is found twice.
      has: of the items, whole numbers, each row rising, in memory or memory-mapped.
      query_row: row of `asked` of each pair.
      item_row: row of `has` of each pair.
    """
    known = np.unique(asked.values)
    if not len(known):
        return Shared(*np.empty((3, 0), np.int64))
    # Only these rows are read: a few of a catalogue that is mapped into memory, it may be.
    wanted, item_row = np.unique(item_row, return_inverse=True)
    row, place = places(has.starts, wanted)
    values = has.values[place]
    code = np.searchsorted(known, values)
    (there,) = np.nonzero(known[np.minimum(code, len(known) - 1)] == values)
    row, place = row[there], place[there]
    # Sorted, for rows and the values of each rise; a number above all stands at the end.
    keys = np.append(row * len(known) + code[there], np.iinfo(np.int64).max)
    number = np.searchsorted(known, asked.values)
    found = []
    for start in range(0, max(len(query_row), 1), PAIRS_AT_ONCE):
        pair, entry = places(asked.starts, query_row[start : start + PAIRS_AT_ONCE])
        pair += start
        wanted = item_row[pair] * len(known) + number[entry]
        at = np.searchsorted(keys, wanted)
        (hit,) = np.nonzero(keys[at] == wanted)
        found.append((pair[hit], entry[hit], place[at[hit]]))
    return Shared(*(np.concatenate(part) for part in zip(*found, strict=True)))


def lengths_of(rows: Rows, wanted: Int[np.ndarray, " wanted"]) -> Int[np.ndarray, " wanted"]:
    """Returns how many values some rows have."""
    return rows.starts[wanted + 1] - rows.starts[wanted]


def bytes_in(rows: Rows, wanted: Int[np.ndarray, " wanted"]) -> Iterator[bytes]:
    """Yields the values of some rows, bytes, in the order wanted."""
    numbers = wanted.tolist()
    spelt = {
        number: rows.values[rows.starts[number] : rows.starts[number + 1]].tobytes()
        for number in set(numbers)
    }
    return map(spelt.__getitem__, numbers)
