"""A full or read-only disk ends each stage in one line, and the same command goes on from there."""

import filecmp
import resource
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

from dsirm_jax.io import arrays
from dsirm_jax.io.errors import StorageError
from tests.job.tiny import command, dsirm, environment

pytestmark = pytest.mark.slow

STAGES = ("prepare", "encode", "quantize", "generate", "features", "match", "relevance", "report")
SMALL = [
    "--gin.simulated_shop.SimulatedShop.items=200",
    "--gin.simulated_shop.SimulatedShop.queries=120",
    "--gin.encode/settings.Training.epochs=1",
    "--gin.quantize/settings.Training.epochs=1",
    "--gin.job.Job.rungs=()",
    "--gin.relevance.run.rungs={'no_sid': @groups.without_sids(), 'full': @groups.all_groups()}",
]
SUFFIXES = (".parquet", ".safetensors", ".model", ".svg", ".npy", ".mdb", ".stablehlo")


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Keeps what one command compiles for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def whole(compiled, tmp_path_factory):
    """A run that never failed."""
    folder = tmp_path_factory.mktemp("whole")
    dsirm("run", folder, *SMALL)
    dsirm("export", folder, *SMALL)
    return folder


def failed(arguments, *, at_most=None):
    """Returns the one line of a command that the disk refuses a file.

    Args:
      arguments: the command.
      at_most: bytes that a file may have.
    """

    def limit():
        if at_most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, at_most))

    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=limit,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("dsirm: ")]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr[-3000:]
    for word in ("Traceback", "Bus error", "Exception ignored", "Error in"):
        assert word not in done.stderr, done.stderr[-3000:]
    return lines[0]


def largest(folder):
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def results(folder):
    """Returns the files that a run or bundle is, by their paths below it, but logs and records."""
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and not {"logs", "checkpoints"} & {*path.parts}
    }


def assert_same(one, other):
    assert results(one) == results(other) != set()
    different = [p for p in results(one) if not filecmp.cmp(one / p, other / p, shallow=False)]
    assert different == []


def test_every_stage_goes_on_where_a_file_was_too_large(whole, tmp_path):
    run = tmp_path / "run"
    for stage in STAGES:
        line = failed(command(stage, run, *SMALL), at_most=largest(whole / stage) // 2)
        assert str(run) in line
        dsirm(stage, run, *SMALL)
    line = failed(command("export", run, *SMALL), at_most=largest(whole / "export") // 2)
    assert str(run) in line
    dsirm("export", run, *SMALL)
    assert_same(run, whole)


def test_a_bundle_is_what_it_was_where_an_update_failed(whole, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(whole / "export/bundle", bundle)
    items = tmp_path / "items.csv"
    items.write_text(
        "item_id,title,category,truth_type,truth_attributes\n"
        "new-1,red kettle,Kitchen,kettle,colour=red\n"
    )
    update = [*command("update-bundle", whole)[:4], str(bundle), f"--items={items}"]
    before = (bundle / "manifest.json").read_bytes()
    assert str(bundle) in failed(update, at_most=largest(bundle / "catalogue-0001") // 2)
    assert (bundle / "manifest.json").read_bytes() == before
    assert_same(bundle / "catalogue-0001", whole / "export/bundle/catalogue-0001")
    done = subprocess.run(update, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (bundle / "manifest.json").read_bytes() != before


@contextmanager
def disk(folder, *, size):
    """A disk of its own, where this user may mount one."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_disk_that_is_full_and_one_that_is_read_only(whole, tmp_path):
    with disk(tmp_path / "disk", size="128k") as folder:
        prepare = command("prepare", folder / "run", *SMALL)
        assert "No space left on device; make room" in failed(prepare)
        with pytest.raises(StorageError, match=f"^{folder}: No space left on device"):
            arrays.scratch((1 << 20,), np.float32, folder=folder)
        remount(folder, "size=64m")
        dsirm("prepare", folder / "run", *SMALL)
        assert_same(folder / "run/prepare", whole / "prepare")
        remount(folder, "ro")
        line = failed(command("encode", folder / "run", *SMALL))
        assert line.startswith(f"dsirm: {folder}/run")
        assert "Read-only file system" in line
