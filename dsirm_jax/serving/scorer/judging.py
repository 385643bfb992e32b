"""Features of pairs to probabilities, in one program for all that SIDs add and both heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import features
from dsirm_jax.relevance.features import OfPairs, OfQueries
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS, NUMERIC, FeatureTable
from dsirm_jax.relevance.score import pair_probabilities
from dsirm_jax.serving.bundle.manifest import DENSE_ONLY, FULL, FeatureColumn, Manifest
from dsirm_jax.sids import prefix_match

PAIRS = (16, 128, 1024)
"""Pairs of a call that programs are compiled for; a call has at most the last."""

Tree = TypeVar("Tree")


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
      dense_groups: groups of features without SIDs that they read.
      sid_groups: groups that SIDs give.
      has_dense_only: whether there is a head without SIDs.
    """

    def __init__(self, manifest: Manifest, *, heads: Mapping[str, FittedHead]):
        """Prepares the programs, which are compiled when they are first needed.

        Raises:
          InputError: a head reads features that only an experiment has.
        """
        wanted = {group for of_head in manifest.settings.groups.values() for group in of_head}
        check_groups(wanted)
        levels = len(manifest.sizes)
        self.dense_groups = tuple(group for group in COLUMNS_WITHOUT_SIDS if group in wanted)
        self.sid_groups = tuple(group for group in prefix_match.GROUPS if group in wanted)
        of_groups = COLUMNS_WITHOUT_SIDS | {NUMERIC: manifest.settings.numbers}
        names = [name for group in self.dense_groups for name in of_groups[group]]
        self._dense = len(names)
        for group in self.sid_groups:
            names += prefix_match.columns(group, levels=levels)
        known = {feature.name: feature for of in manifest.features.values() for feature in of}
        self.schema: tuple[FeatureColumn, ...] = tuple(known.values())
        self._shown = np.array([names.index(name) for name in known], int)
        self._with_sids = jax.jit(_program(heads, names=names, groups=self.sid_groups))
        self.has_dense_only = DENSE_ONLY in heads
        alone = {DENSE_ONLY: heads[DENSE_ONLY]} if self.has_dense_only else {}
        self._without_sids = jax.jit(_program(alone, names=names, groups=()))

    def with_sids(self, dense: FeatureTable, queries: OfQueries, pairs: OfPairs) -> Judgement:
        """Judges pairs of one query by both heads."""
        count, (padded, pairs) = len(dense.values), _padded((dense.values, pairs))
        found, chances = self._with_sids(padded, queries, pairs)
        values = np.concatenate([dense.values, np.asarray(found)[:count]], axis=1)
        return self._judged(values, chances)

    def without_sids(self, dense: FeatureTable) -> Judgement:
        """Judges pairs by the head without SIDs alone."""
        count, missing = len(dense.values), len(self._shown) - self._dense
        _, chances = self._without_sids(_padded(dense.values), None, None)
        values = np.pad(dense.values, ((0, 0), (0, missing)), constant_values=np.nan)
        return self._judged(values[:count], chances)

    def _judged(self, values: np.ndarray, chances: Mapping[str, Array]) -> Judgement:
        unknown = np.full(len(values), np.nan, np.float32)
        full, dense_only = (
            np.asarray(chances[name])[: len(values)] if name in chances else unknown
            for name in (FULL, DENSE_ONLY)
        )
        return Judgement(full=full, dense_only=dense_only, features=values[:, self._shown])


def check_groups(groups: Iterable[str]) -> None:
    """Raises InputError where a group of features is only computed in experiments."""
    for group in groups:
        if group not in (*COLUMNS_WITHOUT_SIDS, *prefix_match.GROUPS):
            raise InputError(
                f"the head reads the group {group!r}, which is not computed when serving; bind "
                f"relevance.run.rungs[{FULL!r}] to others and export again"
            )


def _program(heads: Mapping[str, FittedHead], *, names: list[str], groups: tuple[str, ...]):
    """Returns a function of what is known of pairs; parameters are constants of its program."""
    columns = {
        name: np.array([names.index(column) for column in head.features], int)
        for name, head in heads.items()
    }

    def judge(
        dense: Float[Array, "pair feature"], queries: OfQueries | None, pairs: OfPairs | None
    ) -> tuple[Array | None, dict[str, Array]]:
        found = None
        if groups:
            of_query = jax.tree.map(lambda part: part[None], pairs)
            [found] = features.sid_features(queries, of_query, groups=groups)
        values = jnp.concatenate([dense, found], axis=1) if groups else dense
        chances = {
            name: pair_probabilities(head, values[:, columns[name]]) for name, head in heads.items()
        }
        return found, chances

    return judge


def _padded(tree: Tree) -> Tree:
    """Returns arrays with rows of zeros at the end, as many as one of `PAIRS` has."""

    def padded(array: np.ndarray) -> np.ndarray:
        rows = next(rows for rows in PAIRS if len(array) <= rows)
        out = np.zeros((rows, *array.shape[1:]), array.dtype)
        out[: len(array)] = array
        return out

    return jax.tree.map(padded, tree)
