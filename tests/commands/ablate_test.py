"""The page of a ladder in a folder without a run."""

from __future__ import annotations

import json

import gin
import pytest

from dsirm_jax.commands import ablate
from dsirm_jax.run import configuration
from dsirm_jax.run.job import Job
from dsirm_jax.run.record import finished_record
from dsirm_jax.run.runner import Stage, run_stage

LIFT = {"value": 0.02, "low": 0.01, "high": 0.03, "relative": 0.025}
LADDER = {
    "queries": 40,
    "pairs": 400,
    "resamples": 9,
    "folds": 2,
    "seeds": 1,
    "controls": ["no_sid", "judged"],
    "share_within": {"value": 0.025, "low": 0.02, "high": 0.03},
    "rungs": {
        rung: {"roc_auc": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        for rung, value in (("no_sid", 0.7), ("judged", 0.8), ("full", 0.82))
    },
    "lifts": {
        "full": {"rung": "full", "over": "no_sid", "roc_auc": LIFT},
        "full over judged": {"rung": "full", "over": "judged", "roc_auc": LIFT},
    },
    "segments": {},
}


def judge(layout):
    layout.ladder.write_text(json.dumps(LADDER))


@pytest.fixture
def job(tmp_path):
    files = ["gin/runs/demo.gin", "gin/runs/ablate.gin"]
    configuration.parse(files=files, bindings=[f"MODEL_DIR = '{tmp_path / 'run'}'"])
    job = configuration.call_with_bound(Job)
    run_stage(
        Stage(name="ablate", function=judge),
        job.layout,
        bindings={},
        described={},
        needed={},
        config="FOLDS = 2\n",
    )
    yield job
    gin.clear_config(clear_constants=True)


def test_a_ladder_has_a_report_of_its_own(job):
    ablate.write_page(job, trust=False)
    page = job.layout.report.read_text("utf-8")
    assert "DSIRM on a simulated shop" in page and 'id="ladder"' in page
    assert "over judged neighbours by kernel, the strongest of 2 controls without codes." in page
    assert list(finished_record(job.layout.stage("report")).inputs) == ["ablate"]
    written = job.layout.report.stat().st_mtime_ns
    ablate.write_page(job, trust=False)
    assert job.layout.report.stat().st_mtime_ns == written
