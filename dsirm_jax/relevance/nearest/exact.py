"""Exhaustive search: every candidate is compared. It is the reference for all others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.search import Neighbours

_CANDIDATES_AT_ONCE = 1 << 16
_QUERIES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Exact:
    """Reads all candidates, see `search.Search`.

    Attributes:
      vectors: of the candidates, of length 1, in memory or memory-mapped.
    """

    vectors: Float[np.ndarray, "candidate dim"]

    def nearest(
        self,
        queries: Float[np.ndarray, "query dim"],
        *,
        k: int,
        own: Int[np.ndarray, " query"] | None = None,
    ) -> Neighbours:
        if len(queries) == 1 and own is None:
            return nearest_to(queries[0], self.vectors, k=k)
        return nearest_rows(queries=queries, candidates=self.vectors, k=k, own=own)


def exhaustive(name: str, vectors: Float[np.ndarray, "candidate dim"]) -> Exact:
    """Returns an exhaustive search, see `search.SearchOf`."""
    del name
    return Exact(vectors)


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
    cosines = candidates @ unit(query)
    row = greatest(cosines, k=min(k, len(candidates)))
    return Neighbours(row=row[None], cosine=cosines[row][None])


def greatest(
    values: Float[np.ndarray, " value"], *, k: int, number: Int[np.ndarray, " value"] | None = None
) -> Int[np.ndarray, " place"]:
    """Returns the places of the k greatest values, greatest first, int32.

    Args:
      values: at least k.
      k: how many.
      number: of each value: of equal values those of the least numbers come first. Their places
        when not given.
    """
    least = np.partition(values, len(values) - k)[len(values) - k :].min(initial=np.inf)
    (place,) = np.nonzero(values >= least)
    order = np.lexsort([place if number is None else number[place], -values[place]])
    return place[order[:k]].astype(np.int32)


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
