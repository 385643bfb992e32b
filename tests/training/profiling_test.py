import contextlib
import contextvars

import jax
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.training import profiling


def traced(steps, numbers, logs):
    """Returns when traces began and ended, and the steps worked on in between."""
    seen = []

    @contextlib.contextmanager
    def trace(folder):
        assert folder == str(logs)
        seen.append("start")
        yield
        seen.append("stop")

    def work():
        if steps:
            profiling.choose_steps(steps)
        numbered = [(number, None) for number in numbers]
        for number, _ in profiling.traced(numbered, logs=logs, trace=trace):
            seen.append(number)

    contextvars.copy_context().run(work)
    return seen


def test_the_chosen_steps_are_traced(tmp_path):
    assert traced("2:3", range(1, 6), tmp_path) == [1, "start", 2, 3, "stop", 4, 5]
    assert traced("2:2", [1, 2], tmp_path) == [1, "start", 2, "stop"]
    assert traced("2:9", [1, 2, 3], tmp_path) == [1, "start", 2, 3, "stop"]
    # A run that goes on behind the first of them traces none.
    assert traced("2:9", [5, 6], tmp_path) == [5, 6]
    assert traced(None, [1, 2], tmp_path) == [1, 2]


def test_a_trace_is_written(tmp_path):
    def work():
        profiling.choose_steps("1:1")
        for _ in profiling.traced([(1, None)], logs=tmp_path):
            jax.block_until_ready(jax.numpy.ones(3) + 1)

    contextvars.copy_context().run(work)
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("steps", ["", "3", "5:4", "0:2", "a:b"])
def test_steps_that_are_none_are_an_error(steps):
    with pytest.raises(InputError, match="give the first and last step, such as 10:15"):
        profiling.choose_steps(steps)
