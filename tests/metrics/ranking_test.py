from __future__ import annotations

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
