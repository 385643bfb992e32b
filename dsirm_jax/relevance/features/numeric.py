"""Group `numeric`: the user's own numbers about items, columns of `Source.extras`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dsirm_jax.relevance.features.group import PER_NUMBER, Column, Group, PairContext


def numeric(context: PairContext) -> Float[np.ndarray, "pair column"]:
    """Returns the user's own numbers of each pair's item, float64; see `finite_numbers`."""
    columns = [values[context.item_index][:, None] for values in context.numbers.values()]
    return np.concatenate([np.empty((len(context.item_index), 0)), *columns], axis=1)


def finite_numbers(values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Returns a column of numbers in which one that is not known, or not finite, is the mean."""
    known = np.isfinite(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


GROUP = Group(
    name="numeric",
    order=6,
    columns=(Column("", "a number of your own about the item", per=PER_NUMBER),),
    compute=numeric,
)
