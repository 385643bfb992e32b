"""LambdaMART: boosted trees that rank the pairs of each query, fitted with LightGBM."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.branches import TreeSum, add_trees, sum_of_branches, tree_sum
from dsirm_jax.relevance.heads.head import BINARY, RANKING, Fitting, Head, StepProgram, check_head
from dsirm_jax.relevance.heads.monotone import check_directions, directions
from dsirm_jax.relevance.heads.onnx_graph import Graph, added
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
    from lightgbm import Booster

    from dsirm_jax.training.settings import Training

MOST_OF_A_QUERY = 10_000
"""Pairs, the most that LightGBM ranks."""
ZERO = float(np.float32(1e-35))
"""What lies no further from 0 is 0 to LightGBM, on the other side of a threshold of `-ZERO`."""
NODE = np.dtype(
    [
        ("is_leaf", bool),
        ("value", float),
        ("left", int),
        ("right", int),
        ("feature_idx", int),
        ("num_threshold", float),
    ]
)
assert {*(NODE.names or ())} == NODE_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LambdaMart:
    """Boosted trees whose gradients are by how much nDCG changes where two pairs change places.

    Attributes:
      trees: as in `BoostedTrees`, like those that follow.
      learning_rate: likewise.
      leaves: likewise.
      min_leaf: likewise.
      l2: likewise.
      columns: likewise.
      first_ranks: ranks of each list one of which a pair has to be in for its contests to count.
      rising: names of features with which the output does not fall.
      falling: names of features with which it does not rise.
      start: a head of the loss "binary", fitted first, to whose log-odds trees are added, so that
        queries stay as far apart as they are there; None: trees alone, whose scores have no zero.
    """

    trees: int = 150
    learning_rate: float = 0.04
    leaves: int = 6
    min_leaf: int = 80
    l2: float = 10.0
    columns: float = 0.3
    first_ranks: int = 20
    rising: tuple[str, ...] = ()
    falling: tuple[str, ...] = ()
    start: Head | None = None

    def __post_init__(self) -> None:
        check_growth(self)
        check_holds(
            is_whole(self.first_ranks, least=1),
            binding="LambdaMart.first_ranks",
            value=self.first_ranks,
            remedy="a whole number of at least 1",
        )
        check_directions(self)
        if self.start is not None:
            check_head(self.start, binding="LambdaMart.start")
            check_holds(
                self.start.loss == BINARY,
                binding="LambdaMart.start",
                value=self.start,
                remedy=f"a head of the loss {BINARY!r}",
            )

    @property
    def loss(self) -> str:
        """What it minimises: "ranking", or "binary" where it starts from log-odds."""
        return RANKING if self.start is None else BINARY

    def params_like(self, *, features: int, grades: int) -> TreeParams | Started:
        trees = jax.eval_shape(lambda: no_trees(self, np.zeros(1, np.float32)))
        if self.start is None:
            return trees
        return Started(start=self.start.params_like(features=features, grades=grades), trees=trees)

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> TreeParams | Started:
        """Fits by LightGBM, in one thread.

        Raises:
          InputError: LightGBM is not installed, a query has more pairs than it ranks, or a name of
            `rising` or `falling` is of no rung. Source: Burges 2010, MSR-TR-2010-82.
        """
        if self.start is None:
            return self._trees(boosted(self, pairs, fitting))
        at = fitting._replace(name=f"{fitting.name}, start", directory=fitting.directory / "start")
        start = self.start.fit(pairs, at)
        base = self.start.outputs(start, jnp.asarray(pairs.features), grades=len(pairs.relevant))
        booster = boosted(self, pairs, fitting, base=np.asarray(base[:, 0], float))
        return Started(start=start, trees=self._trees(booster))

    def _trees(self, booster: Booster) -> TreeParams:
        params = no_trees(self, np.zeros(1, np.float32))
        for number, tree in enumerate(booster.dump_model()["tree_info"]):
            copy_tree(nodes_of(tree["tree_structure"]), into=params, at=(number, 0))
        return params

    def outputs(
        self, params: Any, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        if self.start is None:
            return sum_of_trees(params, features)
        base = self.start.outputs(params.start, features, grades=grades)
        return base + sum_of_trees(params.trees, features)

    def add_to(self, graph: Graph, params: Any, features: str, *, grades: int) -> str:
        if self.start is None:
            return add_trees(graph, params, features)
        base = added(self.start, graph, params.start, features, grades=grades)
        return graph.add("Add", base, add_trees(graph, params.trees, features))

    def tree_sum(self, params: Any) -> TreeSum:
        if self.start is None:
            return sum_of_branches(params)
        return tree_sum(self.start, params.start).plus(sum_of_branches(params.trees))

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[StepProgram, ...]:
        if self.start is None:
            return ()
        return self.start.step_programs(training, rows=rows, features=features, relevant=relevant)


class Started(struct.PyTreeNode):
    """What a `LambdaMart` has learnt that starts from another head; of one that does not, trees.

    Attributes:
      start: parameters of the head that it starts from.
      trees: those that are added.
    """

    start: Any
    trees: TreeParams


def boosted(
    head: LambdaMart,
    pairs: LabelledPairs,
    fitting: Fitting,
    *,
    base: Float[np.ndarray, " pair"] | None = None,
) -> Booster:
    """Returns LightGBM's own trees.

    Args:
      head: the settings.
      pairs: to rank within queries, by the gains of their grades.
      fitting: its seed is that of the features that splits choose from.
      base: scores that trees are added to.

    Raises:
      InputError: as `LambdaMart.fit` has them.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # its library may lack that of OpenMP
        raise InputError(
            f"LambdaMart needs LightGBM ({error}): pip install '.[ranking]' in a checkout, or "
            f"bind another head"
        ) from error

    order = np.argsort(pairs.queries, kind="stable")
    sizes = np.unique(pairs.queries, return_counts=True)[1]
    if sizes.max() > MOST_OF_A_QUERY:
        raise InputError(
            f"{fitting.name}: a query has {sizes.max():,} pairs, and LambdaMart ranks at most "
            f"{MOST_OF_A_QUERY:,}; bind another head"
        )
    gains = np.zeros(len(pairs.relevant))
    gains[pairs.grades] = pairs.gains
    signs = directions(head, fitting, features=pairs.features.shape[1])
    settings: dict[str, Any] = {
        "objective": "lambdarank",
        "label_gain": np.maximum.accumulate(gains).tolist(),
        "lambdarank_truncation_level": head.first_ranks,
        "learning_rate": head.learning_rate,
        "num_leaves": head.leaves,
        "min_data_in_leaf": head.min_leaf,
        "lambda_l2": head.l2,
        "feature_fraction_bynode": head.columns,
        "feature_pre_filter": False,
        "use_missing": False,
        "seed": fitting.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    if signs.any():
        settings["monotone_constraints"] = signs.tolist()
    data = lightgbm.Dataset(
        pairs.features[order],
        label=pairs.grades[order],
        weight=pairs.weights[order],
        group=sizes,
        init_score=None if base is None else base[order],
        params=settings,
    )
    return lightgbm.train(settings, data, num_boost_round=head.trees)


def nodes_of(root: Mapping[str, Any]) -> np.ndarray:
    """Returns a tree of `Booster.dump_model` as nodes that `trees.copy_tree` reads."""
    nodes: list[tuple[Any, ...]] = []

    def walk(node: Mapping[str, Any]) -> int:
        number = len(nodes)
        if "split_index" not in node:
            nodes.append((True, node["leaf_value"], 0, 0, 0, 0.0))
            return number
        nodes.append(())
        left, right = walk(node["left_child"]), walk(node["right_child"])
        threshold = node["threshold"]
        if threshold == -ZERO:
            threshold = np.nextafter(threshold, -np.inf)
        nodes[number] = (False, 0.0, left, right, node["split_feature"], threshold)
        return number

    walk(root)
    return np.array(nodes, NODE)
