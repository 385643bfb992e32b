import json
import os
import socket
import subprocess
import sys

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.lock import held

HOLDS = """
import sys, time
from pathlib import Path
from dsirm_jax.io.lock import held

sys.argv = ["dsirm", "run", "--force"]
with held(Path("{path}"), what="out"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_anothers_until_that_is_killed(tmp_path):
    path = tmp_path / "new/run.lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS.format(path=path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError) as error, held(path, what="out"):
        pass
    expected = f"out is in use: process {other.pid} on {socket.gethostname()} since "
    assert str(error.value).startswith(expected)
    assert "(dsirm run --force); wait until it is done, or stop it" in str(error.value)
    other.kill()
    other.communicate()
    with held(path, what="out"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lock_is_free_again_after_its_block(tmp_path):
    for _ in range(2):
        with held(tmp_path / "run.lock", what="out"):
            pass


def test_whoever_holds_it_need_not_have_said_so_yet(tmp_path):
    path = tmp_path / "run.lock"
    with held(path, what="out"):
        path.write_text("")
        with pytest.raises(InputError, match="out is in use; wait"), held(path, what="out"):
            pass
