"""Group `dense`: how close the dense vectors are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.nearest.lengths import unit

_PAIRS_AT_ONCE = 1 << 11


def cosine(
    context: PairContext, *, pairs_at_once: int = _PAIRS_AT_ONCE
) -> Float[np.ndarray, "pair 1"]:
    """Returns the cosine of each pair's vectors.

    Args:
      context: of the pairs.
      pairs_at_once: whose vectors are in memory at once.

    Returns:
      float64 `[pair, 1]`. Source: Wang et al. 2026, arXiv 2606.04374 (secondary note).
    """
    chunks = []
    for start in range(0, len(context.query_index), pairs_at_once):
        rows = slice(start, start + pairs_at_once)
        queries = unit(context.query_vectors[context.query_index[rows]])
        items = context.item_vectors[context.item_index[rows]]
        chunks.append(np.einsum("pd,pd->p", queries, items))
    return np.concatenate([np.empty(0), *chunks])[:, None]


GROUP = Group(
    name="dense",
    order=1,
    columns=(Column("cosine", "cosine of query and item"),),
    compute=cosine,
)
