from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from dsirm_jax.metrics import classification


def test_roc_auc_by_hand():
    labels = np.array([1, 0, 1, 0])
    # Of the four (relevant, irrelevant) pairs: .9 > .8, .9 > .1, .8 = .8 (half), .8 > .1.
    assert classification.roc_auc(labels, np.array([0.9, 0.8, 0.8, 0.1])) == 3.5 / 4


def test_pr_auc_by_hand():
    labels = np.array([1, 0, 1])
    # Precision 1/1 at recall 1/2, then 2/3 at recall 1.
    assert classification.pr_auc(labels, np.array([3.0, 2.0, 1.0])) == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )


def test_log_loss_by_hand():
    labels, probabilities = np.array([1, 0]), np.array([0.5, 0.75])
    expected = (np.log(2) + np.log(4)) / 2
    assert classification.log_loss(labels, probabilities) == pytest.approx(expected)


def test_ece_by_hand():
    # Bin [0, .5): mean probability .3, mean label .5. Bin [.5, 1]: .8 and 1.
    labels, probabilities = np.array([0, 1, 1]), np.array([0.2, 0.4, 0.8])
    expected = (2 * abs(0.5 - 0.3) + 1 * abs(1 - 0.8)) / 3
    assert classification.ece(labels, probabilities, bins=2) == pytest.approx(expected)


def test_ece_of_perfect_and_worst_predictions():
    labels = np.array([0, 1, 1, 0])
    assert classification.ece(labels, labels.astype(float)) == 0
    assert classification.ece(labels, 1.0 - labels) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=30))
def test_agrees_with_scikit_learn_whatever_the_ties(rows):
    labels = np.array([label for label, _ in rows])
    probabilities = np.array([level / 4 for _, level in rows])
    if labels.any() and not labels.all():
        assert classification.roc_auc(labels, probabilities) == pytest.approx(
            sklearn_metrics.roc_auc_score(labels, probabilities)
        )
    assert classification.log_loss(labels, probabilities) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=[False, True])
    )


def test_one_class_has_no_auc():
    assert np.isnan(classification.roc_auc(np.ones(3), np.arange(3.0)))
    assert np.isnan(classification.pr_auc(np.zeros(3), np.arange(3.0)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "metric",
    [
        classification.roc_auc,
        classification.pr_auc,
        classification.log_loss,
        classification.ece,
    ],
)
def test_a_score_that_is_not_finite_is_an_error_that_names_its_place(metric, bad):
    with pytest.raises(ValueError, match="position 1"):
        metric(np.array([1, 0]), np.array([0.5, bad]))


def test_probabilities_outside_the_unit_interval_are_an_error():
    with pytest.raises(ValueError, match="outside"):
        classification.log_loss(np.array([1]), np.array([1.5]))


def test_arrays_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="one length"):
        # Under the checks of shapes another error would come first.
        inspect.unwrap(classification.roc_auc)(np.array([1, 0, 1]), np.array([0.5, 0.1]))


def test_the_floor_of_ece_by_enumeration():
    # One bin of two pairs at one half: |1 - hits| / 2 is 1/2, 0, 0 or 1/2 with equal chance.
    assert classification.ece_floor(np.array([0.5, 0.5]), draws=4000) == pytest.approx(
        0.25, abs=0.02
    )
    assert classification.ece_floor(np.array([0.0, 1.0, 1.0])) == 0
    assert np.isnan(classification.ece_floor(np.empty(0)))


def test_the_floor_of_ece_falls_with_the_root_of_the_pairs():
    probabilities = np.random.default_rng(0).random(40_000)
    few = classification.ece_floor(probabilities[:400], draws=50)
    many = classification.ece_floor(probabilities, draws=50)
    assert few / many == pytest.approx(10, rel=0.15)
    # The bins are many sums of independent errors: their mean absolute value is that of a normal.
    variance = np.bincount((probabilities * 15).astype(int), probabilities * (1 - probabilities))
    assert many == pytest.approx(np.sqrt(2 / np.pi * variance).sum() / 40_000, rel=0.05)


def test_the_floor_of_ece_wants_probabilities():
    with pytest.raises(ValueError, match="position 1"):
        classification.ece_floor(np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match="outside"):
        classification.ece_floor(np.array([1.5]))


def test_reliability_by_hand():
    found = classification.reliability(
        np.array([0, 1, 1, 0, 1]), np.array([0.125, 0.25, 0.5, 0.625, 1.0]), bins=3
    )
    # Thirds: two pairs in the first, two in the second, one in the last, whose end is closed.
    assert found.number.tolist() == [0, 1, 2] and found.pairs.tolist() == [2, 2, 1]
    assert found.probability.tolist() == [0.1875, 0.5625, 1.0]
    assert found.share.tolist() == [0.5, 0.5, 1.0]
    assert len(classification.reliability(np.empty(0), np.empty(0)).number) == 0
    with pytest.raises(ValueError, match="outside"):
        classification.reliability(np.array([1]), np.array([1.5]))


@given(st.integers(0, 2**31))
def test_the_gaps_of_reliability_are_the_ece_and_its_means_those_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.beta(0.5, 1, 40), rng.random(40) < 0.3
    found = classification.reliability(labels, probabilities)
    weights = found.pairs / 40
    gaps = np.abs(found.probability - found.share)
    assert weights @ gaps == pytest.approx(classification.ece(labels, probabilities))
    assert weights @ found.share == pytest.approx(labels.mean())
    assert weights @ found.probability == pytest.approx(probabilities.mean())
    # Equal-width bins hold what sklearn's calibration curve has in them.
    from sklearn.calibration import calibration_curve

    share, probability = calibration_curve(labels, probabilities, n_bins=15)
    np.testing.assert_allclose(found.share, share)
    np.testing.assert_allclose(found.probability, probability)
