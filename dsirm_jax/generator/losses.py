"""Cross-entropy of SIDs, each level over its own codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class WeightedSum(NamedTuple):
    """A mean per level in two parts: those of several batches or devices add up to the exact mean.

    Attributes:
      negative_log_probs: weighted sum over the rows, nats, float32 `[level]`.
      weight: sum of the rows' weights, float32 `[level]`.
    """

    negative_log_probs: Float[Array, " level"]
    weight: Float[Array, " level"]


def level_log_probs(
    logits: Sequence[Float[Array, "*rows code"]], sids: Int[Array, "*rows level"]
) -> Float[Array, "*rows level"]:
    """Returns `log P(c_l | query, c_1 .. c_{l-1})` of every level, float32 `[..., level]`.

    Args:
      logits: per level `[..., sizes[level]]`, teacher-forced.
      sids: int `[..., level]` codes.
    """
    columns = [
        jnp.take_along_axis(jax.nn.log_softmax(level), sids[..., index, None], axis=-1)
        for index, level in enumerate(logits)
    ]
    return jnp.concatenate(columns, axis=-1)


def cross_entropy(
    logits: Sequence[Float[Array, "*rows code"]],
    sids: Int[Array, "*rows level"],
    weights: Float[Array, "*rows level"],
) -> WeightedSum:
    """Returns the weighted negative log-probability of the target SIDs.

    Args:
      logits: per level `[..., sizes[level]]`, teacher-forced.
      sids: int `[..., level]` target codes.
      weights: float `[..., level]`; 0 leaves a target out.

    Returns:
      Sums over all rows. Source: this project (softmax per level).
    """
    rows = tuple(range(weights.ndim - 1))
    return WeightedSum(
        jnp.sum(-level_log_probs(logits, sids) * weights, axis=rows), jnp.sum(weights, axis=rows)
    )


def mean(total: WeightedSum) -> Float[Array, " level"]:
    """Returns the mean negative log-probability per level; 0 where nothing has weight."""
    weight = jnp.where(total.weight > 0, total.weight, 1.0)
    return total.negative_log_probs / weight
