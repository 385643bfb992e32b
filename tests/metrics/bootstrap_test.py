from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_queries_of_a_group_are_drawn_together_and_those_of_none_as_without_groups():
    query, labels, scores, gains = random_pairs(3)
    arguments = {"num_queries": 12, "num_pairs": 90, "resamples": 20, "seed": 1}
    drawn = {number: bootstrap.mean_over_queries(np.eye(12)[number]) for number in range(12)}
    _, shares = bootstrap.bootstrap(drawn, **arguments, groups=np.array([5, 3, 8, 3] * 3))
    drawn_of = np.stack([shares[number] for number in range(12)])  # a share of all that are drawn
    for members in ((0, 4, 8), (1, 3, 5, 7, 9, 11), (2, 6, 10)):
        assert (drawn_of[list(members)] == drawn_of[members[0]]).all()
    times = bootstrap.resample_counts(3, resamples=20, seed=1)
    expected = times / (times * np.array([[3], [6], [3]])).sum(axis=0)
    np.testing.assert_allclose(drawn_of[[0, 1, 2]], expected)
    statistics = {
        "auc": bootstrap.roc_auc_statistic(query, labels, scores),
        "ndcg": bootstrap.ndcg_at_k_statistic(query, gains, scores, k=3),
    }
    values, alone = bootstrap.bootstrap(statistics, **arguments)
    own = np.random.default_rng(0).permutation(40)[:12]
    assert bootstrap.bootstrap(statistics, **arguments, groups=own)[0] == values
    _, grouped = bootstrap.bootstrap(statistics, **arguments, groups=own)
    for name, samples in alone.items():
        np.testing.assert_array_equal(samples, grouped[name])


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


def test_the_distance_of_ece_is_that_between_gaps_written_out():
    query, labels, scores, _ = random_pairs(3)
    counts = bootstrap.resample_counts(12, resamples=5, seed=2)

    def gaps(rows):
        bins = np.minimum((scores[rows] * 15).astype(int), 14)
        off = scores[rows] - labels[rows]
        return np.array([off[bins == number].sum() for number in range(15)]) / len(rows)

    expected = [
        np.abs(gaps(copied(query, counts[:, number])[0]) - gaps(np.arange(90))).sum()
        for number in range(5)
    ]
    statistic = bootstrap.ece_distance_statistic(query, labels, scores)
    np.testing.assert_allclose(statistic(counts), expected)
    assert statistic(np.ones((12, 1), int)) == pytest.approx(0)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), queries=st.integers(1, 8), more=st.integers(0, 20))
def test_every_interval_holds_its_value(seed, queries, more):
    query, labels, scores, gains = random_pairs(seed, queries=queries, pairs=queries + more)
    other = np.random.default_rng(seed).permutation(scores)
    statistics = {}
    for name, values in (("one", scores), ("other", other)):
        columns = (query, labels, values)
        statistics |= {
            (name, "roc_auc"): bootstrap.roc_auc_statistic(*columns),
            (name, "per_query_auc"): bootstrap.per_query_auc_statistic(*columns),
            (name, "pr_auc"): bootstrap.pr_auc_statistic(*columns),
            (name, "log_loss"): bootstrap.log_loss_statistic(*columns),
            (name, "ece"): bootstrap.ece_statistic(*columns),
            (name, "distance"): bootstrap.ece_distance_statistic(*columns),
            (name, "ndcg"): bootstrap.ndcg_at_k_statistic(query, gains, values, k=3),
            (name, "mrr"): bootstrap.mrr_statistic(*columns),
            (name, "f1"): bootstrap.f1_scores(query, labels, values > 0.5)["macro_f1"],
        }
    values, samples = bootstrap.bootstrap(
        statistics, num_queries=queries, num_pairs=len(query), resamples=25, seed=seed
    )
    for name in ("roc_auc", "per_query_auc", "pr_auc", "log_loss", "ece", "ndcg", "mrr", "f1"):
        one, over = ("one", name), ("other", name)
        difference, differences = values[one] - values[over], samples[one] - samples[over]
        found = [
            bootstrap.interval(values[one], samples[one]),
            bootstrap.basic_interval(difference, differences),
            bootstrap.interval(difference, differences),
        ]
        if name == "ece":
            distances = samples["one", "distance"]
            found.append(bootstrap.ece_interval(values[one], samples[one], distances=distances))
            assert found[-1].low >= 0
        for each in found:
            if np.isfinite(each.value) and np.isfinite(each.low):
                assert each.low <= each.value <= each.high, name


def test_the_basic_interval_mirrors_the_percentiles():
    found = bootstrap.basic_interval(1.0, np.linspace(0.5, 2.5, 2001))
    assert (found.low, found.high) == pytest.approx((2 - 2.45, 2 - 0.55))
    found = bootstrap.basic_interval(0.0, np.array([1.0, 1.0]))  # mirrored: -1
    assert (found.low, found.high) == (-1.0, 0.0)


@pytest.mark.parametrize(
    ("off", "cluster"),
    [(0.0, 0.0), (0.1, 0.0), (0.3, 1.0)],
    ids=["calibrated", "a little off", "far off"],
)
def test_the_interval_of_ece_holds_the_truth_of_nineteen_in_twenty_samples(off, cluster):
    # Labels are drawn from other probabilities than are told; many of them give the true ECE.
    queries, each, samples = 200, 4, 60
    counts = bootstrap.resample_counts(queries, resamples=150, seed=0)
    random = np.random.default_rng(0)

    def sample(count):
        query = np.repeat(np.arange(count), each)
        logit = random.normal(size=len(query)) * 1.5
        told = 1 / (1 + np.exp(-logit))
        shift = off * 0.5 + cluster * random.normal(size=count)[query]
        true = 1 / (1 + np.exp(-(logit * (1 - off) + shift)))
        return query, random.random(len(query)) < true, told

    everyone = np.ones((20_000, 1), int)
    truth = float(bootstrap.ece_statistic(*sample(20_000))(everyone)[0])
    held = 0
    for _ in range(samples):
        drawn = sample(queries)
        statistic = bootstrap.ece_statistic(*drawn)
        found = bootstrap.ece_interval(
            float(statistic(np.ones((queries, 1), int))[0]),
            statistic(counts),
            distances=bootstrap.ece_distance_statistic(*drawn)(counts),
        )
        held += found.low <= truth <= found.high
    assert held >= 0.88 * samples
