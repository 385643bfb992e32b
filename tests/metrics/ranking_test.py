from __future__ import annotations

import itertools

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from dsirm_jax.metrics import ranking


def random_pairs(seed: int, *, queries: int = 40, pairs: int = 400):
    generator = np.random.default_rng(seed)
    return (
        generator.integers(queries, size=pairs) * 7,  # numbers with gaps
        generator.choice([0, 1, 10, 100], size=pairs),
        generator.permutation(pairs) / pairs,
    )


def test_ndcg_by_hand():
    queries = np.array([5, 5, 5, 9])
    gains = np.array([0.0, 1.0, 0.1, 1.0])
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    discounted = 0 + 1 / np.log2(3) + 0.1 / np.log2(4)
    ideal = 1 + 0.1 / np.log2(3)
    of_query = ranking.ndcg_per_query(queries, gains, scores, k=10)
    np.testing.assert_allclose(of_query, [discounted / ideal, 1.0])
    assert ranking.ndcg_at_k(queries, gains, scores, k=10) == pytest.approx(
        (discounted / ideal + 1) / 2
    )


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_agrees_with_ir_measures(k):
    queries, gains, scores = random_pairs(k)
    docs = [str(i) for i in range(len(queries))]
    qrels = [
        ir_measures.Qrel(str(q), d, int(g)) for q, d, g in zip(queries, docs, gains, strict=True)
    ]
    run = [
        ir_measures.ScoredDoc(str(q), d, float(s))
        for q, d, s in zip(queries, docs, scores, strict=True)
    ]
    reference = {
        int(row.query_id): row.value
        for row in ir_measures.iter_calc([ir_measures.nDCG @ k], qrels, run)
    }
    ours = dict(
        zip(
            np.unique(queries).tolist(),
            ranking.ndcg_per_query(queries, gains, scores, k=k),
            strict=True,
        )
    )
    assert ours.keys() == reference.keys()
    for query, value in ours.items():
        # The reference gives 0 to a query that has no gain, which has no ideal order.
        assert reference[query] == pytest.approx(0 if np.isnan(value) else value)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([0, 0.1, 1]), st.integers(0, 3)), min_size=2, max_size=12),
    st.integers(1, 5),
)
def test_tied_scores_share_their_gain_as_in_scikit_learn(rows, k):
    gains = np.array([gain for gain, _ in rows])
    scores = np.array([score for _, score in rows], float)
    value = ranking.ndcg_per_query(np.zeros(len(rows), int), gains, scores, k=k)[0]
    if gains.any():
        assert value == pytest.approx(ndcg_score([gains], [scores], k=k))
    else:
        assert np.isnan(value)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=40),
)
def test_auc_per_query_agrees_with_scikit_learn(rows):
    queries = np.array([row[0] for row in rows], int)
    labels = np.array([row[1] for row in rows], bool)
    scores = np.array([row[2] for row in rows], float)
    ours = ranking.auc_per_query(queries, labels, scores)
    for query, value in zip(np.unique(queries), ours, strict=True):
        of = queries == query
        if labels[of].any() and not labels[of].all():
            assert value == pytest.approx(roc_auc_score(labels[of], scores[of]))
        else:
            assert np.isnan(value)


def test_queries_of_one_item_or_one_class_do_not_count():
    queries = np.array([0, 0, 1, 2, 2])
    labels = np.array([1, 0, 1, 0, 0])
    scores = np.array([0.2, 0.1, 0.9, 0.5, 0.4])
    assert ranking.per_query_auc(queries, labels, scores) == 1.0
    assert np.isnan(ranking.per_query_auc(queries[2:], labels[2:], scores[2:]))


def test_the_order_of_rows_does_not_matter():
    queries, gains, scores = random_pairs(0)
    scores = np.round(scores, 1)
    order = np.random.default_rng(1).permutation(len(queries))
    for metric in (ranking.auc_per_query, lambda *a: ranking.ndcg_per_query(*a, k=5)):
        labels = gains / 100 if metric is not ranking.auc_per_query else gains == 100
        np.testing.assert_allclose(
            metric(queries, labels, scores), metric(queries[order], labels[order], scores[order])
        )


def test_nan_is_an_error():
    with pytest.raises(ValueError, match="scores is nan at position 0"):
        ranking.per_query_auc(np.zeros(2, int), np.array([1, 0]), np.array([np.nan, 1]))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_rank_and_recall_agree_with_ir_measures(k):
    queries, gains, scores = random_pairs(k + 20)
    labels = gains >= 100
    rows = list(
        zip(queries.astype(str), map(str, range(len(queries))), labels, scores, strict=True)
    )
    measures = {
        ir_measures.RR: ranking.reciprocal_rank_per_query(queries, labels, scores),
        ir_measures.R @ k: ranking.recall_per_query(queries, labels, scores, k=k),
    }
    reference = ir_measures.iter_calc(
        list(measures),
        [ir_measures.Qrel(query, item, int(label)) for query, item, label, _ in rows],
        [ir_measures.ScoredDoc(query, item, float(score)) for query, item, _, score in rows],
    )
    place = {str(query): row for row, query in enumerate(np.unique(queries))}
    seen = 0
    for row in reference:
        ours = measures[row.measure][place[row.query_id]]
        # The reference gives 0 to a query without anything relevant.
        assert row.value == pytest.approx(0 if np.isnan(ours) else ours)
        seen += 1
    assert seen == 2 * len(place)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_rank_and_recall_are_means_over_the_orders_of_ties(rows, k):
    labels, scores = (np.array(of) for of in zip(*rows, strict=True))
    queries = np.full(len(rows), 3)
    found = [
        ranking.reciprocal_rank_per_query(queries, labels, 1.0 * scores)[0],
        ranking.recall_per_query(queries, labels, 1.0 * scores, k=k)[0],
    ]
    if not labels.any():
        assert np.isnan(found).all()
        return
    expected = []
    for order in itertools.permutations(range(len(rows))):
        if (np.diff(scores[list(order)]) > 0).any():
            continue
        ranked = labels[list(order)]
        expected.append([1 / (1 + ranked.argmax()), ranked[:k].sum() / labels.sum()])
    np.testing.assert_allclose(found, np.mean(expected, axis=0))


def test_rank_and_recall_of_several_queries_by_hand():
    queries = np.array([9, 5, 5, 9, 5, 7])
    labels = np.array([1, 0, 1, 1, 1, 0])
    scores = np.array([0.1, 0.9, 0.5, 0.2, 0.5, 0.3])
    # Query 5: an irrelevant one, then two relevant; 7: nothing relevant; 9: relevant alone.
    found = ranking.reciprocal_rank_per_query(queries, labels, scores)
    np.testing.assert_allclose(found, [0.5, np.nan, 1])
    assert ranking.mrr(queries, labels, scores) == pytest.approx(0.75)
    found = ranking.recall_per_query(queries, labels, scores, k=2)
    np.testing.assert_allclose(found, [0.5, np.nan, 1])
    assert ranking.recall_at_k(queries, labels, scores, k=2) == pytest.approx(0.75)
    assert np.isnan(ranking.mrr(queries[:0], labels[:0], scores[:0]))
    with pytest.raises(ValueError, match="position 2"):
        ranking.recall_at_k(queries, labels, np.where(np.arange(6) == 2, np.nan, scores), k=2)
