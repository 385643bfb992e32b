from __future__ import annotations

import math

import numpy as np
import pytest
import sentencepiece
from scipy.sparse import csr_matrix

from dsirm_jax.errors import InputError
from dsirm_jax.relevance import features, schema
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
        **{name: given[name] for name in names}, train_pairs=np.stack(drawn, axis=1)
    )


def sid_features(given, of_sids, groups):
    pairs = {name: given[name] for name in ("query_index", "item_index")}
    return features.with_sids(**pairs, **of_sids, near=near_of(given), groups=groups)


def test_lexical_features_by_hand(vocabulary):
    query_index, item_index = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 0])
    values = features.lexical(
        query_index=query_index,
        item_index=item_index,
        queries=QUERIES,
        items=iter([ITEMS[:1], [], ITEMS[1:]]),
        vocabulary=vocabulary,
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
    statistics = features.PieceStatistics(3, np.array([2, 3]), 2.0)
    counts = csr_matrix(np.array([[1.0, 0], [2.0, 3.0], [0, 0]]))
    weights, idf = features.bm25_weights(counts, statistics)
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


def test_prf_leaves_the_item_itself_out():
    given = arrays(items=5)
    near = near_of(given).items
    values = features.prf(
        **{name: given[name] for name in ("query_index", "item_index", "item_vectors")}, near=near
    )
    given |= {name: unit(given[name]) for name in ("query_vectors", "item_vectors")}
    for row, (query, item) in enumerate(
        zip(given["query_index"], given["item_index"], strict=True)
    ):
        others = np.delete(np.arange(5), item)
        weights = np.exp(given["item_vectors"][others] @ given["query_vectors"][query] / 0.1)
        cosines = given["item_vectors"][others] @ given["item_vectors"][item]
        expected = [weights @ cosines / weights.sum(), cosines.max()]
        np.testing.assert_allclose(values[row], expected, rtol=1e-3, atol=1e-5)


def test_features_do_not_depend_on_the_size_of_blocks(monkeypatch):
    whole = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    monkeypatch.setattr(features, "_in_chunks", _in_sevens(features._in_chunks))
    in_parts = sid_features(arrays(), sid_arrays(), schema.GROUPS)
    assert whole.names == in_parts.names
    np.testing.assert_allclose(whole.values, in_parts.values, rtol=1e-5, atol=1e-6)


def _in_sevens(in_chunks):
    return lambda *arguments, rows=7: in_chunks(*arguments, rows=7)


def test_a_rung_has_the_groups_it_names_and_no_other(vocabulary):
    texts = {
        "queries": [QUERIES[i % 3] for i in range(9)],
        "items": [[ITEMS[i % 4] for i in range(20)]],
    }
    shared = features.without_sids(
        **arrays(),
        **texts,
        near=near_of(arrays()),
        vocabulary=vocabulary,
        groups=("lexical", "dense", "prefix"),
    )
    own = sid_features(arrays(), sid_arrays(), ("paper_match", "dense"))
    table = schema.join([shared, own])
    assert table.groups == ("dense", *["lexical"] * 6, "paper_match")
    assert (table.names[0], table.names[-1]) == ("cosine", "match_depth")
    chosen = schema.select(table, groups=("paper_match", "dense"))
    assert chosen.names == ("cosine", "match_depth")
    np.testing.assert_array_equal(chosen.values, table.values[:, [0, -1]])


def test_queries_that_no_pair_asks_for_do_not_matter():
    given, of_sids = arrays(), sid_arrays()
    rows = np.flatnonzero(given["query_index"] < 4)
    whole = sid_features(given, of_sids, ("prefix", "neighbours")).values[rows]
    given |= {name: given[name][rows] for name in ("query_index", "item_index")}
    of_sids["pair_log_probs"] = of_sids["pair_log_probs"][rows]
    part = sid_features(given, of_sids, ("prefix", "neighbours")).values
    np.testing.assert_allclose(whole, part, rtol=1e-5, atol=1e-6)


def test_an_unknown_group_is_named():
    with pytest.raises(InputError, match="'lexicla' does not exist"):
        schema.check_groups(("dense", "lexicla"))


def test_a_vector_that_is_not_finite_is_an_error():
    given = arrays()
    given["item_vectors"][given["item_index"][0]] = np.nan
    with pytest.raises(ValueError, match="feature cosine of pair 0 is nan"):
        features.without_sids(
            **given, queries=[], items=[], near=None, vocabulary="unused", groups=("dense",)
        )
