"""k-means as a quantizer: no autoencoder, no queries; residual, or hierarchical by prefix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.quantizer.codebooks import Upkeep, initial_codebooks, kmeans, moved, picking
from dsirm_jax.quantizer.model import Branches, Codebooks, lowest, residual_quantize
from dsirm_jax.training.meshes import DATA_AXIS


def make_step(
    *, upkeep: Upkeep, pinned: bool, seed: int, devices: Sequence[jax.Device]
) -> Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]:
    """Returns the pmapped step of residual k-means over mini-batches.

    All levels move at once, each on the residuals that the levels above leave. Statistics are
    summed over devices: the result is that of one device with the same global batch. Without
    `Upkeep.balance` codes that start on far rows keep those alone, and most rows share a few codes.

    Args:
      upkeep: how the codebooks follow the batches.
      pinned: the batch has `pinned` first codes.
      seed: of the restarts.
      devices: the devices to run on, of every process.

    Returns:
      `(state, batch) -> (state, metrics)`; the loss is the mean squared distance to the last
      prefix vector. Source: mini-batch k-means (Sculley 2010) with forgetting, on residuals as in
      RQ-KMeans (GRID, arXiv 2507.22224).
    """

    pick = picking(upkeep, axis=DATA_AXIS)

    def step(state, batch):
        quantized = residual_quantize(
            batch["item"], state.codebooks, pinned=batch.get("pinned"), pick=pick
        )
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        codebooks, health = moved(
            state.codebooks, quantized, upkeep=upkeep, pinned=pinned, key=key, axis=DATA_AXIS
        )
        error = jnp.sum((batch["item"] - quantized.prefixes[:, -1]) ** 2, axis=-1)
        loss = jax.lax.pmean(jnp.mean(error), DATA_AXIS)
        new = state.replace(step=state.step + 1, codebooks=codebooks)
        finite = jnp.isfinite(loss)
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return kept, {"loss": loss} | health

    return jax.pmap(step, axis_name=DATA_AXIS, devices=devices, donate_argnums=0)


def hierarchical_codebooks(
    rows: Float[np.ndarray, "row dim"],
    *,
    sizes: tuple[int, ...],
    pinned: Int[np.ndarray, " row"] | None,
    key: jax.Array,
    iterations: int,
) -> Codebooks:
    """Returns the clusters of `rows`, the clusters of each cluster, and so on.

    A node with no more distinct rows than codes has a child for each of them.

    Args:
      rows: float32 `[row, dim]`.
      sizes: codes per level: the most children that a node has.
      pinned: see `residual_quantize`.
      key: random key.
      iterations: Lloyd iterations a node.

    Returns:
      A `Codebook`, then a `Branches` for every further level. Source: the hierarchical clustering
      of DSI (Tay et al. 2022, arXiv 2202.06991), cut at a fixed number of levels.
    """
    first_pinned = None if pinned is None else jnp.asarray(pinned)
    codebooks: Codebooks = initial_codebooks(
        rows, sizes=sizes[:1], pinned=first_pinned, key=key, iterations=iterations
    )
    quantized = residual_quantize(jnp.asarray(rows), codebooks, pinned=first_pinned)
    node, nodes = np.asarray(quantized.codes[:, 0]), sizes[0]
    residual = rows - np.asarray(quantized.prefixes[:, 0])
    for level, size in enumerate(sizes[1:], start=1):
        order = np.argsort(node, kind="stable")
        bounds = np.searchsorted(node[order], np.arange(nodes + 1))
        children = [
            _children(
                residual[order[start:stop]],
                size=size,
                iterations=iterations,
                key=key,
                place=(level, number),
            )
            for number, (start, stop) in enumerate(itertools.pairwise(bounds))
        ]
        branches = Branches(
            codewords=jnp.asarray(np.concatenate(children)),
            first=jnp.asarray(np.cumsum([0, *map(len, children)]), jnp.int32),
            size=size,
        )
        node = np.asarray(_nearest_child(branches, residual, node))
        nodes = len(branches.codewords)
        residual = residual - np.asarray(branches.codewords)[node]
        codebooks = (*codebooks, branches)
    return codebooks


def _children(
    members: Float[np.ndarray, "row dim"],
    *,
    size: int,
    iterations: int,
    key: jax.Array,
    place: tuple[int, int],
) -> Float[np.ndarray, "child dim"]:
    if not len(members):
        # A pinned category without a row: its one child is its own codeword.
        return np.zeros((1, members.shape[1]), np.float32)
    distinct = np.unique(members, axis=0)
    if len(distinct) <= size:
        return distinct
    for number in place:
        key = jax.random.fold_in(key, number)
    length = 1 << (len(members) - 1).bit_length()
    padded = np.pad(members, ((0, length - len(members)), (0, 0)))
    return np.asarray(kmeans(padded, key=key, size=size, iterations=iterations, used=len(members)))


@jax.jit
def _nearest_child(branches, residual, node):
    return branches.children(node, lowest(branches.costs(residual, node)))
