from __future__ import annotations

import math

import numpy as np

from dsirm_jax.relevance.digests import catalogue_statistics
from dsirm_jax.relevance.features.lexical import bm25, inverse_frequencies, lexical
from dsirm_jax.relevance.pieces import PieceStatistics, pieces_of
from tests.relevance.contexts import item_texts, text_context

ITEMS = ["red shoe", "red red bag", "blue shoe size 10", "Leather wallet"]
QUERIES = ["red shoe", "SHOE", "zebra"]


def computed(*, queries, items, **parts):
    """Returns the features of pairs of texts, by their pieces."""
    pieces = {"queries": {"pieces": queries}, "items": {"pieces": items}}
    return lexical(text_context(**pieces, **parts))


def test_lexical_features_by_hand(processor):
    query_index, item_index = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 0])
    catalogue, texts = catalogue_statistics(
        (item_texts(some) for some in (ITEMS[:1], [], ITEMS[1:])),
        wanted=np.unique(item_index),
        processor=processor,
    )
    assert texts.text == ITEMS[:3]
    values = computed(
        query_row=query_index,
        item_row=item_index,
        queries=pieces_of(QUERIES, processor),
        items=pieces_of(texts.text, processor),
        statistics=catalogue.pieces,
    )
    documents = [text.lower().split() for text in ITEMS]
    mean_length = sum(map(len, documents)) / len(documents)

    def idf(word):
        having = sum(word in document for document in documents)
        return math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))

    def score(query, document):
        norm = 1.2 * (0.25 + 0.75 * len(document) / mean_length)
        counts = {word: document.count(word) for word in query if word in document}
        return sum(idf(word) * tf * 2.2 / (tf + norm) for word, tf in counts.items())

    for row, (query, item) in enumerate(zip(query_index, item_index, strict=True)):
        words, document = QUERIES[query].lower().split(), documents[item]
        shared = len(set(words) & set(document))
        expected = [
            score(words, document),
            score(words, document) / sum(map(idf, words)),
            shared / len(set(words)),
            shared / len(set(document)),
            float(QUERIES[query].lower() in ITEMS[item].lower()),
            math.log(1 + len(set(words))),
        ]
        np.testing.assert_allclose(values[row], expected, rtol=1e-6)


def test_a_phrase_is_one_whatever_its_case_and_script(processor):
    queries, items = ["GRÖSSE 5", "größe 5", "", "ö"], ["Schuh, Größe 5", "Schuh", ""]
    query_row, item_row = (index.ravel() for index in np.mgrid[:4, :3])
    values = computed(
        query_row=query_row,
        item_row=item_row,
        queries=pieces_of(queries, processor),
        items=pieces_of(items, processor),
        statistics=PieceStatistics(3, np.ones(processor.get_piece_size(), int), 2.0),
    )
    found = values[:, 4].reshape(4, 3)
    assert found.tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]


def test_nothing_in_common_with_an_empty_text(processor):
    values = computed(
        query_row=np.array([0, 1]),
        item_row=np.array([1, 0]),
        queries=pieces_of(["", "red"], processor),
        items=pieces_of(["", "red"], processor),
        statistics=PieceStatistics(2, np.zeros(processor.get_piece_size(), int), 0.0),
    )
    assert values[:, :4].tolist() == [[0] * 4] * 2
    assert np.isfinite(values).all()


def test_bm25_of_a_piece_in_every_document_is_above_0():
    statistics = PieceStatistics(3, np.array([2, 3]), 2.0)
    idf = inverse_frequencies(statistics, np.arange(2))
    assert (idf > 0).all()
    found = bm25(np.array([1, 3]), np.array([1, 5]), idf, statistics)
    assert (found > 0).all()


def test_pairs_have_the_same_numbers_whatever_other_texts_are_digested(processor):
    wanted = np.array([3, 1, 1])

    def values(items, item_row):
        return computed(
            query_row=np.array([0, 0, 1]),
            item_row=item_row,
            queries=pieces_of(["red red", "bag"], processor),
            items=pieces_of(items, processor),
            statistics=PieceStatistics(4, np.ones(processor.get_piece_size(), int), 3.0),
        )

    alone = values([ITEMS[row] for row in wanted], np.arange(3))
    np.testing.assert_array_equal(values(ITEMS, wanted), alone)
    assert alone[1, 0] > 0
