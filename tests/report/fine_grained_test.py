"""What the page says of fine-grained distinctions."""

from __future__ import annotations

import json

from dsirm_jax.report.build import write_report
from dsirm_jax.report.fine_grained import fine_grained_panels, summary


def interval(value, low, high):
    return {"value": value, "low": low, "high": high}


FINE = {
    "source": "truth",
    "queries": 1234,
    "pairs": 5678,
    "kinds": {"colour": {"queries": 321, "pairs": 654}},
    "rungs": {
        "no_sid": {"all": interval(0.7, 0.6, 0.8), "colour": interval(0.65, 0.6, 0.7)},
        "full": {"all": interval(0.732, 0.6, 0.8), "colour": interval(0.66, 0.6, 0.7)},
    },
    "lifts": {
        "full": {
            "rung": "full",
            "over": "no_sid",
            "all": interval(0.032, 0.011, 0.05),
            "colour": interval(0.01, -0.02, 0.04),
        }
    },
}


def test_a_sentence_says_how_often_and_whether_sids_help():
    assert summary(FINE) == (
        "Of two items that differ in one attribute, the full model ranks the one that was asked "
        "for first in 73.2 % of the cases, surely 3.2 points more than no SID (+1.1 to +5.0)."
    )
    lift = {"rung": "full", "over": "no_sid", "all": interval(-0.004, -0.02, 0.01)}
    assert "perhaps 0.4 points fewer than no SID (−2.0 to +1.0)" in summary(
        FINE | {"lifts": {"full": lift}}
    )
    assert summary(FINE | {"lifts": {}}).endswith("73.2 % of the cases.")


def test_runs_that_measured_nothing_have_no_panel():
    assert fine_grained_panels(None, {}, {"fine_grained": {}}) == []
    (panel,) = fine_grained_panels({"fine_grained": FINE}, None)
    assert panel["columns"]["all"] == {"queries": 1234, "pairs": 5678}


def test_the_page_has_the_figures(layout):
    without = write_report(layout=layout, title="x").read_text("utf-8")
    assert "fine-grained" not in without
    metrics = json.loads(layout.metrics.read_text("utf-8"))
    layout.metrics.write_text(json.dumps(metrics | {"fine_grained": FINE}), "utf-8")
    page = write_report(layout=layout, title="x").read_text("utf-8")
    assert '<a href="#fine-grained">' in page
    assert "321 queries, 654 pairs" in page
    assert "0.7320" in page
    assert page.count("as the simulated shop knows") == 1
