"""The relevance head: a small network over the features of a (query, item) pair."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float

MOST_DEVIATIONS = 5.0  # A feature far outside what training saw must not run away with the score.


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The shape of the head.

    Attributes:
      hidden: units of each hidden layer.
    """

    hidden: tuple[int, ...] = (64, 32)


class HeadParams(struct.PyTreeNode):
    """All that a score depends on besides the features.

    Attributes:
      network: parameters of `Head`.
      mean: float32 `[feature]`, of the training pairs.
      scale: float32 `[feature]`, their standard deviation; 1 for a constant feature.
      temperature: float32 scalar that logits are divided by.
    """

    network: Any
    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]
    temperature: Float[Array, ""]


class Head(nn.Module):
    """Multi-layer perceptron from standardised features to one logit."""

    config: HeadConfig

    @nn.compact
    def __call__(self, x: Float[Array, "pair feature"]) -> Float[Array, " pair"]:
        for units in self.config.hidden:
            x = nn.gelu(nn.Dense(units)(x))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(x)[:, 0]


def logits(
    config: HeadConfig, params: HeadParams, features: Float[Array, "pair feature"]
) -> Float[Array, " pair"]:
    """Returns the calibrated logit of being relevant.

    Args:
      config: shape of the head.
      params: see `HeadParams`.
      features: as they come, not standardised.
    """
    standardised = (features - params.mean) / params.scale
    clipped = jnp.clip(standardised, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return Head(config).apply({"params": params.network}, clipped) / params.temperature
