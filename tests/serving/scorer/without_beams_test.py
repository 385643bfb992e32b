"""Heads that read nothing of what the generator says of a query are not kept waiting by it."""

from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.scorer.answers import CACHED, LIVE
from tests.serving import tiny

IDS = [f"item {number}" for number in range(60)]
UNASKED = ScorerSettings(deadline=600.0, warm=())


def refuse(*_):
    raise AssertionError("the generator was asked")


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A bundle like that of other tests, whose head has no group that reads beams."""
    path = tmp_path_factory.mktemp("without") / "bundle"
    return open_bundle(tiny.make(path, reads=("neighbour_sids",)))


@pytest.mark.parametrize(
    ("query", "source"),
    [(tiny.QUERIES[0], CACHED), ("ruž mug 64 oz", LIVE), ("Acme", LIVE)],
    ids=["of the table", "of letters and numbers", "of a brand"],
)
def test_all_items_of_any_query_are_scored_without_the_generator(scorer, without, query, source):
    with Scorer(without, settings=UNASKED, run=refuse) as unaided:
        found = unaided.score(query, IDS, deadline=0.0)
        assert unaided.statistics()["batches"] == 0
    assert found.source == source
    names = [column.name for column in unaided.schema]
    assert not {"log_prob_1", "beam_mass_1", "match_depth"}.intersection(names)
    # Features that are not the generator's are those of the same catalogue with all features.
    known = [column.name for column in scorer.schema]
    columns = [known.index(name) for name in names]
    expected = scorer.score(query, IDS).features[:, columns]
    np.testing.assert_allclose(found.features, expected, atol=1e-6)
    head = without.models.heads[FULL]
    table = FeatureTable(
        names=tuple(names),
        groups=tuple(column.group for column in unaided.schema),
        values=expected,
    )
    np.testing.assert_allclose(found.probabilities, score(head, table), atol=1e-5)


def test_sids_of_a_query_are_still_the_generators(scorer, without):
    with Scorer(without, settings=UNASKED) as unaided:
        found, expected = (of.query_sids("ruž mug 64 oz") for of in (unaided, scorer))
    assert found.source == LIVE
    np.testing.assert_array_equal(found.sids, expected.sids)
