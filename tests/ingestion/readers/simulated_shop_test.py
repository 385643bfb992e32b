"""The simulated shop: rows that do not depend on who makes them, grades that follow from truth."""

import collections
import concurrent.futures
import hashlib
import itertools
import json
import math
import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS
from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.ingestion.shop import catalogue
from dsirm_jax.io.errors import InputError


def _table(parts):
    return pa.concat_tables(chunk.table for part in parts for chunk in part())


def _tables(shop, **sizes):
    source = shop.read(**sizes)
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


@pytest.mark.parametrize(
    ("settings", "digests"),
    [
        ({"items": 301, "queries": 60}, ("f6d197707e923384", "1313e546a51905c9")),
        (
            {"items": 500, "queries": 40, "seed": 7},
            ("86d0c9b7a766c151", "c60cf567239370c1"),
        ),
    ],
    ids=["seed 0", "seed 7"],
)
def test_rows_are_those_of_earlier_versions(settings, digests):
    for rows, digest in zip(_tables(SimulatedShop(**settings)), digests, strict=True):
        text = "".join(json.dumps(row, ensure_ascii=False) for row in rows)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("items", 0),
        ("items", 4 * 10**8),
        ("items", 12.5),
        ("items", True),
        ("queries", 0),
        ("queries", math.nan),
        ("judgements_per_query", 0),
        ("judgements_per_query", math.nan),
        ("label_noise", -0.1),
        ("label_noise", 1.5),
        ("label_noise", math.nan),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", None),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(InputError, match=f"gin binding SimulatedShop.{setting} is {value}; bind"):
        SimulatedShop(**{setting: value})


def test_rows_do_not_depend_on_chunks():
    shop = SimulatedShop(items=301, queries=60)
    whole = _tables(shop)
    source = shop.read(chunk_items=20, part_items=100, chunk_queries=7)
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
    assert len(of_types) == len(catalogue.product_types())
    assert all(set(sizes[:-1]) <= {16384} for sizes in of_types.values())


def test_parts_give_the_same_rows_in_any_order_and_process():
    shop = SimulatedShop(items=301, queries=60)
    whole = _tables(shop)
    source = shop.read(part_items=100, part_queries=20)
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


def test_blocks_of_a_type_differ_and_the_first_does_not_depend_on_them():
    shop = SimulatedShop(items=800, queries=600)

    def queries_by_type(**sizes):
        types = collections.defaultdict(dict)
        for row in _tables(shop, **sizes)[1]:
            types[row["truth_type"]][row["query"]] = None
        return {type_: list(queries) for type_, queries in types.items()}

    whole = queries_by_type()
    for type_, queries in queries_by_type(block_queries=8).items():
        assert queries[:8] == whole[type_][:8]
        assert (queries == whole[type_]) == (len(whole[type_]) <= 8)


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
    purposes = {t.names[0]: set(t.purposes) for t in catalogue.product_types()}
    items = {item["item_id"]: item["truth_type"] for item in shop[0]}
    for row in shop[1]:
        query_type, item_type = row["truth_type"], items[row["item_id"]]
        complement = query_type in purposes[item_type] or item_type in purposes[query_type]
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
    frequencies = collections.defaultdict(list)
    for row in queries.values():
        frequencies[len(row["truth_attributes"])].append(row["query_frequency"])
    medians = [np.median(frequencies[attributes]) for attributes in range(4)]
    assert medians == sorted(medians, reverse=True) and len(set(medians)) == 4


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


def test_memory_does_not_grow_with_the_shop():
    def first_chunks(shop):
        source = shop.read(chunk_items=1024, chunk_queries=64)
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
    items, judgements = first_chunks(large)
    first_chunks(small)  # both have filled the caches of words
    assert peak(large) < 1.3 * peak(small)
    assert sum(table.num_rows for table in items) == 2048
    grades = collections.Counter(
        x for table in judgements for x in table["truth_label"].to_pylist()
    )
    assert grades["E"] / grades.total() > 0.4
