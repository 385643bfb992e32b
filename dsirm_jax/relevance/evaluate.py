"""Predictions of several rungs to metrics with intervals, and lifts between rungs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from dsirm_jax.data.schema import SEGMENTS
from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import bootstrap, esci, pair_kinds
from dsirm_jax.metrics.classification import ece_floor
from dsirm_jax.metrics.power import Power, power
from dsirm_jax.metrics.retrieval import HITS_AT, hit_at_k
from dsirm_jax.relevance.pairs import JudgedPairs
from dsirm_jax.run.layout import FULL

PAIR_METRICS = (
    *("roc_auc", "auc_between", "auc_within", "per_query_auc", "pr_auc", "log_loss", "ece"),
    *("ndcg@10", "mrr", "recall@5"),
)
LOWER_IS_BETTER = ("log_loss", "ece")
ECE_DISTANCE = "distance of ece"
"""A statistic that is no metric: the interval of `ece` needs it."""
SHARE_WITHIN = "share_within"
"""Another one, the same of all rungs: `auc_between` needs it."""
NO_METRICS = (ECE_DISTANCE, SHARE_WITHIN)
BASELINE = "no_sid"

_Key = tuple[str, str]  # a rung, and the name of a statistic of it


def lifts_between(rungs: Collection[str]) -> list[tuple[str, str]]:
    """Returns the (rung, baseline) pairs of a ladder: each over no SID, and full over each."""
    others = [rung for rung in rungs if rung != BASELINE]
    over = [(rung, BASELINE) for rung in others] + [(FULL, rung) for rung in others if rung != FULL]
    return [pair for pair in over if set(pair) <= set(rungs)]


def lift_keys(
    lifts: Sequence[tuple[str, str]], *, rungs: Collection[str]
) -> dict[tuple[str, str], str]:
    """Returns what each lift goes by in `metrics.json`, whatever their order.

    That is the rung's name where the lift is over no SID, or the rung's only one; else it is
    `RUNG over BASELINE`.

    Args:
      lifts: (rung, baseline) pairs; one whose rung or baseline is not there is left out.
      rungs: those that are.
    """
    measured = [pair for pair in dict.fromkeys(lifts) if set(pair) <= set(rungs)]
    counts = collections.Counter(rung for rung, _ in measured)
    return {
        (rung, over): rung if over == BASELINE or counts[rung] == 1 else f"{rung} over {over}"
        for rung, over in measured
    }


def evaluate(
    *,
    pairs: JudgedPairs,
    scores: Mapping[str, Float[np.ndarray, "*seed pair"]],
    lifts: Sequence[tuple[str, str]],
    grades: Mapping[str, Float[np.ndarray, "pair 4"]] | None = None,
    esci_gains: str = esci.PAPER,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns the contents of `metrics.json`.

    Args:
      pairs: the pairs of the split `test`.
      scores: probabilities of being relevant in [0, 1], by rung: `[pair]`, or `[seed, pair]`, whose
        metrics are averaged over seeds.
      lifts: (rung, baseline) pairs whose difference is wanted; one whose rung or baseline has no
        scores is passed over.
      grades: probabilities of E, S, C and I, by rung that tells them apart.
      esci_gains: whose gains ESCI's task 1 has, see `esci.GAINS`.
      resamples: resamples of queries, each with all its spellings, that the intervals come from.
      seed: seed of the resamples.

    Returns:
      `rungs`, `lifts` and `segments` as docs/contract.md has them, with the numbers of queries,
      pairs and resamples and the share of comparisons within a query; and `esci` where all labels
      are E, S, C or I. A lift is rung − baseline; its key is that of `lift_keys`, its `relative`
      is the lift over the baseline's value, and its `power` what so many queries can tell. A
      metric that is undefined (one class only) is left out.

    Raises:
      InputError: there are no test pairs.
      ValueError: a score is not finite or not in [0, 1].
    """
    if not len(pairs.query_index):
        raise InputError(
            "no judgement is in the split test; give more queries or bind a larger test share"
        )
    plan = _Plan(lifts, resamples=resamples, seed=seed)
    result = _evaluate(pairs, scores, plan)
    result["resamples"] = resamples
    if esci.are_labels(pairs.label.tolist()):
        tasks = {
            rung: _tasks(pairs, values, (grades or {}).get(rung), gains=esci_gains)
            for rung, values in scores.items()
        }
        result["esci"] = _measured(pairs, tasks, plan) | {"gains": esci_gains}
    result["segments"] = {}
    for segment, kept in pairs.segments.items():
        if kept.any():
            scores_kept = {rung: values[..., kept] for rung, values in scores.items()}
            result["segments"][segment] = _evaluate(pairs.where(kept), scores_kept, plan)
    return result


def evaluate_hits(
    ranks: Mapping[str, tuple[Int[np.ndarray, " query"], Real[np.ndarray, "query level"]]],
    *,
    segment: Shaped[np.ndarray, " any_query"],
    identity: Int[np.ndarray, " any_query"],
    lifts: Sequence[tuple[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns how often a relevant item is among the first SIDs written for a query.

    Args:
      ranks: by rung, the numbers of the queries `[query]`, the same for all, and
        `metrics.retrieval.first_hits` of them `[query, level]`.
      segment: `[any query]` str, of queries by their number.
      identity: `[any query]`, a number that all spellings of a query share.
      lifts: (rung, baseline) pairs whose difference is wanted, as in `evaluate`.
      resamples: as in `evaluate`.
      seed: seed of the resamples.

    Returns:
      `rungs`, `lifts` and `segments` as docs/contract.md has them; empty without any query.
    """
    queries = next(iter(ranks.values()))[0]
    by_rung = {rung: first for rung, (_, first) in ranks.items()}
    plan = _Plan(lifts, resamples=resamples, seed=seed)
    if not len(queries):
        return {}
    result = _hits(by_rung, plan, identity=identity[queries])
    result["segments"] = {}
    for name in SEGMENTS:
        kept = segment[queries] == name
        if kept.any():
            within = {rung: first[kept] for rung, first in by_rung.items()}
            result["segments"][name] = _hits(within, plan, identity=identity[queries[kept]])
    return result


class _Plan(NamedTuple):
    """What is compared with what, and on which resamples; arguments of `evaluate`."""

    lifts: Sequence[tuple[str, str]]
    resamples: int
    seed: int

    def resampled(
        self,
        statistics: Mapping[_Key, bootstrap.Statistic],
        *,
        identity: Int[np.ndarray, " query"],
        num_pairs: int,
    ) -> _Resampled:
        """Returns statistics of queries, of which all of one identity are drawn at once."""
        values, samples = bootstrap.bootstrap(
            statistics,
            num_queries=len(identity),
            num_pairs=num_pairs,
            resamples=self.resamples,
            seed=self.seed,
            groups=identity,
        )
        return _Resampled(values, samples)


class _Resampled(NamedTuple):
    """Statistics on the sample, and on the resamples, by rung and name."""

    values: Mapping[_Key, float]
    samples: Mapping[_Key, Float[np.ndarray, " resample"]]

    def with_auc_between(self, rungs: Iterable[str]) -> _Resampled:
        """Returns these and the AUC between queries of some rungs, which follows from the rest."""
        values, samples = dict(self.values), dict(self.samples)
        for rung in rungs:
            names = ("roc_auc", "auc_within", SHARE_WITHIN)
            of_sample = [np.asarray(values[rung, name]) for name in names]
            values[rung, "auc_between"] = float(pair_kinds.between(*of_sample))
            samples[rung, "auc_between"] = pair_kinds.between(
                *(samples[rung, name] for name in names)
            )
        return _Resampled(values, samples)

    def metrics(self, rung: str) -> list[str]:
        """Returns the names of the statistics of a rung that are metrics."""
        return [name for of, name in self.values if of == rung and name not in NO_METRICS]

    def power_of(self, rung: str, over: str, *, queries: int) -> Power | None:
        """Returns what so many queries tell of a lift in ROC-AUC; None where it is undefined."""
        differences = self.samples[rung, "roc_auc"] - self.samples[over, "roc_auc"]
        defined = differences[~np.isnan(differences)]
        if len(defined) < 2:
            return None
        return power(
            standard_error=float(defined.std(ddof=1)),
            auc=self.values[over, "roc_auc"],
            queries=queries,
        )

    def value_of(self, rung: str, name: str) -> bootstrap.Interval:
        value, samples = self.values[rung, name], self.samples[rung, name]
        if name != "ece":
            return bootstrap.interval(value, samples)
        return bootstrap.ece_interval(value, samples, distances=self.samples[rung, ECE_DISTANCE])

    def lift_of(self, rung: str, over: str, name: str) -> bootstrap.Interval:
        one, other = (rung, name), (over, name)
        interval = bootstrap.basic_interval if name == "ece" else bootstrap.interval
        return interval(
            self.values[one] - self.values[other], self.samples[one] - self.samples[other]
        )


def _hits(
    ranks: Mapping[str, Real[np.ndarray, "query level"]],
    plan: _Plan,
    *,
    identity: Int[np.ndarray, " query"],
) -> dict[str, Any]:
    num_queries, levels = next(iter(ranks.values())).shape
    resampled = plan.resampled(
        {
            (rung, _hit_name(level, k)): bootstrap.mean_over_queries(
                hit_at_k(first[:, level], k=k) * 1.0
            )
            for rung, first in ranks.items()
            for level in range(levels)
            for k in HITS_AT
        },
        identity=identity,
        num_pairs=num_queries,
    )

    def by_level(interval: Callable[[str], bootstrap.Interval]) -> dict[str, Any]:
        return {
            f"level_{level + 1}": {
                f"hit@{k}": dataclasses.asdict(interval(_hit_name(level, k))) for k in HITS_AT
            }
            for level in range(levels)
        }

    return {
        "queries": num_queries,
        "rungs": {rung: by_level(functools.partial(resampled.value_of, rung)) for rung in ranks},
        "lifts": {
            f"{rung} over {over}": {"rung": rung, "over": over}
            | by_level(functools.partial(resampled.lift_of, rung, over))
            for rung, over in plan.lifts
            if rung in ranks and over in ranks
        },
    }


def _hit_name(level: int, k: int) -> str:
    return f"hit@{k} of level {level + 1}"


def _evaluate(
    pairs: JudgedPairs, scores: Mapping[str, Float[np.ndarray, "*seed pair"]], plan: _Plan
) -> dict[str, Any]:
    statistics = {rung: _statistics(pairs, values) for rung, values in scores.items()}
    result = _measured(pairs, statistics, plan)
    for rung, values in scores.items():
        floors = [ece_floor(one_seed) for one_seed in np.atleast_2d(values)]
        result["rungs"][rung]["ece"]["floor"] = float(np.mean(floors))
    return result


def _measured(
    pairs: JudgedPairs, statistics: Mapping[str, Mapping[str, bootstrap.Statistic]], plan: _Plan
) -> dict[str, Any]:
    """Returns metrics of rungs and their lifts, of statistics by rung and name."""
    _, first = np.unique(pairs.query_index, return_index=True)
    resampled = plan.resampled(
        {
            (rung, name): statistic
            for rung, named in statistics.items()
            for name, statistic in named.items()
        },
        identity=pairs.identity[first],
        num_pairs=len(pairs.query_index),
    )
    split = [rung for rung, named in statistics.items() if SHARE_WITHIN in named]
    resampled = resampled.with_auc_between(split)
    metrics = {rung: resampled.metrics(rung) for rung in statistics}

    def lift_of(rung: str, over: str, name: str) -> dict[str, float]:
        interval, baseline = resampled.lift_of(rung, over, name), resampled.values[over, name]
        relative = interval.value / baseline if baseline else 0.0
        return dataclasses.asdict(interval) | {"relative": relative}

    measured_lifts: dict[str, Any] = {}
    for (rung, over), key in lift_keys(plan.lifts, rungs=statistics).items():
        both = [name for name in metrics[rung] if name in metrics[over]]
        by_metric = {name: lift_of(rung, over, name) for name in both}
        measured_lifts[key] = {"rung": rung, "over": over, **_defined(by_metric)}
        told = resampled.power_of(rung, over, queries=len(first)) if rung in split else None
        if told:
            measured_lifts[key]["power"] = dataclasses.asdict(told)
    share = {}
    if split:
        share[SHARE_WITHIN] = dataclasses.asdict(resampled.value_of(split[0], SHARE_WITHIN))
    return {
        "queries": len(first),
        "pairs": len(pairs.query_index),
        **_defined(share),
        "rungs": {
            rung: _defined(
                {name: dataclasses.asdict(resampled.value_of(rung, name)) for name in names}
            )
            for rung, names in metrics.items()
        },
        "lifts": measured_lifts,
    }


def _statistics(
    pairs: JudgedPairs, scores: Float[np.ndarray, "*seed pair"]
) -> dict[str, bootstrap.Statistic]:
    by_seed = [_statistics_of(pairs, one_seed) for one_seed in np.atleast_2d(scores)]
    return {
        name: bootstrap.mean_statistic([named[name] for named in by_seed]) for name in by_seed[0]
    }


def _statistics_of(
    pairs: JudgedPairs, scores: Float[np.ndarray, " pair"]
) -> dict[str, bootstrap.Statistic]:
    columns = (pairs.query_index, pairs.relevant, scores)
    return {
        "roc_auc": bootstrap.roc_auc_statistic(*columns),
        "auc_within": pair_kinds.within_statistic(*columns, identity=pairs.identity),
        SHARE_WITHIN: pair_kinds.share_within_statistic(*columns[:2], identity=pairs.identity),
        "per_query_auc": bootstrap.per_query_auc_statistic(*columns),
        "pr_auc": bootstrap.pr_auc_statistic(*columns),
        "log_loss": bootstrap.log_loss_statistic(*columns),
        "ece": bootstrap.ece_statistic(*columns),
        "ndcg@10": bootstrap.ndcg_at_k_statistic(pairs.query_index, pairs.gain, scores, k=10),
        "mrr": bootstrap.mrr_statistic(*columns),
        "recall@5": bootstrap.recall_at_k_statistic(*columns, k=5),
        ECE_DISTANCE: bootstrap.ece_distance_statistic(*columns),
    }


def _tasks(
    pairs: JudgedPairs,
    scores: Float[np.ndarray, "*seed pair"],
    grades: Float[np.ndarray, "pair 4"] | None,
    *,
    gains: str,
) -> dict[str, bootstrap.Statistic]:
    """Returns the metrics of ESCI's tasks; the second and third need to tell the grades apart."""
    query, label = pairs.query_index, pairs.label.tolist()
    ranked = [
        esci.ranking(query, label, one_seed, gains=gains) for one_seed in np.atleast_2d(scores)
    ]
    statistics = {"task_1_ndcg": bootstrap.mean_statistic(ranked)}
    if grades is not None:
        labels = list(esci.LABELS)
        likeliest = [labels[number] for number in grades.argmax(axis=1)]
        tasks = {
            "task_2": esci.classification(query, label, likeliest),
            "task_3": esci.substitutes(query, label, grades[:, labels.index(esci.SUBSTITUTE)]),
        }
        statistics |= {
            f"{task}_{name}": statistic
            for task, named in tasks.items()
            for name, statistic in named.items()
        }
    return statistics


def _defined(by_metric: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Leaves out metrics that are not finite: JSON has no NaN."""
    return {
        name: interval
        for name, interval in by_metric.items()
        if all(math.isfinite(value) for value in interval.values())
    }
