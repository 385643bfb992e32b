"""Which of two items of a query that differ in one attribute is ranked first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

HAS, HAS_ANOTHER, UNKNOWN = 1, 0, -1
"""What an item has of an attribute that a query asks for: it, another value, nobody knows."""


class Preferences(NamedTuple):
    """Pairs of judged items of one query, the right one of which the query asks for.

    Attributes:
      right: row of the right item.
      wrong: row of the other one.
      attribute: number of the attribute that they differ in.
    """

    right: Int[np.ndarray, " preference"]
    wrong: Int[np.ndarray, " preference"]
    attribute: Int[np.ndarray, " preference"]


def preferences_of_query(
    states: Int[np.ndarray, "item attribute"],
    *,
    gains: Real[np.ndarray, " item"],
    types: Int[np.ndarray, " item"],
) -> Preferences:
    """Returns the pairs of a query's judged items that differ in one attribute it asks for.

    Of a pair both items are of one product type and in the same state in all attributes but one,
    which the right item has and the wrong one has another value of; and the right one has the
    higher gain. What the query does not ask for may differ.

    Args:
      states: `HAS`, `HAS_ANOTHER` or `UNKNOWN` of each attribute that the query asks for.
      gains: of the judgements.
      types: a number of each item's product type.

    Returns:
      Rows in the order of `states`. Source: this project.

    Example:
      >>> states = np.array([[1, 1], [1, 0], [0, 0]])  # red, small; red, large; blue, large
      >>> pairs = preferences_of_query(states, gains=np.array([1, 0.1, 0]), types=np.zeros(3, int))
      >>> pairs.right.tolist(), pairs.wrong.tolist(), pairs.attribute.tolist()
      ([0, 1], [1, 2], [1, 0])
    """
    differ = states[:, None] != states  # [item, item, attribute]
    kept = (differ.sum(axis=-1) == 1) & (types[:, None] == types) & (gains[:, None] > gains)
    right, wrong = np.nonzero(kept)
    attribute = differ[right, wrong].argmax(axis=1) if len(right) else right
    told = states[right, attribute] == HAS
    told &= states[wrong, attribute] == HAS_ANOTHER
    return Preferences(right[told], wrong[told], attribute[told])


def share_right_first(
    scores: Real[np.ndarray, " row"],
    preferences: Preferences,
    *,
    query: Int[np.ndarray, " preference"],
    queries: int,
) -> Float[np.ndarray, " query"]:
    """Returns of each query in how many of its pairs the right item scores higher, ties half.

    Args:
      scores: of the judged items.
      preferences: pairs of their rows.
      query: number of each pair's query.
      queries: how many there are.

    Returns:
      `[query]`, NaN of a query without pairs.
    """
    right, wrong = scores[preferences.right], scores[preferences.wrong]
    won = (right > wrong) + 0.5 * (right == wrong)
    counts = np.bincount(query, minlength=queries)
    sums = np.bincount(query, weights=won, minlength=queries)
    return np.divide(sums, counts, out=np.full(queries, np.nan), where=counts > 0)
