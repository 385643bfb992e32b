"""One finished run of the tiny job for all tests."""

import fcntl
import json
import os
import shutil
import subprocess

import pytest

from tests.job.tiny import dsirm


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run that one of pytest's processes makes, and each has a copy of; and what was said."""
    mine = tmp_path_factory.getbasetemp()
    all_processes = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    made, said = all_processes / "run-made", all_processes / "run-said.json"
    with open(all_processes / "run-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            shutil.rmtree(made, ignore_errors=True)
            done = dsirm("run", made)
            said.write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}))
    model_dir = shutil.copytree(made, tmp_path_factory.mktemp("copies") / "run")
    config = model_dir / "config.gin"
    config.write_text(config.read_text().replace(str(made), str(model_dir)))
    said_here = said.read_text().replace(str(made), str(model_dir))
    return model_dir, subprocess.CompletedProcess([], 0, **json.loads(said_here))
