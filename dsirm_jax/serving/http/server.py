"""A scorer behind HTTP: JSON endpoints, health, metrics, and the page that explores its SIDs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import prometheus_client
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.http.messages import (
    About,
    AskedCandidates,
    AskedItems,
    AskedPrefix,
    AskedQuery,
    AskedScores,
    DescribedFeature,
    ListedBranch,
    ListedBranches,
    ListedItem,
    ListedItems,
    PredictedSid,
    PredictedSids,
    Problem,
    ScoredItem,
    Scores,
)
from dsirm_jax.serving.http.metrics import Measured, ServerMetrics
from dsirm_jax.serving.scorer.answers import Item
from dsirm_jax.serving.scorer.batching import Overloaded
from dsirm_jax.serving.scorer.scorer import Scorer

log = logging.getLogger(__name__)

PAGE = Path(__file__).parents[1] / "explorer"
STYLE = Path(dsirm_jax.__file__).parent / "report" / "page.css"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
BODY_BYTES, HEADER_BYTES = 512 * 1024, 16 * 1024
EXAMPLES, WARM_UP_SECONDS, SHOWN = 8, 120.0, 64
# Of Python's threads: those that compute must let the event loop in soon, which refuses at once.
SWITCH_SECONDS = 0.0005
CODES = {
    400: "unreadable",
    404: "not_found",
    405: "not_allowed",
    408: "too_slow",
    413: "too_large",
    422: "invalid",
    500: "failed",
    503: "busy",
}
# The page's own files and this server are all that it may load or call.
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How much a server takes on at once.

    Attributes:
      workers: threads that call the scorer; the more of them compute, the longer the event loop
        waits for its turn.
      waiting: further requests that may wait for a thread; any more are refused at once.
      connections: open connections; any more are refused at once.
      body_seconds: how long a request's body may take to come.
      goodbye_seconds: how long what is under way may take when the server is told to stop.
    """

    workers: int = 4
    waiting: int = 60
    connections: int = 1000
    body_seconds: float = 10.0
    goodbye_seconds: int = 30


class Calls:
    """Calls a scorer on a few threads; what would have to wait for long is refused at once."""

    def __init__(self, scorer: Scorer, *, settings: ServerSettings, metrics: ServerMetrics):
        self.scorer, self.metrics, self.settings = scorer, metrics, settings
        self.ready = False
        self.admitted = 0
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="scorer")
        metrics.watch(admitted=lambda: self.admitted, statistics=scorer.statistics)

    async def answer(self, make: Callable[[Scorer], BaseModel]) -> Response:
        """Returns what a blocking function makes of the scorer, as JSON.

        Raises:
          Overloaded: as many calls as the settings allow are running or waiting.
        """
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
        """Compiles what requests will need, so that none is late for want of it."""

        def first() -> None:
            self.scorer.warm(*(1 << power for power in range(self.settings.workers.bit_length())))
            (item,) = self.scorer.items((), most=1)
            self.scorer.query_sids(item.title, deadline=WARM_UP_SECONDS)

        try:
            await self._run(first)
        except Exception:
            log.exception("the first call failed; the server will not be ready")
        else:
            self.ready = True

    async def close(self) -> None:
        self.ready = False
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


async def _calls(request: Request) -> Calls:
    return request.app.state.calls


Called = Annotated[Calls, Depends(_calls)]
REFUSALS = {
    status: {"model": Problem, "description": reason}
    for status, reason in {
        400: "The request cannot be read.",
        404: "There is no such thing.",
        413: "The request is too large.",
        422: "Something in the request is wrong.",
        503: "Too many requests; try again after Retry-After seconds.",
    }.items()
}
api = APIRouter(prefix="/api", responses=REFUSALS)
pages = APIRouter()


@api.get("/about", response_model=About)
async def about(calls: Called) -> Response:
    """Says what is served: codes of each level, number of items, features."""

    def make(scorer: Scorer) -> About:
        return About(
            version=dsirm_jax.__version__,
            sizes=list(scorer.sizes),
            items=int(scorer.statistics()["items"]),
            features=[
                DescribedFeature(name=feature.name, group=feature.group, about=feature.about)
                for feature in scorer.schema
            ],
            examples=scorer.examples(most=EXAMPLES),
        )

    return await calls.answer(make)


@api.get("/sids", response_model=PredictedSids)
async def sids(asked: Annotated[AskedQuery, Query()], calls: Called) -> Response:
    """Predicts the SIDs of a query."""

    def make(scorer: Scorer) -> PredictedSids:
        found = scorer.query_sids(asked.query, deadline=_seconds(asked.deadline_ms))
        calls.metrics.answers.labels(found.source).inc()
        return PredictedSids(
            source=found.source,
            sids=[
                PredictedSid(sid=sid, probability=probability)
                for sid, probability in zip(found.sids.tolist(), found.probabilities.tolist())
            ],
        )

    return await calls.answer(make)


@api.get("/candidates", response_model=ListedItems)
async def candidates(asked: Annotated[AskedCandidates, Query()], calls: Called) -> Response:
    """Lists items for a query: those of its SIDs, then the nearest."""

    def make(scorer: Scorer) -> ListedItems:
        found = scorer.candidates(asked.query, most=asked.most)
        return ListedItems(items=list(map(_listed, scorer.described(found))))

    return await calls.answer(make)


@api.post("/score", response_model=Scores)
async def score(asked: AskedScores, calls: Called) -> Response:
    """Tells how relevant items are to a query."""
    calls.metrics.batch.observe(len(asked.items))

    def make(scorer: Scorer) -> Scores:
        deadline = _seconds(asked.deadline_ms)
        found = scorer.score(asked.query, asked.items, deadline=deadline)
        calls.metrics.answers.labels(found.source).inc()
        unknown = set(found.unknown)
        features = _finite(found.features) if asked.features else [None] * len(asked.items)
        scored = [
            ScoredItem(item_id=item_id, probability=full, dense_only=dense, features=values)
            for item_id, full, dense, values in zip(
                asked.items, found.probabilities.tolist(), _finite(found.dense_only), features
            )
            if item_id not in unknown
        ]
        if not scored:
            raise HTTPException(404, "none of the items is in the catalogue")
        return Scores(source=found.source, items=scored, unknown=list(found.unknown))

    return await calls.answer(make)


@api.get("/items", response_model=ListedItems)
async def items(asked: Annotated[AskedItems, Query()], calls: Called) -> Response:
    """Lists items whose SIDs start with a prefix."""

    def make(scorer: Scorer) -> ListedItems:
        found = scorer.items(_codes(asked.prefix, scorer), most=asked.most)
        return ListedItems(items=list(map(_listed, found)))

    return await calls.answer(make)


@api.get("/tree", response_model=ListedBranches)
async def tree(asked: Annotated[AskedPrefix, Query()], calls: Called) -> Response:
    """Lists the codes that follow a prefix, the largest first."""

    def make(scorer: Scorer) -> ListedBranches:
        found = scorer.children(_codes(asked.prefix, scorer))
        largest_first = sorted(found, key=lambda branch: (-branch.items, branch.code))
        listed = [ListedBranch(**dataclasses.asdict(branch)) for branch in largest_first]
        return ListedBranches(branches=listed)

    return await calls.answer(make)


@pages.get("/health", response_class=JSONResponse)
async def health() -> dict[str, str]:
    """Says that the process is alive."""
    return {"status": "alive"}


@pages.get("/ready", response_class=JSONResponse, responses={503: REFUSALS[503]})
async def ready(calls: Called) -> dict[str, str]:
    """Says whether requests are welcome; 503 before the first call is through."""
    if not calls.ready:
        raise HTTPException(503, "the scorer is warming up")
    return {"status": "ready"}


@pages.get("/metrics", response_class=Response)
async def metrics(calls: Called) -> Response:
    """Returns what Prometheus reads."""
    return Response(calls.metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


@pages.get("/", include_in_schema=False)
async def page() -> Response:
    """Returns the explorer."""
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


@pages.get("/explorer/report.css", include_in_schema=False)
async def style() -> Response:
    """Returns the report's style sheet, whose colours and pieces the explorer shares."""
    return FileResponse(STYLE, headers={"cache-control": "no-cache"})


def application(
    scorer: Scorer, *, settings: ServerSettings, hosts: tuple[str, ...] = LOOPBACK
) -> FastAPI:
    """Returns the ASGI application.

    Args:
      scorer: what answers; closed by who opened it.
      settings: how much to take on at once.
      hosts: names by which requests may call the server; `*` for any. A page elsewhere that has its
        name point to this machine is turned away by its name.
    """
    measured = ServerMetrics()
    calls = Calls(scorer, settings=settings, metrics=measured)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(calls.warm_up())
        yield
        await calls.close()
        warming.cancel()

    app = FastAPI(
        title="dsirm",
        version=dsirm_jax.__version__,
        description="Relevance and semantic identifiers from a bundle.",
        lifespan=lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.calls = calls
    app.include_router(api)
    app.include_router(pages)
    app.mount("/explorer", StaticFiles(directory=PAGE))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _wrong)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Overloaded, functools.partial(_overloaded, measured))
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Gate, hosts=hosts, seconds=settings.body_seconds)
    app.add_middleware(Measured, metrics=measured)
    return app


def serve(scorer: Scorer, *, host: str, port: int, settings: ServerSettings | None = None) -> None:
    """Serves until SIGINT or SIGTERM; what is under way is finished first.

    Args:
      scorer: what answers.
      host: address to listen at; any but loopback's is for networks that are trusted.
      port: 0 for any that is free.
      settings: how much to take on at once.

    Raises:
      InputError: the address cannot be had.
    """
    settings = settings or ServerSettings()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=settings.connections)
    except OSError as error:
        raise InputError(
            f"--host={host} --port={port}: {error.strerror}; choose another --port"
        ) from error
    name = f"[{host}]" if family == socket.AF_INET6 else host
    hosts = LOOPBACK if name in LOOPBACK else ("*",)
    config = uvicorn.Config(
        application(scorer, settings=settings, hosts=hosts),
        http="h11",
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=settings.connections,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.goodbye_seconds,
    )
    print(f"serving: http://{name}:{listener.getsockname()[1]}/", flush=True)
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


class Gate:
    """Middleware: refuses foreign hosts, limits bodies, and gives every answer `HEADERS`."""

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...], seconds: float):
        self.app, self.hosts, self.seconds = app, hosts, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *HEADERS.items()]}
            await send(message)

        name = re.sub(r":\d+$", "", Headers(scope=scope).get("host", "")).lower()
        if not {name, "*"} & set(self.hosts):
            refusal = _problem(
                400,
                f"the header Host names {name[:SHOWN]!r}; call the server by "
                f"{' or '.join(self.hosts)}, or start it with the --host that you want to call",
            )
            return await refusal(scope, receive, headed)
        body = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > BODY_BYTES:
                        refusal = _problem(413, f"the body has more than {BODY_BYTES:,} bytes")
                        return await refusal(scope, receive, headed)
        except TimeoutError:
            refusal = _problem(408, f"the body did not come within {self.seconds:g} s")
            return await refusal(scope, receive, headed)
        read: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        return await self.app(scope, replay, headed)


def _problem(status: int, reason: str, **headers: str) -> JSONResponse:
    code = CODES.get(status, "refused")
    return JSONResponse({"code": code, "reason": reason}, status, headers=headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # Where and why, never what: it may be huge, or no text that can be written.
    reasons = [
        f"{'.'.join(str(part)[:SHOWN] for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return _problem(422, "; ".join(reasons[:5]) + more)


async def _wrong(request: Request, error: InputError) -> Response:
    return _problem(422, str(error))


async def _refused(request: Request, error: HTTPException) -> Response:
    return _problem(error.status_code, str(error.detail), **(error.headers or {}))


async def _overloaded(metrics: ServerMetrics, request: Request, error: Overloaded) -> Response:
    metrics.refused.inc()
    return _problem(503, f"{error}; try again", **{"retry-after": "1"})


async def _failed(request: Request, error: Exception) -> Response:
    return _problem(500, "the server failed; its log says why")


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _codes(prefix: str, scorer: Scorer) -> tuple[int, ...]:
    codes = tuple(map(int, prefix.split("."))) if prefix else ()
    if len(codes) > len(scorer.sizes):
        raise InputError(f"prefix: {len(codes)} codes; a SID has {len(scorer.sizes)}")
    return codes


def _listed(item: Item) -> ListedItem:
    return ListedItem(**dataclasses.asdict(item))


def _finite(values: np.ndarray) -> list[Any]:
    """Returns the numbers as lists, None for what is not known."""
    return np.where(np.isfinite(values), values, None).tolist()
