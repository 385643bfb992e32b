import json
import os

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.job import Job, Task, run_tasks
from dsirm_jax.run.record import RECORD
from dsirm_jax.run.runner import Stage


@pytest.fixture
def go(tmp_path):
    """Runs a stage that reads a file or folder of the user's, and counts how often it ran."""
    job = Job(model_dir=str(tmp_path / "run"), seed=0, rungs=())
    runs = []
    stage = Stage(
        name="generate",
        function=lambda layout, **bindings: runs.append(bindings),
        execution_only=("workers",),
        paths=("start",),
    )

    def run(**bindings):
        task = Task(stage=stage, layout=job.layout, bindings=bindings)
        run_tasks([task], job=job, force=False)
        return len(runs)

    run.layout = job.layout
    return run


def rewritten(path, text, *, seconds):
    path.write_text(text)
    os.utime(path, (seconds, seconds))


def test_contents_of_a_named_file_are_part_of_the_fingerprint(go, tmp_path):
    file = tmp_path / "vocabulary.model"
    rewritten(file, "one", seconds=10)
    assert go(start=str(file)) == 1
    assert go(start=str(file)) == 1
    rewritten(file, "one", seconds=11)  # touched, and the same
    assert go(start=str(file)) == 1
    rewritten(file, "two", seconds=11)  # of the same size and time
    assert go(start=str(file)) == 2
    record = json.loads((go.layout.stage("generate") / RECORD).read_text())
    # printf two | sha256sum
    two = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    assert record["bindings"]["files"] == {str(file): two}


def test_contents_of_a_named_folder_are_part_of_the_fingerprint(go, tmp_path):
    folder = tmp_path / "weights" / "deep"
    folder.mkdir(parents=True)
    rewritten(folder / "a", "one", seconds=10)
    assert go(start=str(folder.parent)) == 1
    rewritten(folder / "b", "two", seconds=10)
    assert go(start=str(folder.parent)) == 2
    assert go(start=str(folder.parent)) == 2
    (folder / "b").unlink()
    assert go(start=str(folder.parent)) == 3


def test_what_is_not_bound_is_no_file(go):
    assert go(start=None) == 1
    assert "files" not in json.loads((go.layout.stage("generate") / RECORD).read_text())["bindings"]


def test_a_named_file_that_is_not_there_is_an_input_error(go, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        go(start=str(tmp_path / "nowhere"))


def test_how_the_work_is_done_is_no_part_of_the_fingerprint(go):
    assert go(start=None, workers=1) == 1
    assert go(start=None, workers=2) == 1


def job(**changes):
    return Job(**{"model_dir": "out", "seed": 0, "rungs": ("unsupervised",)} | changes)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_seed_that_is_none_is_named(seed):
    with pytest.raises(InputError, match=f"gin binding Job.seed is {seed}; bind a whole number"):
        job(seed=seed)


@pytest.mark.parametrize(
    "rungs", [("a/b",), ("..",), ("",), ("full",), ("one", "one"), "one", (3,)], ids=str
)
def test_rungs_that_name_no_folder_or_scope_of_their_own_are_refused(rungs):
    with pytest.raises(InputError, match="gin binding Job.rungs is .*different names"):
        job(rungs=rungs)


def test_a_job_without_rungs_of_its_own_is_one():
    assert job(rungs=()).halves == (job().layout,)
