"""Pooled ROC-AUC by kind of comparison: of two items of one query, and of items of two queries.

Pooled AUC is the share of comparisons, each of a relevant and an irrelevant (query, item) pair, in
which the relevant one scores higher, ties half. Those within a query say how its items are ranked,
those between queries how well served queries are told from others:

    pooled = share_within · AUC within + (1 − share_within) · AUC between

A resample is a set of queries: two draws of one query are two queries, and comparisons of one with
the other are between queries. Of each resample the identity holds as it does of the sample. All
spellings of a query are one query. Sums of queries suffice: O(n log n), and O(queries) a resample.
Source: this project.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Real, Shaped

from dsirm_jax.metrics import ranking
from dsirm_jax.metrics.bootstrap import Statistic


def share_within_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    *,
    identity: Integer[np.ndarray, " pair"] | None = None,
) -> Statistic:
    """Returns the share of comparisons that are within a query as a statistic.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: bool or 0/1 `[pair]`.
      identity: a number of each pair's query that its spellings share, which are drawn together;
        None: every query is another one.

    Returns:
      Σ w r i / (Σ w r · Σ w i), where w is how often a query was drawn, and r and i are its
      relevant and irrelevant pairs; NaN without a comparison.
    """
    spelt = _identities(queries, identity)
    relevant, irrelevant = _class_sizes(spelt, labels)

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        drawn = counts[spelt.first]
        within = (relevant * irrelevant) @ drawn
        return _ratio(within, (relevant @ drawn) * (irrelevant @ drawn))

    return statistic


def within_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    identity: Integer[np.ndarray, " pair"] | None = None,
) -> Statistic:
    """Returns the AUC over comparisons within a query as a statistic.

    It is the mean of AUC within queries, weighted by their comparisons.

    Args:
      queries: as in `share_within_statistic`.
      labels: likewise.
      scores: `[pair]`, higher means more relevant.
      identity: as in `share_within_statistic`.

    Raises:
      ValueError: an input is not finite.
    """
    spelt = _identities(queries, identity)
    relevant, irrelevant = _class_sizes(spelt, labels)
    comparisons = relevant * irrelevant
    won = np.nan_to_num(ranking.auc_per_query(spelt.number, labels, scores)) * comparisons

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        drawn = counts[spelt.first]
        return _ratio(won @ drawn, comparisons @ drawn)

    return statistic


def between(
    pooled: Float[np.ndarray, "*resample"],
    within: Float[np.ndarray, "*resample"],
    share_within: Float[np.ndarray, "*resample"],
) -> Float[np.ndarray, "*resample"]:
    """Returns the AUC over comparisons between queries, which follows from the other parts.

    Args:
      pooled: AUC over all comparisons.
      within: AUC over those within a query; NaN where there is none.
      share_within: their share of all.

    Returns:
      float64; NaN where no comparison is between queries.
    """
    of_within = np.where(share_within > 0, share_within * np.nan_to_num(within), 0.0)
    return _ratio(pooled - of_within, 1.0 - np.asarray(share_within, np.float64))


class _Identities(NamedTuple):
    """Queries without their spellings.

    Attributes:
      number: of each pair's query, from 0.
      first: the place of each among the sorted queries, spellings told apart.
    """

    number: Int[np.ndarray, " pair"]
    first: Int[np.ndarray, " identity"]


def _identities(
    queries: Integer[np.ndarray, " pair"], identity: Integer[np.ndarray, " pair"] | None
) -> _Identities:
    _, pair, place = np.unique(queries, return_index=True, return_inverse=True)
    of_query = np.arange(len(pair)) if identity is None else np.asarray(identity)[pair]
    _, first, number = np.unique(of_query, return_index=True, return_inverse=True)
    return _Identities(number=number[place], first=first)


def _class_sizes(
    spelt: _Identities, labels: Shaped[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, " identity"], Float[np.ndarray, " identity"]]:
    """Returns the relevant and the irrelevant pairs of each query."""
    relevant = np.asarray(labels, bool)
    sizes = [
        np.bincount(spelt.number, of_class, minlength=len(spelt.first))
        for of_class in (relevant, ~relevant)
    ]
    return sizes[0], sizes[1]


def _ratio(
    numerator: Real[np.ndarray, "*resample"], denominator: Real[np.ndarray, "*resample"]
) -> Float[np.ndarray, "*resample"]:
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
