import os
import subprocess
import sys

import pytest

from dsirm_jax.training import processes


def test_a_process_that_stands_alone_does_everything_itself():
    assert processes.is_first() and not processes.several()
    processes.wait()
    assert processes.first(lambda: True) is True
    assert processes.first(lambda: None) is False
    with pytest.raises(KeyError):
        processes.first(lambda: {}["missing"])


def test_without_distribution_jax_is_not_imported():
    code = (
        "import sys; from dsirm_jax.training import processes as p; p.first(print); p.wait(); "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            {},
            "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start under",
            id="nothing given",
        ),
        pytest.param(
            {"JAX_NUM_PROCESSES": "two"},
            "JAX_NUM_PROCESSES=two: give a whole number",
            id="not a number",
        ),
        pytest.param(
            {
                "JAX_COORDINATOR_ADDRESS": "localhost:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "2",
            },
            "process_id < num_processes",
            id="process out of range",
        ),
    ],
)
def test_processes_that_cannot_find_each_other_say_what_is_missing(given, said):
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "run", "--distributed", "--gin_file=gin/runs/demo.gin"],
        env=os.environ | given,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.startswith("dsirm: ")
