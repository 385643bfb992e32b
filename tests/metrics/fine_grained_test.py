"""Pairs that differ in one attribute, and the share whose right item is first, by brute force."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.metrics.fine_grained import (
    HAS,
    HAS_ANOTHER,
    UNKNOWN,
    Preferences,
    preferences_of_query,
    share_right_first,
)


def found(states, gains, types):
    pairs = preferences_of_query(np.array(states), gains=np.array(gains), types=np.array(types))
    return sorted(zip(*(part.tolist() for part in pairs)))


def test_pairs_by_hand():
    # A red small shirt is asked for: red and small, red and large, blue and large, red of no size.
    states = [[HAS, HAS], [HAS, HAS_ANOTHER], [HAS_ANOTHER, HAS_ANOTHER], [HAS, UNKNOWN]]
    assert found(states, [1, 0.1, 0, 0], [0] * 4) == [(0, 1, 1), (1, 2, 0)]


def test_a_pair_is_of_one_type_and_of_different_gains():
    states = [[HAS], [HAS_ANOTHER], [HAS_ANOTHER], [HAS_ANOTHER]]
    assert found(states, [1, 0, 0, 1], [7, 7, 8, 7]) == [(0, 1, 0)]


def test_a_judgement_against_the_query_makes_no_pair():
    assert found([[HAS], [HAS_ANOTHER]], [0, 1], [0, 0]) == []


def test_an_unknown_value_is_no_other_value():
    assert found([[HAS], [UNKNOWN]], [1, 0], [0, 0]) == []


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.tuples(*[st.sampled_from([HAS, HAS_ANOTHER, UNKNOWN])] * 3),
            st.sampled_from([0.0, 0.1, 1.0]),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_pairs_are_what_the_definition_says(rows):
    expected = []
    for (one, first), (other, second) in itertools.permutations(enumerate(rows), 2):
        changed = [place for place in range(3) if first[0][place] != second[0][place]]
        if len(changed) == 1 and first[1] > second[1] and first[2] == second[2]:
            (place,) = changed
            if (first[0][place], second[0][place]) == (HAS, HAS_ANOTHER):
                expected.append((one, other, place))
    assert found(*map(list, zip(*rows))) == sorted(expected)


def test_shares_by_hand():
    pairs = Preferences(np.array([0, 0, 3]), np.array([1, 2, 4]), np.zeros(3, int))
    scores = np.array([0.5, 0.2, 0.5, 0.1, 0.9])
    shares = share_right_first(scores, pairs, query=np.array([0, 0, 2]), queries=3)
    np.testing.assert_array_equal(shares, [0.75, np.nan, 0.0])


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=12
    ),
    scores=st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_shares_are_means_over_a_querys_pairs(pairs, scores):
    right, wrong, query = (np.array(column) for column in zip(*pairs))
    shares = share_right_first(
        np.array(scores), Preferences(right, wrong, 0 * right), query=query, queries=3
    )
    for number in range(3):
        won = [
            1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0
            for a, b, of in pairs
            if of == number
        ]
        assert np.isnan(shares[number]) if not won else np.isclose(shares[number], np.mean(won))


def test_what_keeps_the_order_of_scores_keeps_shares_and_mirroring_mirrors_them():
    random = np.random.default_rng(0)
    scores = random.normal(size=40)
    right, wrong = random.integers(40, size=(2, 90))
    pairs = Preferences(right, wrong, 0 * right)
    query = np.sort(random.integers(5, size=90))
    shares = share_right_first(scores, pairs, query=query, queries=5)
    risen = share_right_first(np.exp(3 * scores), pairs, query=query, queries=5)
    np.testing.assert_array_equal(shares, risen)
    mirrored = share_right_first(-scores, pairs, query=query, queries=5)
    np.testing.assert_allclose(shares + mirrored, 1)
