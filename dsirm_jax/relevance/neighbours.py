"""Nearest neighbours of queries by cosine, and what they say about SIDs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

NEAR_ITEMS = 50
NEAR_QUERIES = 20
VOTES_PER_QUERY = 8
TEMPERATURE = 0.1
SCORES_AT_ONCE = 1 << 24


class Neighbours(NamedTuple):
    """The nearest candidates of each query, nearest first.

    Attributes:
      index: row of each candidate, int32 `[query, neighbour]`.
      cosine: float32 `[query, neighbour]`; −inf where there are too few candidates.
    """

    index: Int[np.ndarray, "query neighbour"]
    cosine: Float[np.ndarray, "query neighbour"]

    def weights(self) -> Float[np.ndarray, "query neighbour"]:
        """Softmax of cosine / `TEMPERATURE` over the neighbours; 0 where there is none."""
        nearest = np.maximum(self.cosine[:, :1], -1.0)
        exponentials = np.exp((self.cosine - nearest) / TEMPERATURE)
        return exponentials / np.maximum(exponentials.sum(axis=1, keepdims=True), 1e-9)


class Votes(NamedTuple):
    """Items that suit similar training queries, with weights.

    Attributes:
      items: int32 `[query, vote]`.
      weights: float32 `[query, vote]`; 0 marks padding.
      nearest: cosine of the nearest training query, float32 `[query]`; 0 when there is none.
    """

    items: Int[np.ndarray, "query vote"]
    weights: Float[np.ndarray, "query vote"]
    nearest: Float[np.ndarray, " query"]


def unit(vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Returns vectors of length 1, float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(
    *,
    queries: Float[np.ndarray, "query dim"],
    candidates: Float[np.ndarray, "candidate dim"],
    k: int,
    own: Int[np.ndarray, " query"] | None = None,
) -> Neighbours:
    """Returns the k candidates of greatest cosine to each query, by exhaustive search.

    Queries go in blocks, so that memory is bounded by `SCORES_AT_ONCE` scores.

    Args:
      queries: unit vectors.
      candidates: unit vectors.
      k: neighbours per query; fewer when there are fewer candidates.
      own: the candidate that is the query itself and must not count, −1 where there is none.

    Returns:
      `Neighbours` of `min(k, candidates)` columns.
    """
    k = min(k, len(candidates))
    if own is None:
        own = np.full(len(queries), -1)
    rows = max(1, min(1024, SCORES_AT_ONCE // len(candidates)))
    on_device = jnp.asarray(candidates)
    found = [
        _nearest_of_block(
            _padded(queries[start : start + rows], rows),
            on_device,
            _padded(own[start : start + rows], rows),
            k=k,
        )
        for start in range(0, len(queries), rows)
    ]
    index = np.concatenate([np.asarray(block[0]) for block in found])[: len(queries)]
    cosine = np.concatenate([np.asarray(block[1]) for block in found])[: len(queries)]
    return Neighbours(index=index, cosine=cosine)


def votes_of_near_queries(
    *,
    query_index: Int[np.ndarray, " query"],
    query_vectors: Float[np.ndarray, "all_queries dim"],
    train_pairs: Int[np.ndarray, "vote 2"],
) -> Votes:
    """Returns the items that suit the training queries nearest to each query.

    Each near training query spreads its weight evenly over its first `VOTES_PER_QUERY` relevant
    items. A query never votes for itself. Labels of head and test queries stay out because only
    the pairs given here vote.

    Args:
      query_index: rows of `query_vectors` that want votes.
      query_vectors: unit vectors of all queries.
      train_pairs: relevant (query, item) numbers of the training queries.

    Returns:
      `Votes` with `NEAR_QUERIES * VOTES_PER_QUERY` columns. Source: this project.
    """
    if not len(train_pairs):
        nothing = np.zeros((len(query_index), 1))
        return Votes(nothing.astype(np.int32), nothing.astype(np.float32), nothing[:, 0])
    ordered = train_pairs[np.argsort(train_pairs[:, 0], kind="stable")]
    voters, starts = np.unique(ordered[:, 0], return_index=True)
    sizes = np.minimum(np.diff(starts, append=len(ordered)), VOTES_PER_QUERY)
    filled = np.arange(VOTES_PER_QUERY) < sizes[:, None]  # [voter, vote]
    position = np.minimum(starts[:, None] + np.arange(VOTES_PER_QUERY), len(ordered) - 1)
    items = np.where(filled, ordered[position, 1], 0)
    shares = filled / sizes[:, None]

    place = np.searchsorted(voters, query_index).clip(max=len(voters) - 1)
    near = nearest(
        queries=query_vectors[query_index],
        candidates=query_vectors[voters],
        k=NEAR_QUERIES,
        own=np.where(voters[place] == query_index, place, -1),
    )
    weights = near.weights()[..., None] * shares[near.index]  # [query, neighbour, vote]
    return Votes(
        items=items[near.index].reshape(len(query_index), -1).astype(np.int32),
        weights=weights.reshape(len(query_index), -1).astype(np.float32),
        nearest=np.where(np.isfinite(near.cosine[:, 0]), near.cosine[:, 0], 0.0),
    )


@jax.jit(static_argnames="k")
def _nearest_of_block(queries, candidates, own, *, k):
    cosine = queries @ candidates.T  # [query, candidate]
    is_own = jnp.arange(len(candidates)) == own[:, None]
    cosine, index = jax.lax.top_k(jnp.where(is_own, -jnp.inf, cosine), k)
    return index, cosine


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Repeats the first row at the end, so that every block compiles to one shape."""
    return np.concatenate([rows, np.repeat(rows[:1], length - len(rows), axis=0)])
