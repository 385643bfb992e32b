"""Several SIDs of a query, those of the items relevant to it, for tasks whose rows are queries."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from dsirm_jax.data.pairs import NO_ITEM
from dsirm_jax.data.schema import TRAIN

if TYPE_CHECKING:
    import tensorflow as tf

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SidSets:
    """Which SIDs answer each training query, every SID by one item that has it.

    Attributes:
      items: int64 `[query, sid]`, relevant ones; those whose SIDs weigh most first, and the first
        one again where there are fewer. `NO_ITEM` of a query without any.
      weights: float32 `[query, sid]`: gain times weight, summed over the relevant items that have
        the SID; 0 where there are fewer.
    """

    items: Int[np.ndarray, "query sid"]
    weights: Float[np.ndarray, "query sid"]

    def rows(self, queries: Bool[np.ndarray, " query"] | None) -> Int[np.ndarray, " query"]:
        """Returns the item of the one pair of each query that is read, see `tasks.batches`.

        Args:
          queries: those that are read at all; all when not given.
        """
        first = self.items[:, 0]
        return first if queries is None else np.where(queries, first, NO_ITEM)

    def features(
        self, sid_tokens: Callable[[tf.Tensor], tf.Tensor]
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns the look-up of queries' `targets` `[..., sid * level]` and `weight` `[..., sid]`.

        Args:
          sid_tokens: the look-up of the SID tokens of items, `[..., level]`.
        """
        import tensorflow as tf

        # Eager tensors are inputs of the functions that use them, no constants in their graphs.
        items, weights = tf.constant(self.items), tf.constant(self.weights)

        def of_queries(query_index: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = sid_tokens(tf.gather(items, query_index))
            flat = tf.concat([tf.shape(query_index), [-1]], axis=0)
            return {
                "targets": tf.reshape(tokens, flat),
                "weight": tf.gather(weights, query_index),
            }

        return of_queries

    def one(self, row: Row) -> Row:
        """Returns a row of one SID as one of several, of which the others weigh nothing."""
        import tensorflow as tf

        most = self.items.shape[1]
        return row | {
            "targets": tf.concat([row["targets"]] * most, axis=-1),
            "weight": row["weight"][..., None] * tf.one_hot(0, most),
        }


def sid_sets(
    judgements: str | os.PathLike[str],
    *,
    sids: Int[np.ndarray, "item level"],
    queries: int,
    most: int,
) -> SidSets:
    """Reads which SIDs answer each training query.

    Args:
      judgements: `prepare/judgements.parquet`.
      sids: codes of all items, in the order of `items.parquet`.
      queries: number of queries.
      most: SIDs of a query; of more, those that weigh most.
    """
    names = ["query_index", "item_index", "gain", "weight"]
    is_learnt = (pc.field("split") == TRAIN) & pc.field("relevant")
    table = pq.read_table(Path(judgements), columns=names, filters=is_learnt)
    query, item, gain, weight = (table[name].to_numpy() for name in names)
    pairs = np.column_stack([query, sids[item]])
    order = np.lexsort(pairs.T[::-1])
    pairs, item, weight = pairs[order], item[order], (gain * weight)[order]
    is_new = np.ones(len(pairs), bool)
    is_new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    first = np.flatnonzero(is_new)
    query, item, weight = pairs[first, 0], item[first], np.add.reduceat(weight, first)
    order = np.lexsort((-weight, query))
    query, item, weight = query[order], item[order], weight[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    items = np.full((queries, most), NO_ITEM, np.int64)
    weights = np.zeros((queries, most), np.float32)
    items[query[rank == 0]] = item[rank == 0, None]
    kept = rank < most
    items[query[kept], rank[kept]] = item[kept]
    weights[query[kept], rank[kept]] = weight[kept]
    return SidSets(items=items, weights=weights)
