from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import esci

LABELS = np.array(list("ESCI"))


def value(statistic, queries):
    """The metric once every query is drawn once."""
    return float(statistic(np.ones((len(np.unique(queries)), 1), np.int32))[0])


def values(statistics, queries):
    return {name: value(statistic, queries) for name, statistic in statistics.items()}


def test_ranking_by_hand():
    queries, labels = np.array([1, 1, 1, 2]), ["I", "E", "S", "I"]
    discounted = 1 / np.log2(3) + 0.1 / np.log2(4)
    expected = discounted / (1 + 0.1 / np.log2(3))
    found = esci.ranking(queries, labels, np.array([3.0, 2, 1, 0]))
    # A query of I alone counts as 0.
    assert value(found, queries) == pytest.approx((expected + 0) / 2)


def test_the_gains_of_the_script_exchange_substitutes_and_complements():
    queries, labels, scores = np.zeros(3, int), ["C", "S", "E"], np.array([3.0, 2, 1])
    best = 1 + 0.1 / np.log2(3) + 0.01 / np.log2(4)
    for gains, first, second in (("paper", 0.01, 0.1), ("script", 0.1, 0.01)):
        expected = (first + second / np.log2(3) + 1 / np.log2(4)) / best
        found = esci.ranking(queries, labels, scores, gains=gains)
        assert value(found, queries) == pytest.approx(expected)
    esci.check_gains("script")
    with pytest.raises(InputError, match=r"relevance.run.esci_gains is 'trec'; bind 'paper' \(S"):
        esci.check_gains("trec")


def test_ranking_agrees_with_trec_eval():
    generator = np.random.default_rng(0)
    queries, labels = generator.integers(20, size=300), generator.choice(LABELS, 300)
    scores = generator.permutation(300) / 300
    gains = {"E": 100, "S": 10, "C": 1, "I": 0}
    rows = list(zip(queries.astype(str), map(str, range(300)), labels, scores, strict=True))
    reference = ir_measures.calc_aggregate(
        [ir_measures.nDCG],
        [ir_measures.Qrel(query, item, gains[label]) for query, item, label, _ in rows],
        [ir_measures.ScoredDoc(query, item, score) for query, item, _, score in rows],
    )
    found = value(esci.ranking(queries, labels, scores), queries)
    assert found == pytest.approx(reference[ir_measures.nDCG])


def f1_of(matrix: np.ndarray) -> dict[str, float]:
    """F1 from a confusion matrix: over all classes, and the mean of each class's."""
    hits, asked, given_ = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    occurs = asked + given_ > 0
    return {
        "micro_f1": 2 * hits.sum() / (asked + given_).sum(),
        "macro_f1": np.mean(2 * hits[occurs] / (asked + given_)[occurs]),
    }


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ESCI"), st.sampled_from("ESCI")), min_size=1))
def test_classification_agrees_with_the_confusion_matrix(rows):
    labels, predicted = zip(*rows, strict=True)
    expected = f1_of(confusion_matrix(labels, predicted, labels=LABELS))
    queries = np.arange(len(rows)) // 3
    found = esci.classification(queries, labels, predicted)
    assert values(found, queries) == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ESCI"), st.sampled_from([0, 0.5, 0.7])), min_size=1))
def test_substitutes_agree_with_the_confusion_matrix(rows):
    labels, probabilities = (np.array(of) for of in zip(*rows, strict=True))
    matrix = confusion_matrix(labels == "S", probabilities > 0.4, labels=[False, True])
    queries = np.arange(len(rows)) % 4
    found = esci.substitutes(queries, labels, probabilities)
    assert values(found, queries) == pytest.approx(f1_of(matrix))


def test_a_query_that_is_drawn_twice_counts_twice():
    queries, labels, predicted = np.array([0, 0, 1, 2]), list("ESEC"), list("EEES")
    found = esci.classification(queries, labels, predicted)
    drawn = np.array([[2], [0], [1]])
    expected = f1_of(confusion_matrix(list("ESESC"), list("EEEES"), labels=LABELS))
    assert {name: float(of(drawn)[0]) for name, of in found.items()} == pytest.approx(expected)


def test_labels_are_those_of_esci_or_not():
    assert esci.are_labels(["E", "I"])
    assert not esci.are_labels(["E", None]) and not esci.are_labels(["good"])
    assert not esci.are_labels([])


def test_nothing_to_measure_is_nan():
    nothing = np.empty(0, int)
    assert np.isnan(value(esci.ranking(nothing, [], np.empty(0)), nothing))
    assert np.isnan(value(esci.classification(nothing, [], [])["micro_f1"], nothing))
    assert np.isnan(value(esci.substitutes(nothing, [], np.empty(0))["macro_f1"], nothing))


def test_what_is_no_label_or_no_number_is_an_error():
    with pytest.raises(ValueError, match="'Exact'"):
        esci.classification(np.array([0, 0]), ["E", "Exact"], ["E", "E"])
    with pytest.raises(ValueError, match="'nan'"):
        esci.ranking(np.array([0]), [float("nan")], np.array([1.0]))
    with pytest.raises(ValueError, match="position 0"):
        esci.ranking(np.array([0]), ["E"], np.array([np.nan]))
    with pytest.raises(ValueError, match="position 1"):
        esci.substitutes(np.array([0, 0]), ["E", "S"], np.array([0, np.nan]))
    with pytest.raises(ValueError, match="2 labels and 1 predictions"):
        esci.classification(np.array([0, 0]), ["E", "S"], ["E"])
