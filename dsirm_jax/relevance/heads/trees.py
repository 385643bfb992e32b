"""Gradient-boosted trees, fitted with scikit-learn and applied as arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import LATER
from dsirm_jax.relevance.heads.classes import class_outputs, classes_of
from dsirm_jax.relevance.heads.head import BINARY, Fitting, check_loss, num_outputs
from dsirm_jax.relevance.heads.monotone import check_directions, directions
from dsirm_jax.relevance.heads.onnx_graph import Graph
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.sids.arrays import AnyArray

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from dsirm_jax.relevance.heads.branches import TreeSum
    from dsirm_jax.training.settings import Training

MOST_LEAVES = 32  # A tree's leaves are the bits of one word.
TREES_AT_ONCE = 32
EVERY_LEAF = 0xFFFFFFFF
NODE_FIELDS = frozenset(("is_leaf", "value", "left", "right", "feature_idx", "num_threshold"))
"""What is read of a node, by scikit-learn's names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """Gradient-boosted regression trees on histograms of the features.

    Attributes:
      trees: rounds of boosting; each adds a tree, or one per grade.
      learning_rate: what a tree's values are multiplied by.
      leaves: most leaves of a tree, at most 32.
      min_leaf: fewest pairs in a leaf.
      l2: penalty on the values of leaves.
      columns: share of the features that each split chooses from, drawn anew.
      loss: "binary" or "graded" as in `Mlp`.
      rising: names of features with which the output does not fall.
      falling: names of features with which it does not rise.
    """

    trees: int = 150
    learning_rate: float = 0.04
    leaves: int = 6
    min_leaf: int = 80
    l2: float = 10.0
    columns: float = 0.3
    loss: str = BINARY
    rising: tuple[str, ...] = dataclasses.field(default=(), metadata=LATER)
    falling: tuple[str, ...] = dataclasses.field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        check_growth(self)
        check_loss(self)
        check_directions(self)

    def params_like(self, *, features: int, grades: int) -> TreeParams:
        outputs = num_outputs(self, grades=grades)
        return jax.eval_shape(lambda: no_trees(self, np.zeros(outputs, np.float32)))

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> TreeParams:
        """Fits by scikit-learn's HistGradientBoostingClassifier.

        The seed is that of the features that splits choose from, and of the pairs that bins are cut
        from, where there are very many. Source: Friedman 2001.

        Raises:
          InputError: this version of scikit-learn keeps its trees in an unknown way, or a name of
            `rising` or `falling` is of no rung.
        """
        from threadpoolctl import threadpool_limits

        outputs = num_outputs(self, grades=len(pairs.relevant))
        classes = classes_of(pairs, outputs=outputs)
        # Several threads add up in another order, and on a busy machine wait for each other.
        with threadpool_limits(1, user_api="openmp"):
            signs = directions(self, fitting, features=pairs.features.shape[1])
            fitted = classifier(self, seed=fitting.seed, signs=signs).fit(
                pairs.features, classes, sample_weight=pairs.weights
            )
        start, rounds = read_trees(fitted)
        columns, baseline = class_outputs(classes, outputs=outputs)
        baseline[columns] = start
        params = no_trees(self, baseline)
        for number, trees in enumerate(rounds):
            for column, nodes in zip(columns, trees, strict=True):
                copy_tree(nodes, into=params, at=(number, column))
        return params

    def outputs(
        self, params: TreeParams, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        return sum_of_trees(params, features)

    def add_to(self, graph: Graph, params: TreeParams, features: str, *, grades: int) -> str:
        from dsirm_jax.relevance.heads.branches import add_trees

        return add_trees(graph, params, features)

    def tree_sum(self, params: TreeParams) -> TreeSum:
        from dsirm_jax.relevance.heads.branches import sum_of_branches

        return sum_of_branches(params)

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[()]:
        return ()


class TreeParams(struct.PyTreeNode):
    """What `BoostedTrees` have learnt. The leaves of a tree are numbered from left to right.

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


def classifier(
    head: BoostedTrees, *, seed: int, signs: Int[np.ndarray, " feature"] | None = None
) -> HistGradientBoostingClassifier:
    """Returns scikit-learn's classifier of a head's settings, not fitted.

    Args:
      head: the settings.
      seed: of all that is random.
      signs: `monotone.directions`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        learning_rate=head.learning_rate,
        max_iter=head.trees,
        max_leaf_nodes=head.leaves,
        min_samples_leaf=head.min_leaf,
        l2_regularization=head.l2,
        max_features=head.columns,
        early_stopping=False,
        random_state=seed,
        monotonic_cst=signs if signs is not None and signs.any() else None,
    )


def read_trees(
    fitted: HistGradientBoostingClassifier,
) -> tuple[Float[np.ndarray, " column"], list[list[np.ndarray]]]:
    """Returns what a fitted classifier starts from, and the nodes of its trees.

    scikit-learn has no public way to read its trees; setup.py bounds its version for that.

    Args:
      fitted: the classifier.

    Returns:
      Its log-odds before any tree; by round and column, a structured array of nodes.

    Raises:
      InputError: they are not where, or what, they are in the versions that setup.py allows.
    """
    try:
        start = np.ravel(fitted._baseline_prediction)
        rounds = [[tree.nodes for tree in trees] for trees in fitted._predictors]
        known = all(
            set(nodes.dtype.names or ()) >= NODE_FIELDS for trees in rounds for nodes in trees
        )
    except (AttributeError, TypeError):
        known = False
    if not known:
        import sklearn

        raise InputError(
            f"scikit-learn {sklearn.__version__} keeps its boosted trees in a way that is not "
            f"known here; install the version of constraints.txt"
        )
    return start, rounds


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
