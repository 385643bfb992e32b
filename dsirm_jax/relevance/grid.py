"""Pairs laid out by query, so that what is known of a query is read once for many items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

GRID_COLUMNS = 32
"""Pairs of a row; a query with more has several rows."""
ROWS_AT_ONCE = 64
"""Of a grid, in memory at once."""


class Grid(NamedTuple):
    """Pairs in rows, each of one query.

    Attributes:
      query: of each row, rising.
      pair: number of the pair in each cell; in one that is empty, that of another pair of the row.
      filled: whether the cell has a pair.
    """

    query: Int[np.ndarray, " row"]
    pair: Int[np.ndarray, "row column"]
    filled: Bool[np.ndarray, "row column"]


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
    filled = np.zeros(pair.shape, bool)
    pair[row, number % columns], filled[row, number % columns] = order, True
    return Grid(query=np.repeat(np.arange(len(counts)), rows), pair=pair, filled=filled)


def grid_blocks(query_row: Int[np.ndarray, " pair"], *, columns: int, rows: int) -> Iterator[Grid]:
    """Yields `grid`, some rows at a time."""
    whole = grid(query_row, columns=columns)
    for start in range(0, len(whole.query), rows):
        yield Grid(*(part[start : start + rows] for part in whole))


def query_grids(query_row: Int[np.ndarray, " pair"], *, rows: int) -> Iterator[Grid]:
    """Yields `grid_blocks` of `GRID_COLUMNS`; all pairs of a lone query are one row."""
    if len(query_row) and (query_row == query_row[0]).all():
        pair = np.arange(len(query_row))[None]
        return iter([Grid(query=query_row[:1], pair=pair, filled=np.ones(pair.shape, bool))])
    return grid_blocks(query_row, columns=GRID_COLUMNS, rows=rows)


def cosines_in_rows(
    vectors: Float[np.ndarray, "any_item dim"],
    items: Int[np.ndarray, "row item"],
    others: Int[np.ndarray, "row other"],
) -> Float[np.ndarray, "row item other"]:
    """Returns the cosines of some items, all of length 1, to others of the same row."""
    return vectors[items] @ vectors[others].swapaxes(1, 2)
