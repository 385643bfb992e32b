"""A job that is killed, again and again, at any moment, ends as one that never was."""

import subprocess
import sys
import time

import numpy as np
import pytest

from tests.faults.tiny import FLAGS, artefacts, differing
from tests.job.tiny import environment

SHORTEST = 3.0
"""Seconds that a process is left at least; most are gone for imports."""


def job(model_dir):
    return [sys.executable, "-m", "dsirm_jax", "run", *FLAGS, f"--gin.MODEL_DIR='{model_dir}'"]


def completed(model_dir):
    """Runs the job to its end; returns the seconds that it took."""
    started = time.monotonic()
    done = subprocess.run(job(model_dir), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    return time.monotonic() - started


def killed_at_random(model_dir, *, kills, longest, generator):
    """Runs the job, killed that many times, then to its end.

    Returns:
      The stages that a kill came in, by their unfinished folders.
    """
    stages = []
    while len(stages) < kills:
        process = subprocess.Popen(
            job(model_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        try:
            process.wait(float(generator.uniform(SHORTEST, longest)))
            assert process.returncode == 0
            break  # it was through before its time had come
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            records = sorted(model_dir.glob("*/stage.json"))
            unfinished = [path for path in records if '"finished": false' in path.read_text()]
            stages.append(unfinished[0].parent.name if unfinished else "between")
    completed(model_dir)
    return stages


def tried(folder, *, kills, seed=0):
    """Returns the stages that kills came in, and the files that are not as without them."""
    generator = np.random.default_rng(seed)
    whole = folder / "whole"
    seconds = completed(whole)
    expected, stages, unequal = artefacts(whole), [], {}
    for number in range(kills):
        if len(stages) >= kills:
            break
        model_dir = folder / f"killed-{number}"
        stages += killed_at_random(
            model_dir,
            kills=min(kills - len(stages), 8),
            # What a process does between two kills is a part of the whole.
            longest=SHORTEST + seconds / 2,
            generator=generator,
        )
        if names := differing(expected, artefacts(model_dir)):
            unequal[model_dir.name] = names
    return stages, unequal


@pytest.mark.slow
def test_a_job_killed_at_any_moment_ends_as_one_that_never_was(tmp_path):
    stages, unequal = tried(tmp_path, kills=8)
    assert unequal == {}
    assert len(stages) == 8 and len(set(stages)) > 1, stages
