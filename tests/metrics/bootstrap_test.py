from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.metrics import bootstrap, classification, ranking


def random_pairs(seed: int, *, queries: int = 12, pairs: int = 90):
    generator = np.random.default_rng(seed)
    query = np.concatenate([np.arange(queries), generator.integers(queries, size=pairs - queries)])
    labels = generator.random(pairs) < 0.4
    scores = np.round(generator.random(pairs) * 0.7 + labels * 0.2, 1)  # many ties
    gains = np.where(labels, 1.0, generator.choice([0, 0.1], size=pairs))
    return query * 3 + 5, labels, scores, gains


def copied(query, drawn):
    """Rows and new query numbers of a resample written out: each drawn query its own copy."""
    names = np.unique(query)
    rows, copies = [], []
    for copy, name in enumerate(np.repeat(names, drawn)):
        found = np.flatnonzero(query == name)
        rows.append(found)
        copies.append(np.full(len(found), copy))
    return np.concatenate(rows), np.concatenate(copies)


@pytest.mark.parametrize("seed", [0, 1])
def test_statistics_equal_the_metrics_on_the_resample_written_out(seed):
    query, labels, scores, gains = random_pairs(seed)
    counts = bootstrap.resample_counts(12, resamples=6, seed=seed)
    statistics = {
        "roc_auc": bootstrap.roc_auc_statistic(query, labels, scores),
        "pr_auc": bootstrap.pr_auc_statistic(query, labels, scores),
        "log_loss": bootstrap.log_loss_statistic(query, labels, scores),
        "ece": bootstrap.ece_statistic(query, labels, scores),
        "per_query_auc": bootstrap.per_query_auc_statistic(query, labels, scores),
        "ndcg": bootstrap.ndcg_at_k_statistic(query, gains, scores, k=3),
        "mrr": bootstrap.mrr_statistic(query, labels, scores),
        "recall": bootstrap.recall_at_k_statistic(query, labels, scores, k=2),
    }
    for number in range(6):
        rows, copies = copied(query, counts[:, number])
        label, score, gain = labels[rows], scores[rows], gains[rows]
        expected = {
            "roc_auc": classification.roc_auc(label, score),
            "pr_auc": classification.pr_auc(label, score),
            "log_loss": classification.log_loss(label, score),
            "ece": classification.ece(label, score),
            "per_query_auc": ranking.per_query_auc(copies, label, score),
            "ndcg": ranking.ndcg_at_k(copies, gain, score, k=3),
            "mrr": ranking.mrr(copies, label, score),
            "recall": ranking.recall_at_k(copies, label, score, k=2),
        }
        for name, statistic in statistics.items():
            assert statistic(counts)[number] == pytest.approx(expected[name]), name


def test_resamples_draw_as_many_queries_and_do_not_depend_on_the_range_asked_for():
    counts = bootstrap.resample_counts(50, resamples=8, seed=3)
    assert (counts.sum(axis=0) == 50).all()
    np.testing.assert_array_equal(
        counts[:, 5:], bootstrap.resample_counts(50, resamples=3, seed=3, start=5)
    )


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    statistic = bootstrap.mean_over_queries(values)
    value, samples = bootstrap.bootstrap(
        {"mean": statistic}, num_queries=400, num_pairs=400, resamples=4000, seed=0
    )
    found = bootstrap.interval(value["mean"], samples["mean"])
    error = values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_samples_do_not_depend_on_how_many_resamples_are_held_at_once():
    query, labels, scores, _ = random_pairs(2)
    arguments = {"num_queries": 12, "num_pairs": 90, "resamples": 20, "seed": 1}
    statistics = {"auc": bootstrap.roc_auc_statistic(query, labels, scores)}
    _, at_once = bootstrap.bootstrap(statistics, **arguments)
    _, in_parts = bootstrap.bootstrap(statistics, **arguments, cells_at_once=300)
    np.testing.assert_array_equal(at_once["auc"], in_parts["auc"])


def test_resamples_without_both_classes_are_left_out():
    query, labels, scores = np.array([0, 1]), np.array([1, 0]), np.array([0.9, 0.1])
    statistic = bootstrap.roc_auc_statistic(query, labels, scores)
    np.testing.assert_array_equal(statistic(np.array([[1, 2], [1, 0]])), [1.0, np.nan])
    found = bootstrap.interval(1.0, np.array([1.0, np.nan, 1.0]))
    assert (found.low, found.high) == (1.0, 1.0)
