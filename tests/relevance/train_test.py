from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from dsirm_jax.errors import InputError
from dsirm_jax.metrics import classification
from dsirm_jax.relevance import losses, model, train
from dsirm_jax.relevance.score import score
from dsirm_jax.training.settings import Training

HEAD = model.HeadConfig(hidden=(16,))
TRAINING = Training(epochs=6, batch_size=64, learning_rate=1e-2)


def pairs(seed: int, rows: int = 3000):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(rows, 3)) * [1, 100, 0.01] + [0, 50, 3]
    truth = expit(1.5 * features[:, 0] + 1.0 * (features[:, 1] - 50) / 100)
    queries = [f"query {row // 5}" for row in range(rows)]
    return features.astype(np.float32), generator.random(rows) < truth, truth, queries


def fit(tmp_path, features, labels, queries, **settings):
    return train.train(
        **{
            "name": "relevance",
            "features": features,
            "labels": labels,
            "weights": np.ones(len(labels)),
            "queries": queries,
            "head": HEAD,
            "training": TRAINING,
            "directory": tmp_path,
            "seed": 0,
        }
        | settings
    )


def test_reaches_the_auc_and_calibration_of_the_truth(tmp_path):
    features, labels, _, queries = pairs(0)
    params = fit(tmp_path, features, labels, queries)
    features, labels, truth, _ = pairs(1)
    probabilities = score(params, features, head=HEAD)
    assert roc_auc_score(labels, probabilities) > roc_auc_score(labels, truth) - 0.01
    assert classification.ece(labels, probabilities) < 0.05


def test_shuffled_labels_teach_nothing(tmp_path):
    features, labels, _, queries = pairs(0)
    shuffled = np.random.default_rng(5).permutation(labels)
    params = fit(tmp_path, features, shuffled, queries)
    features, labels, _, _ = pairs(1)
    noise = np.random.default_rng(6).permutation(labels)
    probabilities = score(params, features, head=HEAD)
    assert abs(roc_auc_score(noise, probabilities) - 0.5) < 0.04
    assert probabilities.std() < 0.12


def test_pairs_without_weight_teach_nothing(tmp_path):
    features, labels, _, queries = pairs(0)
    poisoned = np.arange(len(labels)) % 2 == 0
    given = np.where(poisoned, ~labels, labels)
    params = fit(tmp_path, features, given, queries, weights=(~poisoned).astype(float))
    features, labels, truth, _ = pairs(1)
    found = roc_auc_score(labels, score(params, features, head=HEAD))
    assert found > roc_auc_score(labels, truth) - 0.015


def test_the_same_seed_gives_the_same_parameters_and_a_restart_goes_on(tmp_path):
    features, labels, _, queries = pairs(0, rows=600)
    one = fit(tmp_path / "one", features, labels, queries)
    two = fit(tmp_path / "two", features, labels, queries)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    again = fit(tmp_path / "one", features, labels, queries)
    jax.tree.map(np.testing.assert_array_equal, one, again)


def test_scores_do_not_depend_on_the_units_of_a_feature(tmp_path):
    features, labels, _, queries = pairs(0, rows=600)
    scaled = features * np.float32([1024, 2**-10, 1])
    one = score(fit(tmp_path / "1", features, labels, queries), features, head=HEAD)
    two = score(fit(tmp_path / "2", scaled, labels, queries), scaled, head=HEAD)
    np.testing.assert_allclose(one, two, atol=2e-3)


def test_a_constant_feature_and_a_wild_one_give_finite_scores(tmp_path):
    features, labels, _, queries = pairs(0, rows=600)
    features[:, 2] = 7
    params = fit(tmp_path, features, labels, queries)
    assert np.isfinite(score(params, np.full((2, 3), 1e30, np.float32), head=HEAD)).all()


def test_calibration_splits_by_query_and_keeps_its_share():
    queries = [f"query {row // 3}" for row in range(6000)]
    kept = train.calibration_queries(queries, share=0.25, seed=0)
    assert (kept.reshape(-1, 3) == kept[::3, None]).all()
    assert abs(kept.mean() - 0.25) < 0.03
    np.testing.assert_array_equal(
        kept[:30], train.calibration_queries(queries[:30], share=0.25, seed=0)
    )
    assert not train.calibration_queries(queries, share=0.0, seed=0).any()


def test_the_temperature_undoes_overconfidence():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=20000)
    labels = generator.random(20000) < expit(logits)
    assert train.fit_temperature(3 * logits, labels, np.ones(20000)) == pytest.approx(3, rel=0.05)
    assert train.fit_temperature(logits[:5], np.ones(5, bool), np.ones(5)) == 1


def test_loss_by_hand():
    value = losses.binary_loss(
        np.float32([0.0, np.log(3), 50.0]),
        np.array([True, False, False]),
        np.float32([1.0, 3.0, 0.0]),
    )
    assert value == pytest.approx((np.log(2) + 3 * np.log(4)) / 4)
    assert (
        losses.binary_loss(np.zeros(2, np.float32), np.zeros(2, bool), np.zeros(2, np.float32)) == 0
    )


def test_one_class_is_an_error_that_says_what_to_do(tmp_path):
    features, labels, _, queries = pairs(0, rows=100)
    with pytest.raises(InputError, match="relevant_labels"):
        fit(tmp_path, features, np.ones_like(labels), queries)
