from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from dsirm_jax.relevance import losses
from dsirm_jax.relevance.heads import within_queries
from tests.relevance.heads.labelled import labelled


def pairs(rows=60, queries=9, grades=3, seed=0):
    generator = np.random.default_rng(seed)
    return labelled(
        generator.normal(size=(rows, 4)),
        generator.integers(grades, size=rows),
        grades=grades,
        weights=generator.integers(1, 4, rows),
        queries=generator.integers(queries, size=rows),
    )


def brute_force(pairs, scores):
    """Returns the pairwise loss, pair of pairs by pair of pairs."""
    means = []
    for query in np.unique(pairs.queries):
        total = worth = 0.0
        for one, other in itertools.permutations(np.flatnonzero(pairs.queries == query), 2):
            if pairs.gains[one] > pairs.gains[other]:
                counts = float(pairs.weights[one] * pairs.weights[other])
                worth += counts * np.log1p(np.exp(scores[other] - scores[one]))
                total += counts
        if total:
            means.append(worth / total)
    return np.mean(means)


LOSSES = {
    "pairwise": lambda of: within_queries.pairwise(within_queries.contests(of)),
    "listwise": within_queries.listwise,
    "pointwise": within_queries.pointwise,
}
IN_JAX = {
    "pairwise": lambda of, s: losses.pairwise_loss(s, of.gains, of.weights, of.queries),
    "listwise": lambda of, s: losses.listwise_loss(s, of.gains, of.weights, of.queries),
    "pointwise": lambda of, s: losses.binary_loss(s, of.labels, of.weights),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_slopes_are_those_of_jax_and_of_finite_differences(name):
    of = pairs()
    scores = np.random.default_rng(1).normal(size=len(of)) * 2
    value, slopes = LOSSES[name](of)(scores)
    in_jax, in_jax_slopes = jax.value_and_grad(lambda s: IN_JAX[name](of, s))(np.float32(scores))
    assert value == pytest.approx(float(in_jax), rel=1e-5)
    np.testing.assert_allclose(slopes, in_jax_slopes, atol=1e-6)
    numeric = approx_fprime(scores, lambda s: LOSSES[name](of)(s)[0], 1e-6)
    np.testing.assert_allclose(slopes, numeric, atol=1e-6)


def test_the_pairwise_loss_is_that_of_all_pairs_of_pairs():
    of = pairs()
    scores = np.random.default_rng(2).normal(size=len(of))
    value, _ = LOSSES["pairwise"](of)(scores)
    assert value == pytest.approx(brute_force(of, scores))


@pytest.mark.parametrize("name", ["pairwise", "listwise"])
def test_a_query_moved_as_a_whole_and_another_order_of_pairs_change_nothing(name):
    of = pairs()
    generator = np.random.default_rng(3)
    scores = generator.normal(size=len(of))
    value, slopes = LOSSES[name](of)(scores)
    moved = scores + generator.normal(size=9)[of.queries] * 50
    assert LOSSES[name](of)(moved)[0] == pytest.approx(value)
    order = generator.permutation(len(of))
    again, turned = LOSSES[name](of.rows(order))(scores[order])
    assert again == pytest.approx(value)
    np.testing.assert_allclose(turned, slopes[order], atol=1e-12)
    sums = np.bincount(of.queries, slopes)
    np.testing.assert_allclose(sums, 0, atol=1e-12)


def test_pairs_of_one_gain_have_no_contest():
    alike = labelled(np.zeros((4, 1)), [1, 1, 0, 0], grades=2, queries=[0, 0, 1, 1])
    of = within_queries.contests(alike)
    assert [len(part) for part in of] == [0, 0, 0]
    value, slopes = within_queries.pairwise(of)(np.arange(4.0))
    assert value == 0 and slopes.tolist() == [0] * 4


def test_the_line_is_scikit_learns_without_losses_within_queries():
    of = pairs(rows=400, grades=2)
    total = float(of.weights.sum())
    weights, bias = within_queries.best_line(
        of.features.astype(float),
        ((1.0, within_queries.pointwise(of)),),
        l2=3.0 / total,
        signs=np.zeros(4, int),
        with_bias=True,
    )
    reference = LogisticRegression(C=1 / 3, tol=1e-10, max_iter=5000)
    reference.fit(of.features, of.labels, sample_weight=of.weights)
    np.testing.assert_allclose(weights, reference.coef_[0], atol=1e-4)
    assert bias == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_under_signs_the_line_is_least_where_no_step_that_they_allow_goes_down():
    of = pairs(rows=400)
    inputs, l2 = of.features.astype(float), 0.01
    terms = ((1.0, LOSSES["pairwise"](of)), (0.5, LOSSES["listwise"](of)))
    signs = np.array([1, -1, 1, 0])
    weights, bias = within_queries.best_line(inputs, terms, l2=l2, signs=signs, with_bias=False)
    assert bias == 0 and (weights * signs >= 0).all()
    scores = inputs @ weights
    slope = inputs.T @ sum(counts * loss(scores)[1] for counts, loss in terms) + l2 * weights
    held = (weights == 0) & (signs != 0)
    assert held.any()
    np.testing.assert_allclose(slope[~held], 0, atol=1e-5)
    assert (slope[held] * signs[held] >= 0).all()
