"""Relevance heads that are sums of trees as JSON, for XGBoost and the engines that read its trees.

`head-NAME.trees.json` is XGBoost's dump, a list of trees, which Vespa and the learning-to-rank
plugins read; `head-NAME.xgboost.json` is the model, of the same trees, which XGBoost itself reads.
In both the value of a pair is the sum of one leaf a tree, no more: what a head starts from is in
the leaves of the first tree, and a calibration that is a line is in all of them. The model's
objective says what the sum is: of "binary:logistic" the log-odds of the probability; of
"reg:squarederror" a score that rises with these, and the curve from one to the other is the model's
attribute `calibration`, `{"knots": [...], "values": [...]}`, see `calibration.Curve`. Its attribute
`features` has the names of the columns as the head knows them, `version` that of the head.

Source: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_text
from dsirm_jax.relevance.calibration import AS_IT_IS, Curve, calibrated_probabilities
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.branches import NO_NODE, Branches, TreeSum, tree_sum
from dsirm_jax.serving.formats.onnx_head import AppliedHead

log = logging.getLogger(__name__)
PROBABILITY, SCORE = "binary:logistic", "reg:squarederror"
NOTHING_OF = {PROBABILITY: "5E-1", SCORE: "0E0"}
"""What a model starts from that adds nothing to its trees, by its objective."""
SCHEMA = [2, 1, 0]
"""Version of XGBoost whose schema the model has: later ones read it, too. Before 3.1 it takes the
right child of a node for the one after the left, see `branches.Branches`."""
NO_PARENT = 2**31 - 1
LEAF = Branches(
    feature=np.zeros(1, int),
    threshold=np.zeros(1, np.float32),
    left=np.full(1, NO_NODE),
    right=np.full(1, NO_NODE),
    value=np.zeros(1, np.float32),
)
INSTALL = "pip install '.[xgboost]' in a checkout"


def model_file(folder: Path, name: str) -> Path:
    """Returns the file in `model/` that XGBoost reads."""
    return folder / f"head-{name}.xgboost.json"


def trees_file(folder: Path, name: str) -> Path:
    """Returns the file in `model/` that engines read."""
    return folder / f"head-{name}.trees.json"


def write_heads(folder: Path, heads: Mapping[str, FittedHead]) -> None:
    """Writes heads by their names into a folder, `model/` of a bundle; what it cannot it logs."""
    for name, head in heads.items():
        file = trees_file(folder, name)
        try:
            summed, curve = calibrated_trees(head)
            names = engine_names(head.features)
        except InputError as error:
            log.info("the bundle has no %s: %s", file.name, error)
            continue
        lines = (json.dumps(tree, allow_nan=False) for tree in dump(summed, names=names))
        write_text(file, "[\n" + ",\n".join(lines) + "\n]\n")
        written = json.dumps(model(head, summed, curve, names=names), allow_nan=False)
        write_text(model_file(folder, name), written + "\n")
        log.info("wrote %s and %s", file.name, model_file(folder, name).name)


def calibrated_trees(fitted: FittedHead) -> tuple[TreeSum, Curve | None]:
    """Returns trees that add up to a pair's log-odds, or a score and the curve from it to these.

    Raises:
      InputError: it is no sum of trees, it compares pairs, or a split is at the end of float32.
    """
    if fitted.in_lists:
        raise InputError(f"it compares {fitted.in_lists[0]} of a query's pairs")
    fitted = jax.device_get(fitted)
    summed = tree_sum(fitted.head, fitted.params)
    if any((tree.threshold >= np.finfo(np.float32).max).any() for tree in summed.trees):
        raise InputError("a split is at the greatest float32, above which there is none")
    knots, values = (np.asarray(part, np.float64) for part in fitted.curve)
    if len(knots) > 2:
        return summed, fitted.curve
    slope = float((values[1] - values[0]) / (knots[1] - knots[0]))
    height = float(values[0] - slope * knots[0])
    return summed.scaled(slope).plus(TreeSum(height, ())), None


def engine_names(features: Sequence[str]) -> tuple[str, ...]:
    """Returns names of columns as every engine takes them: letters, digits and `_`.

    Raises:
      InputError: two are alike then.
    """
    names: dict[str, str] = {}
    for feature in features:
        name = re.sub(r"\W", "_", feature, flags=re.ASCII)
        name = f"_{name}" if name[:1].isdigit() else name
        if name in names:
            raise InputError(
                f"the features {names[name]!r} and {feature!r} are both {name!r} in an engine; "
                f"rename one of your columns"
            )
        names[name] = feature
    return tuple(names)


def dump(summed: TreeSum, *, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns trees as `xgboost.Booster.get_dump` does, their numbers in full.

    Args:
      summed: the trees.
      names: of the columns.
    """

    def nested(tree: Branches, number: int, depth: int) -> dict[str, Any]:
        if tree.left[number] == NO_NODE:
            return {"nodeid": number, "leaf": float(tree.value[number])}
        yes, no = int(tree.left[number]), int(tree.right[number])
        return {
            "nodeid": number,
            "depth": depth,
            "split": names[tree.feature[number]],
            "split_condition": float(_above(tree.threshold[number])),
            "yes": yes,
            "no": no,
            "missing": no,
            "children": [nested(tree, yes, depth + 1), nested(tree, no, depth + 1)],
        }

    return [nested(tree, 0, 0) for tree in _trees(summed)]


def model(
    fitted: FittedHead, summed: TreeSum, curve: Curve | None, *, names: Sequence[str]
) -> dict[str, Any]:
    """Returns what `xgboost.Booster.load_model` reads.

    Args:
      fitted: the head.
      summed: its trees, `calibrated_trees`.
      curve: likewise.
      names: of the columns.
    """
    attributes = {"features": json.dumps(fitted.features), "version": fitted.version}
    if curve is not None:
        parts = {name: part.tolist() for name, part in curve._asdict().items()}
        attributes["calibration"] = json.dumps(parts)
    trees = [
        _model_tree(tree, number=number, features=len(names))
        for number, tree in enumerate(_trees(summed))
    ]
    boosted = {
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(len(trees) + 1)),
        "tree_info": [0] * len(trees),
        "trees": trees,
    }
    objective = PROBABILITY if curve is None else SCORE
    return {
        "learner": {
            "attributes": attributes,
            "feature_names": list(names),
            "feature_types": ["float"] * len(names),
            "gradient_booster": {"model": boosted, "name": "gbtree"},
            "learner_model_param": {
                "base_score": NOTHING_OF[objective],
                "boost_from_average": "1",
                "num_class": "0",
                "num_feature": str(len(names)),
                "num_target": "1",
            },
            "objective": {"name": objective, "reg_loss_param": {"scale_pos_weight": "1"}},
        },
        "version": SCHEMA,
    }


def _model_tree(tree: Branches, *, number: int, features: int) -> dict[str, Any]:
    nodes, is_leaf = len(tree.left), tree.left == NO_NODE
    parents = np.full(nodes, NO_PARENT)
    for children in (tree.left, tree.right):
        parents[children[~is_leaf]] = np.flatnonzero(~is_leaf)
    return {
        "base_weights": tree.value.tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [0] * nodes,
        "id": number,
        "left_children": tree.left.tolist(),
        "loss_changes": [0.0] * nodes,
        "parents": parents.tolist(),
        "right_children": tree.right.tolist(),
        "split_conditions": np.where(is_leaf, tree.value, _above(tree.threshold)).tolist(),
        "split_indices": tree.feature.tolist(),
        "split_type": [0] * nodes,
        "sum_hessian": [0.0] * nodes,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
    }


def _above(threshold: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns what a float32 is below that is not above a threshold."""
    return np.nextafter(threshold, np.float32(np.inf))


def _trees(summed: TreeSum) -> tuple[Branches, ...]:
    """Returns trees that add up to a sum with no constant; at least one, a leaf alone."""
    first, *others = summed.trees or (LEAF,)
    at_leaf = np.where(first.left == NO_NODE, summed.constant, 0)
    return (first._replace(value=(first.value + at_leaf).astype(np.float32)), *others)


def readable_heads(folder: Path, name: str) -> dict[str, AppliedHead]:
    """Returns a head as functions of features, by what reads it; logs what is not there.

    Args:
      folder: `model/` of a bundle.
      name: of the head.

    Raises:
      InputError: a file is not what `write_heads` wrote.
    """
    file = model_file(folder, name)
    if not file.is_file():
        log.info("%s: no such file, the head is no sum of trees", file)
        return {}
    found = {"tree JSON": _by_trees(folder, name)}
    if importlib.util.find_spec("xgboost") is None:
        log.warning("%s is not compared, for XGBoost is not installed: %s", file, INSTALL)
        return found
    return found | {"XGBoost": _by_xgboost(file)}


def _by_trees(folder: Path, name: str) -> AppliedHead:
    """Reads the trees that engines read, as these do."""
    file = trees_file(folder, name)
    try:
        trees = json.loads(file.read_text("utf-8"))
        learner = json.loads(model_file(folder, name).read_text("utf-8"))["learner"]
        names, curve = learner["feature_names"], _curve(learner["attributes"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}); export it anew") from error

    def probabilities(
        features: Float[np.ndarray, "pair feature"], lists: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        columns = dict(zip(names, features.T, strict=True))

        def values(node: dict[str, Any]) -> Float[np.ndarray, " pair"]:
            if "leaf" in node:
                return np.full(len(features), node["leaf"], np.float32)
            goes_left = columns[node["split"]] < np.float32(node["split_condition"])
            return np.where(goes_left, *map(values, node["children"]))

        total = sum(map(values, trees), np.zeros(len(features), np.float32))
        return np.asarray(calibrated_probabilities(curve or AS_IT_IS, total))

    return probabilities


def _by_xgboost(file: Path) -> AppliedHead:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    try:
        booster.load_model(file)
        curve = _curve(booster.attributes())
    except (xgboost.core.XGBoostError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: XGBoost cannot read it ({reason}); export it anew") from error

    def probabilities(
        features: Float[np.ndarray, "pair feature"], lists: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        found = booster.inplace_predict(features, validate_features=False)
        return found if curve is None else np.asarray(calibrated_probabilities(curve, found))

    return probabilities


def _curve(attributes: Mapping[str, str | None]) -> Curve | None:
    written = attributes.get("calibration")
    if written is None:
        return None
    parts = json.loads(written)
    return Curve(*(np.array(parts[name], np.float32) for name in Curve._fields))
