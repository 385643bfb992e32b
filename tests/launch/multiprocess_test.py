"""Two real processes, started as a user does, write what one process with two devices writes."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline_test import TINY

FLAGS = (
    *TINY,
    "--gin.job.Job.rungs=()",
    "--gin.pipeline.relevance.rungs={'no_sid': ('dense',), 'full': ('dense', 'prefix')}",
)
TIMEOUT = 400  # seconds


def launch(*arguments, devices):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    here = Path(sys.executable).parent  # where pip puts dsirm
    environment = {"PATH": f"{here}:{os.environ['PATH']}", "XLA_FLAGS": flags}
    done = subprocess.run(
        arguments, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_two_processes_write_the_tables_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch("launch/local.sh", "demo", str(one), *FLAGS, devices=2)
    done = launch("launch/multiprocess.sh", "2", "demo", str(two), *FLAGS, devices=1)
    assert done.stdout.count("report: ") == 1
    names = {str(path.relative_to(one)) for path in one.rglob("*.parquet")}
    assert names == {str(path.relative_to(two)) for path in two.rglob("*.parquet")}
    for name in names:
        assert pq.read_table(one / name).equals(pq.read_table(two / name)), name
    figures = [(folder / "relevance/metrics.json").read_text() for folder in (one, two)]
    assert figures[0] == figures[1]
    assert "starts" not in (two / "processes/1.log").read_text()
