"""A command in a process of its own, and what it and all that it starts take."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

EVERY = 0.2
"""Seconds between two looks: a peak that is shorter may not be seen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """What a command took.

    Attributes:
      seconds: from start to end.
      of_cpu: seconds of all cores, of all its processes.
      peak: most bytes of memory of all at once, what they share counted once.
    """

    seconds: float
    of_cpu: float
    peak: int


def watched(
    command: Sequence[str],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Taken:
    """Runs a command and returns what it took.

    Args:
      command: program and arguments.
      log: file that what it prints is added to; None: it prints as this process does.
      cwd: folder that it runs in, if not this process's.
      environment: variables beside this process's.

    Raises:
      SystemExit: it failed; with the end of the log.
    """
    started, done = time.monotonic(), threading.Event()
    peak, of_cpu = 0, dict[tuple[int, float], float]()
    with log.open("ab") if log else contextlib.nullcontext() as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=cwd, env=os.environ | (environment or {})
        )
    tree = psutil.Process(child.pid)

    def watch() -> None:
        nonlocal peak
        while not done.wait(EVERY):
            total = 0
            try:
                processes = [tree, *tree.children(recursive=True)]
            except psutil.Error:
                continue
            for process in processes:
                try:
                    total += process.memory_full_info().pss
                    times = process.cpu_times()
                    of_cpu[process.pid, process.create_time()] = times.user + times.system
                except psutil.Error:  # it has just ended
                    continue
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = child.wait()
    seconds = time.monotonic() - started
    done.set()
    watcher.join()
    if code:
        end = log.read_text("utf-8", errors="replace")[-3000:] if log else ""
        raise SystemExit(f"{' '.join(command)} ended with {code}\n{end}")
    return Taken(seconds=seconds, of_cpu=sum(of_cpu.values()), peak=peak)
