"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TextIO, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
_Element = TypeVar("_Element")
SECONDS_BETWEEN_LINES = 10.0


def progress(
    iterable: Iterable[_Element],
    *,
    total: int,
    name: str,
    unit: str = "step",
    count: Callable[[_Element], int] = lambda element: 1,
    initial: int = 0,
    values: Mapping[str, float] | None = None,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[_Element]:
    """Yields from `iterable`, showing rate and time to go.

    Both are known from the second element on: the first one's time is mostly compilation.

    Args:
      iterable: what to go through.
      total: number of units at the end, `initial` included.
      name: shown in front, usually the stage.
      unit: what is counted.
      count: units that an element is.
      initial: units done before (a resumed run).
      values: figures shown beside the rate; the caller may change them as it goes.
      stream: where a bar is drawn if that is a terminal; standard error when not given.
      clock: the time in seconds.
      seconds_between_lines: log lines are at least that far apart.

    Yields:
      The elements.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        shape = {"total": total, "initial": initial, "dynamic_ncols": True}
        with tqdm(desc=name, unit=unit, file=stream, **shape) as bar:
            for number, element in enumerate(iterable):
                yield element
                bar.set_postfix(values or {}, refresh=False)
                if number:
                    bar.update(count(element))
                else:
                    bar.n = bar.initial = bar.last_print_n = initial + count(element)
                    bar.unpause()
                    bar.refresh()
        return
    started = logged = clock()
    first, done = None, initial
    for element in iterable:
        yield element
        now, done = clock(), done + count(element)
        if first is None:
            started, first = now, done
        if done == total or now - logged > seconds_between_lines:
            logged, pace = now, ""
            if done > first:
                rate = (done - first) / max(now - started, 1e-9)
                pace = f", {rate:.3g} {unit}/s, {(total - done) / rate:.0f} s to go"
            figures = "".join(f", {key} {value:.4g}" for key, value in (values or {}).items())
            log.info("%s: %d/%d%s%s", name, done, total, pace, figures)
