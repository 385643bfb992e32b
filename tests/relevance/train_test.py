from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import classification
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance import train
from dsirm_jax.relevance.calibration import AS_IT_IS, Calibration
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import esci_probabilities, grade_probabilities, score
from dsirm_jax.training.settings import Training

MLP = Mlp(hidden=(16,))
TREES = BoostedTrees(trees=60, min_leaf=20)
LINEAR = Linear(l2=10.0, knots=32)
BLEND = Blend(heads=(LINEAR, MLP))
HEADS = pytest.mark.parametrize(
    "head", [MLP, TREES, LINEAR, BLEND], ids=["mlp", "trees", "linear", "blend"]
)
OF_GRADES = [
    Mlp(hidden=(16,), loss="graded"),
    BoostedTrees(trees=60, loss="graded"),
    Linear(l2=1.0, loss="graded"),
]
GRADED = pytest.mark.parametrize("head", OF_GRADES, ids=["mlp", "trees", "linear"])
TRAINING = Training(epochs=6, batch_size=64, learning_rate=1e-2)


def table(values: np.ndarray) -> FeatureTable:
    return FeatureTable(names=("one", "two", "three"), groups=("dense",) * 3, values=values)


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
            "features": table(features),
            "labels": labels,
            "gains": np.asarray(labels, float),
            "weights": np.ones(len(labels)),
            "queries": queries,
            "head": MLP,
            "training": TRAINING,
            "calibration": Calibration(),
            "directory": tmp_path,
            "seed": 0,
        }
        | settings
    )


def leaves(fitted):
    return jax.tree.leaves((fitted.params, fitted.curve))


@pytest.mark.parametrize(
    ("head", "calibration"),
    [
        pytest.param(MLP, Calibration(), id="mlp"),
        pytest.param(MLP, Calibration(folds=2, kind="isotonic"), id="mlp isotonic folds"),
        pytest.param(TREES, Calibration(), id="trees"),
        pytest.param(TREES, Calibration(folds=3), id="trees folds"),
        pytest.param(TREES, Calibration(kind="isotonic"), id="trees isotonic"),
        pytest.param(LINEAR, Calibration(), id="linear"),
        pytest.param(BLEND, Calibration(), id="blend"),
    ],
)
def test_reaches_the_auc_and_calibration_of_the_truth(tmp_path, head, calibration):
    features, labels, _, queries = pairs(0)
    fitted = fit(tmp_path, features, labels, queries, head=head, calibration=calibration)
    features, labels, truth, _ = pairs(1)
    probabilities = score(fitted, table(features))
    assert roc_auc_score(labels, probabilities) > roc_auc_score(labels, truth) - 0.012
    assert classification.ece(labels, probabilities) < 0.05


@HEADS
def test_shuffled_labels_teach_nothing(tmp_path, head):
    features, labels, _, queries = pairs(0)
    shuffled = np.random.default_rng(5).permutation(labels)
    fitted = fit(tmp_path, features, shuffled, queries, head=head)
    features, labels, _, _ = pairs(1)
    noise = np.random.default_rng(6).permutation(labels)
    probabilities = score(fitted, table(features))
    assert abs(roc_auc_score(noise, probabilities) - 0.5) < 0.04
    assert probabilities.std() < 0.12


@HEADS
def test_pairs_without_weight_teach_nothing(tmp_path, head):
    features, labels, _, queries = pairs(0)
    poisoned = np.arange(len(labels)) % 2 == 0
    given = np.where(poisoned, ~labels, labels)
    weights = (~poisoned).astype(float)
    fitted = fit(tmp_path / "one", features, given, queries, weights=weights, head=head)
    features[poisoned] = 1e9
    again = fit(tmp_path / "two", features, given, queries, weights=weights, head=head)
    for one, other in zip(leaves(fitted), leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    features, labels, truth, _ = pairs(1)
    found = roc_auc_score(labels, score(fitted, table(features)))
    assert found > roc_auc_score(labels, truth) - 0.015


@HEADS
def test_the_same_seed_gives_the_same_parameters_and_a_restart_goes_on(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=600)
    fitted = [
        fit(tmp_path / folder, features, labels, queries, head=head)
        for folder in ("one", "two", "one")
    ]
    assert len({one.version for one in fitted}) == 1


def test_scores_do_not_depend_on_the_units_of_a_feature(tmp_path):
    features, labels, _, queries = pairs(0, rows=600)
    scaled = features * np.float32([1024, 2**-10, 1])
    one = score(fit(tmp_path / "1", features, labels, queries), table(features))
    two = score(fit(tmp_path / "2", scaled, labels, queries), table(scaled))
    np.testing.assert_allclose(one, two, atol=2e-3)


@HEADS
def test_a_constant_feature_and_a_wild_one_give_finite_scores(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=600)
    features[:, 2] = 7
    fitted = fit(tmp_path, features, labels, queries, head=head)
    assert np.isfinite(score(fitted, table(np.full((2, 3), 1e30, np.float32)))).all()


def graded_pairs(seed: int):
    """Grades 0 to 3, of which 1 (for the sake of the test) and 3 are relevant."""
    features, _, truth, queries = pairs(seed)
    noise = np.random.default_rng(seed + 10).normal(size=len(truth)) * 0.1
    grades = np.digitize(truth + noise, [0.2, 0.4, 0.8])
    return features, grades, queries


@GRADED
def test_a_graded_head_knows_grades_and_what_of_them_is_relevant(tmp_path, head):
    features, grades, queries = graded_pairs(0)
    labels = np.isin(grades, [1, 3])
    fitted = fit(tmp_path, features, labels, queries, gains=grades / 3, head=head)
    assert fitted.relevant == (False, True, False, True)
    np.testing.assert_allclose(fitted.gains, [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    features, grades, _ = graded_pairs(1)
    of_grade = grade_probabilities(fitted, table(features))
    np.testing.assert_allclose(of_grade.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        of_grade[:, [1, 3]].sum(axis=1), score(fitted, table(features)), rtol=1e-4, atol=1e-6
    )
    assert np.mean(of_grade.argmax(axis=1) == grades) > 0.6
    assert roc_auc_score(np.isin(grades, [1, 3]), score(fitted, table(features))) > 0.75
    grade_of = dict(zip("ICSE", zip(fitted.gains, fitted.relevant, strict=True), strict=True))
    of_label = esci_probabilities(fitted, table(features), grade_of=grade_of)
    np.testing.assert_array_equal(of_label, of_grade[:, ::-1])
    without = {label: grade for label, grade in grade_of.items() if label != "C"}
    of_label = esci_probabilities(fitted, table(features), grade_of=without)
    np.testing.assert_array_equal(of_label[:, 2], 0)
    np.testing.assert_array_equal(of_label[:, 1], of_grade[:, 2])
    shared = grade_of | {"C": grade_of["I"]}
    assert esci_probabilities(fitted, table(features), grade_of=shared) is None


@GRADED
def test_two_grades_are_the_two_classes(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=600)
    fitted = fit(tmp_path / "graded", features, labels, queries, head=head, gains=-1.0 * labels)
    head = dataclasses.replace(head, loss="binary")
    binary = fit(tmp_path / "binary", features, labels, queries, head=head)
    found = score(fitted, table(features))
    np.testing.assert_array_equal(found, score(binary, table(features)))
    assert fitted.relevant == (True, False)
    of_grade = grade_probabilities(fitted, table(features))
    np.testing.assert_allclose(of_grade[:, 0], found, rtol=1e-6)
    with pytest.raises(InputError, match="bind 'graded'"):
        grade_probabilities(binary, table(features))
    grade_of = {"E": (-1.0, True), "I": (0.0, False)}
    assert esci_probabilities(binary, table(features), grade_of=grade_of) is None


def test_a_grade_that_the_fit_lacks_is_improbable(tmp_path):
    features, grades, _ = graded_pairs(0)
    # The one query with grade 2 is held out for calibration.
    queries = [f"query {row}" for row in range(len(grades))]
    held_out = train.query_hashes(queries, seed=0) < 0.2
    grades = np.where(held_out, grades, np.where(grades == 2, 1, grades))
    head = BoostedTrees(trees=5, loss="graded")
    fitted = fit(tmp_path, features, grades == 3, queries, gains=grades, head=head)
    assert fitted.gains == (0, 1, 2, 3)
    assert grade_probabilities(fitted, table(features))[:, 2].max() < 1e-6


def test_a_listwise_loss_orders_within_queries(tmp_path):
    # A feature of the query outweighs that of the item in the pool and says nothing in a query.
    generator = np.random.default_rng(0)
    of_query, of_item = np.repeat(generator.normal(size=400), 8), generator.normal(size=3200)
    labels = generator.random(3200) < expit(3 * of_query + of_item)
    features = np.stack([of_query, of_item, 0 * of_item], axis=1).astype(np.float32)
    queries = [f"query {row // 8}" for row in range(3200)]
    head = Mlp(hidden=(16,), listwise=10.0)
    fitted = fit(tmp_path, features, labels, queries, head=head)
    one = np.float32([[0, z, 0] for z in (-1, 0, 1)])
    assert (np.diff(score(fitted, table(one))) > 0.05).all()


def test_a_hash_depends_on_the_query_alone_and_is_spread_evenly():
    queries = [f"query {row // 3}" for row in range(6000)]
    hashes = train.query_hashes(queries, seed=0)
    assert (hashes.reshape(-1, 3) == hashes[::3, None]).all()
    np.testing.assert_allclose(np.bincount((hashes * 4).astype(int)) / 6000, 0.25, atol=0.03)
    np.testing.assert_array_equal(hashes[:30], train.query_hashes(queries[:30], seed=0))
    assert (hashes != train.query_hashes(queries, seed=1)).all()


def test_folds_calibrate_by_pairs_that_a_head_has_not_seen(tmp_path):
    # Each query's label is noise that trees can learn by heart: only held-out pairs show it.
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2000, 3)).astype(np.float32)
    labels = generator.random(2000) < 0.5
    queries = [f"query {row}" for row in range(2000)]
    head = BoostedTrees(trees=100, min_leaf=2, leaves=32, l2=0.0, learning_rate=0.3)
    settings = {"head": head, "calibration": Calibration(folds=4)}
    fitted = fit(tmp_path, features, labels, queries, **settings)
    np.testing.assert_allclose(score(fitted, table(features)), 0.5, atol=0.35)
    assert fitted.curve.values[1] == pytest.approx(0.1, rel=0.01)  # the highest temperature


@HEADS
def test_a_file_holds_all_of_a_head(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=600)
    fitted = fit(tmp_path, features, labels, queries, head=head)
    heads.save(tmp_path / "head.safetensors", fitted)
    loaded = heads.load(tmp_path / "head.safetensors")
    assert loaded.version == fitted.version
    assert loaded.head == head
    np.testing.assert_array_equal(score(loaded, table(features)), score(fitted, table(features)))


def test_another_file_is_no_head(tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="not a relevance head's file"):
        heads.load(tmp_path / "head.safetensors")


def test_columns_are_found_by_name():
    given = table(np.float32([[1, 2, 3]]))
    assert given.select(("three", "one")).values.tolist() == [[3, 1]]
    with pytest.raises(InputError, match="the features four, "):
        given.select(("three", "four"))


def test_one_class_is_an_error_that_says_what_to_do(tmp_path):
    features, labels, _, queries = pairs(0, rows=100)
    with pytest.raises(InputError, match="relevant_labels"):
        fit(tmp_path, features, np.ones_like(labels), queries)


@HEADS
def test_no_head_holds_queries_out(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=100)
    training = dataclasses.replace(TRAINING, held_out=0.1)
    with pytest.raises(InputError, match="Training.held_out = 0.1"):
        fit(tmp_path, features, labels, queries, head=head, training=training)


@pytest.mark.parametrize("head", [None, Mlp, "trees"], ids=["none", "class", "name"])
def test_what_is_no_head_names_the_binding(tmp_path, head):
    features, labels, _, queries = pairs(0, rows=100)
    with pytest.raises(InputError, match="gin binding relevance.run.head is .*parentheses"):
        fit(tmp_path, features, labels, queries, head=head)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_no_weights_are_refused(tmp_path, weight):
    features, labels, _, queries = pairs(0, rows=100)
    weights = np.ones(100)
    weights[7] = weight
    with pytest.raises(InputError, match=f"judged pair 7 is {weight}; give finite weights"):
        fit(tmp_path, features, labels, queries, weights=weights)


def test_a_head_that_nothing_calibrates_says_so(tmp_path, caplog):
    features, labels, _, queries = pairs(0, rows=200)
    held_out = train.query_hashes(queries, seed=0) < 0.2
    fitted = fit(tmp_path, features, labels & ~held_out, queries, head=LINEAR)
    assert fitted.curve is AS_IT_IS
    assert f"the {held_out.sum()} pairs that are held out are of one class only" in caplog.text
    caplog.clear()
    fit(tmp_path, features, labels, queries, head=LINEAR, calibration=Calibration(share=0.0))
    assert not caplog.text
