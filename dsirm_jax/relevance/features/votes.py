"""Group `votes`: what suits similar training queries."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.grid import ROWS_AT_ONCE, cosines_in_rows, query_grids


def votes(context: PairContext, *, rows_at_once: int = ROWS_AT_ONCE) -> Float[np.ndarray, "pair 3"]:
    """Returns how close the item is to items that suit similar training queries.

    In order: the weighted mean and the greatest of the item's cosines to these, itself among them
    where it does; and the cosine of the nearest training query. 0 where there are none. A training
    query spreads its weight evenly over its relevant items.

    Args:
      context: of the pairs.
      rows_at_once: of a grid of pairs, in memory at once.

    Returns:
      float32 `[pair, 3]`. Source: this project.
    """
    nearest, judged = context.surroundings.queries, context.surroundings.judged
    weights = nearest.weights()
    values = np.zeros((len(context.query_row), 3), np.float32)
    for query, pair, filled in query_grids(context.query_row, rows=rows_at_once):
        voters = nearest.row[query]
        suits = judged.verdicts[voters] > 0  # [query, neighbour, vote]
        shares = suits / np.maximum(suits.sum(axis=-1, keepdims=True, dtype=np.float32), 1)
        of_votes = (weights[query][..., None] * shares).reshape(len(query), -1)
        others, of_others = _voted(judged.items[voters].reshape(of_votes.shape), of_votes)
        cosines = cosines_in_rows(context.item_vectors, context.item_index[pair], others)
        total = of_others.sum(axis=1)[:, None]
        mean = np.einsum("qio,qo->qi", cosines, of_others) / np.maximum(total, 1e-9)
        both = np.where(total > 0, [mean, cosines.max(axis=-1, initial=-1.0)], 0.0)
        values[pair[filled], :2] = both[:, filled].T
    first = nearest.cosine[:, 0]
    values[:, 2] = np.where(np.isfinite(first), first, 0)[context.query_row]
    return values


def _voted(
    items: Int[np.ndarray, "query vote"], weights: Float[np.ndarray, "query vote"]
) -> tuple[Int[np.ndarray, "query other"], Float[np.ndarray, "query other"]]:
    """Returns the items of weights above 0, and these; padding is the first item with weight 0."""
    most = (weights > 0).sum(axis=1).max(initial=0)
    place = np.argsort(weights == 0, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(weights, place, axis=1)
    place = np.where(weights > 0, place, place[:, :1])
    return np.take_along_axis(items, place, axis=1), weights


GROUP = Group(
    name="votes",
    order=5,
    columns=(
        Column("voted_mean", "mean cosine to items that suit near training queries"),
        Column("voted_max", "greatest of these"),
        Column("near_query_cosine", "cosine of the nearest training query"),
    ),
    compute=votes,
)
