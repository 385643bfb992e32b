"""Fits boosted trees with scikit-learn and turns them into arrays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.classes import outputs_told
from dsirm_jax.relevance.model import BoostedTrees, TreeParams

EVERY_LEAF = 0xFFFFFFFF


def fit_trees(
    head: BoostedTrees,
    *,
    features: Float[np.ndarray, "pair feature"],
    classes: Int[np.ndarray, " pair"],
    outputs: int,
    weights: Float[np.ndarray, " pair"],
    seed: int,
) -> TreeParams:
    """Fits trees to pairs.

    Args:
      head: shape of the trees.
      features: of the pairs, finite.
      classes: of each pair, from 0; at least two occur.
      outputs: 1, the log-odds of class 1 of two, or one per class of more.
      weights: importance of each pair, above 0.
      seed: of the features that splits choose from, and of the pairs that bins are cut from, where
        there are very many.

    Returns:
      What `model.sum_of_trees` applies.
      Source: Friedman 2001; scikit-learn's HistGradientBoostingClassifier.
    """
    from threadpoolctl import threadpool_limits

    # Several threads add up in another order, and on a busy machine wait for each other.
    with threadpool_limits(1, user_api="openmp"):
        fitted = classifier(head, seed=seed).fit(features, classes, sample_weight=weights)
    columns, baseline = outputs_told(classes, outputs=outputs)
    shape = (head.trees, outputs, head.leaves - 1)
    params = TreeParams(
        feature=np.zeros(shape, np.int32),
        threshold=np.full(shape, np.inf, np.float32),
        kept=np.full(shape, EVERY_LEAF, np.uint32),
        value=np.zeros((*shape[:2], head.leaves), np.float32),
        baseline=baseline,
    )
    params.baseline[columns] = np.ravel(fitted._baseline_prediction)
    # scikit-learn has no public way to read its trees.
    for number, trees in enumerate(fitted._predictors):
        for column, tree in zip(columns, trees, strict=True):
            _copy(tree.nodes, into=params, at=(number, column))
    return params


def classifier(head: BoostedTrees, *, seed: int):
    """Returns scikit-learn's classifier of a head's shape, not fitted."""
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
    )


def _copy(nodes: np.ndarray, *, into: TreeParams, at: tuple[int, int]) -> None:
    """Writes a tree of scikit-learn's as one round's of one output."""
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
