"""How many attributes the queries of a simulated shop ask for, by its settings."""

from __future__ import annotations

import collections

import pytest

from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.ingestion.shop.queries import Attributes
from dsirm_jax.io.errors import InputError


def asked_for(**settings):
    """Returns what each query asks for, but those for a model."""
    shop = SimulatedShop(items=1500, queries=600, attributes=Attributes(**settings))
    found = {}
    for part in shop.read().judgements:
        for chunk in part():
            columns = (chunk.table[name].to_pylist() for name in ("query", "truth_attributes"))
            found |= dict(zip(*columns))
    assert len(found) == 600
    return [facts for facts in found.values() if not any("model=" in fact for fact in facts)]


def test_shares_are_of_queries():
    facts = asked_for(shares=(0.05, 0.3, 0.4, 0.25))
    counts = collections.Counter(map(len, facts))
    assert set(counts) == {0, 1, 2, 3}
    # 4 standard errors of a share of .4 among 550
    for count, share in enumerate((0.05, 0.3, 0.4, 0.25)):
        assert abs(counts[count] / len(facts) - share) < 0.085


def test_queries_ask_for_what_items_are_without():
    def share(facts):
        return sum(any("=without " in fact for fact in of) for of in facts) / len(facts)

    shares = (0.0, 0.5, 0.5)
    few, many = asked_for(shares=shares), asked_for(shares=shares, without=1.0)
    assert share(few) < 0.15
    assert 0.22 < share(many) < 0.4  # three in ten items are without their feature
    assert {len(facts) for facts in few} == {len(facts) for facts in many} == {1, 2}


def test_the_thresholds_are_running_sums():
    assert Attributes().thresholds == (0.16, 0.54, 0.86)
    assert Attributes(shares=(1.0,)).thresholds == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"shares": (0.5, 0.4)}, "add up to 0.9; bind shares", id="sum"),
        pytest.param({"shares": ()}, "bind a tuple of shares", id="none"),
        pytest.param({"shares": "1"}, "bind a tuple of shares", id="text"),
        pytest.param({"shares": (1.5, -0.5)}, "Attributes.shares is 1.5", id="range"),
        pytest.param({"without": float("nan")}, "Attributes.without is nan", id="nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Attributes(**settings)
