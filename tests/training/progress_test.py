import io
import logging
import sys
import time

import pytest

from dsirm_jax.training import progress as module
from dsirm_jax.training.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to; every step is said."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    return now


def work(clock, *, seconds, **given):
    for _, spent in zip(progress(range(len(seconds)), name="fit", **given), seconds, strict=True):
        clock[0] += spent


def test_the_time_to_go_does_not_count_the_compilation_of_the_first_step(clock, caplog):
    with caplog.at_level(logging.INFO):
        work(clock, seconds=[100.0, 2.0, 2.0, 4.0], total=6, values={"loss": 0.5})
    assert caplog.messages == [
        "fit: 1/6, loss 0.5",
        "fit: 2/6, 0.5 step/s, 8 s to go, loss 0.5",
        "fit: 3/6, 0.5 step/s, 6 s to go, loss 0.5",
        "fit: 4/6, 0.375 step/s, 5 s to go, loss 0.5",
    ]


def test_a_run_that_goes_on_compiles_too(clock, caplog):
    with caplog.at_level(logging.INFO):
        work(clock, seconds=[50.0, 1.0], total=12, initial=8, unit="batch")
    assert caplog.messages == ["fit: 9/12", "fit: 10/12, 1 batch/s, 2 s to go"]


def test_a_bar_says_no_rate_before_two_steps_are_done(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress("abc", total=5, name="fit", initial=2)) == ["a", "b", "c"]
    first = next(shown for shown in terminal.getvalue().split("\r") if " 3/5 " in shown)
    assert "?step/s" in first
    assert "5/5" in terminal.getvalue()
