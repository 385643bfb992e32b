"""Comparisons within queries and between them, against all of them one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.metrics import bootstrap, classification, pair_kinds


def one_by_one(queries, labels, scores, counts):
    """Returns share, AUC within and AUC between of a sample with every comparison written out.

    Each draw of a query is a query of its own.
    """
    rows = [
        (query, copy, label, score)
        for query, label, score in zip(queries, labels, scores, strict=True)
        for copy in range(counts[query])
    ]
    won = {True: [], False: []}
    for one, other in itertools.product(rows, rows):
        if one[2] and not other[2]:
            wins = 1.0 if one[3] > other[3] else 0.5 if one[3] == other[3] else 0.0
            won[one[:2] == other[:2]].append(wins)
    every = len(won[True]) + len(won[False])
    within, between = (np.mean(won[kind]) if won[kind] else math.nan for kind in (True, False))
    return len(won[True]) / every if every else math.nan, within, between


def measured(queries, labels, scores, counts, *, identity=None):
    """Returns the same three, and pooled AUC, of `[query, resample]` counts."""
    share = pair_kinds.share_within_statistic(queries, labels, identity=identity)(counts)
    within = pair_kinds.within_statistic(queries, labels, scores, identity=identity)(counts)
    pooled = bootstrap.roc_auc_statistic(queries, labels, scores)(counts)
    return share, within, pair_kinds.between(pooled, within, share), pooled


def test_by_hand():
    # Query 4: relevant .9, irrelevant .5. Query 7: relevant .5, irrelevant .1 and .7.
    queries = np.array([4, 4, 7, 7, 7])
    labels = np.array([1, 0, 1, 0, 0])
    scores = np.array([0.9, 0.5, 0.5, 0.1, 0.7])
    share, within, between, pooled = (
        each[0] for each in measured(queries, labels, scores, np.ones((2, 1), int))
    )
    assert share == pytest.approx(3 / 6)
    assert within == pytest.approx((1 + 1 + 0) / 3)  # not (1 + 1/2) / 2, the mean over queries
    assert between == pytest.approx((1 + 1 + 0.5) / 3)
    assert pooled == pytest.approx(4.5 / 6)


@st.composite
def weighted_pairs(draw):
    queries = draw(st.integers(1, 5))
    pairs = draw(st.lists(st.integers(0, queries - 1), min_size=0, max_size=12))
    query = np.array([*range(queries), *pairs])
    size = len(query)
    labels = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    scores = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    counts = np.array(draw(st.lists(st.integers(0, 3), min_size=queries, max_size=queries)))
    return query, labels, scores * 0.25, counts


@settings(max_examples=200, deadline=None)
@given(weighted_pairs())
def test_the_parts_are_those_of_all_comparisons_one_by_one(given):
    query, labels, scores, counts = given
    share, within, between, pooled = (
        each[0] for each in measured(query, labels, scores, counts[:, None])
    )
    expected = one_by_one(query, labels, scores, counts)
    np.testing.assert_allclose([share, within, between], expected, rtol=1e-9, atol=1e-9)
    if 0 < share < 1:
        assert share * within + (1 - share) * between == pytest.approx(pooled, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_of_every_resample_the_parts_make_up_the_whole(seed):
    generator = np.random.default_rng(seed)
    query = np.concatenate([np.arange(40), generator.integers(40, size=300)]) * 5 + 2
    labels = generator.random(340) < 0.3
    scores = np.round(generator.random(340) + 0.3 * labels, 1)
    counts = bootstrap.resample_counts(40, resamples=50, seed=seed)
    share, within, between, pooled = measured(query, labels, scores, counts)
    np.testing.assert_allclose(share * within + (1 - share) * between, pooled, rtol=1e-12)
    assert pooled[0] == pytest.approx(
        classification.roc_auc(
            np.repeat(labels, counts[(query - 2) // 5, 0]),
            np.repeat(scores, counts[(query - 2) // 5, 0]),
        )
    )


def test_spellings_of_a_query_are_one_query():
    generator = np.random.default_rng(2)
    query, labels = np.repeat(np.arange(9), 4), generator.random(36) < 0.5
    scores = generator.random(36)
    once = measured(query, labels, scores, np.ones((9, 1), int))
    twice = measured(
        np.concatenate([query, query + 20]),
        np.tile(labels, 2),
        np.tile(scores, 2),
        np.ones((18, 1), int),
        identity=np.tile(query, 2),
    )
    np.testing.assert_allclose(twice, once)


def test_a_shift_of_a_query_changes_comparisons_between_queries_alone():
    generator = np.random.default_rng(3)
    query, labels = np.repeat(np.arange(20), 5), generator.random(100) < 0.4
    scores = generator.random(100)
    counts = np.ones((20, 1), int)
    before = measured(query, labels, scores, counts)
    after = measured(query, labels, scores + generator.normal(size=20)[query], counts)
    assert after[1] == pytest.approx(before[1])
    assert abs(after[2][0] - before[2][0]) > 0.01


def test_of_one_query_nothing_is_between_and_of_one_class_nothing_at_all():
    alone = measured(np.zeros(3, int), np.array([1, 0, 0]), np.arange(3.0), np.ones((1, 1), int))
    assert (alone[0][0], alone[1][0]) == (1, 0) and np.isnan(alone[2][0])
    nothing = measured(np.arange(3), np.ones(3, bool), np.arange(3.0), np.ones((3, 1), int))
    assert np.isnan(nothing).all()
