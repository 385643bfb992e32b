from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.relevance import features, schema
from dsirm_jax.relevance.attributes import ItemTexts
from dsirm_jax.relevance.digests import Reading, read_catalogue, read_items, read_queries
from dsirm_jax.relevance.neighbours import unit
from dsirm_jax.sids.prefix_match import Beams, log_prefix_shares

ITEMS = ["red shoe", "red red bag", "blue shoe size 10", "Leather wallet"]
QUERIES = ["red shoe", "SHOE", "zebra"]
SIZES = (3, 4)


def item_texts(texts):
    nothing = [None] * len(texts)
    return ItemTexts(text=texts, title=texts, brand=nothing, colour=nothing)


def arrays(pairs: int = 50, items: int = 20, queries: int = 9):
    generator = np.random.default_rng(0)
    return {
        "query_index": generator.integers(queries, size=pairs),
        "item_index": generator.integers(items, size=pairs),
        "query_vectors": generator.normal(size=(queries, 6)).astype(np.float32),
        "item_vectors": unit(generator.normal(size=(items, 6))),
    }


def sid_arrays(pairs: int = 50, items: int = 20, queries: int = 9):
    generator = np.random.default_rng(1)
    valid = np.arange(4) < generator.integers(5, size=(queries, 1))
    sids = generator.integers(0, SIZES, size=(items, 2))
    return {
        "sids": sids,
        "log_shares": log_prefix_shares(sids, sizes=SIZES),
        "beams": Beams(
            sids=generator.integers(0, SIZES, size=(queries, 4, 2)),
            log_probs=np.where(valid, -np.arange(4.0), -np.inf).astype(np.float32),
            valid=valid,
        ),
        "pair_log_probs": -generator.random((pairs, 2)).astype(np.float32),
    }


def near_of(given, *, items: int = 20, queries: int = 9):
    """Returns the surroundings of the queries of `arrays`."""
    generator = np.random.default_rng(2)
    drawn = [generator.integers(queries, size=12), generator.integers(items, size=12)]
    names = ("query_index", "query_vectors", "item_vectors")
    return features.surroundings(
        **{name: given[name] for name in names},
        train_pairs=np.stack(drawn, axis=1),
        relevant=generator.random(12) < 0.6,
    )


def sid_features(given, of_sids, groups, *, near=None):
    near = near or near_of(given)
    pairs = {name: given[name] for name in ("query_index", "item_index")}
    return features.with_sids(**pairs, **of_sids, near=near, groups=groups)


def texts_of(processor, given, *, items: int = 20):
    all_items = item_texts([ITEMS[i % 4] for i in range(items)])
    wanted = np.unique(given["item_index"])
    catalogue, texts = read_catalogue([all_items], wanted=wanted, processor=processor)
    reading = Reading(processor, catalogue.names, "en")
    asked = [QUERIES[query % 3] for query in np.unique(given["query_index"])]
    return features.Texts(
        read_queries(asked, reading), read_items(texts, reading), catalogue.pieces
    )


def test_cosine_equals_a_loop():
    given = arrays()
    values = features.cosine(**given)
    for row, (query, item) in enumerate(
        zip(given["query_index"], given["item_index"], strict=True)
    ):
        one, other = given["query_vectors"][query], given["item_vectors"][item]
        expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert values[row, 0] == pytest.approx(expected, rel=1e-4)


def test_feedback_and_votes_by_a_loop():
    given = arrays(items=5)
    near = near_of(given, items=5)
    about = {name: given[name] for name in ("item_index", "item_vectors")}
    about["query_row"] = np.unique(given["query_index"], return_inverse=True)[1]
    values = np.concatenate([of(**about, near=near) for of in (features.prf, features.votes)], 1)
    vectors = {name: unit(given[name]) for name in ("query_vectors", "item_vectors")}
    row_of = {query: row for row, query in enumerate(np.unique(given["query_index"]))}
    for row, (query, item) in enumerate(
        zip(given["query_index"], given["item_index"], strict=True)
    ):
        own = vectors["item_vectors"][item]
        others = vectors["item_vectors"][np.delete(np.arange(5), item)]
        weights = np.exp(others @ vectors["query_vectors"][query] / 0.1)
        cosines = others @ own
        voted = dict.fromkeys(range(5), 0.0)
        asked = near.queries.cosine[row_of[query]]
        for voter, cosine in zip(near.queries.index[row_of[query]], asked, strict=True):
            suits = near.judged.items[voter][near.judged.verdicts[voter] > 0]
            for vote in suits:
                voted[int(vote)] += np.exp(cosine / 0.1) / len(suits)
        of_votes = {item: vectors["item_vectors"][item] @ own for item in voted if voted[item]}
        expected = [
            weights @ cosines / weights.sum(),
            cosines.max(),
            sum(voted[item] * of_votes[item] for item in of_votes) / sum(voted.values()),
            max(of_votes.values()),
            asked.max(),
        ]
        np.testing.assert_allclose(values[row], expected, rtol=1e-3, atol=1e-5)


def test_of_one_item_without_training_queries_neither_feedback_nor_codes_say_anything():
    pair = {"query_index": np.array([0]), "item_index": np.array([0])}
    given = pair | {"query_vectors": np.ones((1, 2)), "item_vectors": unit(np.ones((1, 2)))}
    rows = {"query_row": np.array([0]), "item_index": np.array([0])}
    near = features.surroundings(
        **{name: values for name, values in given.items() if name != "item_index"},
        train_pairs=np.empty((0, 2), int),
        relevant=np.empty(0, bool),
    )
    assert features.prf(**rows, item_vectors=unit(np.ones((1, 2))), near=near).tolist() == [[0] * 2]
    assert features.votes(**rows, item_vectors=unit(np.ones((1, 2))), near=near).tolist() == [
        [0] * 3
    ]
    found = sid_features(given, sid_arrays(pairs=1, items=1, queries=1), ("neighbours",), near=near)
    assert found.values.tolist() == [[1] * 8 + [0] * 6]


def test_codes_of_near_items_and_queries_are_looked_up_in_the_catalogue():
    given, of_sids = arrays(), sid_arrays()
    near = near_of(given)
    table = sid_features(given, of_sids, ("neighbours",))
    weights, row_of = near.items.weights(), np.unique(given["query_index"], return_inverse=True)[1]
    for pair, (row, item) in enumerate(zip(row_of, given["item_index"], strict=True)):
        found = dict(zip(table.names, table.values[pair], strict=True))
        first = of_sids["sids"][:, 0] == of_sids["sids"][item, 0]
        mass = weights[row] @ first[near.items.index[row]]
        assert found["near_items_1"] == pytest.approx(mass, rel=1e-4)
        voters = near.queries.index[row]
        suits = near.judged.verdicts[voters] > 0
        shares = suits / np.maximum(suits.sum(axis=1), 1)[:, None]
        votes = near.queries.weights()[row] @ (shares * first[near.judged.items[voters]]).sum(
            axis=1
        )
        total = near.queries.weights()[row] @ shares.sum(axis=1)
        assert found["near_queries_1"] == pytest.approx(votes / total, rel=1e-4)


def test_numbers_of_the_users_own_with_one_that_is_not_known():
    numbers = {"price": np.array([1.0, np.nan, 5.0]), "nothing": np.full(3, np.nan)}
    numbers = {name: features.filled(values) for name, values in numbers.items()}
    found = features.numeric(np.array([2, 1, 0]), numbers=numbers)
    assert found.tolist() == [[5, 0], [3, 0], [1, 0]]


def test_features_do_not_depend_on_the_size_of_blocks(monkeypatch):
    whole = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 2)
    in_parts = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    assert whole.names == in_parts.names
    np.testing.assert_allclose(whole.values, in_parts.values, rtol=1e-5, atol=1e-6)


def test_a_rung_has_the_groups_it_names_and_no_other(processor):
    shared = features.without_sids(
        **arrays(),
        item_row=np.unique(arrays()["item_index"], return_inverse=True)[1],
        near=near_of(arrays()),
        texts=texts_of(processor, arrays()),
        numbers={"price": np.arange(20.0)},
        groups=("lexical", "numeric", "dense", "prefix"),
    )
    own = sid_features(arrays(), sid_arrays(), ("paper_match", "dense"))
    table = schema.join([shared, own])
    assert table.groups == ("dense", *["lexical"] * 6, "numeric", "paper_match")
    np.testing.assert_array_equal(table.values[:, -2], arrays()["item_index"])
    assert (table.names[0], table.names[-1]) == ("cosine", "match_depth")
    chosen = schema.select(table, groups=("paper_match", "dense"))
    assert chosen.names == ("cosine", "match_depth")
    np.testing.assert_array_equal(chosen.values, table.values[:, [0, -1]])


def test_one_query_gives_the_same_numbers_alone_as_among_all(processor):
    given, of_sids = arrays(), sid_arrays()

    def table(rows):
        some = given | {name: given[name][rows] for name in ("query_index", "item_index")}
        _, item_row = np.unique(some["item_index"], return_inverse=True)
        log_probs = of_sids["pair_log_probs"][rows]
        near = near_of(some)
        dense = features.without_sids(
            **some,
            item_row=item_row,
            near=near,
            texts=texts_of(processor, some),
            numbers={"price": np.arange(20.0)},
            groups=schema.GROUPS,
        )
        own = sid_features(some, of_sids | {"pair_log_probs": log_probs}, schema.GROUPS, near=near)
        return schema.join([dense, own])

    rows = np.flatnonzero(given["query_index"] == 3)
    whole, part = table(np.arange(50)), table(rows)
    assert whole.names == part.names
    assert len(set(whole.names)) == len(whole.names)
    np.testing.assert_allclose(whole.values[rows], part.values, rtol=1e-5, atol=1e-6)


def test_a_vector_that_is_not_finite_is_an_error():
    given = arrays()
    given["item_vectors"][given["item_index"][0]] = np.nan
    with pytest.raises(ValueError, match="feature cosine of pair 0 is nan"):
        features.without_sids(
            **given,
            item_row=given["item_index"],
            near=None,
            texts=None,
            numbers={},
            groups=("dense",),
        )
