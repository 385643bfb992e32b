"""Nearest neighbours of queries by cosine: items, and training queries with their judgements."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsirm_jax.relevance.nearest.exact import exhaustive
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.search import ITEMS, VOTERS, Neighbours, SearchOf

NEAR_ITEMS = 50
NEAR_QUERIES = 20
JUDGED_PER_QUERY = 32


class Judged(NamedTuple):
    """Judged items of training queries, one row a query, all its spellings together.

    Attributes:
      items: int32 `[voter, vote]`.
      verdicts: float32 `[voter, vote]`: 1 relevant, −1 irrelevant; 0 marks padding.
    """

    items: Int[np.ndarray, "voter vote"]
    verdicts: Float[np.ndarray, "voter vote"]

    @property
    def relevant_share(self) -> float:
        """The share of the judgements that say relevant; 0 of none."""
        return float((self.verdicts > 0).sum() / max((self.verdicts != 0).sum(), 1))


class Surroundings(NamedTuple):
    """What lies near the queries of some pairs, one row a query, in the order of their numbers.

    Attributes:
      items: the nearest items.
      queries: the nearest training queries, rows of `judged`.
      judged: what was judged for every training query, see `voters`.
    """

    items: Neighbours
    queries: Neighbours
    judged: Judged

    def take(self, rows: Int[np.ndarray, " row"]) -> Surroundings:
        """Returns those of some queries."""
        return Surroundings(self.items.take(rows), self.queries.take(rows), self.judged)


def find_surroundings(
    *,
    query_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    train_pairs: Int[np.ndarray, "train_pair 2"],
    relevant: Bool[np.ndarray, " train_pair"],
    identity: Int[np.ndarray, " query"] | None = None,
    search_of: SearchOf = exhaustive,
) -> Surroundings:
    """Returns what lies near the queries of pairs; it depends on no SIDs.

    Args:
      query_index: row of `query_vectors` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: likewise of every item, of length 1, in memory or memory-mapped.
      train_pairs: judged (query, item) numbers of the splits `train` and `head`, never of `test`.
      relevant: whether each of these is.
      identity: see `near_queries`.
      search_of: makes the search of `ITEMS`, and of `VOTERS`.
    """
    wanted = np.unique(query_index)
    queries, judged = near_queries(
        query_index=wanted,
        query_vectors=query_vectors,
        train_pairs=train_pairs,
        relevant=relevant,
        identity=identity,
        search_of=search_of,
    )
    items = search_of(ITEMS, item_vectors).nearest(query_vectors[wanted], k=NEAR_ITEMS)
    return Surroundings(items=items, queries=queries, judged=judged)


def voters(
    train_queries: Int[np.ndarray, " train_pair"],
    *,
    identity: Int[np.ndarray, " all_queries"] | None = None,
) -> Int[np.ndarray, " voter"]:
    """Returns the queries that vote, rising: of every identity its first one for all of them.

    Args:
      train_queries: of the judgements that vote.
      identity: see `near_queries`.
    """
    queries = np.unique(train_queries)
    if identity is None:
        return queries
    _, first = np.unique(identity[queries], return_index=True)
    return queries[np.sort(first)]


def near_queries(
    *,
    query_index: Int[np.ndarray, " query"],
    query_vectors: Float[np.ndarray, "all_queries dim"],
    train_pairs: Int[np.ndarray, "train_pair 2"],
    relevant: Bool[np.ndarray, " train_pair"],
    identity: Int[np.ndarray, " all_queries"] | None = None,
    judged_per_query: int = JUDGED_PER_QUERY,
    search_of: SearchOf = exhaustive,
) -> tuple[Neighbours, Judged]:
    """Returns the training queries nearest to each query, and what was judged for all of them.

    A query is no neighbour of itself however it is spelt, so that its own labels stay out of its
    features. Those of test queries stay out because only the pairs given here vote. Spellings of
    one query have one vote together: that of the first, with the judgements of all; where several
    judge an item, the first does.

    Args:
      query_index: rows of `query_vectors` whose neighbours are wanted.
      query_vectors: vectors of all queries.
      train_pairs: (query, item) numbers of the judgements of training queries, those of the head
        among them.
      relevant: whether each of these pairs is.
      identity: a number of each of all queries that its spellings share, see
        `data.identity.QueryIdentity`; None: every query is another one.
      judged_per_query: the first ones that are kept.
      search_of: makes the search of `VOTERS`.

    Returns:
      At most `NEAR_QUERIES` neighbours, rows of the second: the first `judged_per_query` pairs of
      each of `voters`. Source: this project.
    """
    if not len(train_pairs):
        nothing = np.zeros((1, 1), np.float32)
        alone = np.full((len(query_index), 1), -np.inf, np.float32)
        return Neighbours(np.zeros(alone.shape, np.int32), alone), Judged(
            nothing.astype(np.int32), nothing
        )
    identity = np.arange(len(query_vectors)) if identity is None else identity
    voting = voters(train_pairs[:, 0], identity=identity)
    row_of = np.full(identity.max(initial=0) + 1, -1)
    row_of[identity[voting]] = np.arange(len(voting))
    order = _in_order(train_pairs, row_of[identity[train_pairs[:, 0]]], voting=voting)
    _, starts, counts = np.unique(
        row_of[identity[train_pairs[order, 0]]], return_index=True, return_counts=True
    )
    number = np.arange(min(judged_per_query, counts.max()))
    filled = number < counts[:, None]  # [voter, vote]
    row = order[np.minimum(starts[:, None] + number, len(order) - 1)]
    verdicts = np.where(relevant[row], 1, -1) * filled
    judged = Judged(
        items=np.where(filled, train_pairs[row, 1], 0).astype(np.int32),
        verdicts=verdicts.astype(np.float32),
    )
    search = search_of(VOTERS, unit(query_vectors[voting]))
    near = search.nearest(
        query_vectors[query_index], k=NEAR_QUERIES, own=row_of[identity[query_index]]
    )
    return near, judged


def _in_order(
    train_pairs: Int[np.ndarray, "train_pair 2"],
    voter: Int[np.ndarray, " train_pair"],
    *,
    voting: Int[np.ndarray, " voter"],
) -> Int[np.ndarray, " kept_pair"]:
    """Returns the pairs that count, by voter: the voter's own in their order, then its twins'.

    Args:
      train_pairs: judged (query, item) numbers.
      voter: row of `voting` that each counts for.
      voting: see `voters`.
    """
    is_twins = train_pairs[:, 0] != voting[voter]
    order = np.lexsort([is_twins, voter])
    if not is_twins.any():
        return order
    judged = np.stack([voter[order], train_pairs[order, 1]], axis=1)
    _, first = np.unique(judged, axis=0, return_index=True)
    return order[np.sort(first)]
