"""Metrics of the order of items within each query, vectorised over queries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Real, Shaped

from dsirm_jax.metrics.classification import check_finite


def ndcg_per_query(
    queries: Integer[np.ndarray, " pair"],
    gains: Real[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> Float[np.ndarray, " query"]:
    """Returns nDCG@k of each query: Σ_{rank ≤ k} gain / log2(1 + rank), over the ideal order's.

    Pairs with equal scores share the mean of their gains (the expectation over their orders), so
    the value never depends on the order of rows.

    Args:
      queries: integer query of each pair, `[pair]`.
      gains: non-negative gain of each pair, `[pair]`.
      scores: `[pair]`, higher ranks first.
      k: ranks that count.

    Returns:
      float64 `[query]` in the order of `np.unique(queries)`; NaN where no pair has a gain.

    Raises:
      ValueError: an input is not finite.
        Source: Järvelin & Kekäläinen 2002; ties by McSherry & Najork 2008.

    Example:
      >>> gains, scores = np.array([0.0, 1.0]), np.array([0.9, 0.1])
      >>> ndcg_per_query(np.array([7, 7]), gains, scores, k=2).round(6).tolist()  # 1 / log2(3)
      [0.63093]
    """
    check_finite(queries=queries, gains=gains, scores=scores)
    queries, gains = _dense(queries), np.asarray(gains, np.float64)
    discounted = _dcg(queries, gains, np.asarray(scores, np.float64), k)
    ideal = _dcg(queries, gains, gains, k)
    return np.divide(discounted, ideal, out=np.full(len(ideal), np.nan), where=ideal > 0)


def ndcg_at_k(
    queries: Integer[np.ndarray, " pair"],
    gains: Real[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> float:
    """Returns the mean of `ndcg_per_query` over the queries that have a gain; NaN when none has."""
    return mean_of_defined(ndcg_per_query(queries, gains, scores, k=k))


def auc_per_query(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Float[np.ndarray, " query"]:
    """Returns ROC-AUC within each query, (Σ ranks of relevant − P(P + 1)/2) / (P N), ties half.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: bool or 0/1 `[pair]`.
      scores: `[pair]`, higher means more relevant.

    Returns:
      float64 `[query]` in the order of `np.unique(queries)`; NaN where a class is missing.

    Raises:
      ValueError: an input is not finite. Source: Mann & Whitney 1947.

    Example:
      >>> queries, labels = np.array([0, 0, 0]), np.array([1, 0, 0])
      >>> auc_per_query(queries, labels, np.array([0.5, 0.5, 0.1])).tolist()
      [0.75]
    """
    check_finite(queries=queries, labels=labels, scores=scores)
    queries, labels = _dense(queries), np.asarray(labels, bool)
    order = np.lexsort((scores, queries))
    sorted_queries, sorted_labels = queries[order], labels[order]
    starts, ties = _runs(sorted_queries, np.asarray(scores)[order])
    rank = np.arange(1, len(order) + 1) - starts[sorted_queries]
    tie_sizes = np.bincount(ties)
    mid_rank = (_sums(ties, rank) / np.maximum(tie_sizes, 1))[ties]

    relevant = _sums(sorted_queries, sorted_labels)
    irrelevant = np.bincount(sorted_queries) - relevant
    rank_sum = _sums(sorted_queries, mid_rank * sorted_labels)
    comparisons = relevant * irrelevant
    wins = rank_sum - relevant * (relevant + 1) / 2
    return np.divide(wins, comparisons, out=np.full_like(wins, np.nan), where=comparisons > 0)


def per_query_auc(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> float:
    """Returns the mean of `auc_per_query` over queries with both classes; NaN when none has."""
    return mean_of_defined(auc_per_query(queries, labels, scores))


def reciprocal_rank_per_query(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Float[np.ndarray, " query"]:
    """Returns 1 / rank of the first relevant pair of each query, expected over orders of ties.

    Of t tied pairs, r of them relevant, behind s better ones the first relevant one comes at place
    j with probability Π_{i < j − 1} (t − r − i) / (t − i) · r / (t − j + 1), and has rank s + j.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: bool or 0/1 `[pair]`.
      scores: `[pair]`, higher ranks first.

    Returns:
      float64 `[query]` in the order of `np.unique(queries)`; NaN where no pair is relevant.

    Raises:
      ValueError: an input is not finite. Source: Voorhees 1999; ties by McSherry & Najork 2008.

    Example:
      >>> queries, labels = np.array([0, 0, 0]), np.array([0, 1, 0])
      >>> reciprocal_rank_per_query(queries, labels, np.array([0.9, 0.5, 0.1])).tolist()
      [0.5]
    """
    group = _tie_groups(queries, labels, scores)
    first = group.query[group.relevant > 0]
    # Groups come best first: of each query the first with something relevant.
    queries_with_one, row = np.unique(first, return_index=True)
    size, relevant, better = (
        values[group.relevant > 0][row] for values in (group.size, group.relevant, group.better)
    )
    expected, none_yet = np.zeros(len(queries_with_one)), np.ones(len(queries_with_one))
    for place in range(int((size - relevant).max(initial=-1)) + 1):
        share = np.clip(relevant / np.maximum(size - place, 1), 0, 1)
        expected += none_yet * share / (better + place + 1)
        none_yet *= 1 - share
    values = np.full(len(group.relevant_of_query), np.nan)
    values[queries_with_one] = expected
    return values


def mrr(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> float:
    """Returns the mean of `reciprocal_rank_per_query`; NaN when no pair is relevant."""
    return mean_of_defined(reciprocal_rank_per_query(queries, labels, scores))


def recall_per_query(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> Float[np.ndarray, " query"]:
    """Returns the share of each query's relevant pairs among its first k, expected over ties.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: bool or 0/1 `[pair]`.
      scores: `[pair]`, higher ranks first.
      k: ranks that count.

    Returns:
      float64 `[query]` in the order of `np.unique(queries)`; NaN where no pair is relevant.

    Raises:
      ValueError: an input is not finite.

    Example:
      >>> queries, labels = np.array([0, 0, 0]), np.array([1, 1, 0])
      >>> recall_per_query(queries, labels, np.array([0.9, 0.1, 0.5]), k=2).tolist()
      [0.5]
    """
    group = _tie_groups(queries, labels, scores)
    within = np.clip((k - group.better) / group.size, 0, 1)
    relevant = group.relevant_of_query
    hits = _sums(group.query, within * group.relevant, size=len(relevant))
    return np.divide(hits, relevant, out=np.full_like(hits, np.nan), where=relevant > 0)


def recall_at_k(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> float:
    """Returns the mean of `recall_per_query`; NaN when no pair is relevant."""
    return mean_of_defined(recall_per_query(queries, labels, scores, k=k))


def mean_of_defined(values: Float[np.ndarray, " query"]) -> float:
    """Returns the mean of the values that are not NaN; NaN when all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


class _TieGroups(NamedTuple):
    """Pairs of one query and score, query by query, best first.

    Attributes:
      query: dense number of the query, `[group]`.
      size: pairs.
      relevant: relevant pairs.
      better: pairs of the query that score higher.
      relevant_of_query: relevant pairs of each query, `[query]`.
    """

    query: Int[np.ndarray, " group"]
    size: Int[np.ndarray, " group"]
    relevant: Float[np.ndarray, " group"]
    better: Int[np.ndarray, " group"]
    relevant_of_query: Float[np.ndarray, " query"]


def _tie_groups(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> _TieGroups:
    check_finite(queries=queries, labels=labels, scores=scores)
    queries, relevant = _dense(queries), np.asarray(labels, bool)
    scores = np.asarray(scores, np.float64)
    order = np.lexsort((-scores, queries))
    starts, ties = _runs(queries[order], scores[order])
    size = np.bincount(ties)
    first = np.cumsum(size) - size
    query = queries[order][first]
    return _TieGroups(
        query=query,
        size=size,
        relevant=_sums(ties, relevant[order]),
        better=first - starts[query],
        relevant_of_query=_sums(queries, relevant),
    )


def _sums(
    numbers: Int[np.ndarray, " row"], values: Shaped[np.ndarray, " row"], *, size: int = 0
) -> Float[np.ndarray, " number"]:
    """Returns the sum of the values of each number."""
    sums = np.bincount(numbers, weights=values, minlength=size)
    return sums.astype(np.float64, copy=False)  # NumPy's are whole numbers where there is no row


def _dense(queries: Integer[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
    """Renumbers queries as 0, 1, ... in ascending order."""
    return np.unique(queries, return_inverse=True)[1]


def _runs(
    queries: Integer[np.ndarray, " pair"], scores: Real[np.ndarray, " pair"]
) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, " pair"]]:
    """Returns the first row of each query and the tie group of each row, of sorted rows."""
    new_query = np.diff(queries, prepend=-1) != 0
    new_tie = new_query | np.concatenate([[True], scores[1:] != scores[:-1]])[: len(scores)]
    return np.flatnonzero(new_query), np.cumsum(new_tie) - 1


def _dcg(
    queries: Integer[np.ndarray, " pair"],
    gains: Real[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    k: int,
) -> Float[np.ndarray, " query"]:
    order = np.lexsort((-scores, queries))
    sorted_queries = queries[order]
    starts, ties = _runs(sorted_queries, scores[order])
    rank = np.arange(len(order)) - starts[sorted_queries]  # from 0
    discount = np.where(rank < k, 1 / np.log2(rank + 2.0), 0.0)
    tie_sizes = np.maximum(np.bincount(ties), 1)
    mean_gain = _sums(ties, gains[order]) / tie_sizes
    return _sums(sorted_queries, discount * mean_gain[ties])
