"""Features of a pair beside those of the other pairs of its list: less their mean, and as ranks."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.variants import tagged_name

CENTRED, RANK = "centred", "rank"
ALIKE, ALIKE_OF_LARGEST = 2.0**-17, 2.0**-24
"""Values this near, in shares of their size and of the largest in the list, are one: what is
computed in two ways differs in its last digits, and rounding errors have no ranks."""


def list_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns what the columns of `list_columns` are called, e.g. `cosine@rank`."""
    return tuple(tagged_name(name, tag) for tag in (CENTRED, RANK) for name in names)


def named_by(patterns: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names that are, or match, one of some patterns such as `prefix_*`, in order."""
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns))


def list_columns(
    values: Float[Array, "pair feature"], lists: Int[Array, " pair"]
) -> Float[Array, "pair column"]:
    """Returns each value less the mean of its list, then its rank in it, from 0 to 1.

    A rank is the share of the list that is below, and half the share that is alike; can be traced
    by `jax.jit`. The only pair of a list has 0 and one half.

    Args:
      values: finite; pairs in any order.
      lists: that of each pair, any number from 0 to below the number of pairs.

    Returns:
      Twice as many columns. Source: this project; ranks of candidates as in Cao et al. 2007's
      listwise setting.
    """
    pairs = lists.shape[0]  # `len` would want a number
    sums = functools.partial(jax.ops.segment_sum, segment_ids=lists, num_segments=pairs)
    greatest = functools.partial(jax.ops.segment_max, segment_ids=lists, num_segments=pairs)
    sizes = sums(jnp.ones_like(lists))[lists][:, None]
    # Less the greatest first: values that are all the same are then 0 to the last digit.
    shifted = values - greatest(values)[lists]
    centred = shifted - sums(shifted)[lists] / sizes

    size = jnp.abs(values)
    largest = greatest(size)[lists]
    alike = ALIKE * size + ALIKE_OF_LARGEST * largest
    of_values = jnp.broadcast_to(lists[:, None], values.shape)
    by_list, rising = jax.lax.sort((of_values, values), dimension=0, num_keys=2)
    place = jnp.arange(pairs, dtype=lists.dtype)
    starts = jax.ops.segment_min(place, by_list[:, 0], num_segments=pairs)
    start = jnp.broadcast_to(starts[lists][:, None], values.shape)
    below = _places(rising, values - alike, start, start + sizes, after_equal=False)
    not_above = _places(rising, values + alike, start, start + sizes, after_equal=True)
    ranks = (below + not_above - 2 * start) / (2 * sizes)
    return jnp.concatenate([centred, ranks.astype(values.dtype)], axis=1)


def _places(
    rising: Float[Array, "pair feature"],
    bounds: Float[Array, "pair feature"],
    low: Int[Array, "pair feature"],
    high: Int[Array, "pair feature"],
    *,
    after_equal: bool,
) -> Int[Array, "pair feature"]:
    """Returns the first place of each column's rising values, from `low` to `high`, at the bound.

    By bisection: it takes as many steps as the logarithm of the longest list, and no number of
    pairs has to be known when it is traced.
    """

    def halve(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2
        found = jnp.take_along_axis(rising, middle, axis=0, mode="clip")
        is_before = (found <= bounds if after_equal else found < bounds) & (low < high)
        return jnp.where(is_before, middle + 1, low), jnp.where(is_before, high, middle)

    def is_open(ends: tuple[Array, Array]) -> Array:
        return jnp.any(ends[0] < ends[1])

    return jax.lax.while_loop(is_open, halve, (low, high))[0]


def with_list_columns(
    table: FeatureTable, lists: Int[np.ndarray, " pair"], *, names: Sequence[str]
) -> FeatureTable:
    """Returns a table with `list_columns` of some of its columns behind the others.

    Args:
      table: of whole lists.
      lists: any number that the pairs of a list share.
      names: of columns of the table.
    """
    if not names:
        return table
    numbers = np.unique(lists, return_inverse=True)[1].astype(np.int32)
    chosen = table.select(names)
    rows = len(numbers)
    beyond = (1 << max(rows - 1, 1).bit_length()) - rows  # one program for many numbers of pairs
    numbers = np.pad(numbers, (0, beyond), constant_values=numbers.max(initial=-1) + 1)
    # Column by column: ten arrays of the table's size would be more than some devices hold.
    columns = [
        np.asarray(_list_columns(np.pad(column, (0, beyond))[:, None], numbers))[:rows]
        for column in chosen.values.T
    ]
    centred_then_ranks = np.stack(columns, axis=-1).reshape(rows, -1)
    return dataclasses.replace(
        table,
        names=table.names + list_names(names),
        groups=table.groups + 2 * chosen.groups,
        values=np.concatenate([table.values, centred_then_ranks], axis=1),
    )


_list_columns = jax.jit(list_columns)
