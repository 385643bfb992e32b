"""A scorer behind HTTP: JSON endpoints, health, metrics, and the page that explores its SIDs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator
from typing import cast

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.http.calls import Calls
from dsirm_jax.serving.http.connections import ACCEPTED_AT_ONCE, Connection, Room, affordable
from dsirm_jax.serving.http.endpoints import PAGE, api, pages
from dsirm_jax.serving.http.gate import Gate, HeadAsGet, host_name
from dsirm_jax.serving.http.logs import bounded_logs
from dsirm_jax.serving.http.metrics import Measured, ServerMetrics
from dsirm_jax.serving.http.refusals import Unfinished, add_handlers
from dsirm_jax.serving.http.settings import ServerSettings
from dsirm_jax.serving.scorer.scorer import Scorer

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADER_BYTES = 16 * 1024
BACKLOG = 2048
"""Connections that wait to be taken on, as far as the system allows."""
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
        async with bounded_logs():
            warming = asyncio.create_task(calls.warm_up())
            yield
            warming.cancel()
            calls.close()

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
    app.add_middleware(Unfinished)
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
    listener = listen(host, port)
    print(f"serving: http://{shown(host_name(host))}:{listener.getsockname()[1]}/", flush=True)
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.suppress(KeyboardInterrupt):
        http_server(scorer, listener, host=host, settings=settings).run(sockets=[listener])


class HttpServer(uvicorn.Server):
    """uvicorn's, with few connections taken on at a time while many may wait for that."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


def http_server(
    scorer: Scorer, listener: socket.socket, *, host: str, settings: ServerSettings
) -> HttpServer:
    """Returns what serves a scorer at a socket; arguments are those of `serve`."""
    room = Room(most=affordable(settings.connections), most_of_address=settings.client_connections)
    connection = functools.partial(Connection, room=room, settings=settings)
    config = uvicorn.Config(
        application(scorer, settings=settings, hosts=hosts_of(listener, host=host)),
        http=cast("type[asyncio.Protocol]", connection),
        loop="asyncio",
        backlog=ACCEPTED_AT_ONCE,
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_config=None,  # that of uvicorn would close the handlers of whoever calls this
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.goodbye_seconds,
    )
    return HttpServer(config)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address.

    Raises:
      InputError: the address cannot be had.
    """
    # An IPv4 address in the clothes of an IPv6 one is listened at as what it is.
    address = host_name(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InputError(
            f"--host={host} --port={port}: {error.strerror}; choose another --port"
        ) from error


def hosts_of(listener: socket.socket, *, host: str) -> tuple[str, ...]:
    """Returns the names by which requests may call a server; any but at a loopback address.

    Args:
      listener: listens at the address, whatever spelling or name of it was given.
      host: that name.
    """
    bound = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    if not bound.is_loopback:
        return ("*",)
    return tuple(dict.fromkeys((*LOOPBACK, shown(host), shown(str(bound)))))


def shown(host: str) -> str:
    """Returns a name or address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
