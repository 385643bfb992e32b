"""Gradient-boosted trees, fitted with scikit-learn and applied as arrays."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import LATER
from dsirm_jax.relevance.heads.branches import TreeSum, add_trees, sum_of_branches
from dsirm_jax.relevance.heads.classes import class_outputs, classes_of
from dsirm_jax.relevance.heads.head import BINARY, Fitting, check_loss, num_outputs
from dsirm_jax.relevance.heads.monotone import check_directions, directions
from dsirm_jax.relevance.heads.onnx_graph import Graph
from dsirm_jax.relevance.heads.tree_params import (
    NODE_FIELDS,
    TreeParams,
    check_growth,
    copy_tree,
    no_trees,
    sum_of_trees,
)
from dsirm_jax.relevance.pairs import LabelledPairs

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from dsirm_jax.training.settings import Training


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
        return add_trees(graph, params, features)

    def tree_sum(self, params: TreeParams) -> TreeSum:
        return sum_of_branches(params)

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[()]:
        return ()


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
