import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.job import Job


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
