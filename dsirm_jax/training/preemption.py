"""Machines that are taken away say so with SIGTERM: time enough for one more checkpoint."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM
"""Of a process that saved and stopped because of SIGTERM; run again, it goes on from there."""

_call = itertools.count(1)


@contextlib.contextmanager
def notice() -> Iterator[Callable[[], bool]]:
    """Yields a function that says, called after every step, whether to stop there.

    While the block runs SIGTERM does not end the process. Of several processes any one may get it:
    they agree, in the background, on a step that none of them has passed.
    """
    if jax.process_count() > 1:
        # The calls are counted across stages, for the agreement is on a number yet to come.
        yield lambda: multihost_utils.reached_preemption_sync_point(next(_call))
        return
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received.is_set  # Python lets signals be handled in the main thread only
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
