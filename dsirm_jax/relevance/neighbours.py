"""Nearest neighbours of queries by cosine: items, and training queries with their judgements."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from dsirm_jax.devices.precision import exact

NEAR_ITEMS = 50
NEAR_QUERIES = 20
JUDGED_PER_QUERY = 32
TEMPERATURE = 0.1
_CANDIDATES_AT_ONCE = 1 << 16
_QUERIES_AT_ONCE = 256


class Neighbours(NamedTuple):
    """The nearest candidates of each query, nearest first.

    Attributes:
      row: of each candidate, int32 `[query, neighbour]`.
      cosine: float32 `[query, neighbour]`; −inf where there are too few candidates.
    """

    row: Int[np.ndarray, "query neighbour"]
    cosine: Float[np.ndarray, "query neighbour"]

    def take(self, rows: Int[np.ndarray, " row"]) -> Neighbours:
        """Returns those of some queries."""
        return Neighbours(self.row[rows], self.cosine[rows])

    def weights(self) -> Float[np.ndarray, "query neighbour"]:
        """Softmax of cosine / `TEMPERATURE` over the neighbours; 0 where there is none."""
        nearest = np.maximum(self.cosine[:, :1], -1.0)
        exponentials = np.exp((self.cosine - nearest) / TEMPERATURE)
        return exponentials / np.maximum(exponentials.sum(axis=1, keepdims=True), 1e-9)


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
) -> Surroundings:
    """Returns what lies near the queries of pairs; it depends on no SIDs.

    Args:
      query_index: row of `query_vectors` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      train_pairs: judged (query, item) numbers of the splits `train` and `head`, never of `test`.
      relevant: whether each of these is.
      identity: see `near_queries`.
    """
    wanted = np.unique(query_index)
    queries, judged = near_queries(
        query_index=wanted,
        query_vectors=query_vectors,
        train_pairs=train_pairs,
        relevant=relevant,
        identity=identity,
    )
    items = nearest_rows(queries=query_vectors[wanted], candidates=item_vectors, k=NEAR_ITEMS)
    return Surroundings(items=items, queries=queries, judged=judged)


def unit(vectors: Real[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
    """Returns vectors (along the last axis) of length 1, float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / lengths(vectors)[..., None]


def normalise(vectors: Float[np.ndarray, "row dim"]) -> None:
    """Divides vectors, in memory or memory-mapped, by their lengths in place."""
    for start in range(0, len(vectors), _CANDIDATES_AT_ONCE):
        rows = slice(start, start + _CANDIDATES_AT_ONCE)
        vectors[rows] = unit(vectors[rows])


def lengths(vectors: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows"]:
    """Returns the lengths of vectors along the last axis, at least 1e-12."""
    return np.maximum(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)), 1e-12)


def nearest_rows(
    *,
    queries: Float[np.ndarray, "query dim"],
    candidates: Float[np.ndarray, "candidate dim"],
    k: int,
    own: Int[np.ndarray, " query"] | None = None,
    candidates_at_once: int = _CANDIDATES_AT_ONCE,
    queries_at_once: int = _QUERIES_AT_ONCE,
) -> Neighbours:
    """Returns the k candidates of greatest cosine to each query, by exhaustive search.

    Candidates are read once, a block at a time, so that they may be memory-mapped.

    Args:
      queries: vectors of any length, in memory.
      candidates: vectors of any length, in memory or memory-mapped.
      k: neighbours per query; fewer when there are fewer candidates.
      own: the candidate that is the query itself and must not count, −1 where there is none.
      candidates_at_once: on the device.
      queries_at_once: likewise.

    Returns:
      `Neighbours` of `min(k, candidates)` columns; of equal candidates the first come first.
    """
    k = min(k, len(candidates))
    own = np.full(len(queries), -1) if own is None else np.asarray(own)
    queries = unit(queries)
    best = Neighbours(
        row=np.zeros((len(queries), k), np.int32),
        cosine=np.full((len(queries), k), -np.inf, np.float32),
    )
    columns = min(candidates_at_once, len(candidates))
    for first in range(0, len(candidates), columns):
        block = unit(candidates[first : first + columns])
        on_device = jnp.asarray(np.pad(block, ((0, columns - len(block)), (0, 0))))
        for start in range(0, len(queries), queries_at_once):
            rows = slice(start, min(start + queries_at_once, len(queries)))
            known = [_padded(a[rows], queries_at_once) for a in (queries, own - first, *best)]
            nearer = _nearer(*known, on_device, first, len(block))
            for kept, new in zip(best, nearer, strict=True):
                kept[rows] = np.asarray(new)[: rows.stop - start]
    return best


def nearest_to(
    query: Float[np.ndarray, " dim"], candidates: Float[np.ndarray, "candidate dim"], *, k: int
) -> Neighbours:
    """Returns what `nearest_rows` does of one query, at once: it compiles and copies nothing.

    Args:
      query: a vector of any length.
      candidates: vectors of length 1, in memory or memory-mapped.
      k: see `nearest_rows`.
    """
    k = min(k, len(candidates))
    cosines = candidates @ unit(query)
    least = np.partition(cosines, len(cosines) - k)[len(cosines) - k :].min(initial=np.inf)
    (near,) = np.nonzero(cosines >= least)
    near = near[np.argsort(-cosines[near], kind="stable")][:k]
    return Neighbours(row=near[None].astype(np.int32), cosine=cosines[near][None])


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
    near = nearest_rows(
        queries=query_vectors[query_index],
        candidates=query_vectors[voting],
        k=NEAR_QUERIES,
        own=row_of[identity[query_index]],
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


@jax.jit
@exact
def _nearer(
    queries: Float[Array, "query dim"],
    own: Int[Array, " query"],
    row: Int[Array, "query neighbour"],
    cosine: Float[Array, "query neighbour"],
    block: Float[Array, "candidate dim"],
    first: Int[Array, ""],
    count: Int[Array, ""],
) -> tuple[Int[Array, "query neighbour"], Float[Array, "query neighbour"]]:
    """Returns the nearest of those found so far and of a block of candidates."""
    column = jnp.arange(len(block))
    counts = (column < count) & (column != own[:, None])
    cosines = jnp.where(counts, queries @ block.T, -jnp.inf)  # [query, candidate]
    cosine, place = jax.lax.top_k(jnp.concatenate([cosine, cosines], axis=1), cosine.shape[1])
    numbers = jnp.broadcast_to(first + column, cosines.shape)
    return jnp.take_along_axis(jnp.concatenate([row, numbers], axis=1), place, axis=1), cosine


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Repeats the first row at the end, so that every block compiles to one shape."""
    return np.concatenate([rows, np.repeat(rows[:1], length - len(rows), axis=0)])
