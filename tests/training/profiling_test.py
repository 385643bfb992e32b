import contextlib
import contextvars

import jax
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.training import profiling


def traced(steps, numbers, logs, *, together=1):
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
        numbered = [(range(number, number + together), None) for number in numbers]
        for taken, _ in profiling.traced(numbered, logs=logs, trace=trace):
            seen.append(taken[0])

    contextvars.copy_context().run(work)
    return seen


def test_the_chosen_steps_are_traced(tmp_path):
    assert traced("2:3", range(1, 6), tmp_path) == [1, "start", 2, 3, "stop", 4, 5]
    assert traced("2:2", [1, 2], tmp_path) == [1, "start", 2, "stop"]
    assert traced("2:9", [1, 2, 3], tmp_path) == [1, "start", 2, 3, "stop"]
    # A run that goes on behind the first of them traces none.
    assert traced("2:9", [5, 6], tmp_path) == [5, 6]
    assert traced(None, [1, 2], tmp_path) == [1, 2]


def test_steps_that_are_taken_together_are_traced_together(tmp_path):
    def seen(steps):
        return traced(steps, [1, 6, 11, 16], tmp_path, together=5)

    assert seen("7:7") == [1, "start", 6, "stop", 11, 16]
    assert seen("10:11") == [1, "start", 6, 11, "stop", 16]


def test_a_trace_is_written(tmp_path):
    def work():
        profiling.choose_steps("1:1")
        for _ in profiling.traced([(range(1, 2), None)], logs=tmp_path):
            jax.block_until_ready(jax.numpy.ones(3) + 1)

    contextvars.copy_context().run(work)
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("steps", ["", "3", "5:4", "0:2", "a:b"])
def test_steps_that_are_none_are_an_error(steps):
    with pytest.raises(InputError, match="give the first and last step, such as 10:15"):
        profiling.choose_steps(steps)
