"""A scorer that is called on a few threads, and is ready when its programs are compiled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from dsirm_jax.serving.http.metrics import ServerMetrics
from dsirm_jax.serving.http.refusals import STOPPING
from dsirm_jax.serving.http.settings import ServerSettings
from dsirm_jax.serving.scorer.batching import Overloaded
from dsirm_jax.serving.scorer.scorer import WARM_TEXT, Scorer

log = logging.getLogger(__name__)
WARM_UP_SECONDS = 120.0


class Calls:
    """Calls a scorer on a few threads; what would have to wait for long is refused at once.

    Attributes:
      unready: why requests are not welcome yet; None when they are.
      admitted: requests that are running or waiting.
    """

    def __init__(self, scorer: Scorer, *, settings: ServerSettings, metrics: ServerMetrics):
        self.scorer, self.metrics, self.settings = scorer, metrics, settings
        self.unready: str | None = "the scorer is warming up"
        self.admitted, self._stopping = 0, False
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="scorer")
        metrics.watch(admitted=lambda: self.admitted, statistics=scorer.statistics)

    async def answer(self, make: Callable[[Scorer], BaseModel]) -> Response:
        """Returns what a blocking function makes of the scorer, as JSON.

        Raises:
          Overloaded: as many calls as the settings allow are running or waiting, or the server is
            stopping.
        """
        if self._stopping:
            raise Overloaded(STOPPING)
        if self.admitted >= self.settings.workers + self.settings.waiting:
            raise Overloaded(f"{self.admitted} requests are running or waiting")
        self.admitted += 1
        try:
            # Writing JSON belongs to the thread, too: the event loop is left to refuse at once.
            body = await self._run(lambda: make(self.scorer).model_dump_json().encode())
        finally:
            self.admitted -= 1
        return Response(body, media_type="application/json")

    async def warm_up(self) -> None:
        """Compiles what requests will need, so that none is late for want of it.

        After a failure, which the log has, it tries again until it is through.
        """
        while self.unready is not None:
            try:
                await self._run(self._warm)
            except Exception as error:
                log.exception(
                    "the scorer cannot be warmed up; trying again in %g s",
                    self.settings.retry_seconds,
                )
                self.unready = (
                    f"the scorer could not be warmed up ({type(error).__name__}; the server's log "
                    f"has it); trying again"
                )
                await asyncio.sleep(self.settings.retry_seconds)
            else:
                self.unready = None

    def _warm(self) -> None:
        self.scorer.warm(*(1 << power for power in range(self.settings.workers.bit_length())))
        self.scorer.query_sids(WARM_TEXT, deadline=WARM_UP_SECONDS)

    def close(self) -> None:
        """Cancels what waits for a thread.

        What a thread is at cannot be cancelled, and a compilation may take minutes: nobody waits.
        """
        self.unready, self._stopping = STOPPING, True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)
