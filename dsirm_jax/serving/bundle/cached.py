"""What a bundle knows of its cached queries, and the records that hold it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.sids.prefix_match import Beams

NO_KEY = np.iinfo(np.int64).max


class Known(NamedTuple):
    """Exact log-probabilities of the SIDs whose items are likely to be scored for some queries.

    Attributes:
      keys: the SIDs, see `sids.codes.pack`, int64 `[query, sid]`, rising, `NO_KEY` after the last.
      log_probs: log P(first l codes | query) of each, float32 `[query, sid, level]`.
    """

    keys: Int[np.ndarray, "query sid"]
    log_probs: Float[np.ndarray, "query sid level"]


class Cached(NamedTuple):
    """What is known of some queries.

    Attributes:
      vectors: float32 `[query, dim]`.
      beams: the SIDs that the generator writes.
      items: the nearest items.
      queries: the nearest training queries, rows of `Voters`.
      known: see `Known`.
    """

    vectors: Float[np.ndarray, "query dim"]
    beams: Beams
    items: Neighbours
    queries: Neighbours
    known: Known


def record_type(
    *, dim: int, beams: int, levels: int, near: int, voters: int, known: int
) -> np.dtype:
    """Returns the type of a cached query's record; little-endian, whichever machine writes it.

    Args:
      dim: width of a vector.
      beams: SIDs of a query; of one that has fewer, the others have the log-probability −inf.
      levels: of a SID.
      near: nearest items.
      voters: nearest training queries.
      known: SIDs whose exact log-probabilities are kept.
    """
    return np.dtype(
        [
            ("vector", "<f4", (dim,)),
            ("sids", "<i4", (beams, levels)),
            ("log_probs", "<f4", (beams,)),
            ("near", "<i4", (near,)),
            ("cosines", "<f4", (near,)),
            ("voters", "<i4", (voters,)),
            ("voter_cosines", "<f4", (voters,)),
            ("keys", "<i8", (known,)),
            ("known", "<f4", (known, levels)),
        ]
    )


def packed(cached: Cached) -> np.ndarray:
    """Returns queries as records."""
    (queries, dim), (_, beams, levels) = cached.vectors.shape, cached.beams.sids.shape
    type_ = record_type(
        dim=dim,
        beams=beams,
        levels=levels,
        near=cached.items.row.shape[1],
        voters=cached.queries.row.shape[1],
        known=cached.known.keys.shape[1],
    )
    records = np.empty(queries, type_)
    records["vector"], records["sids"] = cached.vectors, cached.beams.sids
    records["log_probs"] = np.where(cached.beams.valid, cached.beams.log_probs, -np.inf)
    records["near"], records["cosines"] = cached.items
    records["voters"], records["voter_cosines"] = cached.queries
    records["keys"], records["known"] = cached.known
    return records


def unpacked(records: np.ndarray) -> Cached:
    """Undoes `packed`."""
    log_probs = records["log_probs"]
    return Cached(
        vectors=records["vector"],
        beams=Beams(records["sids"], log_probs, np.isfinite(log_probs)),
        items=Neighbours(records["near"], records["cosines"]),
        queries=Neighbours(records["voters"], records["voter_cosines"]),
        known=Known(records["keys"], records["known"]),
    )
