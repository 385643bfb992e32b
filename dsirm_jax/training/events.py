"""Metrics for TensorBoard, written without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsirm_jax.io import disk


@contextlib.contextmanager
def writer(logs: Path | None) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yields a function that writes scalars, by their tags, for a step.

    What it has written stays, whatever happens to the process. It writes here and not in a thread,
    as tensorboardX does, whose queue fills up and stops training when the disk is full.

    Args:
      logs: TensorBoard's folder, in which an event file of its own is begun; None to write nothing.

    Raises:
      StorageError: the disk refuses it.
    """
    if logs is None:
        yield lambda step, scalars: None
        return
    from tensorboardX import summary
    from tensorboardX.proto.event_pb2 import Event

    # A name without process and nanosecond is that of a run which began in the same second.
    now = time.time_ns()
    name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now}"
    path = logs / name
    with disk.writing(path):
        logs.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(_record(Event(wall_time=time.time(), file_version="brain.Event:2")))

    def write(step: int, scalars: Mapping[str, float]) -> None:
        with disk.writing(path), path.open("ab") as file:
            for tag, value in scalars.items():
                scalar = summary.scalar(tag, value)
                file.write(_record(Event(wall_time=time.time(), step=int(step), summary=scalar)))

    yield write


def _record(event: Any) -> bytes:
    """Returns an event as a record of a TFRecord file."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)
