"""The largest of many values, exactly as `jax.lax.top_k` has them, fast on every device.

XLA picks the largest values of a row in one pass on a CPU and on a TPU. On a GPU it sorts the whole
row for more than sixteen of them, which is then most of what a step of beam search does: here as
little is sorted as will do, in pieces that fit into the shared memory of a block.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SORTED_AT_ONCE = 1024
"""Values of a row that a GPU sorts faster than it looks for those that need no sorting."""

Largest = tuple[Float[Array, "row k"], Int[Array, "row k"]]


def top_k(values: Float[Array, "row part value"], k: int) -> Largest:
    """Returns the largest values of each row, descending, and their places.

    Args:
      values: of the parts of each row, such as the continuations of each hypothesis.
      k: how many, at most those of a row.

    Returns:
      The values, and their int32 places in the row, its parts one after the other; of equal values
      the first come first.
    """
    return jax.lax.platform_dependent(
        values,
        cuda=lambda values: top_k_by_sorting(values, k),
        default=lambda values: _at_once(values, k),
    )


def top_k_by_sorting(values: Float[Array, "row part value"], k: int) -> Largest:
    """Returns what `top_k` does, for devices that sort what they select from."""
    _, parts, size = values.shape
    if parts * size <= max(SORTED_AT_ONCE, 2 * k):
        return _at_once(values, k)
    if parts * min(k, size) <= SORTED_AT_ONCE:
        return _of_parts(values, k)
    return _of_groups(values, k)


def _at_once(values: Float[Array, "row part value"], k: int) -> Largest:
    best, place = jax.lax.top_k(values.reshape(values.shape[0], -1), k)
    return best, place


def _of_parts(values: Float[Array, "row part value"], k: int) -> Largest:
    """Looks for the largest values among those of each part."""
    rows, parts, size = values.shape
    best, within = jax.lax.top_k(values, min(k, size))
    places = within + size * jnp.arange(parts, dtype=within.dtype)[:, None]
    # A part's equal values are in the order of their places, and so are the parts.
    best, rank = jax.lax.top_k(best.reshape(rows, -1), k)
    return best, jnp.take_along_axis(places.reshape(rows, -1), rank, axis=1)


def _of_groups(values: Float[Array, "row part value"], k: int) -> Largest:
    """Looks for the largest values in the `k` groups with the largest maxima.

    They are all there: `k` maxima come before a value of any other group. Of `n` values some
    2·√(n·k) are sorted so.
    """
    rows = values.shape[0]
    flat = values.reshape(rows, -1)
    number = flat.shape[1]
    size = math.isqrt(number // k)  # about as many groups as values in those that are chosen
    filled = jnp.pad(flat, ((0, 0), (0, -number % size)), constant_values=-jnp.inf)
    groups = filled.reshape(rows, -1, size)
    _, chosen = jax.lax.top_k(jnp.max(groups, axis=-1), k)
    chosen = jnp.sort(chosen, axis=-1)  # so that equal values are in the order of their places
    best, within = jax.lax.top_k(
        jnp.take_along_axis(groups, chosen[..., None], axis=1).reshape(rows, -1), k
    )
    return best, jnp.take_along_axis(chosen, within // size, axis=1) * size + within % size
