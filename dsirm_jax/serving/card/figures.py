"""Tables of a model card: what `metrics.json` says, with intervals, of the full model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dsirm_jax.metrics.retrieval import HITS_AT
from dsirm_jax.relevance.evaluate import LOWER_IS_BETTER, PAIR_METRICS
from dsirm_jax.report.belief import level_name
from dsirm_jax.report.verdict import METRIC_NAMES, lift_over, lift_over_control, rung_name, signed
from dsirm_jax.run.layout import FULL

Estimate = Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
      about: what it shows, a sentence or two.
      head: of each column.
      rows: cells of each row.
    """

    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def estimate(of: Estimate | None, show: Callable[[float], str] = "{:.4f}".format) -> str:
    """Returns a value with its 95 % interval; a dash where it is undefined."""
    if of is None:
        return "–"
    return f"{show(of['value'])} ({show(of['low'])}, {show(of['high'])})"


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of what was measured.

    Args:
      metrics: contents of `metrics.json`, of an earlier version too.
    """
    makers = (_of_pairs, _of_segments, _fine_grained, _of_generator)
    return [table for make in makers for table in make(metrics) if table.rows]


def hub_metrics(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the full model's metrics as the entries of a hub's `model-index`.

    Returns:
      Of each `type`, `name`, which has the interval too, and `value`.
    """
    of_full = metrics["rungs"][FULL]
    return [
        {
            "type": name,
            "value": of_full[name]["value"],
            "name": f"{METRIC_NAMES[name]}, 95 % interval {of_full[name]['low']:.4f} to "
            f"{of_full[name]['high']:.4f}",
        }
        for name in PAIR_METRICS
        if name in of_full
    ]


def _of_pairs(metrics: Mapping[str, Any]) -> Iterator[Table]:
    control, lift = lift_over_control(metrics)
    rungs = metrics["rungs"]
    columns = () if control is None else (rung_name(control), "difference")
    told = f" '{rung_name(control)}' is the strongest model without codes." if control else ""
    yield Table(
        about=(
            f"{metrics['queries']:,} test queries with {metrics['pairs']:,} judged pairs; in "
            f"brackets 95 % intervals of {metrics['resamples']:,} resamples of queries, paired for "
            f"differences. ↓: less is better.{told}"
        ),
        head=("metric", rung_name(FULL), *columns),
        rows=tuple(
            (
                METRIC_NAMES[name] + (" ↓" if name in LOWER_IS_BETTER else ""),
                estimate(rungs[FULL][name]),
                *(
                    ()
                    if control is None
                    else (estimate(rungs[control].get(name)), estimate(lift.get(name), signed))
                ),
            )
            for name in PAIR_METRICS
            if name in rungs[FULL]
        ),
    )


def _of_segments(metrics: Mapping[str, Any]) -> Iterator[Table]:
    control, _ = lift_over_control(metrics)
    columns = () if control is None else (f"difference to {rung_name(control)}",)
    yield Table(
        about=(
            "The same by segment of test queries: by how often they are asked, whether they say "
            "what is not wanted, whether an item was judged for a query outside the test, and "
            "the largest categories. ROC-AUC, but for the last column."
        ),
        head=("segment", "queries", "pairs", rung_name(FULL), *columns, "nDCG@10"),
        rows=tuple(
            (
                segment,
                f"{of['queries']:,}",
                f"{of['pairs']:,}",
                estimate(of["rungs"][FULL].get("roc_auc")),
                *(
                    ()
                    if control is None
                    else (estimate(lift_over(of, control).get("roc_auc"), signed),)
                ),
                estimate(of["rungs"][FULL].get("ndcg@10")),
            )
            for segment, of in metrics.get("segments", {}).items()
        ),
    )


def _fine_grained(metrics: Mapping[str, Any]) -> Iterator[Table]:
    of = metrics.get("fine_grained")
    if not of or FULL not in of["rungs"]:
        return
    control, _ = lift_over_control(metrics)
    columns = () if control is None else (rung_name(control), "difference")
    counts = {"all": {"queries": of["queries"], "pairs": of["pairs"]}} | of["kinds"]
    yield Table(
        about=(
            "Of two items that differ in one attribute, how often the one that was asked for is "
            "ranked first; a tie counts half."
        ),
        head=("attribute", "queries", "pairs", rung_name(FULL), *columns),
        rows=tuple(
            (
                kind,
                f"{count['queries']:,}",
                f"{count['pairs']:,}",
                estimate(of["rungs"][FULL].get(kind)),
                *(
                    ()
                    if control is None
                    else (
                        estimate(of["rungs"].get(control, {}).get(kind)),
                        estimate(lift_over(of, control).get(kind), signed),
                    )
                ),
            )
            for kind, count in counts.items()
        ),
    )


def _of_generator(metrics: Mapping[str, Any]) -> Iterator[Table]:
    """Yields what the generator finds and believes, of test queries with a relevant item."""
    hits = (metrics.get("hits") or {"rungs": {}})["rungs"].get(FULL, {})
    belief = (metrics.get("belief") or {"rungs": {}})["rungs"].get(FULL, {})
    levels = [key for key in hits or belief if key.startswith("level_")]
    if not levels:
        return
    hits_at = [f"hit@{most}" for most in HITS_AT]
    yield Table(
        about=(
            "The generator alone, by how many codes of a SID are compared: a hit is a query where "
            "one of the first 1, 5, 10 or 100 SIDs agrees with a relevant item's; the probability "
            "is what it gives to the SIDs of relevant items, and ECE its calibration error, for "
            "which what nobody judged counts as wrong."
        ),
        head=("compared", *hits_at, "probability", "ECE ↓"),
        rows=tuple(
            (
                level_name(place, of=len(levels)),
                *(estimate(hits.get(key, {}).get(name)) for name in hits_at),
                estimate(belief.get(key, {}).get("branch")),
                estimate(belief.get(key, {}).get("ece")),
            )
            for place, key in enumerate(levels)
        ),
    )
