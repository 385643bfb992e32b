import numpy as np
import pytest

from dsirm_jax.relevance.neighbours import NEAR_ITEMS
from dsirm_jax.serving.scorer.answers import FALLBACK
from tests.serving import tiny

LIVE = "green phone case without stand"
IDS = [f"item {number}" for number in range(60)]


@pytest.mark.parametrize("query", [tiny.QUERIES[0], LIVE])
def test_items_are_retrieved_by_the_mass_of_their_prefixes_by_cosine_and_by_both(
    bundle, scorer, query
):
    found, beams = scorer.retrieve(query, most=60), scorer.query_sids(query)
    assert found.source == beams.source
    sids = np.array([item.sid for item in scorer.described(IDS)])
    agree = np.cumprod(beams.sids[:, None] == sids, axis=2)  # [beam, item, level]
    mass = np.einsum("b,bil->i", beams.probabilities, agree)
    scores = dict(found.by_sid)
    np.testing.assert_allclose([scores.get(item, 0.0) for item in IDS], mass, atol=2e-6)
    np.testing.assert_allclose(sum(found.terms.values()), 3 * beams.probabilities.sum(), atol=2e-5)
    cosines = bundle.catalogue.vectors @ found.vector / np.linalg.norm(found.vector)
    near = dict(found.by_vector)
    assert set(near) == {IDS[row] for row in np.argsort(-cosines)[:NEAR_ITEMS]}
    np.testing.assert_allclose([*near.values()], sorted(cosines)[: -NEAR_ITEMS - 1 : -1], atol=2e-3)
    both = {item: scores.get(item, 0.0) + near.get(item, 0.0) for item in {*scores, *near}}
    assert dict(found.by_both) == pytest.approx(both)
    for of in (found.by_sid, found.by_vector, found.by_both):
        assert [*of] == sorted(of, key=lambda one: (-one.score, one.item_id))
    assert len(scores) > len(set(scores.values()))  # there are equal ones
    few = scorer.retrieve(query, most=7)
    assert (few.by_sid, few.by_vector) == (found.by_sid[:7], found.by_vector[:7])
    assert len(few.by_both) == 7


def test_a_late_query_is_retrieved_by_its_vector_alone(held):
    scorer, _ = held
    found = scorer.retrieve(LIVE, most=5, deadline=0.0)
    assert (found.source, found.by_sid, found.terms) == (FALLBACK, (), {})
    assert found.by_both == found.by_vector and len(found.by_vector) == 5
