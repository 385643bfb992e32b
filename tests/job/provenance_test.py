"""What a MODEL_DIR says of itself is true, whatever commands are given in it."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.job.tiny import command, dsirm, environment


@pytest.fixture
def own(run, tmp_path):
    """A copy of the finished run, in a folder of another name."""
    model_dir, _ = run
    of_readers = shutil.ignore_patterns("predict", "score", "assign", "export")
    return shutil.copytree(model_dir, tmp_path / "moved", ignore=of_readers)


def fails(*arguments, cwd=None):
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), cwd=cwd)
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("\ndsirm: ") + done.stderr.startswith("dsirm: ") == 1
    return done.stderr


def test_a_command_that_is_refused_or_reads_leaves_the_configuration(own):
    before = (own / "config.gin").read_bytes()
    other = "--gin.generate.run.beams=3"
    text = fails(*command("relevance", own, other))
    assert "generate ran with beams = 10, and the configuration says 3" in text
    assert "run `dsirm generate` (or `dsirm run`) with it first" in text
    text = fails(*command("predict-sids", own, "--query=red shoe", other))
    assert "generate ran with beams = 10" in text
    dsirm("predict-sids", own, "--query=red shoe")
    dsirm("run", own)
    assert (own / "config.gin").read_bytes() == before


def test_every_stage_keeps_what_it_ran_with(own):
    before = {
        path: path.read_bytes() for path in own.glob("*/config.gin") if path.parent.name != "report"
    }
    assert {path.parent.name for path in before} >= {"prepare", "encode", "quantize", "relevance"}
    dsirm("report", own, "--gin.report.run.title='Another'")
    assert {path: path.read_bytes() for path in before} == before
    assert "title = 'Another'" in (own / "report/config.gin").read_text()
    assert "title = 'Another'" in (own / "config.gin").read_text()


@pytest.mark.slow
def test_a_flipped_bit_is_named_by_the_next_stage_and_mended_by_run(own):
    path = own / "encode" / "items-00000-of-00001.parquet"
    original = path.read_bytes()
    path.write_bytes(original[:-100] + bytes([original[-100] ^ 1]) + original[-99:])
    text = fails(*command("quantize", own, "--force"))
    assert f"{path} is not what was written; `dsirm encode` (or `dsirm run`) makes it again" in text
    done = dsirm("run", own)
    assert path.read_bytes() == original
    # The same bytes again: nothing that was made of them is stale.
    assert done.stderr.count("finished and unchanged, skipped") == 10


def test_a_second_writer_is_told_who_is_there(own):
    with (own / "locks/run.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = {"pid": 4711, "host": "elsewhere", "since": "2026-01-02", "command": "dsirm run"}
        file.truncate()
        json.dump(known, file)
        file.flush()
        text = fails(*command("quantize", own, "--force"))
    assert f"{own} is in use: process 4711 on elsewhere since 2026-01-02 (dsirm run)" in text
    assert not (own / "successors/quantize").exists()


@pytest.mark.slow
def test_a_killed_writer_holds_nothing(tmp_path):
    running = subprocess.Popen(
        command("run", tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(),
    )  # fmt: skip
    while not (tmp_path / "prepare/stage.json").exists():
        time.sleep(0.05)
        assert running.poll() is None
    text = fails(*command("prepare", tmp_path))
    assert f"in use: process {running.pid} on " in text and "(dsirm run " in text
    running.send_signal(signal.SIGKILL)
    running.wait()
    dsirm("prepare", tmp_path)


@pytest.mark.slow
def test_a_run_of_version_0_2_is_taken_up(own):
    """Its records are made of those of today, in the form that version 0.2 wrote."""
    folders = [path.parent for path in own.rglob("stage.json")]
    assert len(folders) == 11
    for folder in folders:
        record = json.loads((folder / "stage.json").read_text())
        kept = ("bindings", "inputs", "finished", "stage", "seconds")
        old = {key: record[key] for key in kept} | {"version": "0.2.0"}
        old["fingerprint"] = f"of {record['stage']}"
        old["inputs"] = {name: f"of {name}" for name in record["inputs"]}
        (folder / "stage.json").write_text(json.dumps(old))
        (folder / "config.gin").unlink()
    dropped = own / "match/stage.json"
    old = json.loads(dropped.read_text())
    old["inputs"]["generate"] = "of another"
    dropped.write_text(json.dumps(old))
    text = fails(*command("relevance", own))
    assert "was made by version 0.2, which sealed nothing" in text
    files = {path: path.read_bytes() for path in own.glob("*/*.parquet")}
    done = dsirm("run", own)
    assert done.stderr.count("made by version 0.2, taken up and sealed as it is") == 8
    assert "match: runs again (made by version 0.2: input generate changed)" in done.stderr
    assert (own / "replaced/match-1/features.parquet").is_file()
    assert {path: path.read_bytes() for path in files} == files
    assert dsirm("run", own).stderr.count("finished and unchanged, skipped") == 11


def test_a_run_that_was_moved_is_read_where_it_lies(own, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "predict-sids", "--gin_file=moved/config.gin",
         "--query=red shoe"],
        capture_output=True, text=True, cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("red shoe\n")
