import io
import logging

from dsirm_jax.training.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(*, seconds, **settings):
    """Takes so long for each step, by a clock that nothing else moves; every step is logged."""
    now = [1000.0]
    steps = progress(
        range(len(seconds)),
        name="fit",
        clock=lambda: now[0],
        seconds_between_lines=0.0,
        **settings,
    )
    for _, spent in zip(steps, seconds, strict=True):
        now[0] += spent


def test_the_time_to_go_does_not_count_the_compilation_of_the_first_step(caplog):
    with caplog.at_level(logging.INFO):
        work(seconds=[100.0, 2.0, 2.0, 4.0], total=6, values={"loss": 0.5})
    assert caplog.messages == [
        "fit: 1/6, loss 0.5",
        "fit: 2/6, 0.5 step/s, 8 s to go, loss 0.5",
        "fit: 3/6, 0.5 step/s, 6 s to go, loss 0.5",
        "fit: 4/6, 0.375 step/s, 5 s to go, loss 0.5",
    ]


def test_a_run_that_goes_on_compiles_too(caplog):
    with caplog.at_level(logging.INFO):
        work(seconds=[50.0, 1.0], total=12, initial=8, unit="batch")
    assert caplog.messages == ["fit: 9/12", "fit: 10/12, 1 batch/s, 2 s to go"]


def test_a_bar_says_no_rate_before_two_steps_are_done():
    terminal = Terminal()
    steps = progress("abc", total=5, name="fit", initial=2, stream=terminal)
    assert list(steps) == ["a", "b", "c"]
    first = next(shown for shown in terminal.getvalue().split("\r") if " 3/5 " in shown)
    assert "?step/s" in first
    assert "5/5" in terminal.getvalue()
