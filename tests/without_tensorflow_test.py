"""Training from arrays, prediction, scores and serving need no TensorFlow."""

import json
import os
import subprocess
import sys

from tests.serving import tiny


def test_everything_but_the_dataset_and_t5x_works_without_tensorflow(tmp_path):
    bundle = tiny.make(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_tensorflow", tmp_path, bundle],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "failed": ["dsirm_jax.data.dataset", "dsirm_jax.generator.t5x_model"],
        "quantizer": [96, 3],
        "encoder": [8, 16],
        "generator": [4, 2, 3, 4, 3],
        "head": [300],
        "serving": ["cached", "live"],
        "loaded": [],
    }
