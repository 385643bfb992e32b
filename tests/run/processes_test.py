"""A stage that two real processes run is finished when both of them are."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import pytest

from dsirm_jax.io.files import replacing
from dsirm_jax.run import runner
from dsirm_jax.run.layout import Layout
from dsirm_jax.training import processes
from tests.quantizer.processes_test import free_port

PROCESSES = 2
TIMEOUT = 3600  # seconds: only what hangs takes as long


def write_slowly(layout):
    """What every process does: the same file, the second one taking its time."""
    with replacing(layout.stage("match") / "features.parquet") as partial:
        partial.write_bytes(b"features")
        if not processes.is_first():
            time.sleep(2)


def run_process(model_dir, *, index, port):
    jax.distributed.initialize(f"localhost:{port}", num_processes=PROCESSES, process_id=index)
    runner.run_stage(
        runner.Stage(name="match", function=write_slowly),
        Layout(model_dir=model_dir),
        bindings={},
        described={},
        needed={},
        config="",
    )


@pytest.mark.slow
def test_a_stage_is_sealed_when_the_last_process_has_written(tmp_path):
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, tmp_path, str(index), str(port)],
            cwd=pathlib.Path(__file__).parents[2],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(PROCESSES)
    ]
    errors = [process.communicate(timeout=TIMEOUT)[1] for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, errors
    record = json.loads((tmp_path / "match/stage.json").read_text())
    assert set(record["files"]) == {"features.parquet", "config.gin"}


if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    index, port = map(int, numbers)
    run_process(pathlib.Path(folder), index=index, port=port)
