"""What the generator says of the SIDs that a cached query will be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from dsirm_jax.generator.predict import SEARCHED_AT_ONCE
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.serving.bundle.catalogue import NO_KEY, Known
from dsirm_jax.sids import codes

if TYPE_CHECKING:
    from dsirm_jax.generator.fitted import FittedGenerator
    from dsirm_jax.relevance.neighbours import Neighbours
    from dsirm_jax.sids.prefix_match import Beams

MOST_SIDS = 128
"""SIDs of a query. The `MOST_SIDS` nearest items fill what others leave, so that at least as many
items can be scored for it without the generator, whether or not they share SIDs."""


class Asked(NamedTuple):
    """SIDs that some queries will be asked about.

    Attributes:
      query: number of the query, `[asked]`.
      sids: `[asked, level]`.
    """

    query: Int[np.ndarray, " asked"]
    sids: Int[np.ndarray, "asked level"]


def of_beams(beams: Beams) -> Asked:
    """Returns the SIDs that the generator writes."""
    query, _ = np.nonzero(beams.valid)
    return Asked(query, beams.sids[beams.valid])


def of_near(near: Neighbours, sids: Int[np.ndarray, "item level"]) -> Asked:
    """Returns the SIDs of near items, nearest first.

    Args:
      near: of each query.
      sids: SID of every item.
    """
    queries, most = near.index.shape
    return Asked(np.repeat(np.arange(queries), most), sids[near.index.ravel()])


def known_sids(
    *,
    generator: FittedGenerator,
    pieces: Sequence[Sequence[int]],
    asked: Sequence[Asked],
    most: int = MOST_SIDS,
) -> Known:
    """Returns the log-probabilities of the SIDs that some queries will be asked about.

    Args:
      generator: from query to SIDs.
      pieces: tokens of each query.
      asked: about which SIDs; up to `most` of a query, those named first. A query that is asked
        about others has to run the generator.
      most: SIDs of a query.
    """
    sizes = generator.config.sid_sizes
    query = np.concatenate([of for of, _ in asked])
    keys = np.concatenate([codes.pack(of, sizes=sizes) for _, of in asked])
    order = np.lexsort([np.arange(len(keys)), keys, query])
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(query[order]) != 0) | (np.diff(keys[order]) != 0)
    rows = np.sort(order[is_new])  # each SID of a query where it is named first
    rows = rows[np.argsort(query[rows], kind="stable")]
    rows = rows[_rank(query[rows]) < most]
    rows = rows[np.lexsort([keys[rows], query[rows]])]
    query, keys = query[rows], keys[rows]
    place = _rank(query)
    log_probs = score_pairs(
        fitted=generator,
        pieces=pieces,
        query_index=query,
        sids=codes.unpack(keys, sizes=sizes),
        batch_size=SEARCHED_AT_ONCE,
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
