from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import xgboost

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.calibration import Curve, divided_by
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.tree_params import TreeParams
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.formats import xgboost_head
from tests.relevance.heads.labelled import FITTING, labelled
from tests.serving.formats.onnx_head_test import BENT, GROWN, fitted, table, values

LINE = Curve(np.array([-1, 2], np.float32), np.array([-0.3, 1.2], np.float32))
SMALL = GROWN | {"trees": 5}
TREES = BoostedTrees(**SMALL)
HEADS = {
    "trees": TREES,
    "blend": Blend(heads=(TREES, LambdaMart(**SMALL, start=BoostedTrees(**SMALL | {"leaves": 2})))),
}


@pytest.fixture(scope="module", params=HEADS)
def head(request):
    return fitted(HEADS[request.param], curve=LINE)


@pytest.fixture(scope="module")
def trees():
    """One tree, `a <= 0.1 ? 1 : (c <= 3 ? 2 : 4)`, on a baseline of 10."""
    return dataclasses.replace(
        fitted(BoostedTrees(trees=1, leaves=3, min_leaf=500), curve=divided_by(2.0)),
        params=TreeParams(
            feature=np.array([[[0, 2]]]),
            threshold=np.array([[[0.1, 3]]], np.float32),
            kept=~np.array([[[1, 2]]], np.uint32),
            value=np.array([[[1, 2, 4]]], np.float32),
            baseline=np.array([10], np.float32),
        ),
    )


def pairs():
    features = values(10_000, seed=3)
    features[:8] = [[1e30], [-1e30], [3e38], [-3e38], [0], [-0.0], [1e-35], [-1e-35]]
    known = np.unique(values(200, seed=0))
    features[100:300] = np.resize(known, (200, 4))  # values that were trained on
    return features


@pytest.mark.parametrize("curve", [LINE, BENT], ids=["a line", "a curve"])
def test_xgboost_and_the_trees_of_engines_give_the_scorers_probabilities(head, curve, tmp_path):
    head = dataclasses.replace(head, curve=curve)
    xgboost_head.write_heads(tmp_path, {"full": head})
    features = pairs()
    expected = score(head, table(features))
    assert np.ptp(expected) > 0.1
    found = xgboost_head.readable_heads(tmp_path, "full")
    assert set(found) == {"tree JSON", "XGBoost"}
    for probabilities in found.values():
        lists = np.arange(len(features))
        np.testing.assert_allclose(probabilities(features, lists), expected, atol=1e-5)


def test_the_trees_of_engines_are_what_xgboost_dumps(head, tmp_path):
    xgboost_head.write_heads(tmp_path, {"full": head})
    booster = xgboost.Booster(model_file=tmp_path / "head-full.xgboost.json")
    dumped = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]

    def rounded(node):
        if isinstance(node, list):
            return [rounded(part) for part in node]
        if isinstance(node, dict):
            return {name: rounded(part) for name, part in node.items()}
        return f"{node:.9g}" if isinstance(node, float) else node

    written = json.loads((tmp_path / "head-full.trees.json").read_text())
    assert rounded(written) == [rounded(tree) for tree in dumped]


def test_a_tree_worked_out_by_hand(trees, tmp_path):
    """Halved by the calibration; `<= t` is `<` of the next float32, 3.0000002 for 3."""
    xgboost_head.write_heads(tmp_path, {"full": trees})
    assert json.loads((tmp_path / "head-full.trees.json").read_text()) == [
        {
            "nodeid": 0,
            "depth": 0,
            "split": "a",
            "split_condition": float(np.nextafter(np.float32(0.1), np.float32(1))),
            "yes": 1,
            "no": 2,
            "missing": 2,
            "children": [
                {"nodeid": 1, "leaf": 5.5},
                {
                    "nodeid": 2,
                    "depth": 1,
                    "split": "c",
                    "split_condition": 3.000000238418579,
                    "yes": 3,
                    "no": 4,
                    "missing": 4,
                    "children": [{"nodeid": 3, "leaf": 6.0}, {"nodeid": 4, "leaf": 7.0}],
                },
            ],
        }
    ]
    booster = xgboost.Booster(model_file=tmp_path / "head-full.xgboost.json")
    rows = np.array([[0.1, 0, 9, 0], [0.11, 0, 3, 0], [0.11, 0, 3.1, 0]], np.float32)
    margins = booster.inplace_predict(rows, predict_type="margin")
    np.testing.assert_allclose(margins, [5.5, 6, 7])
    attributes = booster.attributes()
    assert attributes == {"features": '["a", "b", "c", "d"]', "version": trees.version}


def test_a_curve_is_an_attribute_and_the_value_a_score(trees, tmp_path):
    xgboost_head.write_heads(tmp_path, {"full": dataclasses.replace(trees, curve=BENT)})
    booster = xgboost.Booster(model_file=tmp_path / "head-full.xgboost.json")
    np.testing.assert_allclose(booster.inplace_predict(np.zeros((1, 4), np.float32)), [11])
    curve = json.loads(booster.attr("calibration"))
    assert curve == {"knots": BENT.knots.tolist(), "values": BENT.values.tolist()}


def test_trees_without_a_split_are_a_leaf(tmp_path):
    nothing = labelled(np.zeros((40, 4)), np.arange(40) % 2, grades=2)
    head = fitted(TREES, grades=2, curve=divided_by(2.0))
    head = dataclasses.replace(head, params=TREES.fit(nothing, FITTING))
    xgboost_head.write_heads(tmp_path, {"full": head})
    features = values(3, seed=0)
    for probabilities in xgboost_head.readable_heads(tmp_path, "full").values():
        found = probabilities(features, np.arange(3))
        np.testing.assert_allclose(found, score(head, table(features)), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head": Linear()}, "Linear is no sum of trees"),
        ({"head": Mlp(hidden=(4,))}, "Mlp is no sum of trees"),
        ({"in_lists": ("a", "c")}, "it compares a of a query's pairs"),
        ({"features": ("a b", "a-b", "c", "d")}, "'a b' and 'a-b' are both 'a_b' in an engine"),
    ],
    ids=["linear", "network", "in lists", "names"],
)
def test_what_no_sum_of_trees_says_is_not_written(trees, tmp_path, caplog, changes, reason):
    caplog.set_level("INFO")
    other = dataclasses.replace(trees, **changes)
    xgboost_head.write_heads(tmp_path, {"own": other})
    assert not [*tmp_path.iterdir()]
    assert f"the bundle has no head-own.trees.json: {reason}" in caplog.text.replace(
        "the features ", ""
    )
    assert xgboost_head.readable_heads(tmp_path, "own") == {}


def test_grades_and_the_end_of_float32_are_refused(trees):
    grades = dataclasses.replace(trees.params, baseline=np.zeros(4, np.float32))
    with pytest.raises(InputError, match="trees of 4 grades are no one sum"):
        xgboost_head.calibrated_trees(dataclasses.replace(trees, params=grades))
    largest = np.array([[[0, np.finfo(np.float32).max]]], np.float32)
    params = dataclasses.replace(trees.params, threshold=largest)
    with pytest.raises(InputError, match="a split is at the greatest float32"):
        xgboost_head.calibrated_trees(dataclasses.replace(trees, params=params))


def test_names_that_engines_take(trees, tmp_path):
    names = ("bm25", "price in €", "2nd-best", "d")
    assert xgboost_head.engine_names(names) == ("bm25", "price_in__", "_2nd_best", "d")
    xgboost_head.write_heads(tmp_path, {"full": dataclasses.replace(trees, features=names)})
    booster = xgboost.Booster(model_file=tmp_path / "head-full.xgboost.json")
    assert booster.feature_names == ["bm25", "price_in__", "_2nd_best", "d"]
    assert json.loads(booster.attr("features")) == list(names)


@pytest.mark.parametrize("file", ["head-full.trees.json", "head-full.xgboost.json"])
def test_a_torn_file_is_named(trees, tmp_path, file):
    xgboost_head.write_heads(tmp_path, {"full": trees})
    (tmp_path / file).write_text("[")
    with pytest.raises(InputError, match=r"head-full\.\w+\.json.* export it anew"):
        xgboost_head.readable_heads(tmp_path, "full")
