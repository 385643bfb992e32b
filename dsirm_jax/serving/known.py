"""What the generator says of the SIDs that a cached query will be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from dsirm_jax.generator.predict import SEARCHED_AT_ONCE
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.serving.catalogue import NO_KEY, Known
from dsirm_jax.sids import codes

if TYPE_CHECKING:
    from dsirm_jax.generator.fitted import Fitted
    from dsirm_jax.relevance.neighbours import Neighbours
    from dsirm_jax.sids.prefix_match import Beams

MOST_SIDS = 128


def known_sids(
    *,
    generator: Fitted,
    pieces: Sequence[Sequence[int]],
    beams: Beams,
    near: Neighbours,
    first: tuple[Int[np.ndarray, " asked"], Int[np.ndarray, "asked level"]],
    sids: Int[np.ndarray, "item level"],
    most: int = MOST_SIDS,
) -> Known:
    """Returns the log-probabilities of the SIDs that some queries will be asked about.

    Those named first come first, then its beams, then those of its nearest items, up to `most` of a
    query. A query that is asked about others has to run the generator.

    Args:
      generator: from query to SIDs.
      pieces: tokens of each query.
      beams: of each query.
      near: the nearest items of each query.
      first: numbers of queries, and SIDs, such as those of the items judged for them.
      sids: SID of every item.
      most: SIDs of a query.
    """
    sizes = generator.config.sid_sizes
    queries = np.arange(len(pieces))
    beam_query, _ = np.nonzero(beams.valid)
    asked = [
        first,
        (beam_query, beams.sids[beams.valid]),
        (np.repeat(queries, near.index.shape[1]), sids[near.index.ravel()]),
    ]
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
