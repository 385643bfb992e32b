"""The in-batch contrastive loss of query-item pairs, used on dense and on quantized vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


class QueryItemRows(struct.PyTreeNode):
    """Rows of a batch: an item each and, where `has_query` is 1, a query that it answers."""

    query: Float[Array, "row dim"]
    item: Float[Array, "row dim"]
    item_index: Int[Array, " row"]
    positives: Int[Array, "row positive"]  # items relevant to the query; -1 fills up
    has_query: Float[Array, " row"]


def with_items(
    rows: QueryItemRows, *, item: Float[Array, "new dim"], item_index: Int[Array, " new"]
) -> QueryItemRows:
    """Returns the rows and, after them, further items that no query asks for: negatives alone."""
    new, width = len(item_index), rows.positives.shape[1]
    more = QueryItemRows(
        query=jnp.zeros((new, rows.query.shape[1]), rows.query.dtype),
        item=item,
        item_index=item_index,
        positives=jnp.full((new, width), -1, rows.positives.dtype),
        has_query=jnp.zeros(new, rows.has_query.dtype),
    )
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), rows, more)


def is_relevant(
    positives: Int[Array, "query positive"], items: Int[Array, " item"]
) -> Bool[Array, "query item"]:
    """Returns which items are known to answer which queries: the false negatives of a batch."""
    return jnp.any(positives[:, :, None] == items[None, None, :], axis=1)


def info_nce(
    anchors: Float[Array, "row dim"],
    candidates: Float[Array, "candidate dim"],
    *,
    own: Int[Array, " row"],
    excluded: Bool[Array, "row candidate"],
    temperature: float,
) -> Float[Array, " row"]:
    """Returns `-log softmax(cos(a, c) / τ)` of every anchor's own candidate.

    Args:
      anchors: vectors `[row, dim]`.
      candidates: vectors `[candidate, dim]`.
      own: which candidate belongs to each anchor.
      excluded: candidates that are no negatives of an anchor; its own is kept all the same.
      temperature: τ.

    Returns:
      One loss a row. Source: van den Oord et al. 2018, arXiv 1807.03748.
    """
    cosine = normalised(anchors) @ normalised(candidates).T  # [row, candidate]
    is_own = jnp.arange(candidates.shape[0]) == own[:, None]
    excluded = jax.lax.optimization_barrier(excluded)  # or every pass finds it out again
    logits = jnp.where(excluded & ~is_own, -jnp.inf, cosine / temperature)
    logits -= jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    # A masked sum, whose gradient is a fused comparison: that of a gather is scattered into an
    # array of zeros as large as all pairs.
    own_logit = jnp.sum(jnp.where(is_own, logits, 0.0), axis=-1)
    return jnp.log(jnp.sum(jnp.exp(logits), axis=-1)) - own_logit


def symmetric_info_nce(
    rows: QueryItemRows, everyone: QueryItemRows, *, own: Int[Array, " row"], temperature: float
) -> Float[Array, " row"]:
    """Returns the mean of query-to-item and item-to-query InfoNCE, 0 for rows without a query.

    Same-query rows and items known to be relevant to a query are masked as negatives of it. An
    item without a query is a fair negative; a query that is not there is none.

    Args:
      rows: the rows of this device.
      everyone: the rows of all devices, which give the negatives.
      own: where each row lies in `everyone`.
      temperature: τ.

    Returns:
      One loss a row. Source: DSIRM (arXiv 2606.04374) and secondary notes on it.
    """
    query_to_item = info_nce(
        rows.query,
        everyone.item,
        own=own,
        excluded=is_relevant(rows.positives, everyone.item_index),
        temperature=temperature,
    )
    item_to_query = info_nce(
        rows.item,
        everyone.query,
        own=own,
        excluded=is_relevant(everyone.positives, rows.item_index).T | (everyone.has_query == 0),
        temperature=temperature,
    )
    return 0.5 * (query_to_item + item_to_query) * rows.has_query


def normalised(vectors: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
    """Returns the vectors at length 1; the floor keeps the gradient of a zero vector finite."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), 1e-12))
