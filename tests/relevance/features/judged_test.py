"""Near items and judgements by kernel, against loops; and what it may not know."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from dsirm_jax.relevance.features import judged
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.neighbours import find_surroundings
from tests.relevance.contexts import pair_context

QUERIES, ITEMS, PAIRS = 9, 20, 50


def shop(*, seed=0, queries=QUERIES, items=ITEMS, pairs=PAIRS, voting=30):
    """Returns a context and what it was made of; labels are coins."""
    random = np.random.default_rng(seed)
    given = {
        "query_index": random.integers(queries, size=pairs),
        "query_vectors": random.normal(size=(queries, 6)).astype(np.float32),
        "item_vectors": unit(random.normal(size=(items, 6))),
    }
    train_pairs = np.stack(
        [random.integers(queries, size=voting), random.integers(items, size=voting)], 1
    )
    relevant = random.random(voting) < 0.5
    near = find_surroundings(**given, train_pairs=train_pairs, relevant=relevant)
    item_index = random.integers(items, size=pairs)
    return pair_context(**given, item_index=item_index, surroundings=near), train_pairs, relevant


def table(context, **blocks):
    names = list(judged.CONTROL.described())
    return dict(zip(names, judged.judged(context, **blocks).T, strict=True))


def test_near_items_by_a_loop():
    context, _, _ = shop()
    found = table(context)
    near, weights = context.surroundings.items, context.surroundings.items.weights()
    for pair, (row, item) in enumerate(zip(context.query_row, context.item_index, strict=True)):
        for place, width in enumerate(judged.WIDTHS, 1):

            def kernel(one, other, width=width):
                cosine = context.item_vectors[one] @ context.item_vectors[other]
                return np.exp((min(cosine, 1) - 1) / width)

            kernels = [kernel(item, other) for other in near.row[row]]
            mass = weights[row] @ kernels / weights[row].sum()
            of_near = [
                weights[row] @ [kernel(one, other) for other in near.row[row]]
                for one in near.row[row]
            ]
            expected = {
                "kernel_near": mass,
                "kernel_share": np.mean(kernels),
                "kernel_rank": max(k / rank for rank, k in enumerate(kernels, 1)),
                "kernel_peak": mass / (max(of_near) / weights[row].sum()),
            }
            for name, value in expected.items():
                assert found[f"{name}_{place}"][pair] == pytest.approx(value, rel=1e-3), name


def test_judgements_by_a_loop():
    context, _, _ = shop()
    found = table(context)
    near, votes = context.surroundings.queries, context.surroundings.judged
    weights, base = near.weights(), votes.relevant_share
    for pair, (row, item) in enumerate(zip(context.query_row, context.item_index, strict=True)):
        for place, width in enumerate(judged.WIDTHS, 1):
            sums = dict.fromkeys((True, False), 0.0)
            whole, opinion, heard = dict(sums), 0.0, 0.0
            for neighbour, (voter, cosine) in enumerate(
                zip(near.row[row], near.cosine[row], strict=True)
            ):
                if not np.isfinite(cosine):
                    continue
                verdicts = votes.verdicts[voter]
                for other, verdict in zip(votes.items[voter], verdicts, strict=True):
                    if verdict:
                        side = verdict > 0
                        share = weights[row, neighbour] / np.sum(verdicts == verdict)
                        alike = context.item_vectors[item] @ context.item_vectors[other]
                        kernel = np.exp((min(alike, 1) - 1) / width)
                        sums[side] += share * kernel
                        whole[side] += share
                        of_queries = np.exp((cosine - 1) / 0.15)
                        opinion += of_queries * kernel * (side - base)
                        heard += of_queries * kernel
            expected = {
                "kernel_queries": sums[True] / whole[True] if whole[True] else 0,
                "kernel_rejected": sums[False] / whole[False] if whole[False] else 0,
                "kernel_verdict": opinion / (heard + 0.3),
            }
            for name, value in expected.items():
                measured = found[f"{name}_{place}"][pair]
                assert measured == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_columns_do_not_depend_on_the_size_of_blocks():
    context, _, _ = shop()
    whole, parts = judged.judged(context), judged.judged(context, rows_at_once=2)
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)


def test_without_training_queries_only_near_items_speak():
    context, _, _ = shop(voting=0)
    for name, values in table(context).items():
        assert np.isfinite(values).all()
        silent = name.startswith(("kernel_queries", "kernel_rejected", "kernel_verdict"))
        assert (values == 0).all() if silent else values.any(), name


def test_a_querys_own_judgements_are_none_of_its_features():
    context, train_pairs, relevant = shop(voting=60)
    # Turned round, as many of its judgements say relevant, and others than before.
    turned, query = relevant.copy(), None
    for candidate in np.unique(context.query_index):
        own = train_pairs[:, 0] == candidate
        if (relevant[own] != relevant[own][::-1]).any():
            query, turned[own] = candidate, relevant[own][::-1]
            break
    given = {
        name: getattr(context, name) for name in ("query_index", "query_vectors", "item_vectors")
    }
    near = find_surroundings(**given, train_pairs=train_pairs, relevant=turned)
    other = pair_context(**given, item_index=context.item_index, surroundings=near)
    before, after = judged.judged(context), judged.judged(other)
    rows = context.query_index == query
    np.testing.assert_allclose(after[rows], before[rows], rtol=1e-6)
    assert np.abs(after[~rows] - before[~rows]).max() > 1e-3


def test_of_coins_nothing_is_learnt():
    """Every judged pair votes; half of the queries teach trees what its features are worth."""
    random = np.random.default_rng(5)
    queries, items, each = 200, 100, 10
    query = np.repeat(np.arange(queries), each)
    item = np.concatenate([random.permutation(items)[:each] for _ in range(queries)])
    labels = random.random(len(query)) < 0.5
    given = {
        "query_index": query,
        "query_vectors": random.normal(size=(queries, 8)).astype(np.float32),
        "item_vectors": unit(random.normal(size=(items, 8))),
    }
    near = find_surroundings(**given, train_pairs=np.stack([query, item], axis=1), relevant=labels)
    values = judged.judged(pair_context(**given, item_index=item, surroundings=near))
    taught = query % 2 == 0
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    trees.fit(values[taught], labels[taught])
    told = trees.predict_proba(values[~taught])[:, 1]
    # Three standard deviations of the AUC of 1,000 coins.
    assert abs(roc_auc_score(labels[~taught], told) - 0.5) < 3 * np.sqrt(1001 / (12 * 500 * 500))
