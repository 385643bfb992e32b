"""Group `prf`: pseudo-relevance feedback from the items nearest to the query."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.grid import ROWS_AT_ONCE, cosines_in_rows, query_grids


def feedback(
    context: PairContext, *, rows_at_once: int = ROWS_AT_ONCE
) -> Float[np.ndarray, "pair 2"]:
    """Returns how close the item is to what suits the query, it seems.

    In order: the weighted mean and the greatest of the item's cosines to the query's 50 nearest
    items, itself left out; 0 where there are none.

    Args:
      context: of the pairs.
      rows_at_once: of a grid of pairs, in memory at once.

    Returns:
      float32 `[pair, 2]`. Source: this project, after Rocchio 1971.
    """
    nearest = context.surroundings.items
    weights = nearest.weights()
    values = np.zeros((len(context.query_row), 2), np.float32)
    for query, pair, filled in query_grids(context.query_row, rows=rows_at_once):
        items, others = context.item_index[pair], nearest.row[query]
        cosines = cosines_in_rows(context.item_vectors, items, others)
        of_others = weights[query][:, None] * (others[:, None] != items[..., None])
        total = of_others.sum(axis=-1)
        mean = np.einsum("qio,qio->qi", cosines, of_others) / np.maximum(total, 1e-9)
        greatest = np.where(of_others > 0, cosines, -1.0).max(axis=-1, initial=-1.0)
        both = np.where(total > 0, [mean, greatest], 0.0)
        values[pair[filled]] = both[:, filled].T
    return values


GROUP = Group(
    name="prf",
    order=4,
    columns=(
        Column("prf_mean", "mean cosine of the item to the query's 50 nearest others"),
        Column("prf_max", "greatest of these"),
    ),
    compute=feedback,
)
