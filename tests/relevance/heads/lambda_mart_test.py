from __future__ import annotations

import sys

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics.ranking import ndcg_at_k
from dsirm_jax.relevance.heads import lambda_mart
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.trees import BoostedTrees
from tests.relevance.heads.labelled import FITTING, labelled

SMALL = LambdaMart(trees=40, leaves=5, min_leaf=10, l2=1.0, columns=0.7, learning_rate=0.2)
COLUMNS = FITTING._replace(columns=("a", "b", "c", "d", "e"))


def pairs(rows=1500, seed=0, of_query=10):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, 5)).astype(np.float32)
    features[:, 1] = np.round(features[:, 1])  # ties
    features[:, 2] = 4  # a constant
    quality = features[:, 0] + features[:, 1] * features[:, 3] + generator.normal(size=rows)
    return labelled(
        features,
        np.digitize(quality, [-0.5, 0.5, 1.5]),
        grades=4,
        weights=generator.integers(1, 4, rows),
        queries=generator.permutation(np.arange(rows) // of_query),
    )


@pytest.mark.parametrize("leaves", [2, 5, 32])
def test_equals_lightgbms_own_predictions(leaves):
    of, asked = pairs(), pairs(seed=1).features
    head = LambdaMart(trees=60, leaves=leaves, min_leaf=8, l2=1.0, learning_rate=0.1)
    booster = lambda_mart.boosted(head, of, FITTING)
    params = head.fit(of, FITTING)
    # Also on the thresholds themselves, and beside them.
    thresholds = np.resize(params.threshold[np.isfinite(params.threshold)], (300, 5))
    asked = np.concatenate([asked, thresholds, np.nextafter(thresholds, np.float32(np.inf))])
    expected = booster.predict(asked.astype(float))
    assert np.ptp(expected) > 1
    found = np.asarray(head.outputs(params, asked, grades=4))[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)


def test_trees_rank_queries_that_they_have_not_seen():
    of, other = pairs(), pairs(seed=5)
    found = np.asarray(SMALL.outputs(SMALL.fit(of, FITTING), other.features, grades=4))[:, 0]
    by_one = ndcg_at_k(other.queries, other.gains, other.features[:, 0], k=10)
    assert ndcg_at_k(other.queries, other.gains, found, k=10) > by_one + 0.03


def test_the_order_of_pairs_and_the_numbers_of_queries_do_not_matter():
    of = pairs()
    order = np.argsort(of.queries, kind="stable")
    by_query = SMALL.fit(of.rows(order), FITTING)
    again = SMALL.fit(of, FITTING)
    np.testing.assert_array_equal(by_query.value, again.value)
    np.testing.assert_array_equal(by_query.threshold, again.threshold)


def test_it_starts_from_the_log_odds_of_another_head():
    of = pairs()
    start = Linear(l2=1.0)
    head = LambdaMart(trees=30, min_leaf=10, start=start)
    assert (LambdaMart().loss, head.loss) == ("ranking", "binary")
    params = head.fit(of, FITTING)
    base = np.asarray(start.outputs(start.fit(of, FITTING), of.features, grades=4))[:, 0]
    booster = lambda_mart.boosted(head, of, FITTING, base=base.astype(float))
    found = np.asarray(head.outputs(params, of.features, grades=4))[:, 0]
    expected = base + booster.predict(of.features.astype(float))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    before, after = (ndcg_at_k(of.queries, of.gains, s, k=10) for s in (base, found))
    assert after > before


def test_outputs_rise_and_fall_where_they_are_told_to():
    of = pairs()
    head = LambdaMart(trees=40, min_leaf=10, columns=1.0, rising=("a", "d"), falling=("b",))
    params = head.fit(of, COLUMNS)
    asked = np.repeat(of.features[:50], 41, axis=0)
    for column, sign in ((0, 1), (3, 1), (1, -1)):
        swept = asked.copy()
        swept[:, column] = np.tile(np.linspace(-3, 3, 41), 50)
        found = np.asarray(head.outputs(params, swept, grades=4)).reshape(50, 41)
        assert (sign * np.diff(found, axis=1) >= -1e-6).all()
    free = LambdaMart(trees=40, min_leaf=10, columns=1.0)
    found = np.asarray(free.outputs(free.fit(of, COLUMNS), swept, grades=4)).reshape(50, 41)
    assert (np.diff(found, axis=1) > 1e-3).any()


def test_pairs_that_nothing_tells_apart_give_no_tree():
    of = labelled(np.zeros((40, 2)), np.arange(40) % 2, grades=2)
    params = SMALL.fit(of, FITTING)
    assert not np.asarray(SMALL.outputs(params, of.features, grades=2)).any()


def test_too_many_pairs_of_a_query_and_a_missing_library_are_named(monkeypatch):
    many = labelled(np.zeros((10_001, 1)), np.arange(10_001) % 2, grades=2, queries=[0] * 10_001)
    with pytest.raises(InputError, match="a query has 10,001 pairs, and LambdaMart ranks at most"):
        SMALL.fit(many, FITTING)
    monkeypatch.setitem(sys.modules, "lightgbm", None)  # what an import meets where there is none
    with pytest.raises(InputError, match=r"LambdaMart needs LightGBM .*\.\[ranking\]"):
        SMALL.fit(pairs(), FITTING)


def test_a_start_is_a_head_of_log_odds():
    with pytest.raises(InputError, match="gin binding LambdaMart.start is .*; bind a head of the"):
        LambdaMart(start=BoostedTrees(loss="graded"))
    with pytest.raises(InputError, match=r"gin binding LambdaMart.start is .*parentheses|a head"):
        LambdaMart(start="Linear")
