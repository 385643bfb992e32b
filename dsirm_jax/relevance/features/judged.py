"""Group `judged`: what `neighbours` knows, with cosine kernels in place of codes.

A control of the ladder, not among the groups of other rungs: what codes add beyond being told of
near items and of judgements for near training queries, irrelevant ones too. The stage `features`
computes it where `features.run.control_groups` names it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.grid import ROWS_AT_ONCE, cosines_in_rows, query_grids
from dsirm_jax.sids.prefix_match import SHRINKAGE, vote_weights

WIDTHS = (0.4, 0.15, 0.05)
"""Of the kernel exp((cosine − 1) / width) of two items, wide to narrow as levels are."""
NAMES = {
    "kernel_near": "share of near items' weight, by the kernel of each with the item",
    "kernel_share": "mean kernel of the item with near items",
    "kernel_rank": "greatest kernel with a near item over its rank",
    "kernel_peak": "kernel_near over the greatest of any near item",
    "kernel_queries": "share of near queries' votes, by kernel",
    "kernel_rejected": "the same of the items irrelevant to them",
    "kernel_verdict": "their judgements by kernel, shrunk to 0",
}


def judged(
    context: PairContext, *, rows_at_once: int = ROWS_AT_ONCE
) -> Float[np.ndarray, "pair column"]:
    """Returns columns as `neighbours` has them, levels being kernels of other widths.

    Where that sums over items whose codes agree with the item's, this sums over all, each times its
    kernel with the item. The judgements are of other queries: see `neighbours.near_queries`.

    Args:
      context: of the pairs.
      rows_at_once: of a grid of pairs, in memory at once.

    Returns:
      float32 `[pair, 7 widths]`, the widths of a name side by side. Source: this project.
    """
    near, queries, votes = context.surroundings
    near_weights, query_weights = near.weights(), queries.weights()
    base, vectors = votes.relevant_share, context.item_vectors
    values = np.zeros((len(context.query_row), len(NAMES) * len(WIDTHS)), np.float32)
    for query, pair, filled in query_grids(context.query_row, rows=rows_at_once):
        items, voters = context.item_index[pair], queries.row[query]
        weights = vote_weights(
            votes.verdicts[voters],
            cosines=queries.cosine[query],
            weights=query_weights[query],
            base=base,
        )
        voted, of_votes = _heard(
            votes.items[voters].reshape(len(query), -1), weights.reshape(len(query), -1, 4)
        )
        parts = [
            *_of_near_items(vectors, items, near.row[query], near_weights[query]),
            *_of_votes(_kernels(vectors, items, voted), of_votes),
        ]
        values[pair[filled]] = np.concatenate(parts, axis=-1)[filled]
    return values


def _of_near_items(
    vectors: Float[np.ndarray, "any_item dim"],
    items: Int[np.ndarray, "row item"],
    near: Int[np.ndarray, "row near"],
    weights: Float[np.ndarray, "row near"],
) -> list[Float[np.ndarray, "row item width"]]:
    """Returns the columns of near items, by name."""
    known = weights > 0
    kernels = _kernels(vectors, items, near) * known[:, None, :, None]
    whole = np.maximum(weights.sum(axis=1), 1e-9)[:, None, None]
    mass = np.einsum("rinw,rn->riw", kernels, weights) / whole
    of_near = np.einsum("rinw,rn->riw", _kernels(vectors, near, near), weights) / whole
    greatest = np.where(known[..., None], of_near, 0.0).max(axis=1, keepdims=True)
    rank = 1.0 + np.arange(near.shape[1])[:, None]
    return [
        mass,
        kernels.sum(axis=2) / np.maximum(known.sum(axis=1), 1)[:, None, None],
        (kernels / rank).max(axis=2),
        mass / np.maximum(greatest, 1e-9),
    ]


def _of_votes(
    kernels: Float[np.ndarray, "row item vote width"], weights: Float[np.ndarray, "row vote 4"]
) -> list[Float[np.ndarray, "row item width"]]:
    """Returns the columns of judgements, by name; `weights` are those of `vote_weights`."""
    sums = np.einsum("rivw,rvc->criw", kernels, weights)
    return [sums[0], sums[1], sums[2] / (sums[3] + SHRINKAGE)]


def _kernels(
    vectors: Float[np.ndarray, "any_item dim"],
    items: Int[np.ndarray, "row item"],
    others: Int[np.ndarray, "row other"],
) -> Float[np.ndarray, "row item other width"]:
    cosines = cosines_in_rows(vectors, items, others)[..., None]
    return np.exp((np.minimum(cosines, 1.0) - 1.0) / np.array(WIDTHS, np.float32))


def _heard(
    items: Int[np.ndarray, "row vote"], weights: Float[np.ndarray, "row vote 4"]
) -> tuple[Int[np.ndarray, "row heard"], Float[np.ndarray, "row heard 4"]]:
    """Returns the votes that have a weight, and these; padding is another item with weight 0."""
    silent = ~weights.any(axis=-1)
    most = (~silent).sum(axis=1).max(initial=0)
    place = np.argsort(silent, axis=1, kind="stable")[:, :most]
    heard = np.take_along_axis(weights, place[..., None], axis=1)
    return np.take_along_axis(items, place, axis=1), heard


CONTROL = Group(
    name="judged",
    order=10,
    columns=tuple(
        Column(f"{name}_{place}", f"{about}, width {width:g}")
        for name, about in NAMES.items()
        for place, width in enumerate(WIDTHS, 1)
    ),
    compute=judged,
)
