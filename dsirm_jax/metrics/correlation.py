"""Rank correlation of two figures of queries, as a statistic for `bootstrap`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from dsirm_jax.metrics.bootstrap import Statistic


def spearman_statistic(
    one: Real[np.ndarray, " query"], other: Real[np.ndarray, " query"]
) -> Statistic:
    """Returns Spearman's rank correlation over the queries where both figures are defined.

    It is Pearson's correlation of the ranks, equal values sharing the mean of theirs; in a resample
    a query that is drawn w times counts as w queries of equal value. NaN where all drawn queries
    have the same value of a figure.

    Args:
      one: a figure of each query; NaN where undefined.
      other: another one, likewise.

    Returns:
      The statistic, in [−1, 1]. Source: Spearman 1904; ties by mean ranks, Kendall 1948, chapter 3.
    """
    known = ~np.isnan(one) & ~np.isnan(other)
    tied = [_Ties.of(values[known]) for values in (one, other)]

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        drawn = counts[known]
        total = np.maximum(drawn.sum(axis=0, dtype=np.float64), 1.0)
        # The mean of all ranks, ties or not, is (total + 1) / 2.
        first, second = (ties.mean_ranks(drawn) - (total + 1) / 2 for ties in tied)
        covariance, *variances = (
            np.einsum("qr,qr,qr->r", drawn, left, right)
            for left, right in ((first, second), (first, first), (second, second))
        )
        scale = np.sqrt(variances[0] * variances[1])
        undefined = np.full(scale.shape, np.nan)
        return np.clip(np.divide(covariance, scale, out=undefined, where=scale > 0), -1.0, 1.0)

    return statistic


class _Ties(NamedTuple):
    """Queries by rising value of a figure.

    Attributes:
      order: the queries.
      is_first: whether each has another value than the one before, in that order.
    """

    order: Int[np.ndarray, " query"]
    is_first: Bool[np.ndarray, " query"]

    @classmethod
    def of(cls, values: Real[np.ndarray, " query"]) -> _Ties:
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        return cls(order, is_first)

    def mean_ranks(
        self, drawn: Int[np.ndarray, "query resample"]
    ) -> Float[np.ndarray, "query resample"]:
        """Returns the rank of each query, from 1, among as many of each as are drawn."""
        if not len(self.order):
            return np.zeros(drawn.shape)
        starts = np.flatnonzero(self.is_first)
        sizes = np.add.reduceat(drawn[self.order], starts, axis=0, dtype=np.float64)
        ranks = np.cumsum(sizes, axis=0) - sizes + (sizes + 1) / 2  # [value, resample]
        of_query = np.empty(len(self.order), np.int64)
        of_query[self.order] = np.cumsum(self.is_first) - 1
        return ranks[of_query]
