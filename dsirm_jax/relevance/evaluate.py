"""Predictions of several rungs to metrics with intervals, lifts, and a table to print."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dsirm_jax.data.schema import SEGMENTS
from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import bootstrap, esci
from dsirm_jax.metrics.classification import ece_floor
from dsirm_jax.metrics.retrieval import HITS_AT, hit_at_k
from dsirm_jax.run.layout import FULL

METRICS = (
    *("roc_auc", "per_query_auc", "pr_auc", "log_loss", "ece"),
    *("ndcg@10", "mrr", "recall@5"),
)
LOWER_IS_BETTER = ("log_loss", "ece")
BASELINE = "no_sid"
MOST_COLUMNS = 4
"""With more rungs than that, the table has a row a rung."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The test pairs that rungs are judged on.

    Attributes:
      query_index: int64 `[pair]`.
      relevant: bool `[pair]`.
      gain: float `[pair]`, what nDCG counts.
      label: str `[pair]`, the grade given; None where it is not known.
      segments: bool `[pair]`, by name: the pairs of each segment that is judged on its own too.
    """

    query_index: np.ndarray
    relevant: np.ndarray
    gain: np.ndarray
    label: np.ndarray
    segments: Mapping[str, np.ndarray]

    def where(self, kept: np.ndarray) -> Pairs:
        """Returns the pairs that a mask keeps."""
        return Pairs(
            query_index=self.query_index[kept],
            relevant=self.relevant[kept],
            gain=self.gain[kept],
            label=self.label[kept],
            segments={name: of[kept] for name, of in self.segments.items()},
        )


def lifts_between(rungs: Collection[str]) -> list[tuple[str, str]]:
    """Returns the (rung, baseline) pairs of a ladder: each over no SID, and full over each."""
    others = [rung for rung in rungs if rung != BASELINE]
    over = [(rung, BASELINE) for rung in others] + [(FULL, rung) for rung in others if rung != FULL]
    return [pair for pair in over if set(pair) <= set(rungs)]


def evaluate(
    *,
    pairs: Pairs,
    scores: Mapping[str, np.ndarray],
    lifts: Sequence[tuple[str, str]],
    grades: Mapping[str, Float[np.ndarray, "pair 4"]] | None = None,
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
      resamples: resamples of queries that the intervals come from.
      seed: seed of the resamples.

    Returns:
      `rungs`, `lifts` and `segments` as docs/contract.md has them, with the numbers of queries,
      pairs and resamples; and `esci` where all labels are E, S, C or I. A lift is rung − baseline;
      it lies under the rung's name, or under `RUNG over BASELINE` where the rung has one already,
      and its `relative` is the lift over the baseline's value. A metric that is undefined (one
      class only) is left out.

    Raises:
      InputError: there are no test pairs.
      ValueError: a score is not finite or not in [0, 1].
    """
    if not len(pairs.query_index):
        raise InputError(
            "no judgement is in the split test; give more queries or bind a larger test share"
        )
    drawn = {"lifts": lifts, "resamples": resamples, "seed": seed}
    result = _evaluate(pairs, scores, **drawn)
    result["resamples"] = resamples
    if esci.are_labels(pairs.label):
        tasks = {rung: _tasks(pairs, of, (grades or {}).get(rung)) for rung, of in scores.items()}
        result["esci"] = _measured(pairs, tasks, **drawn)
    result["segments"] = {}
    for segment, kept in pairs.segments.items():
        if kept.any():
            scores_kept = {rung: values[..., kept] for rung, values in scores.items()}
            result["segments"][segment] = _evaluate(pairs.where(kept), scores_kept, **drawn)
    return result


def evaluate_hits(
    ranks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    segment: np.ndarray,
    lifts: Sequence[tuple[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns how often a relevant item is among the first SIDs written for a query.

    Args:
      ranks: by rung, the numbers of the queries `[query]`, the same for all, and
        `metrics.retrieval.first_hits` of them `[query, level]`.
      segment: `[any query]` str, of queries by their number.
      lifts: (rung, baseline) pairs whose difference is wanted, as in `evaluate`.
      resamples: resamples of queries that the intervals come from.
      seed: seed of the resamples.

    Returns:
      `rungs`, `lifts` and `segments` as docs/contract.md has them; empty without any query.
    """
    queries = next(iter(ranks.values()))[0]
    of_rungs = {rung: found for rung, (_, found) in ranks.items()}
    shared = {"lifts": lifts, "resamples": resamples, "seed": seed}
    if not len(queries):
        return {}
    result = _hits(of_rungs, **shared)
    result["segments"] = {}
    for name in SEGMENTS:
        kept = segment[queries] == name
        if kept.any():
            some = {rung: found[kept] for rung, found in of_rungs.items()}
            result["segments"][name] = _hits(some, **shared)
    return result


def _hits(
    ranks: Mapping[str, np.ndarray],
    *,
    lifts: Sequence[tuple[str, str]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    num_queries, levels = next(iter(ranks.values())).shape
    names = [(level, k) for level in range(levels) for k in HITS_AT]
    values, samples = bootstrap.bootstrap(
        {
            (rung, level, k): bootstrap.mean_over_queries(hit_at_k(found[:, level], k=k) * 1.0)
            for rung, found in ranks.items()
            for level, k in names
        },
        num_queries=num_queries,
        num_pairs=num_queries,
        resamples=resamples,
        seed=seed,
    )

    def by_level(of: Callable[[int, int], bootstrap.Interval]) -> dict[str, Any]:
        found: dict[str, Any] = {f"level_{level + 1}": {} for level in range(levels)}
        for level, k in names:
            found[f"level_{level + 1}"][f"hit@{k}"] = dataclasses.asdict(of(level, k))
        return found

    def value_of(rung: str, *name: int) -> bootstrap.Interval:
        return bootstrap.interval(values[rung, *name], samples[rung, *name])

    def lift_of(rung: str, over: str, *name: int) -> bootstrap.Interval:
        one, other = (rung, *name), (over, *name)
        return bootstrap.interval(values[one] - values[other], samples[one] - samples[other])

    return {
        "queries": num_queries,
        "rungs": {rung: by_level(functools.partial(value_of, rung)) for rung in ranks},
        "lifts": {
            f"{rung} over {over}": {"rung": rung, "over": over}
            | by_level(functools.partial(lift_of, rung, over))
            for rung, over in lifts
            if rung in ranks and over in ranks
        },
    }


def table(metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as plain text, each with its 95 % interval.

    Values, then lifts, a column a rung; or a row a rung where there are many.

    Args:
      metrics: what `evaluate` returned, or `metrics.json` read back.

    Returns:
      Lines without a trailing newline. A star marks a lift whose interval leaves out zero.
    """
    rungs, lifts = metrics["rungs"], metrics["lifts"]
    if len(rungs) > MOST_COLUMNS:
        return "\n".join([*_ladder(rungs, lifts), *_legend(metrics)])
    by_difference = {f"{of['rung']} − {of['over']}": of for of in lifts.values()}
    lines = [*_block(rungs, signed=False), "", *_block(by_difference, signed=True), ""]
    lines += [
        f"ROC-AUC of {of['rung']} over {of['over']}: {of['roc_auc']['relative']:+.2%} relative"
        for of in lifts.values()
        if "roc_auc" in of
    ]
    return "\n".join([*lines, *_legend(metrics)])


def _legend(metrics: Mapping[str, Any]) -> list[str]:
    return [
        f"{metrics['queries']:,} test queries, {metrics['pairs']:,} pairs; 95 % intervals from "
        f"{metrics['resamples']:,} resamples of queries",
        "↓ lower is better; * interval without 0; – undefined; floor: of true probabilities",
    ]


def _ladder(rungs: Mapping[str, Any], lifts: Mapping[str, Any]) -> list[str]:
    """Returns aligned lines with a row per rung."""
    between = {(of["rung"], of["over"]): of for of in lifts.values()}
    head = ["", "roc_auc", f"− {BASELINE}", "relative", f"{FULL} − it", "ndcg@10", "log_loss ↓"]
    rows = [[*head, "ece ↓", "its floor"]]
    for rung, values in rungs.items():
        over, under = (between.get(pair, {}) for pair in ((rung, BASELINE), (FULL, rung)))
        gained = over.get("roc_auc")
        rows.append(
            [
                rung,
                _cell(values.get("roc_auc"), signed=False),
                _cell(gained, signed=True),
                f"{gained['relative']:+.2%}" if gained else "–",
                _cell(under.get("roc_auc"), signed=True),
                *(
                    f"{values[name]['value']:.4f}" if name in values else "–"
                    for name in ("ndcg@10", "log_loss", "ece")
                ),
                f"{values['ece']['floor']:.4f}",
            ]
        )
    return _aligned(rows)


def _evaluate(pairs: Pairs, scores: Mapping[str, np.ndarray], **drawn: Any) -> dict[str, Any]:
    statistics = {rung: _statistics(pairs, of_rung) for rung, of_rung in scores.items()}
    result = _measured(pairs, statistics, **drawn)
    for rung, of_rung in scores.items():
        floors = [ece_floor(of_seed) for of_seed in np.atleast_2d(of_rung)]
        result["rungs"][rung]["ece"]["floor"] = float(np.mean(floors))
    return result


def _measured(
    pairs: Pairs,
    statistics: Mapping[str, Mapping[str, bootstrap.Statistic]],
    *,
    lifts: Sequence[tuple[str, str]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Returns metrics of rungs and their lifts, of statistics by rung and name."""
    num_queries = len(np.unique(pairs.query_index))
    values, samples = bootstrap.bootstrap(
        {(rung, name): of for rung, named in statistics.items() for name, of in named.items()},
        num_queries=num_queries,
        num_pairs=len(pairs.query_index),
        resamples=resamples,
        seed=seed,
    )

    def value_of(rung: str, name: str) -> dict[str, float]:
        key = (rung, name)
        return dataclasses.asdict(bootstrap.interval(values[key], samples[key]))

    def lift_of(rung: str, over: str, name: str) -> dict[str, float]:
        one, other = (rung, name), (over, name)
        difference = values[one] - values[other]
        found = bootstrap.interval(difference, samples[one] - samples[other])
        relative = difference / values[other] if values[other] else 0.0
        return dataclasses.asdict(found) | {"relative": relative}

    lifted: dict[str, Any] = {}
    for rung, over in lifts:
        if rung in statistics and over in statistics:
            key = rung if rung not in lifted else f"{rung} over {over}"
            both = [name for name in statistics[rung] if name in statistics[over]]
            by_metric = {name: lift_of(rung, over, name) for name in both}
            lifted[key] = {"rung": rung, "over": over, **_defined(by_metric)}
    return {
        "queries": num_queries,
        "pairs": len(pairs.query_index),
        "rungs": {
            rung: _defined({name: value_of(rung, name) for name in named})
            for rung, named in statistics.items()
        },
        "lifts": lifted,
    }


def _statistics(pairs: Pairs, scores: np.ndarray) -> dict[str, bootstrap.Statistic]:
    of_seeds = [_statistics_of(pairs, of_seed) for of_seed in np.atleast_2d(scores)]
    return {name: bootstrap.mean_statistic([of[name] for of in of_seeds]) for name in METRICS}


def _statistics_of(pairs: Pairs, scores: np.ndarray) -> dict[str, bootstrap.Statistic]:
    of_pairs = (pairs.query_index, pairs.relevant, scores)
    return {
        "roc_auc": bootstrap.roc_auc_statistic(*of_pairs),
        "per_query_auc": bootstrap.per_query_auc_statistic(*of_pairs),
        "pr_auc": bootstrap.pr_auc_statistic(*of_pairs),
        "log_loss": bootstrap.log_loss_statistic(*of_pairs),
        "ece": bootstrap.ece_statistic(*of_pairs),
        "ndcg@10": bootstrap.ndcg_at_k_statistic(pairs.query_index, pairs.gain, scores, k=10),
        "mrr": bootstrap.mrr_statistic(*of_pairs),
        "recall@5": bootstrap.recall_at_k_statistic(*of_pairs, k=5),
    }


def _tasks(
    pairs: Pairs, scores: np.ndarray, grades: Float[np.ndarray, "pair 4"] | None
) -> dict[str, bootstrap.Statistic]:
    """Returns the metrics of ESCI's tasks; the second and third need to tell the grades apart."""
    query, label = pairs.query_index, pairs.label
    ranked = [esci.ranking(query, label, of_seed) for of_seed in np.atleast_2d(scores)]
    found = {"task_1_ndcg": bootstrap.mean_statistic(ranked)}
    if grades is not None:
        named = np.array(list(esci.GAINS))
        of_tasks = {
            "task_2": esci.classification(query, label, named[grades.argmax(axis=1)]),
            "task_3": esci.substitutes(query, label, grades[:, named == esci.SUBSTITUTE][:, 0]),
        }
        found |= {
            f"{task}_{name}": of for task, both in of_tasks.items() for name, of in both.items()
        }
    return found


def _defined(by_metric: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Leaves out metrics that are not finite: JSON has no NaN."""
    return {
        name: found
        for name, found in by_metric.items()
        if all(math.isfinite(value) for value in found.values())
    }


def _block(columns: Mapping[str, Mapping[str, Any]], *, signed: bool) -> list[str]:
    """Returns aligned lines with a row per metric and a column per rung or lift."""
    rows = [["", *columns]]
    for name in METRICS:
        label = f"{name} ↓" if name in LOWER_IS_BETTER else name
        rows.append([label, *(_cell(of.get(name), signed=signed) for of in columns.values())])
        floors = [of.get(name, {}).get("floor") for of in columns.values()]
        if any(floors):
            rows.append([f"{name} floor", *(f"{floor:.4f}" for floor in floors)])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line per row, the first underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "─" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def _cell(found: Mapping[str, float] | None, *, signed: bool) -> str:
    if found is None:
        return "–"
    sign = "+" if signed else ""
    value, low, high = (f"{found[key]:{sign}.4f}" for key in ("value", "low", "high"))
    star = ("*" if found["low"] > 0 or found["high"] < 0 else " ") if signed else ""
    return f"{value} [{low}, {high}]{star}"
