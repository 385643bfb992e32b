from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance import neighbours
from dsirm_jax.relevance.nearest.lengths import unit


def unit_vectors(seed: int, rows: int, dim: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, dim)))


def judgements(*pairs: tuple[int, int, int]) -> dict[str, np.ndarray]:
    query, item, relevant = np.array(pairs, int).reshape(-1, 3).T
    return {"train_pairs": np.stack([query, item], axis=1), "relevant": relevant.astype(bool)}


def test_near_queries_and_their_judgements_by_hand():
    vectors = unit(np.array([[1, 0], [1, 0], [0, 1], [1, 1]]))
    # Query 1 suits item 10 and not 11, query 2 suits item 20; queries 0 and 3 ask.
    near, judged = neighbours.near_queries(
        query_index=np.array([0, 3]),
        query_vectors=vectors,
        **judgements((2, 20, 1), (1, 10, 1), (1, 11, 0)),
    )
    np.testing.assert_array_equal(judged.verdicts, [[1, -1], [1, 0]])
    assert judged.items[0].tolist() == [10, 11] and judged.items[1, 0] == 20
    assert near.row[0].tolist() == [0, 1]
    np.testing.assert_allclose(near.cosine, [[1, 0], [np.sqrt(0.5)] * 2], rtol=1e-5)


def test_a_training_query_is_no_neighbour_of_itself():
    near, judged = neighbours.near_queries(
        query_index=np.array([0, 1, 2]),
        query_vectors=unit_vectors(2, 3),
        **judgements((0, 5, 1), (1, 6, 1), (1, 7, 0)),
    )
    assert judged.items[0, 0] == 5
    there = np.isfinite(near.cosine)
    assert [set(row[of]) for row, of in zip(near.row, there, strict=True)] == [{1}, {0}, {0, 1}]


def test_spellings_of_a_query_have_one_vote_together_and_none_for_each_other():
    vectors = unit(np.array([[1, 0], [1, 0.1], [0, 1], [1, 0], [1, 1]]))
    # Queries 1 and 3 are one that is voted for and votes; 0 is a spelling of them that does not.
    near, judged = neighbours.near_queries(
        query_index=np.array([0, 1, 2, 3, 4]),
        query_vectors=vectors,
        identity=np.array([7, 7, 2, 7, 0]),
        **judgements((3, 30, 1), (3, 10, 1), (2, 20, 1), (1, 11, 0), (1, 10, 0)),
    )
    assert judged.items.tolist() == [[11, 10, 30], [20, 0, 0]]
    assert judged.verdicts.tolist() == [[-1, -1, 1], [1, 0, 0]]
    there = np.isfinite(near.cosine)
    rows = [set(row[of].tolist()) for row, of in zip(near.row, there, strict=True)]
    assert rows == [{1}, {1}, {0}, {1}, {0, 1}]
    voter = vectors[1]
    np.testing.assert_allclose(near.cosine[2, 0], vectors[2] @ voter, rtol=1e-5)
    assert neighbours.voters(np.array([3, 2, 1]), identity=np.array([7, 7, 2, 7])).tolist() == [
        1,
        2,
    ]


def test_queries_that_have_no_twins_are_as_without_identities():
    generator = np.random.default_rng(4)
    pairs = np.stack([generator.integers(30, size=80), generator.permutation(80)], axis=1)
    given = {
        "query_index": np.arange(30),
        "query_vectors": unit_vectors(5, 30),
        "train_pairs": pairs,
        "relevant": generator.random(80) < 0.5,
    }
    found = neighbours.near_queries(**given, identity=generator.permutation(30))
    for part, other in zip(found, neighbours.near_queries(**given), strict=True):
        for array, expected in zip(part, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_query_brings_as_many_judgements_as_there_is_room_for():
    _, judged = neighbours.near_queries(
        query_index=np.array([0]),
        query_vectors=unit_vectors(3, 9),
        **judgements(
            *((query, 10 * query + item, item % 2) for query in (4, 8) for item in range(5))
        ),
        judged_per_query=2,
    )
    assert judged.items.tolist() == [[40, 41], [80, 81]]
    assert judged.verdicts.tolist() == [[-1, 1], [-1, 1]]


@pytest.mark.parametrize("pairs", [(), ((0, 5, 1),)], ids=["nobody", "only itself"])
def test_without_another_training_query_none_is_near(pairs):
    near, judged = neighbours.near_queries(
        query_index=np.array([0]), query_vectors=unit_vectors(3, 2), **judgements(*pairs)
    )
    assert not np.isfinite(near.cosine).any()
    assert not near.weights().any()
    assert near.row.max() < len(judged.items)
