"""A scorer behind HTTP: JSON endpoints, health, metrics, and the page that explores its SIDs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.http.calls import Calls
from dsirm_jax.serving.http.endpoints import PAGE, api, pages
from dsirm_jax.serving.http.gate import Gate, HeadAsGet
from dsirm_jax.serving.http.metrics import Measured, ServerMetrics
from dsirm_jax.serving.http.refusals import add_handlers
from dsirm_jax.serving.http.settings import ServerSettings
from dsirm_jax.serving.scorer.scorer import Scorer

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADER_BYTES = 16 * 1024
# Of Python's threads: those that compute must let the event loop in soon, which refuses at once.
SWITCH_SECONDS = 0.0005


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
    metrics = ServerMetrics()
    calls = Calls(scorer, settings=settings, metrics=metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(calls.warm_up())
        yield
        warming.cancel()
        await calls.close()

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
    add_handlers(app, metrics=metrics)
    # The last one is the first that a request passes.
    app.add_middleware(Gate, hosts=hosts, seconds=settings.body_seconds)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(HeadAsGet)
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
