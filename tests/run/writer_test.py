import subprocess
import sys

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.writer import sole_writer

HOLDS = """
import sys, time
from pathlib import Path
from dsirm_jax.io.lock import held

with held(Path(sys.argv[1]), what="out"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Starts a process that holds a lock of the run."""
    started = []

    def start(name):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(tmp_path / "locks" / name)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("name", ["run.lock", "run-1.lock"], ids=["the first", "another"])
def test_a_job_is_over_when_its_last_process_is(tmp_path, other, name):
    layout = Layout(model_dir=tmp_path)
    process = other(name)
    refusal = f"{tmp_path} is in use: process {process.pid} on "
    with pytest.raises(InputError, match=refusal), sole_writer(layout):
        pass
    process.kill()
    process.wait()
    with sole_writer(layout):
        pass


def test_who_reads_a_run_is_in_the_way_of_nobody_but_its_like(tmp_path, other):
    layout = Layout(model_dir=tmp_path)
    other("score.lock")
    with sole_writer(layout), sole_writer(layout, name="predict"):
        pass
    with pytest.raises(InputError, match=r"/score is in use"), sole_writer(layout, name="score"):
        pass
