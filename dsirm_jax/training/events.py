"""Metrics for TensorBoard, written without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SECONDS_IN_MEMORY = 10
"""Metrics are on disk after that time, whatever happens to the process."""


@contextlib.contextmanager
def writer(logs: Path | None) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yields a function that writes scalars, by their tags, for a step.

    Args:
      logs: TensorBoard's folder, in which an event file of its own is begun; None to write nothing.
    """
    if logs is None:
        yield lambda step, scalars: None
        return
    from tensorboardX import SummaryWriter

    # A name without process and nanosecond is that of a run which began in the same second, and
    # the writer would empty that file.
    suffix = f".{os.getpid()}.{time.time_ns()}"
    opened = SummaryWriter(str(logs), flush_secs=SECONDS_IN_MEMORY, filename_suffix=suffix)

    def write(step: int, scalars: Mapping[str, float]) -> None:
        for tag, value in scalars.items():
            opened.add_scalar(tag, value, step)

    with opened:
        yield write
