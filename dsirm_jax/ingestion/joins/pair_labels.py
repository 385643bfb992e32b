"""One label for each judged pair: of several judgements, of raters, or of counted behaviour."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from ibis import _

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.grading.click_findings import check_counted, click_findings
from dsirm_jax.ingestion.grading.clicks import ClickModel, overall_rate
from dsirm_jax.ingestion.grading.labels import Labels
from dsirm_jax.ingestion.joins import relations
from dsirm_jax.ingestion.joins.rows import stored
from dsirm_jax.io.errors import InputError

MAJORITY, MEAN, HIGHEST, LOWEST, LATEST = AGGREGATIONS = (
    *("majority", "mean", "highest", "lowest", "latest"),
)
"""What becomes of several judgements of one pair: `prepare.prepare`."""

PAIR = ["query", "item_id"]
_WORTH = ["label", "gain", "relevant"]
_GAIN_UNITS = 2**32
"""Gains are added up in whole units, shares of the largest: sums are exact in any order."""

NAMED_POSITIONS = 20
"""Places whose propensities the summary has."""

_BEFORE_ALL = -1e300


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairLabels:
    """The pairs of a table of judgements.

    Attributes:
      rows: one row a pair that has a label: query, item_id, label, gain, relevant and weight.
      left_out: number of pairs that have none, for they have too few impressions.
      summary: of disagreement and of clicks, for `summary.json`.
      findings: what there is to say of them.
    """

    rows: ibis.Table
    left_out: int
    summary: dict[str, Any]
    findings: list[Finding]


def pair_labels(
    database: ibis.BaseBackend,
    judgements: ibis.Table,
    *,
    labels: Labels,
    aggregation: str,
    clicks: ClickModel,
    folder: Path,
) -> PairLabels:
    """Returns one row a (query, item_id); see `prepare.prepare`.

    Args:
      database: where the judgements are.
      judgements: checked ones.
      labels: those that exist.
      aggregation: one of `AGGREGATIONS`.
      clicks: of pairs without a label.
      folder: for intermediate files.

    Raises:
      InputError: no pair gets a label, or 'latest' is bound and no judgement has a time.
    """
    by_clicks, by_purchases = clicks.steps(labels)
    steps = [grade for grade, _rate in (*by_clicks, *by_purchases)]
    found = _distinct(judgements, "_grade")
    worth = labels.rows(sorted({*found, *steps, labels.lowest}))
    propensities = None
    if clicks.propensities and relations.number(judgements.position.count()):
        propensities = list(clicks.propensities.of(judgements))
    pairs = stored(
        database, _pairs(clicks.looks(judgements, propensities)), folder / "pairs.parquet"
    )
    totals = _totals(pairs)
    parts = [_weighed(pairs.filter(_.least == _.most).mutate(grade=_.least), worth)]
    findings, disagreement = [], _disagreement(pairs, totals, worth)
    if totals["disputed"]:
        disputed = pairs.filter(_.least < _.most)
        parts.append(_settled(judgements, disputed, labels, worth, aggregation=aggregation))
        findings.append(
            Finding(
                table="judgements",
                text=f"{totals['disputed']} of {totals['pairs']} pairs have judgements that "
                f"disagree, in gain by {disagreement['mean_gain_range']:.3g} on average; each has "
                f"{_RULES[aggregation]} (prepare.run.judgement_aggregation is {aggregation!r}; "
                f"others are {', '.join(name for name in AGGREGATIONS if name != aggregation)})",
                is_fault=False,
            )
        )
    behaviour, left_out = None, 0
    if totals["counted"]:
        rates = {
            "click_rate": overall_rate(totals["clicks"], totals["looks"]),
            "purchase_rate": overall_rate(totals["purchases"], totals["looks"]),
        }
        counted = clicks.graded(pairs.filter(_.least.isnull()), labels=labels, **rates)
        left_out = relations.number(counted.filter(_.behaviour.isnull()).count())
        behaviour = {
            "pairs": totals["counted"] - left_out,
            "too_few_impressions": left_out,
            **rates,
            "propensities": propensities and propensities[:NAMED_POSITIONS],
        }
        check_counted(totals, behaviour, labels=labels, clicks=clicks)
        findings += click_findings(totals, behaviour, labels=labels, clicks=clicks)
        rows = counted.filter(_.behaviour.notnull()).mutate(grade=_.behaviour)
        weight = (1.0 + rows.evidence.cast("float64")).log2()
        parts.append(_weighed(rows, worth, weight=weight))
    rows = ibis.union(*parts) if len(parts) > 1 else parts[0]
    summary = {"disagreement": disagreement, "behaviour": behaviour}
    return PairLabels(rows=rows, left_out=left_out, summary=summary, findings=findings)


def _pairs(judgements: ibis.Table) -> ibis.Table:
    return judgements.group_by(PAIR).agg(
        least=_["_grade"].min(),
        most=_["_grade"].max(),
        own_weight=_.weight.max(),
        impressions=_.impressions.sum().fill_null(0).cast("int64"),
        clicks=_.clicks.sum().fill_null(0).cast("int64"),
        purchases=_.purchases.sum().fill_null(0).cast("int64"),
        looks=_.looks.sum().fill_null(0).cast("int64"),
        placed=_.position.max(),
    )


def _totals(pairs: ibis.Table) -> dict[str, int]:
    counted = pairs.least.isnull()
    shown = pairs.impressions > 0

    def sum_where(value: ibis.Value, condition: ibis.Value) -> ibis.Value:
        return ibis.ifelse(condition, value, 0).sum().fill_null(0)

    totals = pairs.agg(
        pairs=pairs.count(),
        disputed=sum_where(1, (pairs.least < pairs.most).fill_null(False)),
        counted=sum_where(1, counted),
        unshown=sum_where(1, counted & ~shown),
        placed=sum_where(1, counted & pairs.placed.notnull()),
        overclicked=sum_where(1, counted & shown & (pairs.clicks > pairs.impressions)),
        clicks=sum_where(pairs.clicks, shown),
        purchases=sum_where(pairs.purchases, shown),
        looks=sum_where(pairs.looks, shown),
    )
    return {name: int(value) for name, value in totals.to_pyarrow().to_pylist()[0].items()}


def _weighed(rows: ibis.Table, worth: pa.Table, *, weight: ibis.Value | float = 1.0) -> ibis.Table:
    """Returns what pairs of a `grade` are worth; their own weight comes before `weight`."""
    weight = weight if isinstance(weight, ibis.Value) else ibis.literal(weight)
    rows = rows.select(*PAIR, "grade", weight=_own(rows, weight))
    return rows.join(ibis.memtable(worth), "grade").select(*PAIR, *_WORTH, "weight")


def _own(rows: ibis.Table, weight: ibis.Value) -> ibis.Value:
    return ibis.coalesce(rows.own_weight.cast("float64"), weight.cast("float64"))


_RULES = {
    MAJORITY: "the label of most, of a tie the lowest",
    MEAN: "the mean gain and the label nearest to it",
    HIGHEST: "the highest label",
    LOWEST: "the lowest label",
    LATEST: "the latest label, of a tie the lowest",
}


def _settled(
    judgements: ibis.Table,
    disputed: ibis.Table,
    labels: Labels,
    worth: pa.Table,
    *,
    aggregation: str,
) -> ibis.Table:
    """Returns what pairs are worth whose judgements disagree."""
    if aggregation in (HIGHEST, LOWEST):
        grade = disputed.most if aggregation == HIGHEST else disputed.least
        return _weighed(disputed.mutate(grade=grade), worth)
    rated = judgements.filter(_["_grade"].notnull()).mutate(grade=_["_grade"])
    rated = rated.semi_join(disputed, PAIR)
    own = disputed.select(*PAIR, "own_weight")
    if aggregation == MEAN:
        means = _means(rated, labels, worth)
        rows = own.join(means, PAIR)
        return rows.select(*PAIR, *_WORTH, weight=_own(rows, ibis.literal(1.0)))
    if aggregation == LATEST and not relations.number(judgements["_judged_at"].count()):
        raise InputError(
            "gin binding prepare.run.judgement_aggregation is 'latest', and no judgement says when "
            "it was made; map a column to judged_at, or bind another of "
            + ", ".join(map(repr, AGGREGATIONS[:-1]))
        )
    first = _.count() if aggregation == MAJORITY else _["_judged_at"].max().fill_null(_BEFORE_ALL)
    votes = rated.group_by([*PAIR, "grade"]).agg(first=first.cast("float64"))
    window = ibis.window(group_by=PAIR, order_by=[ibis.desc("first"), "grade"])
    votes = votes.mutate(place=ibis.row_number().over(window)).filter(_.place == 0)
    return _weighed(own.join(votes.select(*PAIR, "grade"), PAIR), worth)


def _means(rated: ibis.Table, labels: Labels, worth: pa.Table) -> ibis.Table:
    """Returns the mean gain of each pair, with the label nearest to it."""
    gains = worth["gain"].to_numpy()
    unit = (max(gains) or 1.0) / _GAIN_UNITS
    units = pa.table({"grade": worth["grade"], "units": np.round(gains / unit).astype(np.int64)})
    sums = rated.join(ibis.memtable(units), "grade").group_by(PAIR)
    sums = sums.agg(total=_.units.sum().cast("int64"), raters=_.count().cast("int64"))
    distinct = sums.select("total", "raters").distinct().to_pyarrow()
    total, raters = (distinct[name].to_numpy() for name in ("total", "raters"))
    means = labels.mean_rows(total / raters * unit)
    keyed = pa.table({"total": total, "raters": raters} | {n: means[n] for n in _WORTH})
    return sums.join(ibis.memtable(keyed), ["total", "raters"]).select(*PAIR, *_WORTH)


def _disagreement(pairs: ibis.Table, totals: Mapping[str, int], worth: pa.Table) -> dict[str, Any]:
    """Counts the pairs whose judgements disagree, and says by how much."""
    if not totals["disputed"]:
        return {"pairs": 0, "mean_gain_range": 0.0}
    ranges = pairs.filter(_.least < _.most).group_by("least", "most").agg(pairs=_.count())
    gain = dict(zip(worth["grade"].to_pylist(), worth["gain"].to_pylist()))
    total = math.fsum(
        row["pairs"] * (gain[row["most"]] - gain[row["least"]])
        for row in ranges.to_pyarrow().to_pylist()
    )
    return {"pairs": totals["disputed"], "mean_gain_range": total / totals["disputed"]}


def _distinct(table: ibis.Table, column: str) -> list[float]:
    values = table.filter(table[column].notnull()).select(column).distinct()
    return values.to_pyarrow()[column].to_pylist()
