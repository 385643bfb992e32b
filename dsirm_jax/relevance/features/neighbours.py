"""Group `neighbours`: SIDs of near items, and of items judged for near training queries."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from dsirm_jax.relevance.features.group import (
    NEIGHBOUR_SIDS,
    PER_LEVEL,
    Column,
    Group,
    SidContext,
)
from dsirm_jax.sids.prefix_match import near_item_features, vote_features


def neighbours(context: SidContext) -> Float[Array, "query item column"]:
    """Returns `prefix_match.near_item_features`, then `vote_features`."""
    queries, sids = context.queries, context.items.sids
    # Of a context for a group that reads `NEIGHBOUR_SIDS`, which is this one.
    assert queries.near_sids is not None and queries.near_weights is not None
    assert queries.vote_sids is not None and queries.vote_weights is not None
    parts = [
        near_item_features(queries.near_sids, queries.near_weights, sids),
        vote_features(queries.vote_sids, queries.vote_weights, sids),
    ]
    return jnp.concatenate(parts, axis=-1)


GROUP = Group(
    name="neighbours",
    order=9,
    reads=NEIGHBOUR_SIDS,
    columns=(
        Column("near_items", "share of near items' weight that agrees at l", PER_LEVEL),
        Column("near_share", "share of near items that agree at l", PER_LEVEL),
        Column("near_rank", "1 / rank of the first that agrees at l, 0 if none", PER_LEVEL),
        Column("near_peak", "near_items over the greatest of any prefix", PER_LEVEL),
        Column("near_queries", "share of near queries' votes that agrees at l", PER_LEVEL),
        Column("near_rejected", "the same of the items irrelevant to them", PER_LEVEL),
        Column("near_verdict", "their judgements where l agrees, shrunk to 0", PER_LEVEL),
    ),
    compute=neighbours,
)
