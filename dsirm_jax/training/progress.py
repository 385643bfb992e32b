"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def progress(
    iterable: Iterable[T],
    *,
    total: int,
    name: str,
    unit: str = "step",
    initial: int = 0,
    values: Mapping[str, float] | None = None,
) -> Iterator[T]:
    """Yields from `iterable`, showing rate and time to go.

    Both are known from the second element on: the first one's time is mostly compilation.

    Args:
      iterable: what to go through.
      total: number of elements at the end, `initial` included.
      name: shown in front, usually the stage.
      unit: what one element is.
      initial: elements done before (a resumed run).
      values: figures shown beside the rate; the caller may change them as it goes.

    Yields:
      The elements.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=name, unit=unit, initial=initial, dynamic_ncols=True) as bar:
            for number, element in enumerate(iterable):
                yield element
                bar.set_postfix(values or {}, refresh=False)
                if number:
                    bar.update()
                else:
                    bar.n = bar.initial = bar.last_print_n = initial + 1
                    bar.unpause()
                    bar.refresh()
        return
    started = said = time.monotonic()
    for number, element in enumerate(iterable):
        yield element
        now, done = time.monotonic(), initial + number + 1
        if not number:
            started = now
        if done == total or now - said > SECONDS_BETWEEN_LINES:
            said, pace = now, ""
            if number:
                rate = number / max(now - started, 1e-9)
                pace = f", {rate:.3g} {unit}/s, {(total - done) / rate:.0f} s to go"
            figures = "".join(f", {key} {value:.4g}" for key, value in (values or {}).items())
            log.info("%s: %d/%d%s%s", name, done, total, pace, figures)
