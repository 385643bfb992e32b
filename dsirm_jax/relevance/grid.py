"""Pairs laid out by query, so that what is known of a query is read once for many items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

COLUMNS = 32
"""Pairs of a row; a query with more has several rows."""


class Grid(NamedTuple):
    """Pairs in rows, each of one query.

    Attributes:
      query: of each row, rising.
      pair: number of the pair in each cell; in one that is empty, that of another pair of the row.
      there: whether the cell has a pair.
    """

    query: Int[np.ndarray, " row"]
    pair: Int[np.ndarray, "row column"]
    there: Bool[np.ndarray, "row column"]


def grid(query_row: Int[np.ndarray, " pair"], *, columns: int) -> Grid:
    """Returns pairs laid out by query.

    Args:
      query_row: the query of each pair, from 0.
      columns: of the grid.
    """
    order = np.argsort(query_row, kind="stable")
    counts = np.bincount(query_row)
    rows = -(-counts // columns)
    number = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = np.repeat(np.cumsum(rows) - rows, counts) + number // columns
    pair = np.repeat(order[number % columns == 0][:, None], columns, axis=1)
    there = np.zeros(pair.shape, bool)
    pair[row, number % columns], there[row, number % columns] = order, True
    return Grid(query=np.repeat(np.arange(len(counts)), rows), pair=pair, there=there)


def blocks(query_row: Int[np.ndarray, " pair"], *, columns: int, rows: int) -> Iterator[Grid]:
    """Yields `grid`, some rows at a time."""
    whole = grid(query_row, columns=columns)
    for start in range(0, len(whole.query), rows):
        yield Grid(*(part[start : start + rows] for part in whole))
