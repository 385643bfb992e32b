"""Writes the report: one HTML file that opens from disk and needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from markupsafe import Markup

import dsirm_jax
from dsirm_jax.files import write_text
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.relevance.evaluate import LOWER_IS_BETTER, METRICS
from dsirm_jax.report import charts, gather

METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "per_query_auc": "AUC within queries",
    "pr_auc": "PR-AUC",
    "log_loss": "Log-loss",
    "ece": "Calibration error",
    "ndcg@10": "nDCG@10",
}
RUNG_NAMES = {"no_sid": "no SID", "unsupervised": "unsupervised SIDs", FULL: "full"}
BASE = "no_sid"


def build(*, layout: Layout, title: str) -> Path:
    """Builds the page of a finished run.

    Args:
      layout: the run; every stage but the report is finished.
      title: heading of the page.

    Returns:
      Where the page is.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("dsirm_jax.report", "."),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": "{:.1%}".format, "signed": "{:+.4f}".format}
    text = environment.get_template("page.html").render(content(layout, title=title))
    write_text(layout.report, text)
    return layout.report


def content(layout: Layout, *, title: str) -> dict[str, Any]:
    """Returns every value that the template shows."""
    folder = Path(__file__).parent
    metrics = gather.read_json(layout.metrics)
    catalogue = gather.Catalogue(layout)
    health = {
        rung: gather.read_json(layout.for_rung(rung).health)
        for rung in gather.rungs_with_sids(layout)
    }
    data = {"tree": gather.sid_tree(catalogue), "examples": gather.examples(layout, catalogue)}
    return {
        "title": title,
        "style": Markup((folder / "page.css").read_text(encoding="utf-8")),
        "script": Markup((folder / "page.js").read_text(encoding="utf-8")),
        "data": embedded(data),
        "counts": {
            "items": pq.read_metadata(layout.items).num_rows,
            "queries": pq.read_metadata(layout.queries).num_rows,
            "judgements": pq.read_metadata(layout.judgements).num_rows,
        },
        "metrics": metrics,
        "metric_names": {name: METRIC_NAMES[name] for name in METRICS},
        "lower_is_better": LOWER_IS_BETTER,
        "rung_names": RUNG_NAMES,
        "base": BASE,
        "lift": metrics["lifts"].get(FULL, {}).get("roc_auc"),
        "lift_chart": lift_chart(metrics),
        "health": health,
        "code_bars": {
            rung: [
                charts.bars(level["counts"], label=f"use of the codes of level {number}")
                for number, level in enumerate(found["levels"], start=1)
            ]
            for rung, found in health.items()
        },
        "curves": curve_charts(layout),
        "summary": gather.read_json(layout.stage("prepare") / "summary.json"),
        "times": gather.stage_times(layout),
        "config": layout.config.read_text(encoding="utf-8"),
        "version": dsirm_jax.__version__,
    }


def embedded(value: Any) -> Markup:
    """Returns JSON that is safe inside a script element, whatever the texts in it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def lift_chart(metrics: dict[str, Any]) -> Markup | None:
    """Returns the lifts in ROC-AUC of the whole test split and of its segments."""
    rows = []
    for part, found in [("all queries", metrics), *metrics["segments"].items()]:
        for lift in found["lifts"].values():
            if lift["over"] == BASE and "roc_auc" in lift:
                of = lift["roc_auc"]
                name = f"{RUNG_NAMES.get(lift['rung'], lift['rung'])}, {part}"
                rows.append((name, of["value"], of["low"], of["high"]))
    return charts.intervals(rows, label="Lifts in ROC-AUC over no SID") if rows else None


def curve_charts(layout: Layout) -> list[dict[str, Any]]:
    """Returns a chart for every curve of every learnt stage."""
    return [
        {
            "name": stage["name"],
            "charts": [
                {"tag": tag, "chart": charts.line(points, label=f"{stage['name']}, {tag}")}
                for tag, points in sorted(stage["curves"].items())
                if len(points) > 1
            ],
        }
        for stage in gather.training_curves(layout)
    ]
