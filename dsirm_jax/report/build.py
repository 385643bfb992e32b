"""Writes the report: one HTML file that opens from disk and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dsirm_jax.io.files import write_text
from dsirm_jax.metrics import esci
from dsirm_jax.metrics.retrieval import HITS_AT
from dsirm_jax.relevance.evaluate import LOWER_IS_BETTER, PAIR_METRICS
from dsirm_jax.relevance.metrics_table import KINDS_OF_GAIN
from dsirm_jax.report import charts
from dsirm_jax.report.belief import belief_panel
from dsirm_jax.report.data import category_panel, data_panels
from dsirm_jax.report.fine_grained import fine_grained_panels
from dsirm_jax.report.gather import gather
from dsirm_jax.report.verdict import (
    BASELINE,
    METRIC_NAMES,
    TASK_NAMES,
    lift_over,
    outcome,
    rung_name,
    signed,
)
from dsirm_jax.run.layout import FULL, Layout

COLOUR_CYCLE = 5


def write_report(*, layout: Layout, title: str) -> Path:
    """Writes `report/index.html` from what the stages of a run wrote.

    A stage that has not run leaves its section out. Texts of the shop are only ever text: Jinja
    escapes them in the markup and in the embedded JSON, and the page's content security policy runs
    no script but its own.

    Args:
      layout: the run; only `prepare`, or a ladder, must be finished.
      title: heading of the page.

    Returns:
      The path of the page.
    """
    contents = gather(layout)
    script = _package_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = {
        "tree": contents["tree"],
        "queries": contents["queries"],
        "titles": contents.get("titles", {}),
    }
    page = environment().get_template("page.html")
    text = page.render(
        contents,
        title=title,
        data=data,
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        style=Markup(_package_text("page.css")),
        colours=colours(contents),
        lift_panels=lift_panels(contents["metrics"]) if contents["metrics"] else [],
        ladder_panels=ladder_panels(contents["ladder"]) if contents["ladder"] else {},
        segment_panel=segment_panel(contents["metrics"]) if contents["metrics"] else None,
        belief=belief_panel(contents["metrics"]) if contents["metrics"] else None,
        fine_grained=fine_grained_panels(contents["metrics"], contents["ladder"]),
        data_panels=data_panels(contents["summary"]) if contents["summary"] else [],
        category_panel=category_panel(contents["summary"]) if contents["summary"] else None,
        curve_panels=[curve_panels(stage) for stage in contents["curves"]],
        metric_names={name: METRIC_NAMES[name] for name in PAIR_METRICS},
        task_names=task_names(contents["metrics"]) if contents["metrics"] else {},
        task_gains=task_gains(contents["metrics"]) if contents["metrics"] else "",
        lower_is_better=LOWER_IS_BETTER,
        hits_at=HITS_AT,
    )
    write_text(layout.report, text)
    return layout.report


def colours(contents: Mapping[str, Any]) -> dict[str, str]:
    """Returns a colour class for every rung: one for the full model, one for the baseline."""
    metrics = contents["metrics"] or {"rungs": {}}
    of_metrics = [*metrics["rungs"], *(metrics["leak"]["rungs"] if "leak" in metrics else ())]
    of_tags = [rungs for stage in contents["curves"] for rungs in stage["tags"].values()]
    of_curves = sorted(rung for rungs in of_tags for rung in rungs)
    every = dict.fromkeys([*of_metrics, *contents["health"], *of_curves])
    others = [rung for rung in every if rung not in (BASELINE, FULL)]
    cycled = {rung: f"rung-{place % COLOUR_CYCLE}" for place, rung in enumerate(others)}
    return {BASELINE: "rung-base", FULL: "rung-full"} | cycled


def lift_panels(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns, for every metric, its lifts as rows of an interval chart."""
    panels = []
    for metric in PAIR_METRICS:
        rows = [
            (f"{rung_name(lift['rung'])} − {rung_name(lift['over'])}", lift[metric])
            for lift in metrics["lifts"].values()
            if metric in lift
        ]
        if rows:
            panels.append(_interval_chart(metric, rows))
    return panels


def task_names(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns how the page calls the metrics of ESCI's tasks that some rung has."""
    rungs = metrics.get("esci", {"rungs": {}})["rungs"].values()
    return {
        task: name for task, name in TASK_NAMES.items() if any(task in values for values in rungs)
    }


def task_gains(metrics: Mapping[str, Any]) -> str:
    """Returns whose gains ESCI's first task has, and what each label is worth."""
    name = metrics.get("esci", {}).get("gains", esci.PAPER)
    worth = ", ".join(f"{label} {gain:g}" for label, gain in esci.GAINS[name].items())
    return f"of the {name}: {worth}"


def ladder_panels(ladder: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the lifts of a ladder by kind of gain: of each rung over no SID, of full over each.

    A metric that the ladder of an earlier version lacks is left out.
    """
    panels: dict[str, dict[str, Any]] = {}
    for metric in ("roc_auc", *KINDS_OF_GAIN):
        lifts = [lift for lift in ladder["lifts"].values() if metric in lift]
        rows = {
            f"over {rung_name(BASELINE)}": [
                (rung_name(lift["rung"]), lift[metric])
                for lift in lifts
                if lift["over"] == BASELINE
            ],
            f"of the {rung_name(FULL)} over each": [
                (rung_name(lift["over"]), lift[metric]) for lift in lifts if lift["rung"] == FULL
            ],
        }
        panels |= {
            f"{METRIC_NAMES[metric]} {title}": _interval_chart(metric, shown)
            for title, shown in rows.items()
            if shown
        }
    return panels


def segment_panel(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the lift in ROC-AUC over the baseline by segment of queries."""
    rows = []
    for name, part in [("all queries", metrics), *metrics["segments"].items()]:
        lift = lift_over(part, BASELINE)
        if "roc_auc" in lift:
            rows.append((f"{name} ({part['queries']:,})", lift["roc_auc"]))
    return _interval_chart("roc_auc", rows) if len(rows) > 1 else None


def curve_panels(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, for every tag of a stage, the lines of its rungs on common axes."""
    panels = []
    for tag, rungs in stage["tags"].items():
        points = [point for of_rung in rungs.values() for point in of_rung]
        steps = max(1, *(step for step, _ in points))
        x = charts.Axis(low=0, high=steps)
        y = charts.axis([value for _, value in points], margin=0.06)
        lines = [
            {"rung": rung, "points": charts.polyline(of_rung, x=x, y=y), "last": of_rung[-1][1]}
            for rung, of_rung in rungs.items()
        ]
        panels.append({"tag": tag, "steps": steps, "y": y, "lines": lines})
    return {"stage": stage["stage"], "panels": panels}


def environment() -> jinja2.Environment:
    """Returns what renders the templates beside this module, all texts escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dsirm_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals["sorted_use"] = charts.sorted_use
    environment.filters |= {
        "number": "{:,}".format,
        "percent": lambda share: f"{100 * share:.1f} %",
        "compact": lambda value: f"{value:.4g}",
        "signed": signed,
        "tick": lambda value: f"{value:.6g}".replace("-", "−"),
        "rung": rung_name,
    }
    environment.tests["sure"] = lambda lift: not lift["low"] <= 0 <= lift["high"]
    return environment


def _interval_chart(metric: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, Any]:
    ends = [lift[end] for _, lift in rows for end in ("low", "high")]
    axis = charts.axis([0, *ends], margin=0.08)
    return {
        "metric": metric,
        "axis": axis,
        "rows": [
            {"name": name, "lift": lift, "outcome": outcome(lift, metric)} for name, lift in rows
        ],
    }


def _package_text(name: str) -> str:
    return importlib.resources.files("dsirm_jax.report").joinpath(name).read_text("utf-8")
