from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.tree_params import sum_of_trees
from dsirm_jax.relevance.heads.trees import BoostedTrees, classifier, read_trees
from tests.relevance.heads.labelled import FITTING, labelled


def pairs(rows: int = 2000, classes: int = 2):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(rows, 6)).astype(np.float32)
    features[:, 1] = np.round(features[:, 1])  # ties
    features[:, 2] = 4  # a constant
    edges = np.linspace(-1, 1, classes + 1)[1:-1]
    noisy = features[:, 0] * features[:, 1] + generator.normal(size=rows) * 0.3
    return features, np.digitize(noisy, edges), generator.integers(1, 4, rows) * 1.0


@pytest.mark.parametrize("leaves", [2, 5, 32])
@pytest.mark.parametrize("classes", [2, 4])
def test_equal_scikit_learns_own_predictions(leaves, classes):
    features, labels, weights = pairs(classes=classes)
    loss = "binary" if classes == 2 else "graded"
    head = BoostedTrees(trees=37, leaves=leaves, min_leaf=5, learning_rate=0.2, l2=1.0, loss=loss)
    params = head.fit(labelled(features, labels, grades=classes, weights=weights), FITTING)
    with threadpool_limits(1):
        reference = classifier(head, seed=0).fit(features, labels, sample_weight=weights)
    # Also on the thresholds themselves, and beside them.
    thresholds = np.resize(params.threshold[np.isfinite(params.threshold)], (300, 6))
    asked = np.concatenate([features, thresholds, np.nextafter(thresholds, np.float32(np.inf))])
    expected = reference.decision_function(asked)
    found = np.asarray(sum_of_trees(params, asked))
    if classes == 2:
        np.testing.assert_allclose(found[:, 0], expected, atol=2e-6)
    else:
        logs = log_softmax(found.astype(float), axis=1)
        np.testing.assert_allclose(logs, log_softmax(expected, axis=1), atol=4e-6)
        np.testing.assert_allclose(np.exp(logs), reference.predict_proba(asked), atol=1e-6)


def test_a_tree_without_a_split_and_a_class_without_a_pair():
    features, labels, weights = pairs(rows=60)
    head = BoostedTrees(trees=3, min_leaf=50)
    params = head.fit(labelled(features, labels, grades=2, weights=weights), FITTING)
    share = np.average(labels, weights=weights)
    expected = np.full((60, 1), np.log(share / (1 - share)))
    np.testing.assert_allclose(sum_of_trees(params, features), expected, atol=1e-5)
    graded = BoostedTrees(trees=3, min_leaf=50, loss="graded")
    of_four = graded.fit(labelled(features, labels * 2 + 1, grades=4, weights=weights), FITTING)
    logs = log_softmax(np.asarray(sum_of_trees(of_four, features)), axis=1)
    np.testing.assert_allclose(np.exp(logs[:, 3]), share, atol=1e-5)
    assert np.exp(logs[:, [0, 2]]).max() < 1e-6


def test_a_version_of_scikit_learn_that_keeps_trees_in_another_way_is_named():
    features, labels, _ = pairs(rows=200)
    fitted = classifier(BoostedTrees(trees=2), seed=0).fit(features, labels)
    start, rounds = read_trees(fitted)
    assert start.shape == (1,) and [len(trees) for trees in rounds] == [1, 1]
    nodes = SimpleNamespace(nodes=np.zeros(1, [("is_leaf", bool), ("value", float)]))
    start = np.zeros((1, 1))
    for other in (
        SimpleNamespace(),
        SimpleNamespace(_baseline_prediction=start),
        SimpleNamespace(_baseline_prediction=start, _predictors=[[SimpleNamespace()]]),
        SimpleNamespace(_baseline_prediction=start, _predictors=[[nodes]]),
        SimpleNamespace(_baseline_prediction=start, _predictors=None),
    ):
        with pytest.raises(InputError, match=f"scikit-learn {sklearn.__version__} keeps"):
            read_trees(other)
