from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.relevance.features import neighbours, prefix
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams

HAND = Beams(
    sids=np.array([[[0, 1, 2], [0, 1, 0], [3, 1, 2]]]),
    log_probs=np.log(np.array([[0.5, 0.25, 0.125]])),
    valid=np.array([[True, True, True]]),
)
NO_BEAMS = Beams(
    sids=np.full((1, 2, 3), -1),
    log_probs=np.full((1, 2), -np.inf),
    valid=np.zeros((1, 2), bool),
)


def prefix_features(beams, item_sids, *, log_probs=None, log_shares=None):
    """Returns the features of a lone query and some items, by name."""
    zeros = np.zeros(np.shape(item_sids))
    of_items = (item_sids, *(zeros if of is None else of for of in (log_probs, log_shares)))
    [values] = prefix_match.prefix_features(beams, *(jnp.array([of]) for of in of_items))
    return [
        dict(zip(prefix.GROUP.described(levels=3), row.tolist(), strict=True)) for row in values
    ]


@pytest.mark.parametrize(
    ("item", "expected"),
    [([0, 1, 2], 1.0), ([0, 1, 9], 0.5), ([0, 9, 2], 0.25), ([9, 1, 2], 0.0), ([3, 1, 2], 1.0)],
    ids=["three codes", "two codes", "one code", "no code", "the second beam"],
)
def test_match_depth_is_the_papers(item, expected):
    value = prefix_match.match_depth(HAND, jnp.array([[item]]))
    assert value.tolist() == [[[expected]]]


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
    assert prefix_match.match_depth(NO_BEAMS, -jnp.ones((1, 1, 3), int)) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**16))
def test_equals_a_loop_over_pairs_and_beams(seed):
    generator = np.random.default_rng(seed)
    queries, width, items, levels = 4, 5, 3, 3
    sids = generator.integers(2, size=(queries, width, levels))
    probs = -np.sort(-generator.dirichlet(np.ones(width), queries), axis=1)
    valid = np.arange(width) < generator.integers(0, width + 1, (queries, 1))
    item_sids = generator.integers(2, size=(queries, items, levels))
    beams = Beams(jnp.asarray(sids), jnp.log(probs), jnp.asarray(valid))
    zeros = jnp.zeros(item_sids.shape)
    found = prefix_match.prefix_features(beams, jnp.asarray(item_sids), zeros, zeros)
    depth = prefix_match.match_depth(beams, jnp.asarray(item_sids))
    for query, number in np.ndindex(queries, items):
        item = item_sids[query, number]
        deepest, mass, rank = 0, [0.0] * levels, [0.0] * levels
        for beam in range(width):
            for level in range(levels):
                same = tuple(sids[query, beam, : level + 1]) == tuple(item[: level + 1])
                if valid[query, beam] and same:
                    deepest = max(deepest, level + 1)
                    mass[level] += probs[query, beam]
                    rank[level] = rank[level] or 1 / (beam + 1)
        of_pair = found[query, number, : 2 * levels]
        np.testing.assert_allclose(of_pair, mass + rank, rtol=1e-5)
        assert depth[query, number, 0] == (2.0 ** (deepest - levels) if deepest else 0)


# The last item of the first query is padding, and all of the second.
NEAR = (
    np.array([[[0, 1], [0, 2], [5, 1], [0, 2]], [[0, 1]] * 4]),
    np.array([[4.0, 2.0, 1.0, 0.0], [0.0] * 4]),
)


def test_the_heaviest_prefix_by_hand():
    np.testing.assert_allclose(prefix_match.heaviest_prefix(*NEAR), [[6, 4], [0, 0]])


def test_features_of_near_items_by_hand():
    items = jnp.array([[[0, 2], [5, 2]], [[0, 1], [0, 2]]])
    found = prefix_match.near_item_features(*NEAR, items)
    expected = [
        [
            [6 / 7, 2 / 7, 2 / 3, 1 / 3, 1, 1 / 2, 1, 2 / 4],
            [1 / 7, 0, 1 / 3, 0, 1 / 3, 0, 1 / 6, 0],
        ],
        [[0] * 8] * 2,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    names = tuple(neighbours.GROUP.described(levels=2))
    assert names[:4] == ("near_items_1", "near_items_2", "near_share_1", "near_share_2")


def vote_features(sids, verdicts, near, cosines, weights, items, *, base):
    """Returns the features, with judged SIDs and verdicts given by training query."""
    sids, verdicts, near, cosines, weights = map(
        np.asarray, (sids, verdicts, near, cosines, weights)
    )
    of_votes = prefix_match.vote_weights(
        verdicts[near], cosines=cosines, weights=weights, base=base
    )
    return np.asarray(
        prefix_match.vote_features(
            jnp.asarray(sids[near].reshape(len(near), -1, sids.shape[-1])),
            jnp.asarray(of_votes.reshape(len(near), -1, 4)),
            jnp.asarray(items),
        )
    )


def test_features_of_votes_by_hand():
    # Voter 0 suits two items and not a third, voter 1 suits one.
    sids = jnp.array([[[0, 1], [0, 2], [0, 2]], [[3, 1], [9, 9], [9, 9]]])
    verdicts = jnp.array([[1.0, 1.0, -1.0], [1.0, 0.0, 0.0]])
    near, cosines = jnp.array([[0, 1], [1, 0]]), jnp.array([[1.0, 0.7], [-jnp.inf, -jnp.inf]])
    weights = jnp.array([[0.8, 0.2], [0.0, 0.0]])
    items = jnp.array([[[0, 2], [3, 1]], [[0, 2], [3, 1]]])
    found = vote_features(sids, verdicts, near, cosines, weights, items, base=3 / 4)
    far, base = np.exp(-0.3 / 0.15), 3 / 4
    expected = [
        [
            [0.8, 0.4, 1, 1, (2 - 3 * base) / 3.3, (1 - 2 * base) / 2.3],
            [0.2, 0.2, 0, 0, *[far * (1 - base) / (far + 0.3)] * 2],
        ],
        [[0] * 6] * 2,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**16))
def test_votes_equal_a_loop_over_judgements(seed):
    generator = np.random.default_rng(seed)
    voters, votes, queries, per_query, levels = 5, 4, 3, 4, 2
    sids = generator.integers(2, size=(voters, votes, levels))
    verdicts = generator.integers(-1, 2, size=(voters, votes)).astype(float)
    near = np.stack([generator.permutation(voters)[:3] for _ in range(queries)])
    cosines = generator.uniform(-1, 1, near.shape)
    weights = generator.random(near.shape)
    items = generator.integers(2, size=(queries, per_query, levels))
    base = 0.4
    found = vote_features(sids, verdicts, near, cosines, weights, items, base=base)
    for query, number in np.ndindex(queries, per_query):
        item = items[query, number]
        expected = np.zeros((3, levels))
        for level in range(levels):
            agrees, totals, opinion, heard = {1: 0.0, -1: 0.0}, {1: 0.0, -1: 0.0}, 0.0, 0.3
            for voter, cosine, weight in zip(
                near[query], cosines[query], weights[query], strict=True
            ):
                for sid, verdict in zip(sids[voter], verdicts[voter], strict=True):
                    if not verdict:
                        continue
                    share = weight / np.sum(verdicts[voter] == verdict)
                    totals[verdict] += share
                    if (sid[: level + 1] == item[: level + 1]).all():
                        agrees[verdict] += share
                        heard += np.exp((cosine - 1) / 0.15)
                        opinion += np.exp((cosine - 1) / 0.15) * ((verdict > 0) - base)
            expected[:2, level] = [agrees[v] / totals[v] if totals[v] else 0 for v in (1, -1)]
            expected[2, level] = opinion / heard
        of_pair = found[query, number]
        np.testing.assert_allclose(of_pair, expected.ravel(), rtol=1e-4, atol=1e-6)


def test_log_prefix_shares_by_hand():
    sids = np.array([[1, 1], [0, 1], [0, 0], [0, 1]])
    expected = np.log([[1 / 4, 1 / 4], [3 / 4, 2 / 4], [3 / 4, 1 / 4], [3 / 4, 2 / 4]])
    np.testing.assert_allclose(
        prefix_match.log_prefix_shares(sids, sizes=(2, 2)), expected, rtol=1e-6
    )
