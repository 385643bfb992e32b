"""Traces of some steps, on demand; TensorBoard's profile plugin and xprof show them."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import jax

from dsirm_jax.io.errors import InputError

_Work = TypeVar("_Work")
_chosen = contextvars.ContextVar("chosen", default=range(0))


def choose_steps(steps: str) -> None:
    """Has the steps `FIRST:LAST`, both included, of every training that follows traced.

    Raises:
      InputError: that is no such range.
    """
    first, _, last = steps.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"--profile_steps={steps}: give the first and last step, such as 10:15")
    _chosen.set(range(int(first), int(last) + 1))


def traced(
    steps: Iterable[tuple[range, _Work]],
    *,
    logs: Path,
    trace: Callable[[str], AbstractContextManager[Any]] = jax.profiler.trace,
) -> Iterator[tuple[range, _Work]]:
    """Yields numbered steps again; a trace runs while the chosen ones are worked on.

    Args:
      steps: numbers of the steps that are taken together, and what belongs to them.
      logs: TensorBoard's folder.
      trace: takes that folder and traces while its block runs.
    """
    chosen = _chosen.get()
    with contextlib.ExitStack() as tracing:
        for numbers, work in steps:
            if chosen and chosen.start in numbers:
                tracing.enter_context(trace(str(logs)))
            yield numbers, work
            if chosen.stop - 1 in numbers:
                tracing.close()
