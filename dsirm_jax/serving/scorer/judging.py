"""Features of pairs to probabilities, in one program for all that SIDs add and both heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.relevance import groups as registry
from dsirm_jax.relevance.compute import sid_group_features
from dsirm_jax.relevance.features.group import (
    BEAMS,
    PAIRS,
    Group,
    ItemContext,
    QueryContext,
    SidContext,
)
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import pair_probabilities
from dsirm_jax.serving.bundle.manifest import DENSE_ONLY, FULL, FeatureColumn, Manifest

PROGRAM_PAIRS = (16, 128, 1024)
"""Pairs of a call that programs are compiled for, and whole multiples of the last."""

_Tree = TypeVar("_Tree")


class Judgement(NamedTuple):
    """What the heads make of pairs.

    Attributes:
      full: probability by the full model; NaN where it was not asked.
      dense_only: by the head without SIDs; NaN where there is none.
      features: float32 `[pair, feature]` in the order of `Judge.schema`; NaN where not known.
    """

    full: Float[np.ndarray, " pair"]
    dense_only: Float[np.ndarray, " pair"]
    features: Float[np.ndarray, "pair feature"]


class Judge:
    """The heads of a bundle.

    Attributes:
      schema: the columns that any head reads, in order.
      pair_groups: groups of features that they read, of those that know nothing of SIDs.
      sid_groups: likewise, of those that read SIDs.
      reads_beams: whether a head reads what the generator says of a query.
      has_dense_only: whether there is a head without SIDs.
    """

    def __init__(self, manifest: Manifest, *, heads: Mapping[str, FittedHead]):
        """Prepares the programs, which are compiled when they are first needed.

        Raises:
          InputError: a head reads features that are not computed when serving.
        """
        wanted = {group for names in manifest.settings.groups.values() for group in names}
        groups = registry.served(wanted, head=FULL)
        self.pair_groups = tuple(group for group in groups if group.reads == PAIRS)
        self.sid_groups = tuple(group for group in groups if group.reads != PAIRS)
        # What this package has of `NEIGHBOUR_SIDS`, and nothing else is served, reads no beams.
        self.reads_beams = any(group.reads == BEAMS for group in groups)
        levels, numbers = len(manifest.sizes), manifest.settings.numbers
        self._pair_columns, sid_columns = (
            tuple(
                name for group in kind for name in group.described(levels=levels, numbers=numbers)
            )
            for kind in (self.pair_groups, self.sid_groups)
        )
        names = self._pair_columns + sid_columns
        self._missing = len(sid_columns)
        known = {feature.name: feature for head in manifest.features.values() for feature in head}
        self.schema: tuple[FeatureColumn, ...] = tuple(known.values())
        self._shown = np.array([names.index(name) for name in known], int)
        self._with_sids = jax.jit(_with_sids(heads, names=names, groups=self.sid_groups))
        self.has_dense_only = DENSE_ONLY in heads
        alone = {DENSE_ONLY: heads[DENSE_ONLY]} if self.has_dense_only else {}
        self._without_sids = jax.jit(_chances(alone, names=names))

    def with_sids(
        self, dense: FeatureTable, queries: QueryContext, items: ItemContext
    ) -> Judgement:
        """Judges pairs of one query by both heads."""
        known = dense.select(self._pair_columns).values
        of_sids, chances = self._with_sids(
            _padded(known), _one_list(len(known)), queries, _padded(items)
        )
        values = np.concatenate([known, np.asarray(of_sids)[: len(known)]], axis=1)
        return self._judged(values, chances)

    def without_sids(self, dense: FeatureTable) -> Judgement:
        """Judges pairs by the head without SIDs alone."""
        known = dense.select(self._pair_columns).values
        values = np.pad(known, ((0, 0), (0, self._missing)), constant_values=np.nan)
        return self._judged(values, self._without_sids(_padded(known), _one_list(len(known))))

    def _judged(self, values: np.ndarray, chances: Mapping[str, Array]) -> Judgement:
        unknown = np.full(len(values), np.nan, np.float32)
        full, dense_only = (
            np.asarray(chances[name])[: len(values)] if name in chances else unknown
            for name in (FULL, DENSE_ONLY)
        )
        return Judgement(full=full, dense_only=dense_only, features=values[:, self._shown])


def _chances(
    heads: Mapping[str, FittedHead], *, names: Sequence[str]
) -> Callable[
    [Float[Array, "pair feature"], Int[Array, " pair"]], dict[str, Float[Array, " pair"]]
]:
    """Returns a function of the features of these names, and of the list of each pair.

    Parameters are constants of its program.

    Features after the last one that a head reads may be left out.
    """
    columns = {
        name: np.array([names.index(column) for column in head.features], int)
        for name, head in heads.items()
    }

    def chances(
        values: Float[Array, "pair feature"], lists: Int[Array, " pair"]
    ) -> dict[str, Float[Array, " pair"]]:
        return {
            name: pair_probabilities(head, values[:, columns[name]], lists)
            for name, head in heads.items()
        }

    return chances


def _with_sids(
    heads: Mapping[str, FittedHead], *, names: Sequence[str], groups: tuple[Group, ...]
) -> Callable[
    [Float[Array, "pair dense"], Int[Array, " pair"], QueryContext, ItemContext],
    tuple[Float[Array, "pair of_sids"], dict[str, Float[Array, " pair"]]],
]:
    """Returns a function of what is known of pairs, which computes what SIDs add to it first."""
    chances = _chances(heads, names=names)

    def judge(
        dense: Float[Array, "pair dense"],
        lists: Int[Array, " pair"],
        queries: QueryContext,
        items: ItemContext,
    ) -> tuple[Float[Array, "pair of_sids"], dict[str, Float[Array, " pair"]]]:
        of_sids = jnp.empty((len(dense), 0), dense.dtype)
        if groups:
            context = SidContext(queries, jax.tree.map(lambda part: part[None], items))
            [of_sids] = sid_group_features(context, groups=groups)
        return of_sids, chances(jnp.concatenate([dense, of_sids], axis=1), lists)

    return judge


def _one_list(pairs: int) -> Int[np.ndarray, " row"]:
    """Returns list 0 for the pairs of a call, and list 1 for the rows that `_padded` adds."""
    return (np.arange(_program_rows(pairs)) >= pairs).astype(np.int32)


def _program_rows(pairs: int) -> int:
    """Returns the number of rows of the program for a number of pairs."""
    whole = -(-pairs // PROGRAM_PAIRS[-1]) * PROGRAM_PAIRS[-1]
    return next((rows for rows in PROGRAM_PAIRS if pairs <= rows), whole)


def _padded(tree: _Tree) -> _Tree:
    """Returns arrays with rows of zeros at the end, up to a number that has a program."""

    def padded(array: np.ndarray) -> np.ndarray:
        out = np.zeros((_program_rows(len(array)), *array.shape[1:]), array.dtype)
        out[: len(array)] = array
        return out

    return jax.tree.map(padded, tree)
