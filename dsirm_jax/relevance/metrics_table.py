"""The metrics of rungs, and their lifts, as a table to print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.metrics.power import TARGET
from dsirm_jax.relevance.evaluate import BASELINE, LOWER_IS_BETTER, PAIR_METRICS, SHARE_WITHIN
from dsirm_jax.relevance.printing import aligned, cell
from dsirm_jax.run.layout import FULL

MOST_COLUMNS = 4
"""With more rungs than that, the table has a row a rung."""
KINDS_OF_GAIN = ("auc_between", "auc_within", "per_query_auc", "ndcg@10")
"""Metrics by which gains between queries and within them are told apart."""


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as plain text, each with its 95 % interval.

    Values, then lifts, a column a rung; or a row a rung where there are many.

    Args:
      metrics: what `evaluate` returned, or `metrics.json` read back.

    Returns:
      Lines without a trailing newline. A star marks a lift whose interval leaves out zero.
    """
    rungs, lifts = metrics["rungs"], metrics["lifts"]
    if len(rungs) > MOST_COLUMNS:
        kinds = [*_kinds_of_gain(lifts, over=BASELINE), *_kinds_of_gain(lifts, rung=FULL)]
        return "\n".join([*_ladder(rungs, lifts), "", *kinds, *_powers(metrics), *_legend(metrics)])
    by_difference = {f"{lift['rung']} − {lift['over']}": lift for lift in lifts.values()}
    lines = [*_block(rungs, signed=False), "", *_block(by_difference, signed=True), ""]
    lines += [
        f"ROC-AUC of {lift['rung']} over {lift['over']}: "
        f"{lift['roc_auc']['relative']:+.2%} relative"
        for lift in lifts.values()
        if "roc_auc" in lift
    ]
    return "\n".join([*lines, *_powers(metrics), *_legend(metrics)])


def _legend(metrics: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{metrics['queries']:,} test queries, {metrics['pairs']:,} pairs; 95 % intervals from "
        f"{metrics['resamples']:,} resamples of queries",
        "↓ lower is better; * interval without 0; – undefined; floor: of true probabilities",
    ]
    if SHARE_WITHIN in metrics:
        lines.append(
            f"of all comparisons of a relevant with an irrelevant pair "
            f"{100 * metrics[SHARE_WITHIN]['value']:.3g} % are within a query"
        )
    return lines


def _powers(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a line a lift of the full model over a control: what so many queries tell of it."""
    controls = metrics.get("controls", [BASELINE])
    return [
        f"{lift['rung']} over {lift['over']}: {power_text(lift['power'])}"
        for lift in metrics["lifts"].values()
        if lift["rung"] == FULL and lift["over"] in controls and "power" in lift
    ]


def power_text(of: Mapping[str, Any]) -> str:
    """Returns in words what a comparison can tell.

    Args:
      of: fields of `metrics.power.Power`.
    """
    return (
        f"detectable lift in ROC-AUC ± {of['detectable']:.4f} (80 % power); "
        f"{100 * TARGET:+.2f} % relative needs {of['target_queries']:,} queries"
    )


def _kinds_of_gain(
    lifts: Mapping[str, Any], *, rung: str | None = None, over: str | None = None
) -> list[str]:
    """Returns aligned lines with a row a lift of one rung, or over one: between, within queries."""
    rows = [[f"{rung or 'each'} − {over or 'each'}", *KINDS_OF_GAIN]]
    for lift in lifts.values():
        if rung in (None, lift["rung"]) and over in (None, lift["over"]):
            name = lift["rung"] if rung is None else lift["over"]
            rows.append([name, *(cell(lift.get(kind), signed=True) for kind in KINDS_OF_GAIN)])
    return [*aligned(rows), ""] if len(rows) > 1 else []


def _ladder(rungs: Mapping[str, Any], lifts: Mapping[str, Any]) -> list[str]:
    """Returns aligned lines with a row per rung."""
    between = {(lift["rung"], lift["over"]): lift for lift in lifts.values()}
    head = ["", "roc_auc", f"− {BASELINE}", "relative", f"{FULL} − it", "ndcg@10", "log_loss ↓"]
    rows = [[*head, "ece ↓", "its floor"]]
    for rung, values in rungs.items():
        over, under = (between.get(pair, {}) for pair in ((rung, BASELINE), (FULL, rung)))
        gained = over.get("roc_auc")
        rows.append(
            [
                rung,
                cell(values.get("roc_auc"), signed=False),
                cell(gained, signed=True),
                f"{gained['relative']:+.2%}" if gained else "–",
                cell(under.get("roc_auc"), signed=True),
                *(
                    f"{values[name]['value']:.4f}" if name in values else "–"
                    for name in ("ndcg@10", "log_loss", "ece")
                ),
                f"{values['ece']['floor']:.4f}",
            ]
        )
    return aligned(rows)


def _block(columns: Mapping[str, Mapping[str, Any]], *, signed: bool) -> list[str]:
    """Returns aligned lines with a row per metric and a column per rung or lift."""
    rows = [["", *columns]]
    for name in PAIR_METRICS:
        label = f"{name} ↓" if name in LOWER_IS_BETTER else name
        cells = (cell(values.get(name), signed=signed) for values in columns.values())
        rows.append([label, *cells])
        floors = [values.get(name, {}).get("floor") for values in columns.values()]
        if any(floors):
            rows.append([f"{name} floor", *(f"{floor:.4f}" for floor in floors)])
    return aligned(rows)
