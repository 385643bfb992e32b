"""The log-probabilities of the SIDs whose items are likely to be scored for a cached query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.generator.score import score_pairs
from dsirm_jax.serving.bundle.cached import NO_KEY, Known
from dsirm_jax.sids import codes

if TYPE_CHECKING:
    from dsirm_jax.generator.fitted import FittedGenerator
    from dsirm_jax.relevance.nearest.search import Neighbours
    from dsirm_jax.sids.prefix_match import Beams

MOST_SIDS = 128
"""SIDs of a query. The `MOST_SIDS` nearest items fill what others leave, so that at least as many
items can be scored for it without the generator, whether or not they share SIDs."""


class QuerySidPairs(NamedTuple):
    """SIDs whose items are likely to be scored for some queries.

    Attributes:
      query: number of the query, `[pair]`.
      sids: `[pair, level]`.
    """

    query: Int[np.ndarray, " pair"]
    sids: Int[np.ndarray, "pair level"]


def of_beams(beams: Beams) -> QuerySidPairs:
    """Returns the SIDs that the generator writes."""
    query, _ = np.nonzero(beams.valid)
    return QuerySidPairs(query, np.asarray(beams.sids)[beams.valid])


def of_near(near: Neighbours, sids: Int[np.ndarray, "item level"]) -> QuerySidPairs:
    """Returns the SIDs of near items, nearest first.

    Args:
      near: of each query.
      sids: SID of every item.
    """
    queries, most = near.row.shape
    return QuerySidPairs(np.repeat(np.arange(queries), most), sids[near.row.ravel()])


def known_sids(
    *,
    generator: FittedGenerator,
    pieces: Sequence[Sequence[int]],
    pairs: Sequence[QuerySidPairs],
    most: int = MOST_SIDS,
    score: Callable[..., Float[np.ndarray, "pair level"]] = score_pairs,
) -> Known:
    """Returns the log-probabilities of SIDs of some queries.

    Args:
      generator: from query to SIDs.
      pieces: tokens of each query.
      pairs: of which SIDs; up to `most` of a query, those named first. For other SIDs of a query
        the generator has to run.
      most: SIDs of a query.
      score: returns the log-probabilities of pairs, with the arguments of `score_pairs`.
    """
    sizes = generator.config.sid_sizes
    query = np.concatenate([index for index, _ in pairs])
    keys = np.concatenate([codes.pack(sids, sizes=sizes) for _, sids in pairs])
    order = np.lexsort([np.arange(len(keys)), keys, query])
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(query[order]) != 0) | (np.diff(keys[order]) != 0)
    rows = np.sort(order[is_new])  # each SID of a query where it is named first
    rows = rows[np.argsort(query[rows], kind="stable")]
    rows = rows[_rank(query[rows]) < most]
    rows = rows[np.lexsort([keys[rows], query[rows]])]
    query, keys = query[rows], keys[rows]
    place = _rank(query)
    log_probs = score(
        fitted=generator,
        pieces=pieces,
        query_index=query,
        sids=codes.unpack(keys, sizes=sizes),
    )
    known = Known(
        keys=np.full((len(pieces), most), NO_KEY),
        log_probs=np.zeros((len(pieces), most, len(sizes)), np.float32),
    )
    known.keys[query, place], known.log_probs[query, place] = keys, log_probs
    return known


def _rank(group: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Returns the number of each row in its group, of rows in the order of their groups."""
    return np.arange(len(group)) - np.searchsorted(group, group)
