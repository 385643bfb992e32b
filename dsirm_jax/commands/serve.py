"""`dsirm serve`: a bundle behind HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    from dsirm_jax.serving.queries.table import QueryStore

LAST_SECONDS = 2.0
EXTRA = ("fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn")


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Serves a bundle over HTTP until SIGINT or SIGTERM, and ends the process soon after."""
    serve_bundle(flags, stopped=_end_soon)
    return 0


def _end_soon() -> None:
    # No request is left, but a compilation under way would hold the process for minutes.
    last = threading.Timer(LAST_SECONDS, os._exit, (0,))
    last.daemon = True
    last.start()


def serve_bundle(flags: Values, *, stopped: Callable[[], None]) -> None:
    """Serves a bundle over HTTP until SIGINT or SIGTERM.

    Args:
      flags: of the command.
      stopped: called when no request is left, before the bundle is closed.

    Raises:
      InputError: the bundle is not what was written, or a package is missing.
    """
    from dsirm_jax.serving import Scorer, ScorerSettings

    try:
        from dsirm_jax.serving.http import server
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise InputError(
            f"dsirm serve needs {error.name}: pip install '.[serve]' in a checkout"
        ) from error
    # The server compiles when it listens already, and says when it is ready.
    settings = ScorerSettings(warm=(), programs=flags["programs"], queries=_store(flags["queries"]))
    with Scorer.open(flags["bundle"], settings=settings, trust=flags["trust"]) as scorer:
        server.serve(scorer, host=flags["host"], port=flags["port"])
        stopped()


def _store(url: str | None) -> QueryStore | None:
    from dsirm_jax.serving.queries.redis_store import RedisQueries

    return RedisQueries(url=url) if url else None


COMMAND = Command(
    name="serve",
    summary="a bundle -> HTTP on this machine, with a page that explores its SIDs",
    run=run,
    flags=(
        Flag(
            name="bundle",
            value="DIR",
            required=True,
            meaning="the folder that `dsirm export` wrote",
        ),
        Flag(
            name="host",
            value="ADDRESS",
            default="127.0.0.1",
            meaning="where to listen; 127.0.0.1, which only this machine reaches",
        ),
        Flag(
            name="port",
            value="NUMBER",
            kind="number",
            default=8080,
            bounds=(0, 65535),
            meaning="8080; 0: any that is free",
        ),
        Flag(
            name="programs",
            value="DIR",
            meaning="keep compiled programs there, so that the next start is ready soon",
        ),
        Flag(
            name="queries",
            value="URL",
            meaning=(
                "a Redis with further cached queries: 'redis://:${PASSWORD}@host:6379/0', what\n"
                "`dsirm update-bundle --to` wrote"
            ),
        ),
        Flag(
            name="trust",
            kind="switch",
            meaning=(
                "start without reading all files to compare their checksums: presence and sizes\n"
                "are looked at alone"
            ),
        ),
    ),
    configured=False,
    details=lambda: (
        "endpoints: /openapi.json has them all; / is the explorer, /metrics is for Prometheus"
    ),
)
