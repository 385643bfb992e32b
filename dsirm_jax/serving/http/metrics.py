"""What Prometheus reads of a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsirm_jax.serving.scorer.answers import SOURCES

GONE = 499
"""Stands for the status of a request whose client did not wait for it."""


class ServerMetrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self.seconds = prometheus_client.Histogram(
            "dsirm_request_seconds",
            "Time from a request's first byte to the answer's last, by path.",
            ["path"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.responses = prometheus_client.Counter(
            "dsirm_responses", "Responses.", ["path", "status"], registry=self.registry
        )
        self.answers = prometheus_client.Counter(
            "dsirm_answers",
            "Queries answered: from the cache, live, or by the fallback.",
            ["source"],
            registry=self.registry,
        )
        for source in SOURCES:
            self.answers.labels(source)
        self.batch = prometheus_client.Histogram(
            "dsirm_batch_items",
            "Items of a request for scores.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.refused = prometheus_client.Counter(
            "dsirm_refused", "Requests refused because too many wait.", registry=self.registry
        )

    def watch(
        self, *, admitted: Callable[[], int], statistics: Callable[[], Mapping[str, float]]
    ) -> None:
        """Adds what is read whenever Prometheus comes.

        Args:
          admitted: how many requests are running or waiting.
          statistics: counters of the scorer.
        """
        self.registry.register(_Watched(admitted, statistics))

    def text(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


class _Watched:
    def __init__(self, admitted: Callable[[], int], statistics: Callable[[], Mapping[str, float]]):
        self._admitted, self._statistics = admitted, statistics

    def collect(self) -> Iterator[Metric]:
        about = "Requests running or waiting."
        yield GaugeMetricFamily("dsirm_admitted", about, value=self._admitted())
        for name, value in self._statistics().items():
            yield GaugeMetricFamily(f"dsirm_scorer_{name}", "Of the scorer.", value=value)

    def describe(self) -> Iterator[Metric]:
        return iter(())


class Measured:
    """Middleware that counts and times responses."""

    def __init__(self, app: ASGIApp, *, metrics: ServerMetrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), GONE

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_counted)
        finally:
            # Of the route, not of the request: anybody could make up paths without end.
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
            self.metrics.responses.labels(path, status).inc()
