"""Requests that wait for a model, answered in batches by a thread of their own."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

Input = TypeVar("Input")
Result = TypeVar("Result")


class Overloaded(Exception):
    """More requests wait than may; the caller had better try again later."""


class Batcher(Generic[Input, Result]):
    """A bounded queue, and the thread that answers what waits in it, as much as it can at once.

    It never waits for a batch to fill: while one batch is answered, the next one gathers.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Input]], Sequence[Result]],
        *,
        most: int,
        waiting: int,
    ):
        """Starts the thread.

        Args:
          answer: returns the results of some requests, in their order.
          most: requests of a batch.
          waiting: requests that may wait; more are refused.
        """
        self._answer, self._most, self._room = answer, most, waiting
        self._queue: collections.deque[tuple[Input, Future[Result]]] = collections.deque()
        self._changed, self._closed, self._process = threading.Condition(), False, os.getpid()
        self._thread = threading.Thread(target=self._serve, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """The number of requests that wait."""
        with self._changed:
            return sum(not future.cancelled() for _, future in self._queue)

    def check_process(self) -> None:
        """Raises RuntimeError in a child of the process that started the thread, which lacks it."""
        if self._process != os.getpid():
            raise RuntimeError(
                f"a scorer that was opened in process {self._process} is asked in its child "
                f"{os.getpid()}, where its threads do not run; open one in each worker, after the "
                f"fork (gunicorn: without --preload; multiprocessing: the start method 'spawn')"
            )

    def submit(self, request: Input) -> Future[Result]:
        """Returns what will be the result; cancel it when nobody waits for it any more.

        Raises:
          Overloaded: too many wait already.
        """
        future: Future[Result] = Future()
        with self._changed:
            if len(self._queue) >= self._room:
                kept = [entry for entry in self._queue if not entry[1].cancelled()]
                self._queue = collections.deque(kept)
            if self._closed or len(self._queue) >= self._room:
                raise Overloaded(f"{len(self._queue)} requests wait already")
            self._queue.append((request, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Cancels what waits and ends the thread, after the batch that it is at."""
        with self._changed:
            self._closed = True
            for _, future in self._queue:
                future.cancel()
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            begun = [entry for entry in batch if entry[1].set_running_or_notify_cancel()]
            if not begun:
                continue
            try:
                results = self._answer([request for request, _ in begun])
            except Exception as error:  # for each caller to see; the thread goes on
                for _, future in begun:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(begun, results, strict=True):
                    future.set_result(result)

    def _next(self) -> list[tuple[Input, Future[Result]]] | None:
        """Waits for requests; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return None
            return [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]


def waited(future: Future[Result], *, until: float) -> Result | None:
    """Returns a result; None where it has not come by a time of `time.monotonic`."""
    try:
        return future.result(timeout=max(until - time.monotonic(), 0))
    except (TimeoutError, CancelledError):
        future.cancel()
        return None
