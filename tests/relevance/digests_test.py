from __future__ import annotations

import jax
import numpy as np
import pytest

from dsirm_jax.relevance import digests
from dsirm_jax.relevance.terms import ItemTexts, Names

TITLES = ["red shoe", "red red bag", "", "blue shoe size 10", "Leather wallet without zip", "größe"]


@pytest.mark.parametrize("at_once", [1, 2, 4, 6])
def test_items_digested_some_at_a_time_are_those_digested_one_by_one(
    at_once, processor, monkeypatch
):
    monkeypatch.setattr(digests, "_ITEMS_AT_ONCE", at_once)
    names = Names(frozenset({"acme"}), frozenset({"red", "blue"}))
    reading = digests.Reading(processor, names, "en")

    def digested(titles):
        return digests.digest_items(ItemTexts(titles, titles, titles, titles), reading)

    found = digested(TITLES)
    for row, title in enumerate(TITLES):
        jax.tree.map(np.testing.assert_array_equal, found.take(np.array([row])), digested([title]))
    assert len(found.terms.starts) == len(TITLES) + 1
    assert len(digested([]).terms.starts) == 1
