"""What the relevance head minimises."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float


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
    total = jnp.sum(weights)
    return jnp.sum(weights * losses) / jnp.where(total > 0, total, 1.0)
