"""What a group of features is, and what it may look at.

Add a group to this package by a module of this folder that has a `GROUP`, or a `CONTROL` where only
controls of the ladder are to have it; one of your own, in a module of your own, by
`features.run.extra_groups` (or `match.run.extra_groups`) in gin. Nothing
else lists groups or columns.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Integer

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.digests import ItemDigests, QueryDigests
from dsirm_jax.relevance.neighbours import Surroundings
from dsirm_jax.relevance.pieces import PieceStatistics
from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.prefix_match import Beams

PAIRS, BEAMS, NEIGHBOUR_SIDS = READS = ("pairs", "beams", "neighbour_sids")
"""What a group reads: no SIDs, the generator's SIDs of the query, or also those of what is near."""
ONCE, PER_LEVEL, PER_NUMBER = PER = ("once", "level", "number")
"""A column stands once, once a level of the SIDs, or once for each of the user's own numbers."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column, or one for each level (`NAME_1`, `NAME_2`, ...) or number of the user's own.

    Attributes:
      name: of the column; of one a number, what precedes the number's own name.
      about: what it is, in one line.
      per: one of `PER`.
    """

    name: str
    about: str
    per: str = ONCE

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise InputError(f"gin binding Column.per is {self.per!r}; bind one of {PER}")

    def expanded(self, *, levels: int, numbers: Sequence[str]) -> dict[str, str]:
        """Returns what each column is, by its name.

        Args:
          levels: of a SID.
          numbers: the user's own columns of numbers.
        """
        if self.per == PER_NUMBER:
            return {f"{self.name}{number}": self.about for number in numbers}
        if self.per == PER_LEVEL:
            return {
                f"{self.name}_{level}": f"{self.about}, l = {level}"
                for level in range(1, levels + 1)
            }
        return {self.name: self.about}


class PairTexts(NamedTuple):
    """Digested texts of some pairs.

    Attributes:
      queries: those of the pairs, in the order of their numbers, each once.
      items: those of the pairs and perhaps others, in memory or memory-mapped.
      statistics: of all items.
    """

    queries: QueryDigests
    items: ItemDigests
    statistics: PieceStatistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairContext:
    """What a group that reads no SIDs may look at: pairs of a query and an item, in NumPy.

    Attributes:
      query_index: row of `query_vectors` of each pair.
      item_index: row of `item_vectors`, and of each of `numbers`, of each pair.
      item_row: row of `texts.items` of each pair.
      query_vectors: dense vector of every query, float32.
      item_vectors: dense vector of every item, float32 of length 1, in memory or memory-mapped.
      surroundings: what lies near the pairs' queries, one row a query in the order of their
        numbers.
      texts: of the pairs' queries and items.
      numbers: the user's own of every item, float64, by the name of their column, all finite.
    """

    query_index: Int[np.ndarray, " pair"]
    item_index: Int[np.ndarray, " pair"]
    item_row: Int[np.ndarray, " pair"]
    query_vectors: Float[np.ndarray, "query dim"]
    item_vectors: Float[np.ndarray, "item dim"]
    surroundings: Surroundings
    texts: PairTexts
    numbers: Mapping[str, Float[np.ndarray, " item"]]

    @functools.cached_property
    def query_row(self) -> Int[np.ndarray, " pair"]:
        """Row of `surroundings` and of `texts.queries` of each pair."""
        return np.unique(self.query_index, return_inverse=True)[1]


class QueryContext(NamedTuple):
    """What a group that reads SIDs may look at of some queries, one row a query.

    What only a group of `NEIGHBOUR_SIDS` reads is None where there is no such group.

    Attributes:
      beams: the generator's SIDs.
      near_sids: SIDs of the nearest items.
      near_weights: weights of these.
      vote_sids: SIDs of the items judged for the nearest training queries.
      vote_weights: see `prefix_match.vote_weights`.
    """

    beams: Beams
    near_sids: Integer[AnyArray, "query near level"] | None = None
    near_weights: Float[AnyArray, "query near"] | None = None
    vote_sids: Integer[AnyArray, "query vote level"] | None = None
    vote_weights: Float[AnyArray, "query vote 4"] | None = None


class ItemContext(NamedTuple):
    """What it may look at of the items that each query is paired with.

    Attributes:
      sids: the item's SID.
      log_probs: exact log P(first l codes of the item | query).
      log_shares: log share of the catalogue's items that have these first l codes.
    """

    sids: Int[AnyArray, "query item level"]
    log_probs: Float[AnyArray, "query item level"]
    log_shares: Float[AnyArray, "query item level"]


class SidContext(NamedTuple):
    """What a group that reads SIDs may look at, in JAX: it is compiled, also for TensorFlow."""

    queries: QueryContext
    items: ItemContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Some features that belong together; a rung of the ablation ladder has all of them or none.

    Attributes:
      name: what rungs call it.
      columns: in the order in which `compute` returns them.
      compute: of a group that reads `PAIRS`, `PairContext` -> `[pair, column]` in NumPy; of
        another, `SidContext` -> float32 `[query, item, column]` in JAX. A function, a
        `functools.partial` of one, or a frozen dataclass that can be called: a stage runs again
        when what these hold changes, which of a closure could not be seen.
      reads: one of `READS`: stage `features` computes those of `PAIRS`, `match` the others. What
        reads `BEAMS` follows from the query's text and the item's SID alone: it has variants
        `NAME@5` and `NAME@own`, and TensorFlow computes it.
      order: groups stand in tables by this, then by name.
    """

    name: str
    columns: tuple[Column, ...]
    compute: Callable[..., Float[np.ndarray, "pair column"] | Float[Array, "query item column"]]
    reads: str = PAIRS
    order: int = 100

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise InputError(
                f"gin binding Group.name is {self.name!r}; bind letters, digits and underscores"
            )
        if self.reads not in READS:
            raise InputError(f"gin binding Group.reads is {self.reads!r}; bind one of {READS}")
        if not isinstance(self.order, int):
            raise InputError(f"gin binding Group.order is {self.order!r}; bind a whole number")
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"gin binding Group.columns of group {self.name!r} is {names}; bind at least one "
                f"column, and each once"
            )
        if not callable(self.compute) or _is_closure(self.compute):
            raise InputError(
                f"gin binding Group.compute of group {self.name!r} is no function of a module; "
                f"bind one, or a functools.partial of one"
            )

    def described(self, *, levels: int = 0, numbers: Sequence[str] = ()) -> dict[str, str]:
        """Returns what each column is, by its name and in order; see `Column.expanded`."""
        return {
            name: about
            for column in self.columns
            for name, about in column.expanded(levels=levels, numbers=numbers).items()
        }


def _is_closure(compute: Callable[..., Any]) -> bool:
    """Returns whether a function holds values, and is not one that its module has by its name."""
    if not getattr(compute, "__closure__", None):
        return False
    named = getattr(sys.modules.get(compute.__module__), compute.__qualname__, None)
    return named is not compute  # a decorated function of a module holds what it decorates
