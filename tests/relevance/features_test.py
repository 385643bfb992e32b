from __future__ import annotations

import math

import numpy as np
import pytest
import sentencepiece
from scipy.sparse import csr_matrix

from dsirm_jax.errors import InputError
from dsirm_jax.relevance import features, schema
from dsirm_jax.relevance.attributes import ItemTexts
from dsirm_jax.relevance.lexical import PieceStatistics, bm25_weights, lexical, read_catalogue
from dsirm_jax.relevance.neighbours import unit
from dsirm_jax.sids.prefix_match import Beams

ITEMS = ["red shoe", "red red bag", "blue shoe size 10", "Leather wallet"]
QUERIES = ["red shoe", "SHOE", "zebra"]
SIZES = (3, 4)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("vocabulary") / "words"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in ITEMS + QUERIES] * 5),
        model_prefix=str(prefix),
        model_type="word",
        vocab_size=14,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def item_texts(texts):
    nothing = [None] * len(texts)
    return ItemTexts(text=texts, title=texts, brand=nothing, colour=nothing)


def arrays(pairs: int = 50, items: int = 20, queries: int = 9):
    generator = np.random.default_rng(0)
    return {
        "query_index": generator.integers(queries, size=pairs),
        "item_index": generator.integers(items, size=pairs),
        "query_vectors": generator.normal(size=(queries, 6)).astype(np.float32),
        "item_vectors": generator.normal(size=(items, 6)).astype(np.float32),
    }


def sid_arrays(pairs: int = 50, items: int = 20, queries: int = 9):
    generator = np.random.default_rng(1)
    valid = np.arange(4) < generator.integers(5, size=(queries, 1))
    return {
        "sids": generator.integers(0, SIZES, size=(items, 2)),
        "sizes": SIZES,
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
    return features.with_sids(**given, **of_sids, near=near, groups=groups)


def texts_of(vocabulary, given, *, items: int = 20):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    all_items = item_texts([ITEMS[i % 4] for i in range(items)])
    wanted = np.unique(given["item_index"])
    catalogue, texts = read_catalogue([all_items], wanted=wanted, processor=processor)
    return features.Texts(texts, catalogue, processor, "en")


def test_lexical_features_by_hand(vocabulary):
    query_index, item_index = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 0])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    catalogue, texts = read_catalogue(
        (item_texts(some) for some in (ITEMS[:1], [], ITEMS[1:])),
        wanted=np.unique(item_index),
        processor=processor,
    )
    assert texts.text == ITEMS[:3]
    values = lexical(
        query_row=query_index,
        item_row=item_index,
        queries=QUERIES,
        items=texts.text,
        statistics=catalogue.pieces,
        processor=processor,
    )
    documents = [text.lower().split() for text in ITEMS]
    mean_length = sum(map(len, documents)) / len(documents)

    def idf(word):
        having = sum(word in document for document in documents)
        return math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))

    def bm25(query, document):
        norm = 1.2 * (0.25 + 0.75 * len(document) / mean_length)
        counts = {word: document.count(word) for word in query if word in document}
        return sum(idf(word) * tf * 2.2 / (tf + norm) for word, tf in counts.items())

    for row, (query, item) in enumerate(zip(query_index, item_index, strict=True)):
        words, document = QUERIES[query].lower().split(), documents[item]
        shared = len(set(words) & set(document))
        expected = [
            bm25(words, document),
            bm25(words, document) / sum(map(idf, words)),
            shared / len(set(words)),
            shared / len(set(document)),
            float(QUERIES[query].lower() in ITEMS[item].lower()),
            math.log(1 + len(set(words))),
        ]
        np.testing.assert_allclose(values[row], expected, rtol=1e-6)


def test_bm25_survives_an_empty_document_and_a_piece_in_every_document():
    statistics = PieceStatistics(3, np.array([2, 3]), 2.0)
    counts = csr_matrix(np.array([[1.0, 0], [2.0, 3.0], [0, 0]]))
    weights, idf = bm25_weights(counts, statistics)
    assert np.isfinite(weights.data).all()
    assert (idf > 0).all()
    assert weights[2].nnz == 0


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
    about = {name: given[name] for name in ("query_index", "item_index", "item_vectors")}
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
    given = pair | {"query_vectors": np.ones((1, 2)), "item_vectors": np.ones((1, 2))}
    near = features.surroundings(
        **{name: values for name, values in given.items() if name != "item_index"},
        train_pairs=np.empty((0, 2), int),
        relevant=np.empty(0, bool),
    )
    assert features.prf(**pair, item_vectors=np.ones((1, 2)), near=near).tolist() == [[0] * 2]
    assert features.votes(**pair, item_vectors=np.ones((1, 2)), near=near).tolist() == [[0] * 3]
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
    found = features.numeric(np.array([2, 1, 0]), numbers=numbers)
    assert found.tolist() == [[5, 0], [3, 0], [1, 0]]


def test_features_do_not_depend_on_the_size_of_blocks(monkeypatch):
    whole = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    monkeypatch.setattr(features, "_in_chunks", _in_sevens(features._in_chunks))
    in_parts = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    assert whole.names == in_parts.names
    np.testing.assert_allclose(whole.values, in_parts.values, rtol=1e-5, atol=1e-6)


def _in_sevens(in_chunks):
    return lambda *arguments, rows=7: in_chunks(*arguments, rows=7)


def test_a_rung_has_the_groups_it_names_and_no_other(vocabulary):
    shared = features.without_sids(
        **arrays(),
        queries=[QUERIES[i % 3] for i in range(9)],
        near=near_of(arrays()),
        texts=texts_of(vocabulary, arrays()),
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


def test_one_query_gives_the_same_numbers_alone_as_among_all(vocabulary):
    given, of_sids = arrays(), sid_arrays()
    queries = [QUERIES[i % 3] for i in range(9)]

    def table(rows):
        some = given | {name: given[name][rows] for name in ("query_index", "item_index")}
        log_probs = of_sids["pair_log_probs"][rows]
        near = near_of(some)
        dense = features.without_sids(
            **some,
            queries=queries,
            near=near,
            texts=texts_of(vocabulary, some),
            numbers={"price": np.arange(20.0)},
            groups=schema.GROUPS,
        )
        own = features.with_sids(
            **some, **of_sids | {"pair_log_probs": log_probs}, near=near, groups=schema.GROUPS
        )
        return schema.join([dense, own])

    rows = np.flatnonzero(given["query_index"] == 3)
    whole, part = table(np.arange(50)), table(rows)
    assert whole.names == part.names
    assert len(set(whole.names)) == len(whole.names)
    np.testing.assert_allclose(whole.values[rows], part.values, rtol=1e-5, atol=1e-6)


def test_an_unknown_group_is_named():
    with pytest.raises(InputError, match="'lexicla' does not exist"):
        schema.check_groups(("dense", "lexicla"))


def test_a_vector_that_is_not_finite_is_an_error():
    given = arrays()
    given["item_vectors"][given["item_index"][0]] = np.nan
    with pytest.raises(ValueError, match="feature cosine of pair 0 is nan"):
        features.without_sids(
            **given,
            queries=["red"] * 9,
            near=None,
            texts=None,
            numbers={},
            groups=("dense",),
        )
