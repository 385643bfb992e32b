from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams

HAND = Beams(
    sids=jnp.array([[[0, 1, 2], [0, 1, 0], [3, 1, 2]]]),
    log_probs=jnp.log(jnp.array([[0.5, 0.25, 0.125]])),
    valid=jnp.array([[True, True, True]]),
)
NO_BEAMS = Beams(
    sids=jnp.full((1, 2, 3), -1),
    log_probs=jnp.full((1, 2), -jnp.inf),
    valid=jnp.zeros((1, 2), bool),
)


def prefix_features(beams, item_sids, *, log_probs=None, log_shares=None):
    item_sids = jnp.asarray(item_sids)
    zeros = jnp.zeros(item_sids.shape)
    values = prefix_match.prefix_features(
        beams,
        jnp.zeros(len(item_sids), int),
        item_sids,
        zeros if log_probs is None else jnp.asarray(log_probs),
        zeros if log_shares is None else jnp.asarray(log_shares),
    )
    return [
        dict(zip(prefix_match.columns("prefix", levels=3), row.tolist(), strict=True))
        for row in values
    ]


@pytest.mark.parametrize(
    ("item", "expected"),
    [([0, 1, 2], 1.0), ([0, 1, 9], 0.5), ([0, 9, 2], 0.25), ([9, 1, 2], 0.0), ([3, 1, 2], 1.0)],
)
def test_match_depth_is_the_papers(item, expected):
    value = prefix_match.match_depth(HAND, jnp.zeros(1, int), jnp.array([item]))
    assert value.tolist() == [[expected]]


def test_prefix_features_by_hand():
    [first, third, none] = prefix_features(HAND, [[0, 1, 0], [3, 1, 9], [7, 1, 2]])
    assert [first[f"beam_mass_{level}"] for level in (1, 2, 3)] == [0.75, 0.75, 0.25]
    assert [first[f"beam_rank_{level}"] for level in (1, 2, 3)] == [1.0, 1.0, 0.5]
    assert [third[f"beam_rank_{level}"] for level in (1, 2, 3)] == [pytest.approx(1 / 3)] * 2 + [0]
    assert all(none[f"beam_mass_{level}"] == none[f"beam_rank_{level}"] == 0 for level in (1, 2, 3))
    shares = np.array([4, 2, 1]) / 7
    assert none["beam_entropy"] == pytest.approx(-np.sum(shares * np.log(shares)))


def test_log_prob_and_its_excess_over_the_share_of_the_prefix():
    [found] = prefix_features(
        HAND, [[0, 1, 2]], log_probs=[[-0.5, -1.0, -np.inf]], log_shares=[[-2.0, -3.0, -4.0]]
    )
    assert [found[f"log_prob_{level}"] for level in (1, 2, 3)] == [-0.5, -1.0, -30.0]
    assert [found[f"pmi_{level}"] for level in (1, 2, 3)] == [1.5, 2.0, -26.0]


def test_a_query_without_beams_has_finite_features_that_say_nothing():
    [found] = prefix_features(NO_BEAMS, [[-1, -1, -1]])
    assert all(value == 0 for value in found.values())
    assert prefix_match.match_depth(NO_BEAMS, jnp.zeros(1, int), -jnp.ones((1, 3), int)) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**16))
def test_equals_a_loop_over_pairs_and_beams(seed):
    generator = np.random.default_rng(seed)
    queries, width, pairs, levels = 4, 5, 12, 3
    sids = generator.integers(2, size=(queries, width, levels))
    probs = -np.sort(-generator.dirichlet(np.ones(width), queries), axis=1)
    valid = np.arange(width) < generator.integers(0, width + 1, (queries, 1))
    item_sids = generator.integers(2, size=(pairs, levels))
    query_index = generator.integers(queries, size=pairs)
    beams = Beams(jnp.asarray(sids), jnp.log(probs), jnp.asarray(valid))
    zeros = jnp.zeros((pairs, levels))
    found = prefix_match.prefix_features(beams, query_index, jnp.asarray(item_sids), zeros, zeros)
    depth = prefix_match.match_depth(beams, query_index, jnp.asarray(item_sids))
    for pair, (query, item) in enumerate(zip(query_index, item_sids, strict=True)):
        deepest, mass, rank = 0, [0.0] * levels, [0.0] * levels
        for beam in range(width):
            for level in range(levels):
                same = tuple(sids[query, beam, : level + 1]) == tuple(item[: level + 1])
                if valid[query, beam] and same:
                    deepest = max(deepest, level + 1)
                    mass[level] += probs[query, beam]
                    rank[level] = rank[level] or 1 / (beam + 1)
        np.testing.assert_allclose(found[pair, : 2 * levels], mass + rank, rtol=1e-5)
        assert depth[pair, 0] == (2.0 ** (deepest - levels) if deepest else 0)


def test_weighted_agreement_by_hand():
    sids = jnp.array([[[0, 1], [0, 2], [5, 1]], [[0, 1]] * 3])
    weights = jnp.array([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    found = prefix_match.weighted_agreement(
        sids, weights, jnp.array([0, 0, 1]), jnp.array([[0, 2], [5, 2], [0, 1]])
    )
    np.testing.assert_allclose(found, [[0.75, 0.5], [0.25, 0.0], [0.0, 0.0]])


def test_log_prefix_shares_by_hand():
    sids = np.array([[0, 0], [0, 1], [0, 1], [1, 1]])
    expected = np.log([[3 / 4, 1 / 4], [3 / 4, 2 / 4], [3 / 4, 2 / 4], [1 / 4, 1 / 4]])
    buckets = prefix_match.buckets_of(sids, sizes=(2, 2))
    found = prefix_match.log_prefix_shares(buckets, items=np.arange(4))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_within_prefix_by_hand():
    others = jnp.array([[[0.2, 0.4, 0.6, 9.0], [0.5, 9.0, 9.0, 9.0]], [[9.0] * 4] * 2])
    are_there = jnp.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0] * 4] * 2], bool)
    found = prefix_match.within_prefix(jnp.array([0.5, 0.7]), others, are_there)
    expected = [[0.4, 0.5, 0.1, 0.0, 2 / 3, 0.5], [0.7, 0.7, 0.0, 0.0, 0.5, 0.5]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_cosine_that_rounding_alone_makes_greater_is_the_same():
    others = jnp.array([[[0.5 + 1e-7, 0.5 - 1e-7, 0.4, 0.6]]])
    found = prefix_match.within_prefix(jnp.array([0.5]), others, jnp.ones((1, 1, 4), bool))
    assert found[0, 2] == 0.5
    assert prefix_match.within_prefix(jnp.array([0.5]), others - 1e-5, others > 0)[0, 2] == 0.75


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(1, 6))
def test_others_of_a_prefix_are_some_of_all_others(seed, most):
    generator = np.random.default_rng(seed)
    sids = generator.integers(0, [2, 3], size=(30, 2))
    items = generator.integers(30, size=7)
    buckets = prefix_match.buckets_of(sids, sizes=(2, 3))
    found = prefix_match.others_of_prefix(buckets, items=items, most=most)
    for row, item in enumerate(items):
        for level in (0, 1):
            agree = (sids[:, : level + 1] == sids[item, : level + 1]).all(axis=1)
            others = set(np.flatnonzero(agree)) - {item}
            chosen = found[row, level][found[row, level] >= 0]
            assert len(chosen) == min(len(others), most)
            assert set(chosen) <= others
            assert (np.diff(chosen) > 0).all()
            assert (found[row, level, len(chosen) :] == -1).all()


def test_others_of_a_prefix_are_spread_evenly():
    sids = np.zeros((9, 1), int)
    buckets = prefix_match.buckets_of(sids, sizes=(1,))
    found = prefix_match.others_of_prefix(buckets, items=np.array([0, 8]), most=2)
    assert found[:, 0].tolist() == [[3, 7], [2, 6]]


def test_every_feature_is_named_once():
    names = [
        name for group in prefix_match.GROUPS for name in prefix_match.columns(group, levels=3)
    ]
    assert len(set(names)) == len(names) == 1 + 13 + 6 + 9
    assert prefix_match.columns("paper_match", levels=4) == ("match_depth",)
    assert prefix_match.columns("prefix", levels=2)[:2] == ("beam_mass_1", "beam_mass_2")
