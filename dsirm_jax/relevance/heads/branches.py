"""Boosted trees as nodes with two branches, as other libraries read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.heads.onnx_graph import ONNX_ML, Graph
from dsirm_jax.relevance.heads.trees import EVERY_LEAF, TreeParams

NO_NODE = -1


class Branches(NamedTuple):
    """A tree. Its nodes are numbered from the root, those to the left before those to the right.

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


def branches(params: TreeParams) -> Iterator[tuple[int, Branches]]:
    """Yields the output that each tree adds to, and the tree, by round and output."""
    rounds, outputs, _ = np.shape(params.feature)
    feature, threshold, kept, value = (
        np.asarray(part) for part in (params.feature, params.threshold, params.kept, params.value)
    )
    for at in np.ndindex(rounds, outputs):
        yield at[1], _tree(feature[at], threshold[at], kept[at], value[at])


def add_trees(graph: Graph, params: TreeParams, features: str) -> str:
    """Adds `trees.sum_of_trees` to a graph, as `OnnxHead.add_to` adds a head."""
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
    """Undoes `trees.copy_tree`, which numbers splits from the root, left before right."""
    nodes: list[list[float]] = []
    splits = iter(range(len(kept)))

    def walk(first: int, end: int) -> int:
        """Adds the nodes of the leaves from `first` to before `end`."""
        number = len(nodes)
        nodes.append([0, 0.0, NO_NODE, NO_NODE, 0.0])
        if end - first == 1:
            nodes[number][-1] = value[first]
            return number
        split = next(splits)
        border = first + (EVERY_LEAF ^ int(kept[split])).bit_count()
        nodes[number][:2] = feature[split], threshold[split]
        nodes[number][2:4] = walk(first, border), walk(border, end)
        return number

    walk(0, 1 + int((kept != EVERY_LEAF).sum()))
    columns = zip(*nodes, strict=True)
    types = (np.int64, np.float32, np.int64, np.int64, np.float32)
    return Branches(
        *(np.array(column, type_) for column, type_ in zip(columns, types, strict=True))
    )
