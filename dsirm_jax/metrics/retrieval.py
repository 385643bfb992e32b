"""Whether what was retrieved for a query holds something relevant, by how far one looks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

HITS_AT = (1, 5, 10, 100)
PAIRS_COMPARED_AT_ONCE = 1 << 14


def first_hits(
    retrieved: Int[np.ndarray, "query rank level"],
    valid: Bool[np.ndarray, "query rank"],
    *,
    query_index: Int[np.ndarray, " pair"],
    relevant_sids: Int[np.ndarray, "pair level"],
) -> Int[np.ndarray, "query level"]:
    """Returns the rank of the first retrieved SID that is right down to each level.

    Args:
      retrieved: SIDs of each query, best first.
      valid: which of them there are.
      query_index: row of `retrieved` of each relevant pair.
      relevant_sids: SID of the pair's item.

    Returns:
      int32, from 1; 0 where no retrieved SID starts with the first codes of a relevant item's, or
      the query has no relevant pair.

    Example:
      >>> first_hits(np.array([[[1, 2], [3, 4]]]), np.array([[True, True]]),
      ...            query_index=np.array([0]), relevant_sids=np.array([[3, 5]]))
      array([[2, 0]], dtype=int32)
    """
    queries, ranks, levels = retrieved.shape
    never = ranks + 1
    best = np.full((queries, levels), never, np.int32)
    for start in range(0, len(query_index), PAIRS_COMPARED_AT_ONCE):
        rows = slice(start, start + PAIRS_COMPARED_AT_ONCE)
        of_pair = query_index[rows]
        agrees = retrieved[of_pair] == relevant_sids[rows, None, :]  # [pair, rank, level]
        agrees = np.logical_and.accumulate(agrees, axis=-1) & valid[of_pair][..., None]
        first_agreeing = np.where(agrees.any(axis=1), np.argmax(agrees, axis=1) + 1, never)
        np.minimum.at(best, of_pair, first_agreeing)
    return np.where(best == never, 0, best)


def hit_at_k(ranks: Int[np.ndarray, "*rows"], *, k: int) -> Bool[np.ndarray, "*rows"]:
    """Returns whether a rank of `first_hits` is among the first `k`.

    Example:
      >>> hit_at_k(np.array([1, 0, 6]), k=5).tolist()
      [True, False, False]
    """
    return (ranks > 0) & (ranks <= k)
