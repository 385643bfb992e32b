from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dsirm_jax.metrics import power


def test_a_detectable_lift_is_found_in_four_of_five_samples():
    of = power.power(standard_error=0.01, auc=0.8, queries=500)
    # Of a normal estimate whose truth is that lift.
    found = 1 - stats.norm.cdf(stats.norm.ppf(0.975), loc=of.detectable / 0.01)
    assert found == pytest.approx(0.8, abs=1e-4)


def test_queries_for_the_target_by_hand():
    # 2.801585 x .01 = .0280; 1.54 % of .8 is .01232; (2.2740)^2 x 500 = 2,585.5.
    assert power.power(standard_error=0.01, auc=0.8, queries=500).target_queries == 2586
    needed = power.power(standard_error=0.01 * math.sqrt(500 / 2586), auc=0.8, queries=2586)
    assert needed.detectable == pytest.approx(0.0154 * 0.8, rel=1e-3)


@pytest.mark.parametrize(
    ("error", "auc"),
    [pytest.param(math.nan, 0.8, id="no error"), pytest.param(0.1, math.nan, id="no AUC")],
)
def test_what_is_undefined_tells_nothing(error, auc):
    assert power.power(standard_error=error, auc=auc, queries=5) is None


def test_the_design_effect_by_hand():
    def effect(*labels):
        return power.design_effect(np.array(labels), np.repeat([3, 8], 4))

    # Labels of a query are all alike: one query counts as one pair.
    assert effect(1, 1, 1, 1, 0, 0, 0, 0) == pytest.approx(4)
    # Mean squares: among 2 x 4 x .25² / 1 = .5, inside 2 x .75 / 6 = .25, so that the correlation
    # is .25 / (.5 + 3 x .25) = .2.
    assert effect(1, 1, 1, 0, 1, 0, 0, 0) == pytest.approx(1 + 3 * 0.2)
    assert effect(1, 0, 1, 0, 1, 0, 1, 0) == 1
    assert power.design_effect(np.array([1, 0]), np.array([0, 1])) == 1


def test_the_variance_of_an_auc_is_that_of_hanley_and_mcneil():
    labels = np.repeat([False, True], [58, 51])  # normal and abnormal in their example
    found = power.expected_error(labels, np.arange(109), auc=0.893, correlation=0.5)
    # The area .893 has a standard error of .0325, here times the root of 2 (1 - .5).
    assert found == pytest.approx(0.0325, abs=1e-4)


def test_the_expected_error_is_near_what_samples_show():
    """Scores of two rungs, alike within queries as labels are, over and over."""
    differences, expected = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        queries = np.repeat(np.arange(100), 6)
        served = random.normal(size=100)[queries]
        shared = served + random.normal(size=600)
        labels = shared + random.normal(size=600) > 0
        one, other = (shared + 0.5 * random.normal(size=600) for _ in range(2))
        aucs = [stats.mannwhitneyu(s[labels], s[~labels]).statistic for s in (one, other)]
        relevant = labels.sum()
        differences.append((aucs[0] - aucs[1]) / (relevant * (600 - relevant)))
        expected.append(power.expected_error(labels, queries))
    # A plan, not a measurement: the right order of magnitude.
    assert 0.5 < np.mean(expected) / np.std(differences) < 2


def test_without_a_class_there_is_no_error():
    assert math.isnan(power.expected_error(np.ones(3, bool), np.arange(3)))
