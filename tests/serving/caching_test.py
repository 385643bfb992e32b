import numpy as np
import pytest

from dsirm_jax.relevance.nearest.exact import Exact
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import NEAR_ITEMS
from dsirm_jax.serving import caching
from dsirm_jax.serving.bundle.stored_items import UNKNOWN


def exhaustive(queries, vectors):
    cosines = unit(queries) @ unit(vectors).T
    row = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAR_ITEMS]
    return row, np.take_along_axis(cosines, row, axis=1)


@pytest.mark.parametrize("new", [0, 30])
@pytest.mark.parametrize("gone", [[], [7], range(0, 150, 2)], ids=["none", "one", "half"])
def test_nearest_items_of_a_changed_catalogue_are_those_of_an_exhaustive_search(new, gone):
    """Of 150 items some go: from the neighbours of no query, of some, or of all."""
    random = np.random.default_rng(0)
    queries, before = (random.normal(size=(rows, 8)).astype(np.float32) for rows in (40, 150))
    stays = ~np.isin(np.arange(150), list(gone))
    row, cosine = exhaustive(queries, before)
    row = np.where(stays, np.cumsum(stays) - 1, UNKNOWN)[row]
    lost = (row == UNKNOWN).any(axis=1)
    assert {0: lost.sum() == 0, 1: 0 < lost.sum() < 40, 75: lost.all()}[len(gone)]
    further = unit(random.normal(size=(new, 8)))
    after = np.concatenate([unit(before[stays]), further])
    found = caching.nearest(
        queries,
        Neighbours(row, cosine),
        search=Exact(after),
        new_vectors=further,
        stayed=int(stays.sum()),
    )
    expected_row, expected_cosine = exhaustive(queries, after)
    np.testing.assert_array_equal(found.row, expected_row)
    np.testing.assert_allclose(found.cosine, expected_cosine, atol=1e-6)
