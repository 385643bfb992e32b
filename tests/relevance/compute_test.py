from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import compute, groups, variants
from dsirm_jax.relevance.compute import match_features, pair_features, rung_features
from dsirm_jax.relevance.digests import Reading, catalogue_statistics, digest_items, digest_queries
from dsirm_jax.relevance.features import dense, feedback, numeric, votes
from dsirm_jax.relevance.features.group import Column, Group, PairTexts
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.neighbours import find_surroundings
from dsirm_jax.relevance.schema import FeatureTable, join
from dsirm_jax.sids.prefix_match import Beams, log_prefix_shares
from tests.relevance.contexts import item_texts, pair_context

ITEMS = ["red shoe", "red red bag", "blue shoe size 10", "Leather wallet"]
QUERIES = ["red shoe", "SHOE", "zebra"]
SIZES = (3, 4)


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
    return find_surroundings(
        **{name: given[name] for name in names},
        train_pairs=np.stack(drawn, axis=1),
        relevant=generator.random(12) < 0.6,
    )


def sid_features(given, of_sids, names, *, near=None, **blocks):
    pairs = {name: given[name] for name in ("query_index", "item_index")}
    return rung_features(
        **pairs,
        **of_sids,
        surroundings=near or near_of(given),
        groups=[
            group for group in groups.reading("beams", "neighbour_sids") if group.name in names
        ],
        **blocks,
    )


def of_pairs(*names):
    return groups_named(names, "pairs")


def groups_named(names, *reads):
    return [group for group in groups.reading(*reads) if group.name in names]


def texts_of(processor, given, *, items: int = 20):
    all_items = item_texts([ITEMS[i % 4] for i in range(items)])
    wanted = np.unique(given["item_index"])
    catalogue, texts = catalogue_statistics([all_items], wanted=wanted, processor=processor)
    reading = Reading(processor, catalogue.names, "en")
    asked = [QUERIES[query % 3] for query in np.unique(given["query_index"])]
    return PairTexts(digest_queries(asked, reading), digest_items(texts, reading), catalogue.pieces)


def test_cosine_equals_a_loop():
    given = arrays()
    values = dense.cosine(pair_context(**given), pairs_at_once=7)
    for row, (query, item) in enumerate(
        zip(given["query_index"], given["item_index"], strict=True)
    ):
        one, other = given["query_vectors"][query], given["item_vectors"][item]
        expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert values[row, 0] == pytest.approx(expected, rel=1e-4)


def test_feedback_and_votes_by_a_loop():
    given = arrays(items=5)
    near = near_of(given, items=5)
    context = pair_context(**given, surroundings=near)
    values = np.concatenate([feedback.feedback(context), votes.votes(context)], 1)
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
        for voter, cosine in zip(near.queries.row[row_of[query]], asked, strict=True):
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
    near = find_surroundings(
        **{name: values for name, values in given.items() if name != "item_index"},
        train_pairs=np.empty((0, 2), int),
        relevant=np.empty(0, bool),
    )
    context = pair_context(**given, surroundings=near)
    assert feedback.feedback(context).tolist() == [[0] * 2]
    assert votes.votes(context).tolist() == [[0] * 3]
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
        mass = weights[row] @ first[near.items.row[row]]
        assert found["near_items_1"] == pytest.approx(mass, rel=1e-4)
        voters = near.queries.row[row]
        suits = near.judged.verdicts[voters] > 0
        shares = suits / np.maximum(suits.sum(axis=1), 1)[:, None]
        votes = near.queries.weights()[row] @ (shares * first[near.judged.items[voters]]).sum(
            axis=1
        )
        total = near.queries.weights()[row] @ shares.sum(axis=1)
        assert found["near_queries_1"] == pytest.approx(votes / total, rel=1e-4)


def test_numbers_of_the_users_own_with_one_that_is_not_known():
    numbers = {"price": np.array([1.0, np.nan, 5.0]), "nothing": np.full(3, np.nan)}
    numbers = {name: numeric.finite_numbers(values) for name, values in numbers.items()}
    rows = {"query_index": np.zeros(3, int), "item_index": np.array([2, 1, 0])}
    found = numeric.numeric(pair_context(**rows, numbers=numbers))
    assert found.tolist() == [[5, 0], [3, 0], [1, 0]]


def test_features_do_not_depend_on_the_size_of_blocks():
    whole = sid_features(arrays(), sid_arrays(), groups.package_groups())
    in_parts = sid_features(arrays(), sid_arrays(), groups.package_groups(), rows_at_once=2)
    assert whole.names == in_parts.names
    np.testing.assert_allclose(whole.values, in_parts.values, rtol=1e-5, atol=1e-6)
    context = pair_context(**arrays(), surroundings=near_of(arrays()))
    for features in (feedback.feedback, votes.votes):
        in_parts = features(context, rows_at_once=2)
        np.testing.assert_allclose(features(context), in_parts, rtol=1e-5, atol=1e-6)


def test_a_rung_has_the_groups_it_names_and_no_other(processor):
    context = pair_context(
        **arrays(),
        item_row=np.unique(arrays()["item_index"], return_inverse=True)[1],
        surroundings=near_of(arrays()),
        texts=texts_of(processor, arrays()),
        numbers={"price": np.arange(20.0)},
    )
    shared = pair_features(context, groups=of_pairs("lexical", "numeric", "dense", "prefix"))
    own = sid_features(arrays(), sid_arrays(), ("paper_match", "dense"))
    table = join([shared, own])
    assert table.groups == ("dense", *["lexical"] * 6, "numeric", "paper_match")
    np.testing.assert_array_equal(table.values[:, -2], arrays()["item_index"])
    assert (table.names[0], table.names[-1]) == ("cosine", "match_depth")
    chosen = table.select(["match_depth", "cosine"])
    assert (chosen.names, chosen.groups) == (("match_depth", "cosine"), ("paper_match", "dense"))
    np.testing.assert_array_equal(chosen.values, table.values[:, [-1, 0]])


def test_a_context_of_tables_is_what_its_parts_give(processor):
    given = arrays()
    titles = [ITEMS[item % 4] for item in range(20)]
    price = np.where(np.arange(20) % 3, np.arange(20.0), np.nan)
    context = compute.pair_context(
        **given,
        surroundings=near_of(given),
        queries=[QUERIES[query % 3] for query in range(9)],
        items=[item_texts(titles[:7]), item_texts(titles[7:])],
        numbers={"price": price},
        processor=processor,
        language="en",
    )
    by_hand = pair_context(
        **given,
        item_row=np.unique(given["item_index"], return_inverse=True)[1],
        surroundings=near_of(given),
        texts=texts_of(processor, given),
        numbers={"price": numeric.finite_numbers(price)},
    )
    tables = [pair_features(each, groups=groups.reading("pairs")) for each in (context, by_hand)]
    assert tables[0].names == tables[1].names and len(tables[0].names) > 10
    np.testing.assert_array_equal(*(table.values for table in tables))


def test_variants_look_at_the_first_beams_or_at_the_querys_own_codes():
    given, of_sids = arrays(), sid_arrays()
    pairs = {name: given[name] for name in ("query_index", "item_index")}
    own = np.random.default_rng(3).integers(0, SIZES, size=(9, 2))
    wanted = groups_named(("paper_match", "prefix", "neighbours"), "beams", "neighbour_sids")
    table = match_features(
        **pairs,
        **of_sids,
        surroundings=near_of(given),
        groups=wanted,
        variant_groups=groups_named(("paper_match", "prefix"), "beams"),
        tags=(2, variants.OWN),
        own_codes=own,
    )
    columns = dict(zip(table.names, table.values.T, strict=True))
    plain = sid_features(given, of_sids, ("paper_match", "prefix", "neighbours"))
    np.testing.assert_array_equal(table.values[:, : len(plain.names)], plain.values)
    assert set(table.groups) == {
        *("paper_match", "prefix", "neighbours"),
        *(f"{name}@{tag}" for name in ("paper_match", "prefix") for tag in (2, "own")),
    }
    beams, sids = of_sids["beams"], of_sids["sids"]
    for row, (query, item) in enumerate(zip(*pairs.values(), strict=True)):
        for tag, codes in (
            (2, beams.sids[query, :2][beams.valid[query, :2]]),
            ("own", [own[query]]),
        ):
            depth = max((np.cumprod(code == sids[item]).sum() for code in codes), default=0)
            expected = {0: 0.0, 1: 0.5, 2: 1.0}[depth]
            assert columns[f"match_depth@{tag}"][row] == pytest.approx(expected), (row, tag)


def test_one_query_gives_the_same_numbers_alone_as_among_all(processor):
    given, of_sids = arrays(), sid_arrays()

    def table(rows):
        some = given | {name: given[name][rows] for name in ("query_index", "item_index")}
        _, item_row = np.unique(some["item_index"], return_inverse=True)
        log_probs = of_sids["pair_log_probs"][rows]
        near = near_of(some)
        context = pair_context(
            **some,
            item_row=item_row,
            surroundings=near,
            texts=texts_of(processor, some),
            numbers={"price": np.arange(20.0)},
        )
        own = sid_features(
            some, of_sids | {"pair_log_probs": log_probs}, groups.package_groups(), near=near
        )
        return join([pair_features(context, groups=groups.reading("pairs")), own])

    rows = np.flatnonzero(given["query_index"] == 3)
    whole, part = table(np.arange(50)), table(rows)
    assert whole.names == part.names
    assert len(set(whole.names)) == len(whole.names)
    np.testing.assert_allclose(whole.values[rows], part.values, rtol=1e-5, atol=1e-6)


def test_a_vector_that_is_not_finite_is_an_error():
    given = arrays()
    given["item_vectors"][given["item_index"][0]] = np.nan
    with pytest.raises(ValueError, match="feature cosine of pair 0 is nan"):
        pair_features(pair_context(**given), groups=of_pairs("dense"))


def test_a_group_with_other_columns_than_it_names_is_an_error():
    group = Group(name="odd", columns=(Column("a", ""), Column("b", "")), compute=dense.cosine)
    with pytest.raises(InputError, match=r"group 'odd' computes an array of shape \(50, 1\)"):
        pair_features(pair_context(**arrays()), groups=[group])


def test_two_columns_of_one_name_are_an_error():
    context = pair_context(**arrays(), numbers={"cosine": np.arange(20.0)})
    with pytest.raises(InputError, match="groups dense and numeric both have a column 'cosine'"):
        pair_features(context, groups=of_pairs("dense", "numeric"))


def test_a_column_that_is_not_there_is_an_error():
    table = FeatureTable(names=("a",), groups=("x",), values=np.zeros((1, 1), np.float32))
    with pytest.raises(InputError, match="features b, which the head was fitted to, are not among"):
        table.select(["a", "b"])
