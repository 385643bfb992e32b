"""Boosted trees as nodes with two branches, as other libraries read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.heads.onnx_graph import ONNX_ML, Graph
from dsirm_jax.relevance.heads.tree_params import EVERY_LEAF, TreeParams

NO_NODE = -1


class Branches(NamedTuple):
    """A tree. Its nodes are numbered from the root, the two below a split one after the other.

    Attributes:
      feature: column that a split looks at, 0 at a leaf, int `[node]`.
      threshold: float32 likewise; a pair goes left where its value is not above it.
      left: node that it then comes to, `NO_NODE` at a leaf, int likewise.
      right: node that it comes to otherwise, likewise.
      value: what a leaf adds, 0 at a split, float32 likewise.
    """

    feature: Int[np.ndarray, " node"]
    threshold: Float[np.ndarray, " node"]
    left: Int[np.ndarray, " node"]
    right: Int[np.ndarray, " node"]
    value: Float[np.ndarray, " node"]


class TreeSum(NamedTuple):
    """A score that is a constant and what trees add to it.

    Attributes:
      constant: what all pairs start from.
      trees: each with a split.
    """

    constant: float
    trees: tuple[Branches, ...]

    def scaled(self, factor: float) -> TreeSum:
        """Returns the sum of which every score is a multiple."""
        trees = (tree._replace(value=np.float32(factor) * tree.value) for tree in self.trees)
        return TreeSum(factor * self.constant, tuple(trees))

    def plus(self, other: TreeSum) -> TreeSum:
        """Returns the sum of two."""
        return TreeSum(self.constant + other.constant, self.trees + other.trees)


@runtime_checkable
class TreeHead(Protocol):
    """What a head has beside `Head` whose only output may be a sum of trees."""

    def tree_sum(self, params: Any) -> TreeSum:
        """Returns what `Head.outputs` computes.

        Args:
          params: what the head has learnt, on the host.

        Raises:
          InputError: it is no sum of trees.
        """


def tree_sum(head: Head, params: Any) -> TreeSum:
    """Returns `TreeHead.tree_sum` of a head of any kind.

    Raises:
      InputError: what it computes is no sum of trees.
    """
    if not isinstance(head, TreeHead):
        raise InputError(f"{type(head).__name__} is no sum of trees")
    return head.tree_sum(params)


def sum_of_branches(params: TreeParams) -> TreeSum:
    """Returns boosted trees of one output, see `TreeHead.tree_sum`."""
    if len(params.baseline) > 1:
        raise InputError(f"trees of {len(params.baseline)} grades are no one sum")
    trees = [tree for _, tree in branches(params)]
    constant = float(params.baseline[0])
    constant += sum(float(tree.value[0]) for tree in trees if len(tree.value) == 1)
    return TreeSum(constant, tuple(tree for tree in trees if len(tree.value) > 1))


def branches(params: TreeParams) -> Iterator[tuple[int, Branches]]:
    """Yields the output that each tree adds to, and the tree, by round and output."""
    rounds, outputs, _ = np.shape(params.feature)
    feature, threshold, kept, value = (
        np.asarray(part) for part in (params.feature, params.threshold, params.kept, params.value)
    )
    for at in np.ndindex(rounds, outputs):
        yield at[1], _tree(feature[at], threshold[at], kept[at], value[at])


def add_trees(graph: Graph, params: TreeParams, features: str) -> str:
    """Adds `tree_params.sum_of_trees` to a graph, as `OnnxHead.add_to` adds a head."""
    baseline = np.array(params.baseline, np.float32)
    splitting = []
    for output, tree in branches(params):
        if len(tree.value) == 1:
            baseline[output] += tree.value[0]
        else:
            splitting.append((output, tree))
    if not splitting:
        rows = graph.add("Shape", features, start=0, end=1)
        shape = graph.add("Concat", rows, np.array([len(baseline)]), axis=0)
        return graph.add("Expand", baseline[None], shape)
    trees = [tree for _, tree in splitting]
    sizes = [len(tree.value) for tree in trees]
    number = np.repeat(np.arange(len(trees)), sizes)
    node = np.concatenate([np.arange(size) for size in sizes])
    target = np.repeat([output for output, _ in splitting], sizes)
    whole = Branches(*map(np.concatenate, zip(*trees, strict=True)))
    is_leaf = whole.left == NO_NODE
    return graph.add(
        "TreeEnsembleRegressor",
        features,
        domain=ONNX_ML,
        n_targets=len(baseline),
        base_values=baseline.tolist(),
        nodes_treeids=number.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=whole.feature.tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=whole.threshold.tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, whole.left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, whole.right).tolist(),
        target_treeids=number[is_leaf].tolist(),
        target_nodeids=node[is_leaf].tolist(),
        target_ids=target[is_leaf].tolist(),
        target_weights=whole.value[is_leaf].tolist(),
    )


def _tree(
    feature: Int[np.ndarray, " split"],
    threshold: Float[np.ndarray, " split"],
    kept: np.ndarray,
    value: Float[np.ndarray, " leaf"],
) -> Branches:
    """Undoes `tree_params.copy_tree`, which numbers splits from the root, left before right."""
    leaf = (0, 0.0, NO_NODE, NO_NODE, 0.0)
    nodes: list[list[float]] = [[*leaf]]
    splits = iter(range(len(kept)))

    def grow(number: int, first: int, end: int) -> None:
        """Makes of a node what has the leaves from `first` to before `end`."""
        if end - first == 1:
            nodes[number][-1] = value[first]
            return
        split, left = next(splits), len(nodes)
        nodes.extend(([*leaf], [*leaf]))
        nodes[number][:4] = feature[split], threshold[split], left, left + 1
        border = first + (EVERY_LEAF ^ int(kept[split])).bit_count()
        grow(left, first, border)
        grow(left + 1, border, end)

    grow(0, 0, 1 + int((kept != EVERY_LEAF).sum()))
    columns = zip(*nodes, strict=True)
    types = (np.int64, np.float32, np.int64, np.int64, np.float32)
    return Branches(
        *(np.array(column, type_) for column, type_ in zip(columns, types, strict=True))
    )
