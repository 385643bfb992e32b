"""A log that clients can neither fill nor write into."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
import traceback
from collections.abc import AsyncIterator

from dsirm_jax.io.errors import causes

log = logging.getLogger(__name__)
BOUNDED = (
    "asyncio",
    "uvicorn.error",
    "dsirm_jax.serving.http.calls",
    "dsirm_jax.serving.http.refusals",
)
"""Loggers that say something whenever a client likes."""
RECORDS, SECONDS = 3, 60.0
"""Records of a kind that are shown in so many seconds."""
MESSAGE_CHARACTERS = 500
"""Characters shown of an exception's message, which may quote a client."""
RecordKind = tuple[str, int, str]
"""A line of code that logs, and the type of exception that it logs."""


class Bound(logging.Filter):
    """Shows some records of each kind, and counts the others until `report`."""

    def __init__(self, *, most: int = RECORDS):
        super().__init__()
        self._most, self._lock = most, threading.Lock()
        self._seen: collections.Counter[RecordKind] = collections.Counter()
        self._messages: dict[RecordKind, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        kind = (record.pathname, record.lineno, type(error).__name__)
        with self._lock:
            self._seen[kind] += 1
            shown = self._seen[kind] <= self._most
            if shown:
                self._messages[kind] = record.getMessage().strip().split("\n")[0]
        if shown and error is not None:
            record.exc_text = described(error)
        return shown

    def report(self) -> None:
        """Says how many records of each kind were left out since the last report."""
        with self._lock:
            seen, messages = self._seen, self._messages
            self._seen, self._messages = collections.Counter(), {}
        for kind, count in seen.items():
            if count > self._most:
                log.warning("%s (%d more like this)", messages[kind], count - self._most)


@contextlib.asynccontextmanager
async def bounded_logs(*, seconds: float = SECONDS) -> AsyncIterator[Bound]:
    """Bounds what `BOUNDED` write while the context is open, and reports every `seconds`."""
    bound = Bound()
    loggers = [logging.getLogger(name) for name in BOUNDED]
    for logger in loggers:
        logger.addFilter(bound)

    async def report() -> None:
        while True:
            await asyncio.sleep(seconds)
            bound.report()

    reporting = asyncio.create_task(report())
    try:
        yield bound
    finally:
        reporting.cancel()
        for logger in loggers:
            logger.removeFilter(bound)
        bound.report()


def described(error: BaseException) -> str:
    """Returns an exception and what led to it; messages are escaped, on one line each, and cut."""
    return "\n\n".join(
        "".join(traceback.format_tb(one.__traceback__)) + f"{type(one).__name__}: {_escaped(one)}"
        for one in reversed([*causes(error)])
    )


def _escaped(error: BaseException) -> str:
    return repr(str(error)[:MESSAGE_CHARACTERS])[1:-1].encode("ascii", "backslashreplace").decode()
