from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression

from dsirm_jax.relevance.heads.head import num_outputs
from dsirm_jax.relevance.heads.linear import Linear, rank_knots
from tests.relevance.heads.labelled import FITTING, labelled


def pairs(classes: int, rows: int = 500):
    generator = np.random.default_rng(0)
    features = np.round(generator.normal(size=(rows, 4)) ** 3, 1).astype(np.float32)
    features[:, 1] = np.round(features[:, 1])  # more ties
    features[:, 2] = 4  # a constant
    noisy = features[:, 0] + features[:, 1] + generator.normal(size=rows)
    edges = np.linspace(-1, 1, classes + 1)[1:-1]
    return features, np.digitize(noisy, edges), generator.integers(1, 4, rows) * 1.0


def test_knots_by_hand():
    knots, scores = rank_knots(np.float32([5, 1, 5, 2]), most=5)
    np.testing.assert_allclose(knots, [1, 2, 5, 5, 5], atol=2e-3)
    # A quarter and half the pairs are below 2 and 5, and 1, 1 and 2 of four pairs have a value.
    np.testing.assert_allclose(scores, norm.ppf([0.125, 0.375, 0.75, 0.75, 0.75]), rtol=1e-6)


def test_few_knots_are_spread_evenly_over_the_ranks_and_keep_the_ends():
    values = np.random.default_rng(0).permutation(1001).astype(np.float32)
    knots, scores = rank_knots(values, most=11)
    np.testing.assert_allclose(knots, np.arange(0, 1001, 100), atol=0.2)
    np.testing.assert_allclose(scores, norm.ppf((np.arange(11) * 100 + 0.5) / 1001), rtol=1e-5)


def test_rounding_errors_have_no_ranks():
    values = np.float32([0, 0.3, 0.3 + 1e-7, 0.3 - 1e-7, 1, 1 - 1e-7])
    knots, scores = rank_knots(values, most=6)
    np.testing.assert_allclose(knots, [0, 0.3, 1, 1, 1, 1], atol=1e-3)
    np.testing.assert_allclose(scores[:3], norm.ppf([0.5 / 6, 2.5 / 6, 5 / 6]), rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_equals_scikit_learn_on_ranks_by_scipy(classes):
    features, labels, weights = pairs(classes)
    head = Linear(l2=20.0, knots=500, loss="binary" if classes == 2 else "graded")
    assert num_outputs(head, grades=classes) == (1 if classes == 2 else classes)
    params = head.fit(labelled(features, labels, grades=classes, weights=weights), FITTING)
    scores = norm.ppf((rankdata(features, axis=0) - 0.5) / len(features))
    reference = LogisticRegression(C=1 / 20, tol=1e-9, max_iter=5000)
    expected = reference.fit(scores, labels, sample_weight=weights).predict_log_proba(scores)
    found = np.asarray(head.outputs(params, features, grades=classes))
    if classes == 2:
        found = np.stack([0 * found[:, 0], found[:, 0]], axis=1)
    np.testing.assert_allclose(log_softmax(found, axis=1), expected, atol=0.02)


def test_a_class_without_a_pair_is_as_good_as_impossible():
    features, labels, weights = pairs(2)
    graded, binary = Linear(loss="graded"), Linear()
    of_four = graded.fit(labelled(features, labels * 2 + 1, grades=4, weights=weights), FITTING)
    alone = binary.fit(labelled(features, labels, grades=2, weights=weights), FITTING)
    found = np.asarray(graded.outputs(of_four, features, grades=4))
    log_odds = np.asarray(binary.outputs(alone, features, grades=2))[:, 0]
    np.testing.assert_allclose(found[:, 3] - found[:, 1], log_odds, atol=1e-5)
    assert np.exp(log_softmax(found, axis=1))[:, [0, 2]].max() < 1e-6


def test_values_that_training_did_not_see_lie_between_or_at_the_ends():
    head = Linear(l2=1.0)
    features = np.float32([[0], [1], [3], [4]])
    params = head.fit(labelled(features, np.array([0, 0, 1, 1]), grades=2), FITTING)
    asked = np.float32([[-9], [0], [1], [2], [3], [4], [99]])
    found = head.outputs(params, asked, grades=2)[:, 0].tolist()
    low, first, second, middle, third, last, high = found
    assert low == first < second < third < last
    assert middle == pytest.approx((second + third) / 2, abs=2e-3)
    assert high == pytest.approx(last, abs=2e-3)
