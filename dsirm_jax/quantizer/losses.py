"""The quantizer's objective: `|z - dec(ẑ)|² + β·commitment + γ·InfoNCE(query, item)`.

Source: DSIRM (Wang et al. 2026, arXiv 2606.04374); weights and temperature from secondary notes on
it and on CQ-SID (arXiv 2605.14434). Every function returns one value a row, so that a mean over
rows is the same however the rows are split over devices.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.encoder.losses import QueryItemRows, symmetric_info_nce


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerObjective:
    """Weights of the terms.

    Attributes:
      commitment: β, pull of the encoder towards the codewords (secondary note: 1).
      contrastive: γ, weight of the query-item term (secondary note: 0.001); 0 leaves an
        unsupervised RQ-VAE.
      temperature: τ of the contrastive term (secondary note: 0.1).
    """

    commitment: float
    contrastive: float
    temperature: float


def reconstruction_loss(
    vectors: Float[Array, "row dim"], decoded: Float[Array, "row dim"]
) -> Float[Array, " row"]:
    """Returns `|z - dec(ẑ)|²` of every row."""
    return jnp.sum((vectors - decoded) ** 2, axis=-1)


def commitment_loss(
    residuals: Float[Array, "row level dim"], prefixes: Float[Array, "row level dim"]
) -> Float[Array, " row"]:
    """Returns `Σ_l |r_{l-1} - sg(e_{l,c_l})|²` of every row.

    Args:
      residuals: what each level was given, `r_0 .. r_{L-1}`.
      prefixes: sums of the codewords down to each level; `r_{l-1} - e_l = r_0 - prefix_l`.
    """
    latents = residuals[:, :1]  # [row, 1, dim]
    return jnp.sum((latents - jax.lax.stop_gradient(prefixes)) ** 2, axis=(1, 2))


def contrastive_loss(
    rows: QueryItemRows, everyone: QueryItemRows, *, own: Int[Array, " row"], temperature: float
) -> Float[Array, " row"]:
    """Returns symmetric InfoNCE of every row on the **quantized** query and item vectors.

    `½ (-log softmax_i cos(q̂, î)/τ - log softmax_q cos(î, q̂)/τ)`, over the rows of all devices;
    rows without a query give 0.

    Args:
      rows: quantized vectors of this device, straight through.
      everyone: those of all devices.
      own: where each row lies in `everyone`.
      temperature: τ.
    """
    return symmetric_info_nce(rows, everyone, own=own, temperature=temperature)
