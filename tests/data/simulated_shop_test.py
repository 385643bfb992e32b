"""The simulated shop: rows that do not depend on who makes them, grades that follow from truth."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.data import shop_catalogue, simulated_shop
from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS
from dsirm_jax.data.simulated_shop import SimulatedShop


def _table(parts):
    return pa.concat_tables(chunk.table for part in parts for chunk in part())


def _tables(shop):
    source = shop.read()
    return tuple(_table(parts).to_pylist() for parts in (source.items, source.judgements))


def _rows_of(part):
    """Returns file, row number and row of all rows of a part."""
    return [
        (chunk.file, number, row)
        for chunk in part()
        for number, row in zip(chunk.row_numbers(), chunk.table.to_pylist(), strict=True)
    ]


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
    tables = (_table(source.items), _table(source.judgements))
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
    monkeypatch.setattr(simulated_shop, "_CHUNK_ITEMS", 20)
    monkeypatch.setattr(simulated_shop, "_PART_ITEMS", 100)
    monkeypatch.setattr(simulated_shop, "_CHUNK_QUERIES", 7)
    source = shop.read()
    assert len(source.items) == 4
    chunks = [chunk for part in source.items for chunk in part()]
    assert [chunk.first_row for chunk in chunks] == list(range(1, 302, 20))
    assert [row for chunk in chunks for row in chunk.table.to_pylist()] == whole[0]
    assert _table(source.judgements).to_pylist() == whole[1]


def test_a_shop_of_the_demos_size_is_one_part():
    source = SimulatedShop().read()
    assert (len(source.items), len(source.judgements)) == (1, 1)


def test_parts_share_out_all_items_and_queries():
    source = SimulatedShop(items=10**6 + 1, queries=10**6).read()
    assert len(source.items) == 16
    blocks = [part.args[1] for part in source.judgements]
    sizes = [sum(queries for *_, queries in part) for part in blocks]
    assert sum(sizes) == 10**6
    assert all(8192 <= size < 8192 + 16384 for size in sizes[:-1])
    of_types = collections.defaultdict(list)
    for type_, block, queries in itertools.chain(*blocks):
        assert block == len(of_types[type_])
        of_types[type_].append(queries)
    assert len(of_types) == len(shop_catalogue.product_types())
    assert all(set(sizes[:-1]) <= {16384} for sizes in of_types.values())


def test_parts_give_the_same_rows_in_any_order_and_process(monkeypatch):
    monkeypatch.setattr(simulated_shop, "_PART_ITEMS", 100)
    monkeypatch.setattr(simulated_shop, "_PART_QUERIES", 20)
    shop = SimulatedShop(items=301, queries=60)
    whole = _tables(shop)
    source = shop.read()
    assert len(source.items) == 4 and 2 <= len(source.judgements) <= 4
    spawn = multiprocessing.get_context("spawn")
    for parts, expected in zip((source.items, source.judgements), whole, strict=True):
        backwards = [_rows_of(part) for part in reversed(parts)]
        assert [row for rows in reversed(backwards) for *_, row in rows] == expected
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            assert list(pool.map(_rows_of, reversed(parts))) == backwards
        places = [place for rows in backwards for *place, _ in rows]
        assert len(set(map(tuple, places))) == len(expected)


def test_a_part_travels_light():
    source = SimulatedShop(items=10**8, queries=10**8).read()
    for part in (source.items[-1], source.judgements[-1]):
        next(part())
        assert len(pickle.dumps(part)) < 1000


def test_blocks_of_a_type_differ_and_the_first_does_not_depend_on_them(monkeypatch):
    shop = SimulatedShop(items=800, queries=600)

    def queries_by_type():
        asked = collections.defaultdict(dict)
        for row in _tables(shop)[1]:
            asked[row["truth_type"]][row["query"]] = None
        return {type_: list(queries) for type_, queries in asked.items()}

    whole = queries_by_type()
    monkeypatch.setattr(simulated_shop, "_BLOCK_QUERIES", 8)
    for type_, queries in queries_by_type().items():
        assert queries[:8] == whole[type_][:8]
        assert (queries == whole[type_]) == (len(whole[type_]) <= 8)


def test_any_row_is_made_without_those_before_it():
    shop = SimulatedShop(items=10**8)
    families = np.array([3, 4, 1_000_000, 24_999_999])
    items, types, values = shop._attributes(families)
    for family in families:
        one = shop._attributes(np.array([family]))
        own = items // 4 == family
        np.testing.assert_array_equal(one[0], items[own])
        np.testing.assert_array_equal(one[1], types[own])
        np.testing.assert_array_equal(one[2], values[:, own])


def test_draws_of_a_row_are_those_of_its_own_counters():
    shop, rows = SimulatedShop(seed=5), np.array([0, 1, 7, 8, 9, 10**7])
    draws = shop._uniforms(2, rows, 12)
    for row, own in zip(rows.tolist(), draws, strict=True):
        counter = np.random.Philox(key=[5, 2], counter=3 * row)
        np.testing.assert_array_equal(np.random.Generator(counter).random(12), own)


def test_ids_are_numbers_to_the_base_36():
    for seed in (0, 10**12):
        numbers = np.array([0, 1, 35, 10**8 - 1])
        ids = SimulatedShop(seed=seed)._item_ids(numbers).to_pylist()
        codes = [(number * 2654435761 + seed) % 2**36 for number in numbers.tolist()]
        assert [int(id_[1:], 36) for id_ in ids] == codes
        assert {len(id_) for id_ in ids} == {8} and {id_[0] for id_ in ids} == {"P"}


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
    purposes = {t.names[0]: set(t.purposes) for t in shop_catalogue.product_types()}
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


def test_memory_does_not_grow_with_the_shop(monkeypatch):
    monkeypatch.setattr(simulated_shop, "_CHUNK_ITEMS", 1024)
    monkeypatch.setattr(simulated_shop, "_CHUNK_QUERIES", 64)

    def first_chunks(shop):
        source = shop.read()
        return [
            [chunk.table for chunk in itertools.islice(part(), 2)]
            for part in (source.items[-1], source.judgements[-1])
        ]

    def peak(shop):
        tracemalloc.start()
        first_chunks(shop)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small = SimulatedShop(items=30_000, queries=3_000)
    large = SimulatedShop(items=10**8, queries=10**7)
    items, judged = first_chunks(large)
    first_chunks(small)  # both have filled the caches of words
    assert peak(large) < 1.3 * peak(small)
    assert sum(table.num_rows for table in items) == 2048
    grades = collections.Counter(x for t in judged for x in t["truth_label"].to_pylist())
    assert grades["E"] / grades.total() > 0.4


def test_the_tables_of_words_are_sound():
    types = shop_catalogue.product_types()
    names = [name for type_ in types for name in type_.names]
    assert len(names) == len(set(names))
    assert len(types) > 100
    assert 10 <= len({type_.department for type_ in types}) <= 16
    first_names = {type_.names[0] for type_ in types}
    brands = {brand for type_ in types for brand in type_.brands}
    assert len({shop_catalogue.brand_name(brand) for brand in brands}) == len(brands)
    for type_ in types:
        assert set(type_.attributes) <= set(shop_catalogue.columns())
        assert set(type_.purposes) <= first_names
        assert len(type_.attributes) - 2 <= simulated_shop._ATTRIBUTE_WIDTH
        assert type_.feature
        assert "fits" not in type_.attributes or type_.purposes
    for attribute, values in shop_catalogue.wordings().items():
        wordings = [wording for value in values for wording in value]
        assert len(wordings) == len(set(wordings)), attribute
        assert all(len(value) >= 2 for value in values), attribute
        assert any(attribute in type_.attributes for type_ in types), attribute
