"""The lifts of a ladder as a picture of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.evaluate import BASELINE
from dsirm_jax.report.build import environment
from dsirm_jax.report.charts import axis
from dsirm_jax.report.verdict import METRIC_NAMES, outcome, rung_name

ROW, LEFT, WIDTH, RIGHT = 22, 220, 460, 230
OUTCOME_COLOURS = {"better": "#1a7f37", "worse": "#b3261e", "unclear": "#6b7280"}


def lift_plot(metrics: Mapping[str, Any], *, metric: str = "roc_auc") -> str:
    """Returns an SVG of every rung's lift over no SID, a dot with its 95 % interval.

    Args:
      metrics: what `evaluate` returned.
      metric: which of them.
    """
    lifts = {
        lift["rung"]: lift[metric]
        for lift in metrics["lifts"].values()
        if lift["over"] == BASELINE and metric in lift
    }
    ends = [lift[end] for lift in lifts.values() for end in ("low", "high")]
    return (
        environment()
        .get_template("lifts.svg")
        .render(
            title=f"Lift in {METRIC_NAMES[metric]} over {rung_name(BASELINE)}, "
            f"{metrics['queries']:,} queries, 95 % intervals",
            rows=[
                (rung_name(rung), lift, OUTCOME_COLOURS[outcome(lift, metric)])
                for rung, lift in lifts.items()
            ],
            axis=axis([0, *ends], margin=0.05),
            row=ROW,
            left=LEFT,
            width=WIDTH,
            right=RIGHT,
            bottom=ROW * (len(lifts) + 1),
        )
    )
