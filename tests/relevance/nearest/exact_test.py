from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance.nearest.exact import nearest_rows
from dsirm_jax.relevance.nearest.lengths import unit


def unit_vectors(seed: int, rows: int, dim: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, dim)))


@pytest.mark.parametrize("block", [1 << 16, 30, 7, 3])
def test_nearest_equals_sorting_all_cosines(block):
    queries, candidates = unit_vectors(0, 7), unit_vectors(1, 30)
    own = np.array([3, -1, -1, 0, -1, -1, 29])
    found = nearest_rows(
        queries=queries,
        candidates=candidates,
        k=4,
        own=own,
        candidates_at_once=block,
        queries_at_once=4,
    )
    for row in range(7):
        cosines = candidates @ queries[row]
        if own[row] >= 0:
            cosines[own[row]] = -np.inf
        best = np.argsort(-cosines)[:4]
        assert found.row[row].tolist() == best.tolist()
        np.testing.assert_allclose(found.cosine[row], cosines[best], rtol=1e-5)
