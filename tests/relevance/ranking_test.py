"""Heads that rank, from pairs to probabilities: lists, calibration, choice, leaks, files."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics.classification import ece
from dsirm_jax.metrics.ranking import auc_per_query, per_query_auc
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.choice import Choice
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import logits, pair_probabilities, score
from dsirm_jax.relevance.train import train
from dsirm_jax.serving.formats import stablehlo
from dsirm_jax.training.settings import Training

LINE = Calibration(kind="logistic", folds=3)
OF_QUERY = 8
RANKERS = {
    "linear": Linear(l2=1.0, loss="ranking", pairwise=1.0),
    "linear listwise": Linear(l2=1.0, listwise=1.0),
    "mlp": Mlp(hidden=(8,), loss="ranking", pairwise=1.0),
    "LambdaMART": LambdaMart(trees=40, min_leaf=20),
    "LambdaMART started": LambdaMart(trees=20, min_leaf=20, start=Linear(l2=1.0)),
}


def table(values):
    names = ("of_query", "of_item", "noise")
    return FeatureTable(names=names, groups=("dense",) * 3, values=values)


def pairs(seed, queries=200):
    """Features, relevance and queries: how good an item is hides behind how its query scores."""
    generator = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), OF_QUERY)
    level = generator.normal(size=queries)[query] * 3
    quality = generator.normal(size=len(query))
    noise = generator.normal(size=len(query))
    features = np.stack([level, quality + level, noise], axis=1).astype(np.float32)
    return features, generator.random(len(query)) < expit(2 * quality), query


def fit(tmp_path, features, labels, query, **settings):
    return train(
        **{
            "name": "relevance",
            "features": table(features),
            "labels": labels,
            "gains": np.asarray(labels, float),
            "weights": np.ones(len(labels)),
            "queries": [f"query {number}" for number in query],
            "training": Training(epochs=3, batch_size=64, learning_rate=1e-2),
            "calibration": LINE,
            "directory": tmp_path,
            "seed": 0,
            "lists": query,
        }
        | settings
    )


@pytest.mark.parametrize("name", RANKERS)
def test_scores_rank_and_become_probabilities_in_their_order(tmp_path, name):
    fitted = fit(tmp_path, *pairs(0), head=RANKERS[name], in_lists=("of_item",))
    features, labels, query = pairs(1)
    found = score(fitted, table(features), lists=query)
    assert per_query_auc(query, labels, found) > 0.78
    assert ece(labels, found) < 0.08
    slopes = np.diff(fitted.curve.values) / np.diff(fitted.curve.knots)
    assert (slopes > 0).all()
    heads.save(tmp_path / "head.safetensors", fitted)
    loaded = heads.load(tmp_path / "head.safetensors")
    assert (loaded.version, loaded.head, loaded.in_lists) == (
        fitted.version,
        fitted.head,
        ("of_item",),
    )
    again = score(loaded, table(features), lists=query)
    np.testing.assert_array_equal(again, found)


def test_a_head_of_lists_takes_pairs_in_any_order_and_any_other_lists_beside(tmp_path):
    fitted = fit(tmp_path, *pairs(0), head=Linear(l2=1.0), in_lists=("of_*",))
    assert fitted.in_lists == ("of_query", "of_item")
    features, _, query = pairs(1, queries=30)
    found = score(fitted, table(features), lists=query)
    order = np.random.default_rng(0).permutation(len(query))
    moved = score(fitted, table(features[order]), lists=query[order] * 7 - 3)
    np.testing.assert_allclose(moved, found[order], atol=1e-6)
    alone = score(fitted, table(features[:OF_QUERY]), lists=query[:OF_QUERY])
    np.testing.assert_allclose(alone, found[:OF_QUERY], atol=1e-6)
    traced = pair_probabilities(fitted, features, query.astype(np.int32))
    np.testing.assert_allclose(traced, found, atol=1e-6)
    program = stablehlo.head_program(fitted)
    called = jax.export.deserialize(bytearray(program.serialize())).call
    exported = called(heads.plain_params(fitted), features, query.astype(np.int32))
    np.testing.assert_allclose(exported, found, atol=1e-6)
    with pytest.raises(InputError, match="the head compares of_query of a query's pairs; say"):
        score(fitted, table(features))


def test_pairs_without_weight_are_compared_with_and_teach_nothing(tmp_path):
    features, labels, query = pairs(0)
    weights = (np.arange(len(query)) % 4 > 0).astype(float)
    settings = {"head": Linear(l2=1.0), "in_lists": ("*",)}
    one = fit(tmp_path, features, labels, query, weights=weights, **settings)
    flipped = np.where(weights > 0, labels, ~labels)
    other = fit(tmp_path, features, flipped, query, weights=weights, **settings)
    assert one.version == other.version
    features[weights == 0] += 1
    other = fit(tmp_path, features, labels, query, weights=weights, **settings)
    assert one.version != other.version


@pytest.mark.parametrize("name", RANKERS)
def test_shuffled_labels_teach_nothing_of_other_queries(tmp_path, name):
    features, labels, query = pairs(0)
    shuffled = np.random.default_rng(5).permutation(labels)
    fitted = fit(tmp_path, features, shuffled, query, head=RANKERS[name], in_lists=("*",))
    features, labels, query = pairs(1, queries=400)
    noise = np.random.default_rng(6).permutation(labels)
    found = score(fitted, table(features), lists=query)
    of_queries = auc_per_query(query, noise, found)
    of_queries = of_queries[~np.isnan(of_queries)]
    standard_error = of_queries.std() / np.sqrt(len(of_queries))
    assert abs(of_queries.mean() - 0.5) < 3 * standard_error


def test_what_has_no_zero_needs_a_calibration_that_adds_one(tmp_path):
    for calibration in (
        Calibration(),
        Calibration(kind="logistic", share=0.0),
        Calibration(kind="temperature", folds=3),
    ):
        with pytest.raises(InputError, match="gin binding Calibration.kind .*no zero; bind 'logis"):
            fit(tmp_path, *pairs(0), head=RANKERS["linear"], calibration=calibration)


@pytest.mark.parametrize(
    ("metric", "best"), [("ndcg@10", 2), ("per_query_auc", 2), ("log_loss", 2)]
)
def test_the_head_that_is_best_on_other_queries_is_chosen(tmp_path, metric, best):
    of_item = ("of_item", "of_item@centred", "of_item@rank")
    of_level = Linear(l2=1.0, rising=("of_query",), falling=(*of_item, "noise"))
    of_all = BoostedTrees(trees=60, min_leaf=20, columns=1.0)
    by_heart = BoostedTrees(trees=100, min_leaf=1, leaves=32, l2=0.0, learning_rate=0.5)
    tried = (of_level, by_heart, of_all)
    choice = Choice(rivals=tried[1:], folds=3, metric=metric)
    settings = {"in_lists": ("of_item",), "calibration": Calibration(folds=2)}
    fitted = fit(tmp_path, *pairs(0), head=of_level, choice=choice, **settings)
    assert fitted.head == tried[best]
    alone = fit(tmp_path, *pairs(0), head=tried[best], **settings)
    assert fitted.version == alone.version


def test_the_head_that_is_bound_stays_where_rivals_are_equal(tmp_path):
    head = Linear(l2=1.0)
    same = dataclasses.replace(head, knots=65)  # of features that have fewer values
    features, labels, query = pairs(0)
    choice = Choice(rivals=(same,), folds=2)
    fitted = fit(tmp_path, np.round(features), labels, query, head=head, choice=choice)
    assert fitted.head == head


def test_a_choice_sees_no_query_that_calibrates(tmp_path):
    features, labels, query = pairs(0)
    choice = Choice(rivals=(BoostedTrees(trees=5, min_leaf=20),), folds=2)
    settings = {"head": Linear(), "calibration": Calibration(share=0.3), "choice": choice}
    one = fit(tmp_path, features, labels, query, **settings)
    from dsirm_jax.relevance.train import query_hashes

    held_out = query_hashes([f"query {number}" for number in query], seed=0) < 0.3
    flipped = np.where(held_out, ~labels, labels)
    other = fit(tmp_path, features, flipped, query, **settings)
    assert one.head == other.head
    for part, same in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(part, same)


def test_scores_before_calibration_are_of_columns_that_lists_give_too(tmp_path):
    features, labels, query = pairs(0)
    fitted = fit(tmp_path, features, labels, query, head=Linear(), in_lists=("noise",))
    assert fitted.inputs == ("of_query", "of_item", "noise", "noise@centred", "noise@rank")
    with pytest.raises(InputError, match="the features noise@centred, noise@rank, which the head"):
        logits(fitted, table(features))


def test_auc_within_queries_gains_from_lists_what_the_pool_hides(tmp_path):
    features, labels, query = pairs(0)
    asked, truth, of = pairs(1)
    found = {}
    for in_lists in ((), ("of_item",)):
        # Without how a query scores, which a sum could take off again.
        hidden, asked_for = (each * np.float32([0, 1, 1]) for each in (features, asked))
        fitted = fit(tmp_path, hidden, labels, query, head=Linear(), in_lists=in_lists)
        found[in_lists] = score(fitted, table(asked_for), lists=of)
    aucs = [roc_auc_score(truth, scores) for scores in found.values()]
    assert aucs[1] > aucs[0] + 0.01
