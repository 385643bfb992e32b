from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from dsirm_jax.metrics.classification import ece
from dsirm_jax.relevance import calibration


def test_the_temperature_undoes_overconfidence():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=20000)
    labels = generator.random(20000) < expit(logits)
    found = calibration.fit_temperature(3 * logits, labels, np.ones(20000))
    assert found == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("kind", calibration.CALIBRATIONS)
def test_one_class_leaves_the_logits_as_they_are(kind):
    logits, labels = np.arange(4.0), np.array([True, True, True, False])
    curve = calibration.fit_curve(
        kind, logits=logits, labels=labels, weights=np.array([1, 1, 1, 0])
    )
    np.testing.assert_allclose(calibration.calibrated(curve, logits), logits)


def test_a_curve_by_hand():
    curve = calibration.Curve(np.float32([-1, 0, 1]), np.float32([-3, 0, 1]))
    found = calibration.calibrated(curve, np.float32([-2, -0.5, 0.5, 1, 3]))
    np.testing.assert_allclose(found, [-6, -1.5, 0.5, 1, 3], rtol=1e-6)
    halved = calibration.divided_by(2)
    np.testing.assert_allclose(calibration.calibrated(halved, np.float32([-8, 3])), [-4, 1.5])
    assert calibration.calibrated_probabilities(halved, np.float32([0])).tolist() == [0.5]


def test_blocks_of_the_rising_curve_are_those_of_isotonic_regression():
    generator = np.random.default_rng(1)
    logits = np.round(generator.normal(size=3000), 2)
    labels = generator.random(3000) < expit(np.sin(2 * logits) + logits)
    weights = generator.choice([1.0, 2.0], 3000)
    curve = calibration.rising_curve(logits, labels, weights)
    reference = IsotonicRegression().fit(logits, labels, sample_weight=weights)
    inner, values = curve.knots[1:-1], expit(curve.values[1:-1])
    # Half a pair moves a share of w pairs by less than 1 / (w + 1); all but tiny blocks are large.
    found = reference.predict(inner)
    assert np.mean(np.abs(found - values) < 0.02) > 0.8
    assert np.quantile(np.abs(found - values), 0.5) < 0.01


def test_the_rising_curve_by_hand():
    logits = np.array([-2.0, -1.0, 0.0, 1.0, 1.0, 2.0])
    labels = np.array([False, True, False, True, True, True])
    # Blocks: {-2}: 0 of 1; {-1, 0}: 1 of 2; {1, 1, 2}: 3 of 3.
    curve = calibration.rising_curve(logits, labels, np.ones(6))
    np.testing.assert_allclose(curve.knots, [-3, -2, -0.5, 4 / 3, 7 / 3], rtol=1e-6)
    odds = np.log([0.5 / 1.5, 1, 3.5 / 0.5])
    np.testing.assert_allclose(curve.values, [odds[0] - 1, *odds, odds[-1] + 1], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(1, 9)), min_size=2))
def test_the_rising_curve_always_rises(rows):
    logits, labels, weights = (np.array(of) for of in zip(*rows, strict=True))
    curve = calibration.rising_curve(1.0 * logits, labels, 1.0 * weights)
    assert len(curve.knots) == len(curve.values) >= 3
    assert (np.diff(curve.knots) > 0).all()
    assert (np.diff(curve.values) > 0).all()


@pytest.mark.parametrize("kind", calibration.CALIBRATIONS)
def test_calibration_keeps_the_order_and_mends_what_it_can(kind):
    generator = np.random.default_rng(2)
    logits = generator.normal(size=40000)
    is_off = {
        "temperature": 2 * logits,
        "isotonic": np.exp(logits) + 1,
        "logistic": 3 * logits + 50,
    }[kind]
    labels = generator.random(40000) < expit(logits)
    rows = slice(20000)
    curve = calibration.fit_curve(
        kind, logits=is_off[rows], labels=labels[rows], weights=np.ones(20000)
    )
    is_off, labels = is_off[20000:], labels[20000:]
    found = np.asarray(calibration.calibrated_probabilities(curve, is_off.astype(np.float32)))
    assert ece(labels, found) < 0.02 < ece(labels, expit(is_off))
    assert (np.diff(found[np.argsort(is_off)]) >= 0).all()


def test_the_rising_line_is_that_of_logistic_regression():
    generator = np.random.default_rng(3)
    scores = 40 * generator.normal(size=4000) + 700
    labels = generator.random(4000) < expit((scores - 740) / 30)
    weights = generator.choice([1.0, 2.0], 4000)
    curve = calibration.fit_curve("logistic", logits=scores, labels=labels, weights=weights)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    reference.fit((scores[:, None] - 700) / 40, labels, sample_weight=weights)
    asked = np.float32([600, 700, 800])
    expected = reference.decision_function((asked[:, None] - 700) / 40)
    np.testing.assert_allclose(calibration.calibrated(curve, asked), expected, atol=2e-3)


def test_the_line_rises_where_scores_tell_the_wrong_way_or_nothing():
    labels = np.arange(400) % 4 == 0
    for scores in (-1.0 * labels, np.zeros(400)):
        curve = calibration.fit_curve(
            "logistic", logits=scores, labels=labels, weights=np.ones(400)
        )
        assert (np.diff(curve.values) > 0).all() and (np.diff(curve.knots) > 0).all()
        found = calibration.calibrated_probabilities(curve, np.float32(scores))
        assert np.mean(found) == pytest.approx(0.25, abs=1e-3)
