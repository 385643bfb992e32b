"""The queries that alignment learns from, and what SIDs are worth to each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.generator.alignment.rewards.reward import PairRewards
from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.codes import pack
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch

MOST_SIDS = 64
NO_CODE = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardedQueries:
    """Queries with the SIDs that are worth something to them.

    Attributes:
      numbers: int32, rows of the queries table, ascending.
      pieces: tokens of each of these queries.
      sids: int32, codes, most worth first; `NO_CODE` where a query has fewer than another.
      rewards: float32, what each is worth; 0 where there is none.
    """

    numbers: Int[np.ndarray, " query"]
    pieces: Sequence[Sequence[int]]
    sids: Int[np.ndarray, "query known level"]
    rewards: Float[np.ndarray, "query known"]

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self, chosen: Bool[np.ndarray, " query"]) -> RewardedQueries:
        """Returns some of the queries."""
        rows = np.flatnonzero(chosen)
        return RewardedQueries(
            numbers=self.numbers[rows],
            pieces=[self.pieces[row] for row in rows.tolist()],
            sids=self.sids[rows],
            rewards=self.rewards[rows],
        )

    def batches(
        self, start: int, *, batch_size: int, max_pieces: int, seed: int
    ) -> Iterator[Batch]:
        """Yields the queries of each step from `start` on, in a random order for each epoch."""
        tokens = rectangle(self.pieces, shape=(len(self), max_pieces))
        rows_of_steps = index_batches(rows=len(self), batch_size=batch_size, seed=seed, start=start)
        for rows in rows_of_steps:
            yield {
                "query_index": self.numbers[rows],
                "tokens": tokens[rows],
                "sids": self.sids[rows],
                "rewards": self.rewards[rows],
            }


def rewarded_queries(
    pairs: PairRewards,
    *,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    pieces: Sequence[Sequence[int]],
) -> RewardedQueries:
    """Returns the queries of pairs; a SID is worth what the best of its items is.

    A query keeps the `MOST_SIDS` SIDs that are worth most.

    Args:
      pairs: what pairs are worth, some of them more than nothing.
      sids: codes of all items.
      sizes: codes per level.
      pieces: tokens of all queries.
    """
    worth = pairs.reward > 0
    query, reward = pairs.query_index[worth], pairs.reward[worth]
    codes = sids[pairs.item_index[worth]]
    keys = pack(codes, sizes=sizes)
    order = np.lexsort((-reward, keys, query))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(query[order]).astype(bool) | np.diff(keys[order]).astype(bool)
    best = order[first]
    best = best[np.lexsort((keys[best], -reward[best], query[best]))]
    numbers, row = np.unique(query[best], return_inverse=True)
    place = np.arange(len(best)) - np.searchsorted(row, row)
    kept = place < MOST_SIDS
    shape = (len(numbers), int(place[kept].max()) + 1)
    table = np.full((*shape, len(sizes)), NO_CODE, np.int32)
    rewards = np.zeros(shape, np.float32)
    table[row[kept], place[kept]] = codes[best[kept]]
    rewards[row[kept], place[kept]] = reward[best[kept]]
    return RewardedQueries(
        numbers=numbers.astype(np.int32),
        pieces=[pieces[number] for number in numbers],
        sids=table,
        rewards=rewards,
    )


def rewards_of(
    written: Int[AnyArray, "query sample level"],
    *,
    sids: Int[AnyArray, "query known level"],
    rewards: Float[AnyArray, "query known"],
    prefix_share: float,
) -> Float[Array, "query sample"]:
    """Returns what written SIDs are worth to their queries.

    Of a query's SIDs that count, the one that makes a written SID worth most:
    `reward * prefix_share ** codes behind the prefix that both have`, 0 where they share none.

    Args:
      written: codes.
      sids: those that are worth something, see `RewardedQueries`.
      rewards: what each is worth.
      prefix_share: see `Alignment.prefix_share`.

    Returns:
      float32, from 0 to 1. Source: this project; rewards by shared prefixes are customary where
      SIDs are learnt by reinforcement.
    """
    levels = written.shape[-1]
    share = [0.0, *(math.pow(prefix_share, levels - shared) for shared in range(1, levels + 1))]
    same = written[:, :, None] == sids[:, None]  # [query, sample, known, level]
    shared = jnp.sum(jnp.cumprod(same.astype(jnp.int32), axis=-1), axis=-1)
    return jnp.max(rewards[:, None] * jnp.asarray(share, jnp.float32)[shared], axis=-1)
