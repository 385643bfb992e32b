import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from dsirm_jax.metrics.bootstrap import bootstrap, interval
from dsirm_jax.metrics.correlation import spearman_statistic

SEEDS = st.integers(0, 2**31)


def value(one, other):
    counts = np.ones((len(one), 1), np.int32)
    return spearman_statistic(np.asarray(one, float), np.asarray(other, float))(counts)[0]


def test_by_hand():
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1)).
    assert value([10, 20, 30, 40], [0.1, 0.3, 0.2, 0.9]) == pytest.approx(1 - 12 / 60)
    # Ranks 1.5 1.5 3 against 1 2 3: covariance 1.5, variances 1.5 and 2.
    assert value([7, 7, 9], [1, 2, 3]) == pytest.approx(1.5 / np.sqrt(3))
    assert value([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)


@settings(max_examples=60)
@given(SEEDS)
def test_a_resample_has_the_correlation_of_its_queries_repeated(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(5, size=12).astype(float), rng.normal(size=12).round(1)
    one[rng.random(12) < 0.2] = np.nan
    counts = rng.integers(3, size=(12, 6)).astype(np.int32)
    samples = spearman_statistic(one, other)(counts)
    for number, sample in enumerate(samples):
        rows = np.repeat(np.arange(12), counts[:, number])
        rows = rows[~np.isnan(one[rows])]
        is_even = len({*one[rows]}) < 2 or len({*other[rows]}) < 2
        expected = np.nan if is_even else spearmanr(one[rows], other[rows]).statistic
        assert sample == pytest.approx(expected, nan_ok=True)


@settings(max_examples=60)
@given(SEEDS)
def test_it_is_symmetric_and_knows_order_alone(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 20)).round(1)
    rho = value(one, other)
    assert value(other, one) == pytest.approx(rho)
    assert value(np.exp(one), other**3) == pytest.approx(rho)
    assert value(-one, other) == pytest.approx(-rho)
    order = rng.permutation(20)
    assert value(one[order], other[order]) == pytest.approx(rho)


def test_it_is_undefined_of_one_value_and_of_nothing():
    assert np.isnan(value([1, 1, 1], [1, 2, 3]))
    assert np.isnan(value([np.nan, np.nan], [1, 2]))


def test_the_interval_holds_the_truth_of_independent_figures():
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        statistic = {"rho": spearman_statistic(rng.normal(size=80), rng.integers(4, size=80) * 1.0)}
        values, samples = bootstrap(
            statistic, num_queries=80, num_pairs=80, resamples=200, seed=seed
        )
        found = interval(values["rho"], samples["rho"])
        held += found.low <= 0 <= found.high
    assert held >= 34  # of 38 expected
