"""Group `attributes`: what a query names and an item has: brand, colour, numbers, type, negations.

A feature is how many terms of one kind a query and an item share, see `relevance.terms`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.rows import places, shared
from dsirm_jax.relevance.terms import TERM_COUNTS

_PAIRS_AT_ONCE = 1 << 16


def attributes(
    context: PairContext, *, pairs_at_once: int = _PAIRS_AT_ONCE
) -> Float[np.ndarray, "pair 9"]:
    """Returns the columns of `GROUP`, float32. Source: this project.

    Args:
      context: of the pairs.
      pairs_at_once: whose counts are in memory at once.
    """
    query_row, item_row = context.query_row, context.item_row
    queries, items = context.texts.queries.terms, context.texts.items.terms
    pair, place, _ = shared(queries.terms, items, query_row=query_row, item_row=item_row)
    row, _ = places(queries.terms.starts, np.arange(len(queries.terms.starts) - 1))
    named = _counts(row, queries.kind, rows=len(queries.terms.starts) - 1)
    values = np.empty((len(query_row), len(TERM_COUNTS)), np.float32)
    for start in range(0, len(query_row), pairs_at_once):
        here = query_row[start : start + pairs_at_once]
        first, last = np.searchsorted(pair, [start, start + len(here)])
        both = _counts(pair[first:last] - start, queries.kind[place[first:last]], rows=len(here))
        values[start : start + len(here)] = _agreement(both, named[here])
    return values


def _agreement(
    both: Int[np.ndarray, "pair 9"], named: Int[np.ndarray, "pair 9"]
) -> Float[np.ndarray, "pair 9"]:
    """Returns the columns of pairs whose query names so many terms, so many of them the item's."""
    share = both / np.maximum(named, 1)
    agree = np.where(named == 0, 0, np.where(both > 0, 1, -1))
    brands, colours, numbers, amounts, units, unwanted, without, same_type, type_named = range(9)
    return np.stack(
        [
            agree[:, brands],
            agree[:, colours],
            share[:, numbers],
            (named - both)[:, numbers] / np.maximum(named[:, numbers], 1),
            np.maximum(both[:, units] - both[:, amounts], 0) / np.maximum(named[:, units], 1),
            share[:, unwanted],
            share[:, without],
            both[:, same_type],
            both[:, type_named],
        ],
        axis=1,
    )


def _counts(
    row: Int[np.ndarray, " entry"], kind: UInt8[np.ndarray, " entry"], *, rows: int
) -> Int[np.ndarray, "row 9"]:
    """Returns how often each of `TERM_COUNTS` occurs in each row."""
    width = len(TERM_COUNTS)
    return np.bincount(width * row + kind, minlength=width * rows).reshape(rows, width)


GROUP = Group(
    name="attributes",
    order=3,
    columns=(
        Column("brand", "1: the query names the item's brand; -1: another's"),
        Column("colour", "1: the query names the item's colour; -1: another"),
        Column("numbers", "share of the query's numbers in the item's text"),
        Column("numbers_missing", "share of them that it lacks"),
        Column("other_amount", "share of its units with another number there"),
        Column("unwanted", "share of 'without ...' words that the text has"),
        Column("without", "share of them that it says it is without, too"),
        Column("same_type", "1 if query and title have one product type"),
        Column("type_named", "1 if the title's product type is in the query"),
    ),
    compute=attributes,
)
