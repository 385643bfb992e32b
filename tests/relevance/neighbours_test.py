from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance import neighbours


def unit_vectors(seed: int, rows: int, dim: int = 8) -> np.ndarray:
    return neighbours.unit(np.random.default_rng(seed).normal(size=(rows, dim)))


@pytest.mark.parametrize("block", [1 << 16, 30, 7, 3])
def test_nearest_equals_sorting_all_cosines(monkeypatch, block):
    monkeypatch.setattr(neighbours, "CANDIDATES_AT_ONCE", block)
    monkeypatch.setattr(neighbours, "QUERIES_AT_ONCE", 4)
    queries, candidates = unit_vectors(0, 7), unit_vectors(1, 30)
    own = np.array([3, -1, -1, 0, -1, -1, 29])
    found = neighbours.nearest(queries=queries, candidates=candidates, k=4, own=own)
    for row in range(7):
        cosines = candidates @ queries[row]
        if own[row] >= 0:
            cosines[own[row]] = -np.inf
        best = np.argsort(-cosines)[:4]
        assert found.index[row].tolist() == best.tolist()
        np.testing.assert_allclose(found.cosine[row], cosines[best], rtol=1e-5)


def test_weights_are_a_softmax_and_leave_out_what_is_not_there():
    near = neighbours.Neighbours(
        index=np.zeros((2, 3), np.int32),
        cosine=np.array([[0.9, 0.8, -np.inf], [-np.inf] * 3], np.float32),
    )
    expected = np.exp([9.0, 8.0]) / np.exp([9.0, 8.0]).sum()
    np.testing.assert_allclose(near.weights()[0], [*expected, 0], rtol=1e-5)
    np.testing.assert_array_equal(near.weights()[1], 0)


def test_a_zero_vector_stays_zero():
    np.testing.assert_array_equal(neighbours.unit(np.zeros((1, 3))), np.zeros((1, 3)))


def weight_of_items(votes: neighbours.Votes, row: int) -> dict[int, float]:
    found: dict[int, float] = {}
    for item, weight in zip(votes.items[row], votes.weights[row], strict=True):
        if weight > 0:
            found[int(item)] = found.get(int(item), 0.0) + float(weight)
    return found


def test_votes_by_hand():
    vectors = neighbours.unit(np.array([[1, 0], [1, 0], [0, 1], [1, 1]]))
    # Query 1 suits items 10 and 11, query 2 suits item 20; queries 0 and 3 ask.
    votes = neighbours.votes_of_near_queries(
        query_index=np.array([0, 3]),
        query_vectors=vectors,
        train_pairs=np.array([[2, 20], [1, 10], [1, 11]]),
    )
    near, far = np.exp(1 / 0.1), np.exp(0.0)
    first, last = weight_of_items(votes, 0), weight_of_items(votes, 1)
    assert first[10] == first[11] == pytest.approx(near / (near + far) / 2, rel=1e-4)
    assert first[20] == pytest.approx(far / (near + far), rel=1e-3)
    assert last == pytest.approx({10: 0.25, 11: 0.25, 20: 0.5}, rel=1e-4)
    np.testing.assert_allclose(votes.nearest, [1.0, np.sqrt(0.5)], rtol=1e-5)


def test_a_training_query_has_no_vote_on_itself():
    vectors = unit_vectors(2, 3)
    votes = neighbours.votes_of_near_queries(
        query_index=np.array([0, 1, 2]),
        query_vectors=vectors,
        train_pairs=np.array([[0, 5], [1, 6], [1, 7]]),
    )
    assert weight_of_items(votes, 0).keys() == {6, 7}
    assert weight_of_items(votes, 1).keys() == {5}
    assert weight_of_items(votes, 2).keys() == {5, 6, 7}


def test_the_only_voter_asking_for_itself_gets_nothing():
    votes = neighbours.votes_of_near_queries(
        query_index=np.array([0]),
        query_vectors=unit_vectors(3, 1),
        train_pairs=np.array([[0, 5]]),
    )
    assert weight_of_items(votes, 0) == {}
    assert votes.nearest.tolist() == [0]


def test_without_training_pairs_there_are_no_votes():
    votes = neighbours.votes_of_near_queries(
        query_index=np.array([0, 1]),
        query_vectors=unit_vectors(3, 2),
        train_pairs=np.empty((0, 2), int),
    )
    assert not votes.weights.any()
    assert votes.nearest.tolist() == [0, 0]
