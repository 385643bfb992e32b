"""Rows of different lengths in flat arrays, and the values that two rows share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

_PAIRS_AT_ONCE = 1 << 16
_ROWS_AT_ONCE = 1 << 14


class Ragged(NamedTuple):
    """Values of several texts, one row a text.

    Attributes:
      starts: int64 `[row + 1]`, where the values of each row begin, and the number of all.
      values: of all rows, one after the other.
    """

    starts: Int[np.ndarray, " boundary"]
    values: Shaped[np.ndarray, " value"]

    def take(self, rows: Int[np.ndarray, " row"]) -> Ragged:
        """Returns some rows, rising."""
        starts = np.concatenate([[0], np.cumsum(lengths_of(self, rows))])
        if run := run_of(rows):
            return Ragged(starts, self.values[self.starts[run.start] : self.starts[run.stop]])
        return Ragged(starts, self.values[places(self.starts, rows)[1]])


def run_of(rows: Int[np.ndarray, " row"]) -> slice | None:
    """Returns rising rows as a slice, which copies nothing; None where they are no single run."""
    is_run = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_run else None


def joined(parts: Sequence[Ragged]) -> Ragged:
    """Returns the rows of some parts, one part after the other."""
    firsts = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = [part.starts[:-1] + first for part, first in zip(parts, firsts[:-1], strict=True)]
    return Ragged(
        np.concatenate([*starts, firsts[-1:]]), np.concatenate([part.values for part in parts])
    )


def ragged(values: Sequence[Sequence], *, dtype: type) -> Ragged:
    """Returns some sequences as rows."""
    starts = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return Ragged(starts, np.fromiter(itertools.chain.from_iterable(values), dtype, starts[-1]))


def bytes_of(texts: Sequence[str]) -> Ragged:
    """Returns texts as rows of bytes, UTF-8."""
    spelt = [text.encode(errors="surrogatepass") for text in texts]
    starts = np.cumsum([0, *map(len, spelt)], dtype=np.int64)
    return Ragged(starts, np.frombuffer(b"".join(spelt), np.uint8))


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
    """Values that the rows of a pair share, one entry for each that the query's row has.

    Attributes:
      pair: which pair, rising.
      in_query: place of the value in `queries.values`.
      in_item: its place in `items.values`.
    """

    pair: Int[np.ndarray, " shared"]
    in_query: Int[np.ndarray, " shared"]
    in_item: Int[np.ndarray, " shared"]


def shared(
    queries: Ragged,
    items: Ragged,
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    pairs_at_once: int = _PAIRS_AT_ONCE,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> Shared:
    """Returns the values that the rows of queries and of items share.

    Args:
      queries: in any order; what stands in a row twice is shared twice.
      items: whole numbers, each row rising, in memory or memory-mapped.
      query_row: row of `queries` of each pair.
      item_row: row of `items` of each pair.
      pairs_at_once: looked up at once.
      rows_at_once: of items, whose values are in memory at once.
    """
    known = np.unique(queries.values)
    if not len(known):
        return Shared(*np.empty((3, 0), np.int64))
    # Only these rows are read: a few of a catalogue that is mapped into memory, it may be.
    wanted, item_row = np.unique(item_row, return_inverse=True)
    found = []
    for start in range(0, max(len(wanted), 1), rows_at_once):
        row, place = places(items.starts, wanted[start : start + rows_at_once])
        values = items.values[place]
        code = np.searchsorted(known, values)
        (kept,) = np.nonzero(known[np.minimum(code, len(known) - 1)] == values)
        found.append(((row[kept] + start) * len(known) + code[kept], place[kept]))
    keys, place = (np.concatenate(part) for part in zip(*found, strict=True))
    # Sorted, for rows and the values of each rise; a number above all stands at the end.
    keys = np.append(keys, np.iinfo(np.int64).max)
    number = np.searchsorted(known, queries.values)
    parts = []
    for start in range(0, max(len(query_row), 1), pairs_at_once):
        pair, entry = places(queries.starts, query_row[start : start + pairs_at_once])
        pair += start
        wanted = item_row[pair] * len(known) + number[entry]
        position = np.searchsorted(keys, wanted)
        (hit,) = np.nonzero(keys[position] == wanted)
        parts.append((pair[hit], entry[hit], place[position[hit]]))
    return Shared(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def lengths_of(rows: Ragged, wanted: Int[np.ndarray, " wanted"]) -> Int[np.ndarray, " wanted"]:
    """Returns how many values some rows have."""
    return rows.starts[wanted + 1] - rows.starts[wanted]


def bytes_in(rows: Ragged, wanted: Int[np.ndarray, " wanted"]) -> Iterator[bytes]:
    """Yields the values of some rows, bytes, in the order wanted."""
    numbers = wanted.tolist()
    spelt = {
        number: rows.values[rows.starts[number] : rows.starts[number + 1]].tobytes()
        for number in set(numbers)
    }
    return map(spelt.__getitem__, numbers)
