"""Batches of vectors that lie on the devices, where an accelerator would wait for a host's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.data.pairs import positives_of
from dsirm_jax.devices.stream import memory_limit
from dsirm_jax.quantizer.training_items import NO_QUERY, TrainingItems, finite_squares
from dsirm_jax.training.batches import visits
from dsirm_jax.training.feeds import TableFeed

log = logging.getLogger(__name__)
SHARE = 0.5
"""Of a device's memory, what the vectors may take."""
ROWS_AT_ONCE = 2**17
"""Rows of one call of the program: some milliseconds of an accelerator's."""
EPOCHS_AHEAD = 2
"""Epochs whose rows are put in order meanwhile, each by a thread: one orders some 50 million/s."""
BLOCK_ROWS = 16_384


class Tables(NamedTuple):
    """What batches are gathered from; on the host, or whole on every device.

    Attributes:
      rows: int32 `[row, 2]`, numbers of a query, or `NO_QUERY`, and of an item.
      items: float32 `[item, dim]`.
      queries: float32 `[query, dim]`; one of zeros where no row has a query.
      positives: int32 `[query + 1, positive]`, see `positives_of`.
      pinned: int32 `[item]`, or None.
      attributes: int32 `[item, attribute]`, or None.
    """

    rows: Int[Array | np.ndarray, "row 2"]
    items: Float[Array | np.ndarray, "item dim"]
    queries: Float[Array | np.ndarray, "query dim"]
    positives: Int[Array | np.ndarray, "queries positive"]
    pinned: Int[Array | np.ndarray, " item"] | None
    attributes: Int[Array | np.ndarray, "item attribute"] | None = None


def table_feed(
    items: TrainingItems,
    *,
    rows: Int[np.ndarray, "row 2"],
    batch_size: int,
    seed: int,
    devices: Sequence[jax.Device],
    room: int | None = None,
) -> TableFeed | None:
    """Returns the feed of the batches of `batches_of` from vectors on the devices.

    Args:
      items: the vectors.
      rows: see `batches_of`.
      batch_size: see `batches_of`.
      seed: see `batches_of`.
      devices: that the rows are split over; each has all vectors.
      room: bytes that they may take on each; `SHARE` of its own memory when not given.

    Returns:
      The feed; None where the vectors have no room, where a step is to be refused, for a vector's
      square is not finite, and for several processes. Source: this project.
    """
    if jax.process_count() > 1:
        return None
    tables = _tables(items, rows)
    size = sum(table.nbytes for table in tables if table is not None)
    if room is None:
        room = int(SHARE * (memory_limit(devices) or 0))  # a CPU's is the host's
    if size > room:
        return None
    has_query = rows[:, 0] != NO_QUERY
    used = ((items.items, rows[:, 1]), (items.queries, rows[has_query, 0]))
    if not all(_all_finite(vectors, numbers) for vectors, numbers in used):
        return None
    log.info("quantize: vectors and rows, %.2f GB, are to lie on each device", size / 1e9)

    def order(position: int) -> Iterator[np.ndarray]:
        epochs = visits(sizes=[len(rows)], seed=seed, start=position, ahead=EPOCHS_AHEAD)
        return (numbers for _, numbers in epochs)

    return TableFeed(
        tables=tables,
        gather=gathered,
        order=order,
        batch_size=batch_size,
        devices=devices,
        at_once=max(ROWS_AT_ONCE // batch_size, 1),
    )


def gathered(tables: Tables, chosen: Int[Array, "*row"]) -> dict[str, Array]:
    """Returns a batch as `training_items.batch_spec` describes it, of rows by their numbers."""
    query, item = jnp.moveaxis(tables.rows[chosen], -1, 0)
    has_query = query != NO_QUERY
    batch = {
        "item": tables.items[item],
        "query": jnp.where(has_query[..., None], tables.queries[query], 0.0),
        "has_query": has_query.astype(jnp.float32),
        "item_index": item,
        "positives": tables.positives[query],  # of no query: the last
    }
    by_item = {"pinned": tables.pinned, "attributes": tables.attributes}
    return batch | {name: of[item] for name, of in by_item.items() if of is not None}


def _tables(items: TrainingItems, rows: Int[np.ndarray, "row 2"]) -> Tables:
    has_query = (rows[:, 0] != NO_QUERY).any()
    return Tables(
        rows=rows.astype(np.int32),
        items=items.items,
        queries=items.queries if has_query else np.zeros((1, items.dim), np.float32),
        positives=positives_of(items.pairs, queries=len(items.queries)),
        pinned=items.pinned,
        attributes=items.attributes,
    )


def _all_finite(vectors: Float[np.ndarray, "vector dim"], numbers: Int[np.ndarray, " row"]) -> bool:
    """Returns whether the squares of vectors that rows have the numbers of are finite."""
    used = np.zeros(len(vectors), bool)
    used[numbers] = True
    starts = range(0, len(vectors), BLOCK_ROWS)
    blocks = (slice(start, start + BLOCK_ROWS) for start in starts)
    return all(finite_squares(vectors[block])[used[block]].all() for block in blocks)
