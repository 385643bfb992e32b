"""Features to the probability that an item is relevant to a query."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float

from dsirm_jax.relevance.model import HeadConfig, HeadParams, logits

PAIRS_AT_ONCE = 1 << 16


@jax.jit(static_argnums=0)
def _probabilities(head: HeadConfig, params: HeadParams, features: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logits(head, params, features))


def score(
    params: HeadParams, features: Float[np.ndarray, "pair feature"], *, head: HeadConfig
) -> Float[np.ndarray, " pair"]:
    """Returns the calibrated probability of being relevant, float32 `[pair]`.

    Args:
      params: as `train.train` returned them.
      features: the columns that the head was trained on, in that order.
      head: shape of the network.
    """
    blocks = [
        np.asarray(_probabilities(head, params, features[start : start + PAIRS_AT_ONCE]))
        for start in range(0, len(features), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0, np.float32), *blocks])
