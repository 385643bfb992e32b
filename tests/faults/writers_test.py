"""Two commands never write into one MODEL_DIR, whenever the second one comes."""

import subprocess
import time

import numpy as np
import pytest

from tests.faults.tiny import FLAGS, artefacts, differing
from tests.job.tiny import command, dsirm, environment

SECOND = ("run", "prepare", "encode", "quantize", "features")


@pytest.mark.slow
def test_a_second_command_is_refused_and_changes_nothing(tmp_path):
    one, alone = tmp_path / "one", tmp_path / "alone"
    flags = FLAGS[len(FLAGS) - 5 :]
    long = "--gin.quantize/settings.Training.epochs=400"
    running = subprocess.Popen(
        command("run", one, *flags, long),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    while not (one / "prepare/stage.json").exists():
        time.sleep(0.05)
        assert running.poll() is None
    generator, refused = np.random.default_rng(0), 0
    for number in range(4):
        time.sleep(float(generator.uniform(0, 1)))
        others = [
            subprocess.Popen(
                command(stage, one, *flags, f"--gin.SEED={number + 1}"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for stage in SECOND
        ]
        for other in others:
            text = other.communicate()[1]
            assert running.poll() is None, "the first ended too early to be in anybody's way"
            assert f"is in use: process {running.pid} on " in text, text
            refused += other.returncode == 2
    assert refused == 20
    assert running.communicate()[1] and running.returncode == 0
    dsirm("run", alone, *flags, long)
    assert differing(artefacts(one), artefacts(alone)) == []
    assert "SEED = 0" in (one / "config.gin").read_text()
