import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dsirm_jax.io.errors import InputError, StorageError
from dsirm_jax.training import checkpoints
from dsirm_jax.training.meshes import data_mesh, sharded

DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "deleted": None,
}


def state_of(step, *, rows=8):
    rng = np.random.default_rng(step)
    return {
        "step": np.asarray(step, np.int32),
        "params": {"kernel": rng.normal(size=(rows, 16)).astype("f4"), "scale": np.ones(16, "f4")},
        "moments": [rng.normal(size=rows).astype("f4"), rng.integers(0, 9, 5).astype("i4")],
    }


def save(directory, *steps):
    with checkpoints.manager(directory) as opened:
        for step in steps:
            checkpoints.save(opened, step=step, state=state_of(step))


def restore(directory, *, like=None):
    with checkpoints.manager(directory) as opened:
        return checkpoints.restore_newest(opened, like=state_of(0) if like is None else like)


def assert_is(state, step):
    jax.tree.map(np.testing.assert_array_equal, state, state_of(step))


def committed(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    save(directory, 1, 2)
    return directory


def files(step):
    return sorted(str(path.relative_to(step)) for path in step.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damaged_file_is_named_and_the_last_good_step_used(saved, kind, tmp_path, caplog):
    names = files(saved / "2")
    assert len(names) >= 10
    for number, name in enumerate(names):
        directory = tmp_path / str(number)
        shutil.copytree(saved, directory)
        path = directory / "2" / name
        content = path.read_bytes()
        path.unlink() if kind == "deleted" else path.write_bytes(DAMAGE[kind](content))
        caplog.clear()
        state, step = restore(directory)
        if name in ("_CHECKPOINT_METADATA", "commit_success.txt"):  # no number depends on these
            assert step == 2 and not caplog.messages
            assert_is(state, 2)
            continue
        assert step == 1, name
        assert_is(state, 1)
        (said,) = caplog.messages
        assert f"{directory / '2'} is damaged ({name}" in said or checkpoints.CHECKSUMS in name
        assert f"kept in {directory / 'unreadable/2-1'}" in said
        found = directory / "unreadable/2-1" / name
        assert not found.exists() if kind == "deleted" else found.is_file()
        save(directory, 2)
        assert_is(restore(directory)[0], 2)


def test_a_file_that_was_not_saved_is_damage(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    (tmp_path / "c/2/default/stranger").write_text("")
    assert checkpoints.step_damage(tmp_path / "c/2") == "default/stranger is not in SHA256SUMS"


def test_sha256sum_reads_the_checksums(saved):
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=saved / "2")
    assert done.returncode == 0


def test_steps_damaged_one_after_the_other_are_all_kept(saved, tmp_path, caplog):
    directory = tmp_path / "c"
    shutil.copytree(saved, directory)
    for step in (1, 2):
        (directory / f"{step}/default/manifest.ocdbt").write_bytes(b"")
    state, step = restore(directory)
    assert step == 0
    assert_is(state, 0)
    assert len(caplog.messages) == 2
    save(directory, 2)
    (directory / "2/default/manifest.ocdbt").write_bytes(b"")
    restore(directory)
    kept = sorted(path.name for path in (directory / "unreadable").iterdir())
    assert kept == ["1-1", "2-1", "2-2"]


def test_a_whole_checkpoint_of_another_model_is_an_error_and_stays(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    with pytest.raises(InputError, match="2: the checkpoint is whole, but .* shape"):
        restore(tmp_path / "c", like=state_of(0, rows=9))
    assert committed(tmp_path / "c") == [1, 2]


def test_another_run_is_read_and_left_as_it_is(saved, tmp_path, caplog):
    directory = tmp_path / "c"
    shutil.copytree(saved, directory)
    assert_is(checkpoints.read_result(directory, like=state_of(0)), 2)
    (directory / "2/default/manifest.ocdbt").write_bytes(b"")
    assert_is(checkpoints.read_result(directory, like=state_of(0)), 1)
    assert "default/manifest.ocdbt is not what was written" in caplog.text
    with pytest.raises(InputError, match="whole, but"):
        checkpoints.read_result(directory, like=state_of(0, rows=9))
    (directory / "1/SHA256SUMS").unlink()
    assert committed(directory) == [1, 2]
    with pytest.raises(InputError, match="no good checkpoint"):
        checkpoints.read_result(directory, like=state_of(0))


LOSSES = {1: 0.5, 2: 0.25, 3: 0.75, 4: 1.0}


def save_measured(directory):
    with checkpoints.manager(directory, best=True) as opened:
        for step, loss in LOSSES.items():
            checkpoints.save(opened, step=step, state=state_of(step), loss=loss)
        return checkpoints.restore_best(opened, like=state_of(0))


def test_the_step_of_least_loss_is_kept_and_is_what_another_run_goes_on_from(tmp_path, caplog):
    state, best = save_measured(tmp_path)
    assert best == 2
    assert_is(state, 2)
    assert committed(tmp_path) == [2, 3, 4]
    assert_is(checkpoints.read_result(tmp_path, like=state_of(0)), 2)
    assert restore(tmp_path)[1] == 4  # a run that was killed goes on from the newest
    (tmp_path / "2/metrics/metrics").write_text("{")
    assert_is(checkpoints.read_result(tmp_path, like=state_of(0)), 3)
    with checkpoints.manager(tmp_path, best=True) as opened:
        assert opened.best_step() == 3
    assert (tmp_path / "unreadable/2-1").is_dir()
    assert "2 is damaged (metrics/metrics is not what was written)" in caplog.text


def test_a_best_step_that_is_damaged_while_training_goes_on_is_an_error(tmp_path):
    with checkpoints.manager(tmp_path, best=True) as opened:
        checkpoints.save(opened, step=1, state=state_of(1), loss=0.5)
        opened.wait_until_finished()
        (tmp_path / "1/default/manifest.ocdbt").write_bytes(b"")
        with pytest.raises(InputError, match="1 is damaged .*run the same again"):
            checkpoints.restore_best(opened, like=state_of(0))


@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_fails_is_reported_and_the_next_is_made(
    tmp_path, caplog, monkeypatch, background
):
    owner, name = (checkpoints, "seal_step") if background else (ocp.AsyncCheckpointer, "save")
    original, calls = getattr(owner, name), itertools.count(1)

    def twice_full(*args, **kwargs):
        if next(calls) <= 2:
            raise OSError("No space left on device")
        return original(*args, **kwargs)

    with checkpoints.manager(tmp_path) as opened:
        checkpoints.save(opened, step=1, state=state_of(1))
        opened.wait_until_finished()
        monkeypatch.setattr(owner, name, twice_full)
        for step in (2, 3, 4):
            checkpoints.save(opened, step=step, state=state_of(step))
        opened.wait_until_finished()
        assert list(opened.all_steps()) == [1, 4]
    assert caplog.text.count("could not be written (No space left on device)") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4"]
    assert_is(restore(tmp_path)[0], 4)


def test_a_last_save_that_fails_is_an_error(tmp_path, monkeypatch):
    def full(step):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "seal_step", full)
    with pytest.raises(StorageError, match="No space left on device.*make room"):
        save(tmp_path, 1)
    assert committed(tmp_path) == []
    monkeypatch.undo()
    assert restore(tmp_path)[1] == 0
    save(tmp_path, 1)
    assert committed(tmp_path) == [1]
    assert not list(tmp_path.glob("*tmp*"))


@pytest.mark.parametrize("before, after", list(itertools.permutations([1, 2, 4, 8], 2)))
def test_states_move_between_numbers_of_devices(tmp_path, before, after):
    def put(state, devices):
        return sharded(data_mesh(jax.devices()[:devices])).put_state(state)

    with checkpoints.manager(tmp_path) as opened:
        checkpoints.save(opened, step=1, state=put(state_of(1), before))
    state, _ = restore(tmp_path, like=put(state_of(0), after))
    assert len(state["params"]["kernel"].devices()) == after
    assert_is(jax.device_get(state), 1)


def killed_at(moment, directory):
    """Saves steps 1, 2, ... and is killed during the third, when `moment` has come."""
    patched = {
        "before the checksums": (checkpoints, "seal_step", "before"),
        "between the checksums and the commit": (checkpoints, "seal_step", "after"),
        "while files are written": (ocp.AsyncCheckpointer, "save", "after"),
        "while an old step is deleted": (shutil, "rmtree", "before"),
    }
    owner, name, when = patched[moment]
    original, calls = getattr(owner, name), itertools.count(1)

    def patch(*args, **kwargs):
        fatal = next(calls) == (1 if name == "rmtree" else 3)
        if fatal and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, patch)
    save(directory, 1, 2, 3, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment, left",
    [
        ("before the checksums", 2),
        ("between the checksums and the commit", 2),
        ("while files are written", 2),
        ("while an old step is deleted", 3),
    ],
)
def test_a_process_killed_while_it_saves_leaves_the_step_before(tmp_path, moment, left):
    done = subprocess.run(
        [sys.executable, "-m", __name__, moment, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    state, step = restore(tmp_path)
    assert step == left
    assert_is(state, left)
    save(tmp_path, left + 1)
    assert_is(restore(tmp_path)[0], left + 1)
    assert not list(tmp_path.glob("*tmp*"))


if __name__ == "__main__":
    killed_at(sys.argv[1], Path(sys.argv[2]))
