"""Paired bootstrap over queries: intervals for metrics and for differences of metrics.

A resample draws queries with replacement and takes all pairs of a drawn query along, because the
pairs of one query are not independent; nor are the spellings of one query, which are drawn as one.
It is written as how often each query was drawn, and a
metric as a `Statistic` that maps such counts to values; what does not change between resamples
(the sort, per-query sums) is done once, when the statistic is made. All statistics see the same
resamples, so the difference of two rungs' samples is paired. Source: Efron & Tibshirani 1993,
chapter 13; resampling of topics as in Sakai 2006; of groups with all that is in them, Davison &
Hinkley 1997, section 3.8 (strategy 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Real, Shaped
from threadpoolctl import threadpool_limits

from dsirm_jax.metrics import classification, ranking

Statistic = Callable[[Int[np.ndarray, "query resample"]], Float[np.ndarray, " resample"]]
Name = TypeVar("Name", bound=Hashable)

CELLS_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A value on the sample with its 95 % interval over resamples, which always holds it."""

    value: float
    low: float
    high: float


def roc_auc_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Statistic:
    """Returns pooled ROC-AUC as a statistic; arguments as in `ranking.auc_per_query`.

    Σ over relevant pairs of w (Σ w of irrelevant pairs below + half of those tied), over
    Σ w of relevant · Σ w of irrelevant pairs, where w is how often a pair's query was drawn.
    """
    relevant, irrelevant = _by_class(queries, labels, scores)
    below = np.searchsorted(irrelevant.scores, relevant.scores, side="left")
    not_above = np.searchsorted(irrelevant.scores, relevant.scores, side="right")

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        drawn = counts.take(relevant.queries, axis=0)  # [relevant pair, resample]
        losers = _running_sums(counts.take(irrelevant.queries, axis=0))
        wins_twice = losers.take(below, axis=0) + losers.take(not_above, axis=0)
        total = drawn.sum(axis=0, dtype=np.float64) * losers[-1]
        return _ratio(_sum_of_products(drawn, wins_twice) / 2, total)

    return statistic


def pr_auc_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Statistic:
    """Returns pooled average precision as a statistic; arguments as in `roc_auc_statistic`.

    Σ over relevant pairs of w · precision among the pairs that score at least as high, over Σ w.
    """
    relevant, irrelevant = _by_class(queries, labels, scores)
    below_relevant = np.searchsorted(relevant.scores, relevant.scores, side="left")
    below_irrelevant = np.searchsorted(irrelevant.scores, relevant.scores, side="left")

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        drawn = counts.take(relevant.queries, axis=0)  # [relevant pair, resample]
        hits = _running_sums(drawn)
        misses = _running_sums(counts.take(irrelevant.queries, axis=0))
        hits_above = hits[-1] - hits.take(below_relevant, axis=0)
        misses_above = misses[-1] - misses.take(below_irrelevant, axis=0)
        precision = hits_above / np.maximum(hits_above + misses_above, 1)
        return _ratio(_sum_of_products(drawn, precision), hits[-1])

    return statistic


def log_loss_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
) -> Statistic:
    """Returns mean log-loss over pairs as a statistic, from its sum and count in each query."""
    losses = classification.pair_log_losses(labels, probabilities)
    index = _query_index(queries)
    sums, sizes = np.bincount(index, weights=losses), np.bincount(index)
    return lambda counts: _ratio(sums @ counts, sizes @ counts)


def ece_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
    bins: int = classification.CALIBRATION_BINS,
) -> Statistic:
    """Returns the expected calibration error as a statistic, from each query's gap in each bin."""
    table, sizes = _gaps(queries, labels, probabilities, bins)
    return lambda counts: _ratio(np.abs(table.T @ counts).sum(axis=0), sizes @ counts)


def ece_distance_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
    bins: int = classification.CALIBRATION_BINS,
) -> Statistic:
    """Returns Σ_b |gap of bin b in the resample − its gap in the sample|, see `ece_interval`."""
    table, sizes = _gaps(queries, labels, probabilities, bins)
    sample = table.sum(axis=0) / max(sizes.sum(), 1)  # [bin]

    def distance(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        gaps = _ratio(table.T @ counts, np.broadcast_to(sizes @ counts, (bins, counts.shape[1])))
        return np.abs(gaps - sample[:, None]).sum(axis=0)

    return distance


def _gaps(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
    bins: int,
) -> tuple[Float[np.ndarray, "query bin"], Int[np.ndarray, " query"]]:
    """Returns each query's sum of (probability − label) in each bin, and its number of pairs."""
    classification.check_finite(queries=queries, labels=labels, probabilities=probabilities)
    index = _query_index(queries)
    sizes = np.bincount(index)
    gaps = np.asarray(probabilities, np.float64) - np.asarray(labels, np.float64)
    cells = index * bins + classification.calibration_bin(probabilities, bins)
    table = np.bincount(cells, weights=gaps, minlength=len(sizes) * bins).reshape(-1, bins)
    return table, sizes


def per_query_auc_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Statistic:
    """Returns the mean of ROC-AUC within queries as a statistic."""
    return mean_over_queries(ranking.auc_per_query(queries, labels, scores))


def ndcg_at_k_statistic(
    queries: Integer[np.ndarray, " pair"],
    gains: Real[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> Statistic:
    """Returns the mean of nDCG@k over queries that have a gain as a statistic."""
    return mean_over_queries(ranking.ndcg_per_query(queries, gains, scores, k=k))


def mrr_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> Statistic:
    """Returns the mean of the reciprocal ranks over queries with a relevant pair as a statistic."""
    return mean_over_queries(ranking.reciprocal_rank_per_query(queries, labels, scores))


def recall_at_k_statistic(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
    *,
    k: int,
) -> Statistic:
    """Returns the mean of recall@k over queries with a relevant pair as a statistic."""
    return mean_over_queries(ranking.recall_per_query(queries, labels, scores, k=k))


def f1_scores(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    predicted: Shaped[np.ndarray, " prediction"],
) -> dict[str, Statistic]:
    """Returns `micro_f1` and `macro_f1` of predicted classes as statistics.

    F1 of a class is 2 · hits over the pairs that have it plus those it is predicted for. Micro adds
    both up over classes, macro is the mean over the classes that occur.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: class of each pair, `[pair]`.
      predicted: likewise.

    Raises:
      ValueError: their numbers differ.
    """
    if len(labels) != len(predicted):
        raise ValueError(f"{len(labels)} labels and {len(predicted)} predictions")
    index, classes = _query_index(queries), np.union1d(labels, predicted)
    shape = (index.max(initial=-1) + 1, len(classes))

    def counted(
        column: Shaped[np.ndarray, " pair"], weights: Bool[np.ndarray, " pair"] | None = None
    ) -> Real[np.ndarray, "query class"]:
        cells = index * len(classes) + np.searchsorted(classes, column)
        return np.bincount(cells, weights, minlength=np.prod(shape)).reshape(shape)

    twice_hits = 2 * counted(labels, labels == predicted)  # [query, class]
    sizes = counted(labels) + counted(predicted)

    def micro(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        return _ratio(twice_hits.sum(axis=1) @ counts, sizes.sum(axis=1) @ counts)

    def macro(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        of_class = _ratio(twice_hits.T @ counts, sizes.T @ counts)  # [class, resample]
        return _ratio(np.nan_to_num(of_class).sum(axis=0), (~np.isnan(of_class)).sum(axis=0))

    return {"micro_f1": micro, "macro_f1": macro}


def mean_over_queries(values: Float[np.ndarray, " query"]) -> Statistic:
    """Returns the mean of a per-query metric over the queries where it is defined.

    Args:
      values: `[query]` in the order of `np.unique` of the pairs' queries; NaN where undefined.
    """
    defined = ~np.isnan(values)
    known = np.where(defined, values, 0.0)
    return lambda counts: _ratio(known @ counts, defined.astype(np.float64) @ counts)


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """Returns the mean of statistics, such as one metric of models of several seeds."""

    def mean(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        samples = (statistic(counts) for statistic in statistics)
        return sum(samples, np.zeros(counts.shape[1])) / len(statistics)

    return mean


def resample_counts(
    num_queries: int, *, resamples: int, seed: int, start: int = 0
) -> Int[np.ndarray, "query resample"]:
    """Returns how often each query is drawn, int32 `[query, resample]`.

    Resample `i` is a function of `(seed, i)` alone, whatever range it is drawn in.

    Args:
      num_queries: queries in the sample, and draws in each resample.
      resamples: columns to return.
      seed: seed of the draws.
      start: number of the first resample.
    """
    counts = np.empty((num_queries, resamples), np.int32)
    for number in range(start, start + resamples):
        generator = np.random.Generator(np.random.Philox(key=[seed, number]))
        drawn = generator.integers(num_queries, size=num_queries)
        counts[:, number - start] = np.bincount(drawn, minlength=num_queries)
    return counts


def bootstrap(
    statistics: Mapping[Name, Statistic],
    *,
    num_queries: int,
    num_pairs: int,
    resamples: int,
    seed: int,
    groups: Int[np.ndarray, " query"] | None = None,
    cells_at_once: int = CELLS_AT_ONCE,
) -> tuple[dict[Name, float], dict[Name, Float[np.ndarray, " resample"]]]:
    """Returns each statistic on the sample and on every resample, all on the same resamples.

    Args:
      statistics: by name; all made from the same pairs.
      num_queries: distinct queries of those pairs.
      num_pairs: the pairs.
      resamples: resamples to draw.
      seed: seed of the draws.
      groups: a number of each query, in the order of `np.unique` of the pairs' queries, that those
        share that are drawn together; None: each is drawn alone.
      cells_at_once: pairs or queries, times resamples, that are held in memory at once.

    Returns:
      `(values, samples)`: the value by name, and `[resample]` by name.
    """
    samples = {name: np.empty(resamples) for name in statistics}
    chunk = max(1, cells_at_once // max(num_queries, num_pairs))
    group_of = np.arange(num_queries) if groups is None else _in_order(groups)
    num_groups = group_of.max(initial=-1) + 1
    # Products are small: threads would wait for each other longer than they compute.
    with threadpool_limits(1, user_api="blas"):
        once = np.ones((num_queries, 1), np.int32)
        values = {name: float(statistic(once)[0]) for name, statistic in statistics.items()}
        for start in range(0, resamples, chunk):
            stop = min(start + chunk, resamples)
            drawn = resample_counts(num_groups, resamples=stop - start, seed=seed, start=start)
            counts = drawn.take(group_of, axis=0)  # [query, resample]
            for name, statistic in statistics.items():
                samples[name][start:stop] = statistic(counts)
    return values, samples


def _in_order(groups: Int[np.ndarray, " query"]) -> Int[np.ndarray, " query"]:
    """Returns groups renumbered from 0 by their first query: without companions that is its own."""
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group_of]


def interval(value: float, samples: Float[np.ndarray, " resample"]) -> Interval:
    """Returns the 2.5 % and 97.5 % percentiles of the resamples around the sample's value.

    Resamples on which the metric is undefined (one class was drawn, say) are left out. Of few
    queries the percentiles may both lie on one side of the value: the interval then ends there.

    Args:
      value: the metric on the sample.
      samples: the metric on each resample, `[resample]`.
    """
    low, high = _percentiles(samples, 2.5, 97.5)
    return _holding(value, low, high)


def basic_interval(value: float, samples: Float[np.ndarray, " resample"]) -> Interval:
    """Returns the basic bootstrap interval, of a metric that resampling biases.

    Resamples are off the sample as the sample is off the truth, so that their percentiles are
    mirrored at the value: `[2 value − p97.5, 2 value − p2.5]`.

    Args:
      value: the metric, or a difference of metrics, on the sample.
      samples: the same on each resample, `[resample]`.

    Returns:
      The interval, stretched to the value. Source: Davison & Hinkley 1997, section 5.2.
    """
    low, high = _percentiles(samples, 2.5, 97.5)
    return _holding(value, 2 * value - high, 2 * value - low)


def ece_interval(
    value: float,
    samples: Float[np.ndarray, " resample"],
    *,
    distances: Float[np.ndarray, " resample"],
) -> Interval:
    """Returns the interval of an expected calibration error.

    It is the L1 norm of the bins' gaps, which chance makes larger in a sample than in truth and
    larger again in a resample; where the truth is near 0 no percentile of the resamples is. By the
    triangle inequality the norms of two gap vectors differ by no more than their distance has: the
    lower end is the value less the 97.5 % percentile of the distances, at least 0. The upper end is
    that of `basic_interval`.

    Args:
      value: on the sample.
      samples: on each resample, `[resample]`.
      distances: of each resample's gaps from the sample's, see `ece_distance_statistic`.

    Returns:
      The interval; it holds the true error of these bins in at least some 94 % of samples. Source:
      this project, by Andrews 2000 (the bootstrap fails at the boundary of a parameter space).
    """
    (farthest,) = _percentiles(distances, 97.5)
    high = basic_interval(value, samples).high
    return _holding(value, max(value - farthest, 0.0), high)


def _percentiles(samples: Float[np.ndarray, " resample"], *shares: float) -> tuple[float, ...]:
    """Returns percentiles of the resamples on which a metric is defined; NaN without any."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return (float("nan"),) * len(shares)
    return tuple(map(float, np.percentile(defined, shares)))


def _holding(value: float, low: float, high: float) -> Interval:
    """Returns an interval stretched to its value; ends that are undefined stay so."""
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _query_index(queries: Integer[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
    return np.unique(queries, return_inverse=True)[1]


class _Class(NamedTuple):
    """The pairs of one class by ascending score."""

    queries: Int[np.ndarray, " pair"]
    scores: Float[np.ndarray, " pair"]


def _by_class(
    queries: Integer[np.ndarray, " pair"],
    labels: Shaped[np.ndarray, " pair"],
    scores: Real[np.ndarray, " pair"],
) -> tuple[_Class, _Class]:
    """Returns the relevant and the irrelevant pairs, queries renumbered from 0."""
    classification.check_finite(queries=queries, labels=labels, scores=scores)
    order = np.argsort(scores, kind="stable")
    index, ordered = _query_index(queries)[order], np.asarray(scores, np.float64)[order]
    relevant = np.asarray(labels, bool)[order]
    return (
        _Class(index[relevant], ordered[relevant]),
        _Class(index[~relevant], ordered[~relevant]),
    )


def _running_sums(drawn: Int[np.ndarray, "pair resample"]) -> Int[np.ndarray, "pair+1 resample"]:
    """Returns sums of the first 0, 1, ... rows, int32 `[pair + 1, resample]`."""
    sums = np.zeros((len(drawn) + 1, drawn.shape[1]), np.int32)
    np.cumsum(drawn, axis=0, out=sums[1:])
    return sums


def _sum_of_products(
    one: Real[np.ndarray, "pair resample"], other: Real[np.ndarray, "pair resample"]
) -> Float[np.ndarray, " resample"]:
    return np.einsum("pr,pr->r", one, other, dtype=np.float64)


def _ratio(
    numerator: Real[np.ndarray, "*shape"], denominator: Real[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
