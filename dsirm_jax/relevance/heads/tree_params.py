"""Boosted trees as arrays: what heads of trees have learnt, and how it is applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.sids.arrays import AnyArray

MOST_LEAVES = 32  # A tree's leaves are the bits of one word.
TREES_AT_ONCE = 32
EVERY_LEAF = 0xFFFFFFFF
NODE_FIELDS = frozenset(("is_leaf", "value", "left", "right", "feature_idx", "num_threshold"))
"""What is read of a node, by scikit-learn's names."""


class TreeParams(struct.PyTreeNode):
    """Boosted trees. The leaves of a tree are numbered from left to right.

    Attributes:
      feature: column that each split looks at, int32 `[round, output, split]`.
      threshold: float32 likewise; a pair goes left where its value is not above it, and always at
        a split that is padding.
      kept: the leaves, a bit each, that a pair may still reach once it has gone right.
      value: what each leaf adds, float32 `[round, output, leaf]`.
      baseline: what all pairs start from, float32 `[output]`.
    """

    feature: Int[AnyArray, "round output split"]
    threshold: Float[AnyArray, "round output split"]
    kept: UInt32[AnyArray, "round output split"]
    value: Float[AnyArray, "round output leaf"]
    baseline: Float[AnyArray, " output"]


def sum_of_trees(
    params: TreeParams, features: Float[Array, "pair feature"]
) -> Float[Array, "pair output"]:
    """Returns the baseline plus the value of the leaf that each tree sends a pair to.

    Every split is looked at, with no branch: where it sends the pair right, the leaves to its left
    are ruled out, and the first leaf that is left is the one. Source: Lucchese et al. 2015,
    QuickScorer.
    """
    columns = jnp.asarray(features).T  # [feature, pair]

    def leaf_values(tree: Sequence[Array]) -> Float[Array, " pair"]:
        feature, threshold, kept, value = tree
        goes_left = columns[feature] <= threshold[:, None]  # [split, pair]
        allowed = jnp.where(goes_left, jnp.uint32(EVERY_LEAF), kept[:, None])
        reached = jax.lax.reduce(
            allowed, jnp.uint32(EVERY_LEAF), jax.lax.bitwise_and, dimensions=(0,)
        )
        lowest = reached & (~reached + jnp.uint32(1))
        return value[jax.lax.population_count(lowest - jnp.uint32(1))]

    trees = (params.feature, params.threshold, params.kept, params.value)
    flat = [part.reshape(-1, part.shape[-1]) for part in trees]  # [tree, split or leaf]
    values = jax.lax.map(leaf_values, flat, batch_size=TREES_AT_ONCE)  # [tree, pair]
    values = values.reshape(-1, len(params.baseline), features.shape[0])
    return (values.sum(axis=0) + params.baseline[:, None]).T


class Growth(Protocol):
    """Settings of boosted trees, as `BoostedTrees` has them."""

    @property
    def trees(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def leaves(self) -> int: ...

    @property
    def min_leaf(self) -> int: ...

    @property
    def l2(self) -> float: ...

    @property
    def columns(self) -> float: ...


def check_growth(head: Growth) -> None:
    """Raises InputError where a setting of boosted trees is out of range."""
    positive = "a whole number of at least 1"
    for name, holds, wanted in (
        ("trees", is_whole(head.trees, least=1), positive),
        ("learning_rate", 0 < head.learning_rate < math.inf, "a number above 0"),
        (
            "leaves",
            is_whole(head.leaves, least=2) and head.leaves <= MOST_LEAVES,
            f"a whole number from 2 to {MOST_LEAVES}",
        ),
        ("min_leaf", is_whole(head.min_leaf, least=1), positive),
        ("l2", 0 <= head.l2 < math.inf, "a number of at least 0"),
        ("columns", 0 < head.columns <= 1, "a share above 0 and up to 1"),
    ):
        value = getattr(head, name)
        binding = f"{type(head).__name__}.{name}"
        check_holds(holds, binding=binding, value=value, remedy=wanted)


def no_trees(head: Growth, baseline: Float[np.ndarray, " output"]) -> TreeParams:
    """Returns the parameters of trees whose splits are padding."""
    shape = (head.trees, len(baseline), head.leaves - 1)
    return TreeParams(
        feature=np.zeros(shape, np.int32),
        threshold=np.full(shape, np.inf, np.float32),
        kept=np.full(shape, EVERY_LEAF, np.uint32),
        value=np.zeros((*shape[:2], head.leaves), np.float32),
        baseline=baseline,
    )


def copy_tree(nodes: np.ndarray, *, into: TreeParams, at: tuple[int, int]) -> None:
    """Writes a tree, whose nodes have `NODE_FIELDS` and begin at the root, as one round's.

    Args:
      nodes: of the tree.
      into: the parameters.
      at: round and output.
    """
    leaves = splits = 0

    def walk(number: int) -> int:
        """Numbers the leaves below a node from left to right; returns them as bits."""
        nonlocal leaves, splits
        node = nodes[number]
        if node["is_leaf"]:
            into.value[*at, leaves] = node["value"]
            leaves += 1
            return 1 << (leaves - 1)
        split, splits = splits, splits + 1
        left = walk(node["left"])
        into.feature[*at, split] = node["feature_idx"]
        into.threshold[*at, split] = _float32_below(node["num_threshold"])
        into.kept[*at, split] = EVERY_LEAF ^ left
        return left | walk(node["right"])

    walk(0)


def _float32_below(threshold: float) -> np.float32:
    """Returns the greatest float32 not above a float64: no float32 lies between the two."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > threshold else rounded
