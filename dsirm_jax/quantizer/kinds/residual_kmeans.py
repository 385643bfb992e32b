"""Residual k-means of the dense vectors themselves: no autoencoder, no queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from dsirm_jax.devices.precision import multiplying
from dsirm_jax.quantizer.batchwise import BatchwiseKind, Learner, QuantizerState
from dsirm_jax.quantizer.codebooks import moved, picking
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.model import Identity, residual_quantize
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.training.meshes import DATA_AXIS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualKmeans(BatchwiseKind):
    """k-means, then k-means of what it leaves, and so on; in balanced mini-batches."""

    def module(self, *, dim: int) -> Identity:
        """See `Kind.module`."""
        del dim
        return Identity()

    def epoch(self, items: TrainingItems) -> Int[np.ndarray, "row 2"]:
        """Returns every item alone."""
        return items.alone()

    def learner(self, *, dim: int) -> Learner:
        """Returns what is learnt from batches of vectors of this width."""
        return Learner(module=self.module(dim=dim), make_step=make_step)


def make_step(
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    learning: Learning,
    pinned: bool,
) -> Callable[[QuantizerState, Any], tuple[QuantizerState, dict[str, jax.Array]]]:
    """Returns the pmapped step of residual k-means over mini-batches.

    All levels move at once, each on the residuals that the levels above leave. Statistics are
    summed over devices: the result is that of one device with the same global batch. Without
    `Upkeep.balance` codes that start on far rows keep those alone, and most rows share a few codes.

    Args:
      module: has no parameters, and is not called.
      optimizer: has nothing to do.
      learning: upkeep of the codebooks, seed of the restarts, and devices.
      pinned: the batch has `pinned` first codes.

    Returns:
      `(state, batch) -> (state, metrics)`; the loss is the mean squared distance to the last
      prefix vector. Source: mini-batch k-means (Sculley 2010) with forgetting, on residuals as in
      RQ-KMeans (GRID, arXiv 2507.22224).
    """
    del module, optimizer
    upkeep = learning.upkeep
    pick = picking(upkeep, axis=DATA_AXIS)

    @multiplying(learning.training.matmul_precision)
    def step(
        state: QuantizerState, batch: Mapping[str, Array]
    ) -> tuple[QuantizerState, dict[str, Array]]:
        quantized = residual_quantize(
            batch["item"], state.codebooks, pinned=batch.get("pinned"), pick=pick
        )
        key = jax.random.fold_in(jax.random.key(learning.seed), state.step)
        codebooks, health = moved(
            state.codebooks, quantized, upkeep=upkeep, pinned=pinned, key=key, axis=DATA_AXIS
        )
        error = jnp.sum((batch["item"] - quantized.prefixes[:, -1]) ** 2, axis=-1)
        loss = jax.lax.pmean(jnp.mean(error), DATA_AXIS)
        new = state.replace(step=state.step + 1, codebooks=codebooks)
        finite = jnp.isfinite(loss)
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return kept, {"loss": loss} | health

    return jax.pmap(step, axis_name=DATA_AXIS, devices=list(learning.devices), donate_argnums=0)
