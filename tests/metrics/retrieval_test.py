import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.metrics.retrieval import first_hits, hit_at_k


def test_first_hits_by_hand():
    retrieved = np.array([[[1, 2], [1, 3], [4, 4]], [[0, 0], [2, 1], [-1, -1]]])
    valid = np.array([[True, True, True], [True, True, False]])
    ranks = first_hits(
        retrieved,
        valid,
        query_index=np.array([0, 0, 1]),
        relevant_sids=np.array([[4, 5], [1, 3], [2, 2]]),
    )
    # A 1 leads at once, (1, 3) is second; the second begins with 2, none is (2, 2).
    assert ranks.tolist() == [[1, 2], [2, 0]]
    assert hit_at_k(ranks, k=1).tolist() == [[True, False], [False, False]]
    assert hit_at_k(ranks, k=2).tolist() == [[True, True], [True, False]]


def test_what_is_not_valid_is_no_hit_and_a_query_without_relevant_items_has_none():
    retrieved, valid = np.full((2, 1, 2), -1), np.zeros((2, 1), bool)
    ranks = first_hits(
        retrieved, valid, query_index=np.array([1]), relevant_sids=np.array([[-1, -1]])
    )
    assert ranks.tolist() == [[0, 0], [0, 0]]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**31))
def test_first_hits_against_loops(seed):
    rng = np.random.default_rng(seed)
    retrieved = rng.integers(0, 3, (4, 5, 3))
    valid = rng.random((4, 5)) < 0.8
    query, sids = rng.integers(0, 4, 6), rng.integers(0, 3, (6, 3))
    ranks = first_hits(retrieved, valid, query_index=query, relevant_sids=sids)
    for row in range(4):
        for level in range(3):
            wanted = {tuple(sid[: level + 1]) for sid in sids[query == row].tolist()}
            places = [
                place + 1
                for place in range(5)
                if valid[row, place] and tuple(retrieved[row, place, : level + 1]) in wanted
            ]
            assert ranks[row, level] == (places[0] if places else 0)
