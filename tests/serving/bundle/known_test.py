from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.serving.bundle.cached import NO_KEY
from dsirm_jax.serving.bundle.known import QuerySidPairs, known_sids, of_beams, of_near
from dsirm_jax.sids.codes import pack, unpack
from dsirm_jax.sids.prefix_match import Beams

SIZES = (4, 5)
GENERATOR = SimpleNamespace(config=SimpleNamespace(sid_sizes=SIZES))


def test_those_named_first_are_known_each_once_and_up_to_most():
    def score(*, sids, query_index, **_):
        return -(sids + 10.0 * query_index[:, None])

    shared = {"generator": GENERATOR, "score": score, "pieces": [[5], [6]]}
    beams = Beams(
        sids=np.array([[[1, 1], [0, 0]], [[2, 2], [2, 3]]]),
        log_probs=np.zeros((2, 2)),
        valid=np.array([[True, False], [True, True]]),
    )
    sids = np.array([[3, 4], [1, 1], [0, 2]])
    near = Neighbours(np.array([[0, 1, 2], [2, 0, 1]]), np.zeros((2, 3)))
    judged = QuerySidPairs(np.array([1, 0]), np.array([[2, 2], [3, 0]]))
    found = known_sids(
        **shared,
        pairs=[judged, of_beams(beams), of_near(near, sids)],
        most=4,
    )
    expected = [[[0, 2], [1, 1], [3, 0], [3, 4]], [[0, 2], [2, 2], [2, 3], [3, 4]]]
    for query, of_query in enumerate(expected):
        assert found.keys[query].tolist() == pack(np.array(of_query), sizes=SIZES).tolist()
        np.testing.assert_array_equal(found.log_probs[query], -(np.array(of_query) + 10.0 * query))
    fewer = known_sids(**shared, pairs=[judged, of_beams(beams)], most=4)
    assert (fewer.keys == NO_KEY).tolist() == [[False] * 2 + [True] * 2] * 2
    first = known_sids(**shared, pairs=[of_near(near, sids)], most=1)
    assert unpack(first.keys[:, 0], sizes=SIZES).tolist() == [[3, 4], [0, 2]]
