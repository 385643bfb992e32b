"""Two real processes, started as a user does, write what one process with two devices writes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests import compilation
from tests.job.tiny import NO_ABLATION, TINY
from tests.quantizer.processes_test import free_port

FLAGS = (*TINY, *NO_ABLATION)
LONG = (
    "--gin.quantize/settings.Training.epochs=200",
    "--gin.quantize/settings.Training.checkpoint_every=20",
)
TIMEOUT = 3600  # seconds: only what hangs takes as long
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # sums over processes round in another order


def launch(*arguments, devices):
    here = Path(sys.executable).parent  # where pip puts dsirm
    environment = {
        "PATH": f"{here}:{os.environ['PATH']}",
        "XLA_FLAGS": compilation.flags(devices=devices),
    }
    done = subprocess.run(
        arguments, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def leaves(column):
    values = pa.chunked_array(column.chunks, column.type)
    while pa.types.is_nested(values.type):
        values = pc.list_flatten(values)
    return values


def assert_same_tables(one, two):
    """Floats to `CLOSE`; texts, codes, labels and the lengths of lists to the letter."""
    assert one.schema.equals(two.schema)
    for name in one.column_names:
        if pa.types.is_floating(leaves(one[name]).type):
            pairs = (leaves(one[name]).to_numpy(), leaves(two[name]).to_numpy())
            np.testing.assert_allclose(*pairs, **CLOSE, err_msg=name)
        else:
            assert one[name].equals(two[name]), name


def numbers(tree, path=""):
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in numbers(tree[key], f"{path}/{key}").items()}
    if isinstance(tree, list):
        return numbers(dict(enumerate(tree)), path)
    return {path: tree}


@pytest.mark.slow
def test_two_processes_write_the_tables_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch("launch/local.sh", "demo", str(one), *FLAGS, devices=2)
    done = launch("launch/multiprocess.sh", "2", "demo", str(two), *FLAGS, devices=1)
    assert done.stdout.count("report: ") == 1
    names = {str(path.relative_to(one)) for path in one.rglob("*.parquet")}
    assert names == {str(path.relative_to(two)) for path in two.rglob("*.parquet")}
    for name in names:
        assert_same_tables(pq.read_table(one / name), pq.read_table(two / name))
    figures = [
        numbers(json.loads((folder / "relevance/metrics.json").read_text()))
        for folder in (one, two)
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3, nan_ok=True)
    assert "starts" not in (two / "processes/1.log").read_text()


def whole(checkpoints):
    """The checkpoints that have their final name, which is their step alone."""
    return [path for path in checkpoints.glob("*") if path.name.isdecimal()]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_other_hanging_and_all_go_on(tmp_path):
    flags = [*FLAGS, f"--gin.MODEL_DIR='{tmp_path}'", *LONG]
    dsirm = [sys.executable, "-m", "dsirm_jax"]
    for stage in ("prepare", "encode"):
        launch(*dsirm, stage, *flags, devices=1)
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}

    def start(index):
        return subprocess.Popen(
            [*dsirm, "quantize", "--distributed", *flags],
            env=os.environ
            | shared
            | {"JAX_PROCESS_ID": str(index), "XLA_FLAGS": compilation.flags(devices=1)},
            stderr=subprocess.PIPE,
            text=True,
        )

    steps = tmp_path / "quantize/checkpoints"
    first, second = start(0), start(1)
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (saved := whole(steps)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert saved
        second.kill()
        _, said = first.communicate(timeout=TIMEOUT)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    # By our own line, or by that of JAX's heartbeat where no exchange was under way.
    assert first.returncode in (75, -signal.SIGABRT), said[-3000:]
    assert re.search("another process of this job is gone|another task died", said)
    done = launch(*dsirm, "quantize", *flags, devices=2)  # with as many devices
    assert "quantize: goes on from the checkpoint of step" in done.stderr
