from pathlib import Path

import numpy as np

from dsirm_jax.report import curves
from dsirm_jax.report.gather import rungs_with_sids
from dsirm_jax.training import events


def test_of_a_step_that_a_resumed_run_repeats_the_last_value_counts(logged):
    found = curves.read_curves(logged.stage("quantize") / "logs")
    assert found["loss"] == [(1, 3.0), (2, 1.5), (3, 1.0)]


def test_rungs_of_a_stage_come_together_and_the_loss_first(logged):
    (stage,) = curves.training_curves(logged, rungs=rungs_with_sids(logged))
    assert stage["stage"] == "quantize"
    assert list(stage["tags"]) == ["loss", "commitment"]
    assert stage["tags"]["loss"] == {
        "full": [(1, 3.0), (2, 1.5), (3, 1.0)],
        "unsupervised": [(1, 4.0), (3, 2.0)],
    }


def test_values_that_are_not_finite_are_left_out(tmp_path):
    with events.writer(tmp_path) as write:
        for step, loss in enumerate([1.0, float("nan"), 0.5]):
            write(step, {"loss": loss})
    assert curves.read_curves(tmp_path) == {"loss": [(0, 1.0), (2, 0.5)]}


def test_event_files_that_tensorflow_wrote_are_read():
    """The file is `tf.summary.scalar("loss", 0.5 ** step, step)` of the steps 0 to 2."""
    golden = Path(__file__).parent / "golden"
    assert curves.read_curves(golden) == {"loss": [(0, 1.0), (1, 0.5), (2, 0.25)]}


def test_long_curves_are_thinned_to_means():
    points = [(step, float(step)) for step in range(1, 1001)]
    thin = curves.thinned(points, most=100)
    assert len(thin) == 100
    assert thin[0] == (6, 5.5)  # steps 1 to 10
    assert np.mean([value for _, value in thin]) == np.mean([value for _, value in points])
    assert curves.thinned(points[:7], most=7) == points[:7]
