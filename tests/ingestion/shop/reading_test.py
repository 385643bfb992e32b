"""Queries of the simulated shop read back, against what the shop says they ask for."""

from __future__ import annotations

import pytest

from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.ingestion.shop.reading import asked


@pytest.mark.parametrize("seed", [0, 1])
def test_queries_read_back_ask_for_what_the_shop_says(seed):
    truth = {}
    for part in SimulatedShop(items=1000, queries=400, seed=seed).read().judgements:
        for chunk in part():
            columns = ("query", "truth_type", "truth_attributes")
            for query, *of_query in zip(*(chunk.table[name].to_pylist() for name in columns)):
                truth[query] = of_query
    read = {query: asked(query) for query in truth}
    for query, found in read.items():
        if found is not None:
            type_, facts = truth[query]
            assert (found.type, sorted(found.facts.values())) == (type_, sorted(facts)), query
    of_types = [q for q, (_, facts) in truth.items() if not any("model=" in f for f in facts)]
    assert sum(read[query] is not None for query in of_types) > 0.93 * len(of_types)


def test_an_attribute_is_read_in_the_customers_words():
    assert asked("best jet tee") == ("t-shirt", {"colour": "colour=black"})
    assert dict(asked("lambswool tee without pocket").facts) == {
        "fabric": "fabric=wool",
        "feature": "feature=without pocket",
    }


@pytest.mark.parametrize(
    "query", ["", "best", "tee tee", "lambswool te", "xyz tee", "wool tee wool"]
)
def test_what_cannot_be_read_is_none(query):
    assert asked(query) is None
