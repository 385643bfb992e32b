"""What the relevance heads minimise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def binary_loss(
    logits: Float[Array, " pair"], labels: Bool[Array, " pair"], weights: Float[Array, " pair"]
) -> Float[Array, ""]:
    """Returns Σ w · −log P(label) / Σ w in nats; 0 when no pair has weight.

    Args:
      logits: log-odds of being relevant.
      labels: whether the pair is relevant.
      weights: importance of each pair, non-negative.
    """
    losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
    return _mean(losses, weights)


def graded_loss(
    logits: Float[Array, "pair grade"], grades: Int[Array, " pair"], weights: Float[Array, " pair"]
) -> Float[Array, ""]:
    """Returns Σ w · −log P(grade) / Σ w in nats; 0 when no pair has weight.

    Args:
      logits: log-probability of each grade but for a constant.
      grades: that of each pair, from 0.
      weights: importance of each pair, non-negative.
    """
    return _mean(optax.softmax_cross_entropy_with_integer_labels(logits, grades), weights)


def listwise_loss(
    logits: Float[Array, " pair"],
    gains: Float[Array, " pair"],
    weights: Float[Array, " pair"],
    queries: Int[Array, " pair"],
) -> Float[Array, ""]:
    """Returns the cross-entropy in nats from gain to softmax among the pairs of each query.

    A pair's target is its share of w · gain in its query. The mean is over the queries with a gain;
    0 when there is none. Pairs without weight are in no list.

    Args:
      logits: log-odds of being relevant.
      gains: non-negative.
      weights: importance of each pair, non-negative.
      queries: that of each pair, any number from 0 to below the number of pairs.

    Source: Cao et al. 2007, ListNet.
    """

    def sums(values: Array) -> Array:
        return jax.ops.segment_sum(values, queries, num_segments=len(queries))

    counts = weights > 0
    listed = jnp.where(counts, logits, -jnp.inf)
    highest = jax.ops.segment_max(listed, queries, num_segments=len(queries))[queries]
    shifted = jnp.where(counts, logits - jax.lax.stop_gradient(highest), 0.0)
    total = sums(jnp.where(counts, jnp.exp(shifted), 0.0))
    log_shares = jnp.where(counts, shifted - jnp.log(jnp.maximum(total, 1e-30))[queries], 0.0)
    worth = sums(weights * gains)
    targets = weights * gains / jnp.where(worth > 0, worth, 1.0)[queries]
    return -jnp.sum(targets * log_shares) / jnp.maximum(jnp.sum(worth > 0), 1)


def pairwise_loss(
    logits: Float[Array, " pair"],
    gains: Float[Array, " pair"],
    weights: Float[Array, " pair"],
    queries: Int[Array, " pair"],
) -> Float[Array, ""]:
    """Returns −log P(the better one is first) in nats, among the pairs of each query.

    Of two pairs of a query whose gains differ the better is first with probability σ(difference of
    logits), and the product of their weights is what they count. The mean is over these within a
    query, then over the queries that have some; 0 when there is none. Takes memory of the number
    of pairs squared.

    Args:
      logits: log-odds of being relevant, or any score that rises with them.
      gains: non-negative.
      weights: importance of each pair, non-negative.
      queries: as in `listwise_loss`.

    Source: Burges et al. 2005, RankNet.
    """
    counts = (queries[:, None] == queries) & (gains[:, None] > gains)
    shares = jnp.where(counts, weights[:, None] * weights, 0.0)
    losses = jax.nn.softplus(-(logits[:, None] - logits))

    def sums(values: Array) -> Array:
        return jax.ops.segment_sum(values.sum(axis=1), queries, num_segments=len(queries))

    total = sums(shares)
    means = sums(shares * losses) / jnp.where(total > 0, total, 1.0)
    return jnp.sum(means) / jnp.maximum(jnp.sum(total > 0), 1)


def _mean(losses: Float[Array, " pair"], weights: Float[Array, " pair"]) -> Float[Array, ""]:
    total = jnp.sum(weights)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
