"""The simulated shop: rows that do not depend on who makes them, grades that follow from truth."""

import collections
import itertools

import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.data import simulated_shop
from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS
from dsirm_jax.data.simulated_shop import SimulatedShop


def _tables(shop):
    source = shop.read()
    return tuple(
        pa.concat_tables(chunk.table for chunk in chunks).to_pylist()
        for chunks in (source.items, source.judgements)
    )


@pytest.fixture(scope="module")
def shop():
    return _tables(SimulatedShop(items=3000, queries=1000, label_noise=0.1))


def _grade(query, item):
    """The truth once more, from the truth columns alone: E or not for items of the type."""
    if query["truth_type"] != item["truth_type"]:
        return None
    off = len(set(query["truth_attributes"]) - set(item["truth_attributes"]))
    return "ESI"[min(off, 2)]


def test_rows_are_what_the_schema_says(shop):
    items, judgements = shop
    assert len(items) == 3000
    assert len({item["item_id"] for item in items}) == 3000
    assert len({row["query"] for row in judgements}) == 1000
    pairs = [(row["query"], row["item_id"]) for row in judgements]
    assert len(pairs) == len(set(pairs))
    assert {row["item_id"] for row in judgements} <= {item["item_id"] for item in items}
    source = SimulatedShop(items=8, queries=2).read()
    tables = (next(iter(source.items)).table, next(iter(source.judgements)).table)
    for table, schema in zip(tables, (RAW_ITEMS, RAW_JUDGEMENTS), strict=True):
        for field in table.schema:
            if field.name in schema.names:
                assert field.type == schema.field(field.name).type
    assert set(source.extras.names) == set(tables[0].schema.names) - set(RAW_ITEMS.names)


def test_the_same_seed_gives_the_same_shop_and_another_seed_another():
    small = {"items": 300, "queries": 60}
    assert _tables(SimulatedShop(**small)) == _tables(SimulatedShop(**small))
    assert _tables(SimulatedShop(**small)) != _tables(SimulatedShop(**small, seed=1))


def test_rows_do_not_depend_on_chunks(monkeypatch):
    shop = SimulatedShop(items=301, queries=60)
    whole = _tables(shop)
    monkeypatch.setattr(simulated_shop, "_CHUNK", 20)
    source = shop.read()
    chunks = list(source.items)
    assert len(chunks) == 16
    assert [chunk.first_row for chunk in chunks] == list(range(1, 302, 20))
    rows = [row for chunk in chunks for row in chunk.table.to_pylist()]
    assert rows == whole[0]


def test_any_row_is_made_without_those_before_it():
    shop = SimulatedShop(items=10**8)
    families = np.array([3, 4, 1_000_000, 24_999_999])
    items, types, values = shop._attributes(families)
    for family in families:
        one = shop._attributes(np.array([family]))
        own = items // 4 == family
        np.testing.assert_array_equal(one[0], items[own])
        np.testing.assert_array_equal(one[1], types[own])
        np.testing.assert_array_equal(one[2], values[own])


def test_draws_are_uniform_and_independent():
    draws = SimulatedShop()._uniforms(1, np.arange(5000), 4)
    assert draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.05


def test_grades_follow_from_the_attributes(shop):
    items = {item["item_id"]: item for item in shop[0]}
    seen = collections.Counter()
    for row in shop[1]:
        item = items[row["item_id"]]
        expected = _grade(row, item)
        if expected is None:
            assert row["truth_label"] != "E"
        else:
            assert row["truth_label"] == expected
        seen[row["truth_label"], expected is None] += 1
    assert min(seen[key] for key in [("E", False), ("S", False), ("I", False), ("S", True)]) > 50
    assert seen["C", True] > 50 and seen["C", False] == 0


def test_complements_are_accessories_or_what_they_are_for(shop):
    purposes = {t.names[0]: set(t.purposes) for t in simulated_shop._product_types()}
    items = {item["item_id"]: item["truth_type"] for item in shop[0]}
    for row in shop[1]:
        asked, found = row["truth_type"], items[row["item_id"]]
        complement = asked in purposes[found] or found in purposes[asked]
        assert complement == (row["truth_label"] == "C")


def test_statistics_are_like_those_of_real_judgements(shop):
    items, judgements = shop
    shares = collections.Counter(row["truth_label"] for row in judgements)
    shares = {label: count / len(judgements) for label, count in shares.items()}
    assert 0.45 < shares["E"] < 0.55
    assert 0.20 < shares["S"] < 0.30
    assert 0.03 < shares["C"] < 0.07
    assert 0.15 < shares["I"] < 0.25
    words = [len(item["title"].split()) for item in items]
    assert 12 < np.mean(words) < 18 and np.std(words) > 4
    queries = {row["query"]: row for row in judgements}
    assert 3.2 < np.mean([len(query.split()) for query in queries]) < 4.5
    missing = np.mean([item["category"] is None for item in items])
    assert 0.07 < missing < 0.13
    # Few queries are asked often, and those ask for little.
    frequency = sorted((row["query_frequency"] for row in queries.values()), reverse=True)
    assert sum(frequency[:100]) > 0.5 * sum(frequency)
    asked = collections.defaultdict(list)
    for row in queries.values():
        asked[len(row["truth_attributes"])].append(row["query_frequency"])
    assert np.median(asked[0]) > np.median(asked[1]) > np.median(asked[2]) > np.median(asked[3])


def test_noise_and_clicks_have_their_rates(shop):
    judgements = shop[1]
    # A label drawn anew is the old one in sum(share^2) of the cases: 0.345.
    noisy = np.mean([row["label"] != row["truth_label"] for row in judgements])
    assert abs(noisy - 0.1 * (1 - 0.345)) < 0.015
    shown, clicked = collections.Counter(), collections.Counter()
    for row in judgements:
        assert 0 <= row["purchases"] <= row["clicks"] <= row["impressions"]
        shown[row["truth_label"]] += row["impressions"]
        clicked[row["truth_label"]] += row["clicks"]
    rates = {label: clicked[label] / shown[label] for label in "ESCI"}
    np.testing.assert_allclose(
        [rates[label] for label in "ESCI"], [0.2, 0.08, 0.05, 0.02], rtol=0.1
    )


def test_words_alone_do_not_decide(shop):
    items = {item["item_id"]: set(item["title"].lower().split()) for item in shop[0]}
    nothing_shared = 0
    for row in shop[1]:
        if row["truth_label"] == "E":
            nothing_shared += not set(row["query"].split()) & items[row["item_id"]]
    share = nothing_shared / sum(row["truth_label"] == "E" for row in shop[1])
    assert 0.1 < share < 0.5


@pytest.mark.parametrize(("items", "queries"), [(1, 1), (7, 30), (170, 200)])
def test_tiny_shops_are_shops(items, queries):
    rows, judgements = _tables(SimulatedShop(items=items, queries=queries))
    assert len(rows) == items
    assert len({row["query"] for row in judgements}) == queries
    assert all(row["title"].strip() for row in rows)


def test_a_large_shop_is_streamed():
    source = SimulatedShop(items=10**8, queries=10**6).read()
    first = next(iter(source.items)).table
    judged = list(itertools.islice(source.judgements, 2))
    assert first.num_rows == 4096
    grades = collections.Counter(x for c in judged for x in c.table["truth_label"].to_pylist())
    assert grades["E"] / grades.total() > 0.4


def test_the_tables_of_words_are_sound():
    types = simulated_shop._product_types()
    names = [name for type_ in types for name in type_.names]
    assert len(names) == len(set(names))
    assert len(types) > 100
    assert 10 <= len({type_.department for type_ in types}) <= 16
    first_names = {type_.names[0] for type_ in types}
    brands = {brand for type_ in types for brand in type_.brands}
    assert len({simulated_shop._brand_name(brand) for brand in brands}) == len(brands)
    for type_ in types:
        assert set(type_.attributes) <= set(simulated_shop._columns())
        assert set(type_.purposes) <= first_names
        assert len(type_.attributes) - 2 <= simulated_shop._ATTRIBUTE_WIDTH
        assert type_.feature
        assert "fits" not in type_.attributes or type_.purposes
    for attribute, values in simulated_shop._wordings().items():
        wordings = [wording for value in values for wording in value]
        assert len(wordings) == len(set(wordings)), attribute
        assert all(len(value) >= 2 for value in values), attribute
        assert any(attribute in type_.attributes for type_ in types), attribute
