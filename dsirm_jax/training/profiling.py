"""Traces of some steps, on demand; TensorBoard's profile plugin and xprof show them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import jax

from dsirm_jax.io.errors import InputError

T = TypeVar("T")
_chosen = contextvars.ContextVar("chosen", default=range(0))


def choose(steps: str) -> None:
    """Has the steps `FIRST:LAST`, both included, of every training that follows traced.

    Raises:
      InputError: that is no such range.
    """
    first, _, last = steps.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"--profile_steps={steps}: give the first and last step, such as 10:15")
    _chosen.set(range(int(first), int(last) + 1))


def traced(steps: Iterable[tuple[int, T]], *, logs: Path) -> Iterator[tuple[int, T]]:
    """Yields numbered steps again; a trace runs while the chosen ones are worked on.

    Args:
      steps: number of each step and what belongs to it.
      logs: TensorBoard's folder.
    """
    chosen = _chosen.get()
    with contextlib.ExitStack() as trace:
        for number, step in steps:
            if number in chosen and number == chosen.start:
                trace.enter_context(jax.profiler.trace(str(logs)))
            yield number, step
            if number == chosen.stop - 1:
                trace.close()
